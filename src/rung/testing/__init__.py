"""Fakes that tell the truth, for tests of rung and of whatever is plugged into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rung.testing.fakes import TINY_TEMPLATE as TINY_TEMPLATE
from rung.testing.fakes import FakeModel as FakeModel
from rung.testing.fakes import FakeTrainable as FakeTrainable
from rung.testing.fakes import Silent as Silent
from rung.testing.fakes import byte_level_bpe as byte_level_bpe
from rung.testing.fakes import save_tiny_model as save_tiny_model
from rung.testing.fakes import tiny_model as tiny_model

if TYPE_CHECKING:
    from rung.testing.endpoint import FakeEndpoint as FakeEndpoint
    from rung.testing.endpoint import ScriptedJudge as ScriptedJudge
    from rung.testing.endpoint import ScriptedTeacher as ScriptedTeacher
    from rung.testing.endpoint import Shares as Shares

_OF_ENDPOINT = ("FakeEndpoint", "ScriptedJudge", "ScriptedTeacher", "Shares")


def __getattr__(name: str) -> object:
    """The endpoint is imported when it is first used: its server is no load for those who need a fake model only."""
    if name in _OF_ENDPOINT:
        import rung.testing.endpoint as endpoint

        return getattr(endpoint, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
