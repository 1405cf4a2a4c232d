"""Refusals: what an instruction says of questions that no passage answers."""

from __future__ import annotations

from rung.text import units


def with_refusal(instruction: str, abstain: str | None) -> str:
    """The instruction, with what to answer where the passages do not hold the answer, unless it names that already.

    abstain: the answer for that; None: the task names none, and nothing is added.
    """
    if abstain is None or _names(instruction, abstain):
        return instruction
    return f"{instruction.rstrip()}\n\nIf the passages do not hold the answer, answer exactly: {abstain}".lstrip()


def _names(instruction: str, abstain: str) -> bool:
    return f" {' '.join(units(abstain))} " in f" {' '.join(units(instruction))} "
