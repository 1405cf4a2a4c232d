"""Answers that the task's own labels, schema or pattern would not allow, and what of these is checked afterwards.

Knows texts and constraints; knows nothing of models. The schema counts, not how its grammar is written: the order of
keys and the space between them make no answer wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rung.constraints import fault_of, loosened
from rung.data.checks.material import Material
from rung.data.key_order import follows, key_orders
from rung.data.lengths import usual_length
from rung.errors import ConstraintError
from rung.types import Constraint, Example, Finding

_OF = {"json_schema": ("schema_mismatch", "schema"), "regex": ("pattern_mismatch", "pattern")}
_NAMED = 5


def answers(material: Material) -> Iterator[Finding]:
    """Findings about the constraint, then about answers that break it, then about the order of keys and length."""
    yield from _long(material.examples)
    task = material.task
    constraint = material.constraint or (Constraint("regex", task.pattern) if task.pattern else None)
    if constraint is None or constraint.kind == "labels" or task.multi_label:  # the reader makes lists of labels
        return
    try:
        names = loosened(constraint).checked_after
    except ConstraintError as error:
        yield Finding("unusable_constraint", "error", "", str(error))
        return
    if names:
        message = (
            f"{_OF[constraint.kind][1]}: no grammar can hold {', '.join(names)}. Each answer is checked for it once it "
            "is written, and one that breaks it counts as a failure."
        )
        yield Finding("checked_after", "note", "", message)
    yield from _broken(material, constraint)
    if constraint.kind == "json_schema":
        yield from _key_order(material.examples)


def _long(examples: Sequence[Example]) -> Iterator[Finding]:
    room = usual_length([len(e.output) for e in examples])
    for example in examples:
        if len(example.output) > room:
            message = (
                f"The answer has {len(example.output):,} characters, and nearly all others at most {room:,}. Answers "
                "get room for the others, so that this one will be cut and count as wrong. Shorten it, or leave it out."
            )
            yield Finding("long_answer", "warning", example.row, message, (example.id,))


def _broken(material: Material, constraint: Constraint) -> Iterator[Finding]:
    """Reasons hold a few words of an answer, where it is not one of the test."""
    check, key = _OF[constraint.kind]
    shown = {e.id for e in material.readable}
    known: dict[tuple[str, bool], str | None] = {}
    broken: list[tuple[Example, str]] = []
    for example in material.examples:
        asked = example.output, example.id in shown
        if asked not in known:
            known[asked] = fault_of(constraint, example.output, shown=asked[1])
        if (fault := known[asked]) is not None:
            broken.append((example, fault))
    if broken and len(broken) == len(material.examples):
        example, fault = next((pair for pair in broken if pair[0].id in shown), broken[0])
        message = f"No answer meets {key}: in task.yaml. {example.row}: {fault}. Correct {key}: or the answers."
        yield Finding(check, "error", "", message, tuple(e.id for e, _ in broken))
        return
    for example, fault in broken:
        message = f"The answer does not meet {key}: in task.yaml: {fault}. Correct one of them."
        yield Finding(check, "warning", example.row, message, (example.id,))


def _key_order(examples: Sequence[Example]) -> Iterator[Finding]:
    """One note about all answers whose keys stand otherwise than in most."""
    values = [(example, value) for example in examples for value in _parsed(example.output)]
    orders = key_orders(value for _, value in values)
    others = [example for example, value in values if not follows(value, orders)]
    if others:
        rows = ", ".join(e.row for e in others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
        first = ", ".join(orders.get("$") or orders.get("$[]") or ())
        message = (
            f"{len(others):,} of {len(values):,} answers list their keys in another order than most: {rows}. Answers "
            f"are held to the order of most{f' ({first})' if first else ''}; either order is right."
        )
        yield Finding("key_order", "note", "", message, tuple(e.id for e in others))


def _parsed(text: str) -> Iterable[Any]:
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return ()
