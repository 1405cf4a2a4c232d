"""What a constraint means, and how much of it a grammar can hold.

`loosened` gives what a grammar is made of: it lets every right answer through, and names what it leaves out. `fault_of`
checks a whole answer, by Python's `re` and by JSON Schema, and says why it is wrong; `checked` does so for what a model
wrote. Knows nothing of models and tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rung.constraints.patterns import NO_PATTERN, compiled, loosened_pattern, matches
from rung.constraints.schemas import loosened_schema, subset_labels
from rung.constraints.validation import fault_of_schema, schema_fault
from rung.errors import BREAKS, ConstraintError
from rung.types import Constraint, Generation

__all__ = ["NAMES", "Loosened", "checked", "fault_of", "fault_of_constraint", "loosened", "subset_labels"]

NAMES = {"labels": "labels", "json_schema": "schema", "regex": "pattern"}
"""Kind of a constraint -> its key in task.yaml."""

_SHOWN = 80  # characters of a wrong answer in a message


@dataclass(frozen=True)
class Loosened:
    """What a grammar can hold of a schema or pattern.

    value: a JSON Schema or a regular expression that llguidance takes. checked_after: names of what it leaves out.
    """

    value: Mapping[str, Any] | str
    checked_after: tuple[str, ...]


def loosened(constraint: Constraint) -> Loosened:
    """What a grammar is made of. Labels are held whole. Raises ConstraintError where no answer could meet it."""
    if constraint.kind == "labels":
        return Loosened("", ())
    return _loosened(constraint.kind, json.dumps(constraint.value, default=dict))


def fault_of(constraint: Constraint, text: str, *, shown: bool = True) -> str | None:
    """Why a whole answer does not meet the constraint, as a sentence part; None where it does.

    shown: False gives nothing of the text away, for answers that nobody may see yet.
    """
    what = _short(text) if shown else "it"
    if constraint.kind == "labels":
        return None if text in constraint.value else f"{what} is none of the labels"
    if constraint.kind == "regex":
        pattern = str(constraint.value)
        return None if matches(pattern, text) else f"{what} does not match {pattern}"
    assert isinstance(constraint.value, Mapping)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    return fault_of_schema(constraint.value, value, shown=shown)


def checked(generation: Generation, constraint: Constraint | None) -> Generation:
    """The generation, with an error where it came whole and does not meet its constraint. Its text stays."""
    if constraint is None or generation.finish != "stop":
        return generation
    fault = fault_of(constraint, generation.text)
    if fault is None:
        return generation
    return replace(generation, finish="error", error=f"{BREAKS} {NAMES[constraint.kind]}: {fault}")


def fault_of_constraint(constraint: Constraint) -> str | None:
    """Why no answer could be checked against the constraint itself; None where it is sound."""
    if constraint.kind == "labels":
        return None if constraint.value else "labels: there are none. List at least one."
    if constraint.kind == "regex":
        try:
            compiled(str(constraint.value))
        except NO_PATTERN as error:
            return f"pattern: it is no regular expression ({error}). Correct it."
        return None
    assert isinstance(constraint.value, Mapping)
    fact = schema_fault(constraint.value)
    return None if fact is None else f"schema: {fact}. Correct it."


@lru_cache(maxsize=256)
def _loosened(kind: str, text: str) -> Loosened:
    value = json.loads(text)
    constraint = Constraint("regex", value) if kind == "regex" else Constraint("json_schema", value)
    if (fault := fault_of_constraint(constraint)) is not None:
        raise ConstraintError(fault)
    return Loosened(*(loosened_pattern(value) if kind == "regex" else loosened_schema(value)))


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
