"""decision.json: a Decision as plain lists and dicts, and back. Knows the format, nothing of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, get_args

from rung.errors import RunError
from rung.records import but, from_record
from rung.types import Choice, Decision, SetName

FORMAT = Decision.format
"""The format that this version writes."""

READS = (2, 3, FORMAT)
"""The formats that this version reads. In format 2 no model is named: a run had one. Format 3 knows no samples of the
test, and no solution that has to prove its gain."""


def decision_record(decision: Decision) -> dict[str, Any]:
    """The decision as decision.json holds it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(decision).items()}


def decision_from_record(record: Mapping[str, Any]) -> Decision:
    """The decision that such a record holds; one of an older format as the newest format has it.

    Raises RunError when it is of another format, or when a key is missing, unknown or of a wrong kind.
    """
    file = getattr(record, "file", "decision.json")
    written = record.get("format", 1)
    if written not in READS:
        raise RunError(
            f"{file}: it is of format {written}, and this rung reads formats {READS[0]} to {READS[-1]}. "
            "Read it with the rung that wrote it, or run the task again in a new folder."
        )
    missing = [f.name for f in fields(Decision) if f.default is MISSING and f.name not in record]
    if missing:
        raise RunError(f"{file}: {', '.join(missing)} is missing. Run the task again in a new folder.")
    try:
        if record["choice"] not in get_args(Choice):
            raise ValueError(f"choice is {record['choice']!r}, none of {', '.join(get_args(Choice))}")
        return from_record(Decision, but(record, format=FORMAT))
    except (TypeError, ValueError) as error:
        raise RunError(f"{file}: {error}. Run the task again in a new folder.") from error


def answers_of(decision: Decision | None, name: str, which: SetName) -> int:
    """How many answers to a set the verdict counts for a candidate.

    0 where nothing is known of it: without a verdict that rests on the test, a run may go on and answer again.
    """
    if decision is None or decision.choice == "unfinished":
        return 0
    found = next((c for c in decision.candidates if c.name == name), None)
    score = found and (found.dev if which == "dev" else found.test)
    return score.n if score else 0
