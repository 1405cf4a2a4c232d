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


def __getattr__(name: str) -> object:
    """FakeEndpoint is imported when it is first used: its server is no load for those who need a fake model only."""
    if name == "FakeEndpoint":
        from rung.testing.endpoint import FakeEndpoint

        return FakeEndpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
