"""Fakes that tell the truth, for tests of rung and of whatever is plugged into it."""

from __future__ import annotations

from rung.testing.fakes import TINY_TEMPLATE as TINY_TEMPLATE
from rung.testing.fakes import FakeModel as FakeModel
from rung.testing.fakes import FakeTrainable as FakeTrainable
from rung.testing.fakes import Silent as Silent
from rung.testing.fakes import byte_level_bpe as byte_level_bpe
from rung.testing.fakes import save_tiny_model as save_tiny_model
from rung.testing.fakes import tiny_model as tiny_model
