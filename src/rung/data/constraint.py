"""What task.yaml says an answer may look like: as the constraint that answers are held to, and in words for a prompt.

A grammar of a JSON Schema fixes more than the schema says: the order of the keys, and the space between them. Both are
taken from the examples, so that what is taught and what is allowed is the same text. `key_order` finds the order of
keys; `rung.constraints` says whether an answer meets its constraint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rung.constraints import subset_labels
from rung.constraints.patterns import matches
from rung.constraints.schemas import ANY_ORDER
from rung.data.key_order import ordered
from rung.data.schema_words import schema_in_words
from rung.types import Constraint, Example, Task

_READ = 2_000  # train answers at most that say how JSON is written
_SEPARATORS = ((", ", ": "), (",", ":"), (",", ": "), (", ", ":"))


def constraint_of(task: Task, train: Sequence[Example]) -> Constraint | None:
    """Labels, schema or pattern; None where the task has none. A schema is written as the first train answers are.

    With several labels an answer, it is a schema of an array of distinct labels.
    """
    if task.labels and task.multi_label:
        return Constraint("json_schema", _as_written(multi_label_schema(task.labels), []))
    if task.labels:
        return Constraint("labels", task.labels)
    if task.schema:
        return Constraint("json_schema", _as_written(task.schema, [e.output for e in train[:_READ]]))
    return Constraint("regex", task.pattern) if task.pattern else None


def multi_label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """The JSON Schema of an answer that lists labels, each once."""
    return {"type": "array", "items": {"type": "string", "enum": list(labels)}, "uniqueItems": True}


def form_in_words(task: Task, train: Sequence[Example]) -> str | None:
    """The form of an answer as a text for the prompt; None where the task has no labels, schema or pattern.

    train: where the order of JSON keys and the example of a pattern come from.
    """
    notes = [f"- {label}: {note}" for label in task.labels or () if (note := task.label_notes.get(label))]
    if task.labels and task.multi_label:
        shown = next((e.output for e in train if e.output.startswith('["')), json.dumps(list(task.labels[:1])))
        words = f"Answer with a JSON list of all that apply, for example {shown}. Choose from: "
        return "\n".join([f"{words}{', '.join(task.labels)}.", *notes])
    if task.labels:
        return "\n".join([f"Answer with exactly one of: {', '.join(task.labels)}.", *notes])
    if task.schema:
        return schema_in_words(ordered(task.schema, [value for _, value in _values([e.output for e in train[:_READ]])]))
    if task.pattern:
        example = next((e.output for e in train[:_READ] if matches(task.pattern, e.output)), None)
        words = f"Answer only with text that matches the regular expression {task.pattern}"
        return words if example is None else f"{words}, for example: {example}"
    return None


def _as_written(schema: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """The schema with its properties in the order of the outputs, and with their spacing (an llguidance extension)."""
    values = list(_values(outputs))
    in_order = ordered(schema, [value for _, value in values])
    choices = subset_labels(schema)
    if choices is not None and not all(_lists_in_order(value, choices) for _, value in values):
        in_order[ANY_ORDER] = True
    if "x-guidance" in schema:
        return in_order
    if not values and choices is not None:
        return {**in_order, "x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}
    spacing: dict[str, Any] = {"whitespace_flexible": False}
    if values:
        written = {pair: sum(_is_written(text, value, pair) for text, value in values) for pair in _SEPARATORS}
        item, key = max(written, key=lambda pair: written[pair])
        flexible = written[item, key] < len(values) / 2  # indented, or each answer in another way
        spacing = {"whitespace_flexible": flexible}
        if not flexible:
            spacing |= {"item_separator": item, "key_separator": key}
    return {**in_order, "x-guidance": spacing}


def _lists_in_order(value: Any, choices: Sequence[str]) -> bool:
    if not isinstance(value, list) or not all(isinstance(item, str) and item in choices for item in value):
        return False
    places = [choices.index(item) for item in value]
    return all(a < b for a, b in pairwise(places))


def _values(outputs: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for text in outputs:
        try:
            yield text.strip(), json.loads(text)
        except (ValueError, RecursionError):
            continue


def _is_written(text: str, value: Any, separators: tuple[str, str]) -> bool:
    return any(text == json.dumps(value, separators=separators, ensure_ascii=ascii) for ascii in (False, True))
