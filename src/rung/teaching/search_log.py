"""What a search for an instruction tried: its records, and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.records import read_lines

SEARCH_LOG = "search.jsonl"


def search_log(folder: Path) -> list[dict[str, Any]]:
    """What was tried, in order; the first record is the start. Empty where nothing was searched in that folder.

    number; changed: "instruction", "demos" or None; parent: a number; instruction; demos: the setting's name;
    minibatch: {n, before, after} or None; val: {n, score, left} or None, left: why not all of it was answered;
    refused: why it was not tried, or None; accepted: whether it was compared on val; kept: whether it is the result.
    """
    return read_lines(folder / SEARCH_LOG)


def search_in_words(log: Sequence[Mapping[str, Any]]) -> str:
    """How many proposals there were, what became of them, and the scores on train; empty for no log."""
    kept = next((r for r in log if r["kept"]), None)
    if kept is None or log[0]["val"] is None:
        return ""
    proposed, refused = len(log) - 1, sum(r["refused"] is not None for r in log)
    accepted = sum(r["accepted"] for r in log)
    said = f"{_number(proposed, 'proposal')}, of which {refused} could not be used and {accepted} did better on a few"
    start, n = log[0]["val"]["score"], log[0]["val"]["n"]
    if kept["number"] == 0:
        return f"{said}; none beat the start on {n} train examples ({start:.2f})"
    scores = f"{kept['val']['score']:.2f} on {n} train examples, before {start:.2f}"
    return f"{said}; number {kept['number']} is kept ({scores})"


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
