"""What the environment variables RUNG_WAYS and RUNG_CARDS ask for. An empty variable counts as unset.

Imports no torch, so that a mistake is told before anything slow.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rung.errors import ModelError

WAYS = "RUNG_WAYS"
"""The ways to compute that are taken, of NAMES, with commas between them; PLAIN for none of them."""

CARDS = "RUNG_CARDS"
"""How many cards one run may use: a number; "cpu:2" for two processes on the CPU, to try it without a GPU."""

NAMES = ("fused", "static", "compiled")
PLAIN = "plain"

_WAYS_ALLOWED = f"{', '.join(NAMES)}, with commas between them where there are several; or {PLAIN} for none of them"
_CARDS_ALLOWED = (
    "a number of cards, such as 2 (CUDA_VISIBLE_DEVICES chooses which ones); or cpu:N, such as cpu:2, to try several "
    "processes on the CPU"
)


@dataclass(frozen=True)
class AskedCards:
    """number: from 1. on_cpu: whether they are processes on the CPU."""

    number: int
    on_cpu: bool


def check_variables() -> None:
    """Raises ModelError where a variable has a value that is not allowed."""
    asked_ways()
    asked_cards()


def asked_ways() -> frozenset[str] | None:
    """The ways that RUNG_WAYS names, in capitals or not; empty for PLAIN. None where it is unset.

    Raises ModelError for a name that is none of NAMES, and for PLAIN beside another.
    """
    value = _value(WAYS)
    if not value:
        return None
    named = {name for part in value.lower().split(",") if (name := part.strip())}
    if unknown := sorted(named - {*NAMES, PLAIN}):
        raise _refused(WAYS, unknown[0], "is no way to compute", _WAYS_ALLOWED)
    if not named:
        raise _refused(WAYS, value, "names no way to compute", _WAYS_ALLOWED)
    if PLAIN in named and len(named) > 1:
        raise _refused(WAYS, value, f"names {PLAIN} beside another way", _WAYS_ALLOWED)
    return frozenset(named - {PLAIN})


def asked_cards() -> AskedCards | None:
    """What RUNG_CARDS asks for, in capitals or not; None where it is unset. Raises ModelError for any other value."""
    value = _value(CARDS)
    if not value:
        return None
    found = re.fullmatch(r"(cpu:)?0*([1-9][0-9]{0,5})", value.lower())
    if found is None:
        raise _refused(CARDS, value, "is no number of cards", _CARDS_ALLOWED)
    return AskedCards(int(found[2]), bool(found[1]))


def _value(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _refused(variable: str, value: str, fault: str, allowed: str) -> ModelError:
    return ModelError(
        f"environment variable {variable}: {value!r} {fault}. Allowed are {allowed}. Set one of these, or unset the "
        "variable."
    )
