"""Texts before which an answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rung.types import Generation


def cut_at(generation: Generation, stop: Sequence[str]) -> Generation:
    """A whole answer, ended before the first of these texts."""
    at = first_stop(generation.text, stop)
    return generation if at is None else replace(generation, text=generation.text[:at], finish="stop")


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of these texts begins; None where none stands in it."""
    return min((at for s in stop if s and (at := text.find(s)) >= 0), default=None)


def held_back(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of one of these texts."""
    longest = min(len(text), max(map(len, stop), default=1) - 1)
    return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in stop if len(s) > n)), 0)
