"""What task.yaml says an answer may look like: as the constraint that answers are held to, and in words for a prompt.

A grammar of a JSON Schema fixes more than the schema says: the order of the keys, and the space between them. Both are
taken from the examples, so that what is taught and what is allowed is the same text.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rung.data.findings import bounded
from rung.data.schema_words import schema_in_words
from rung.types import Constraint, Example, Finding, Task

_READ = 2_000  # train answers at most that say how JSON is written
_SEPARATORS = ((", ", ": "), (",", ":"), (",", ": "), (", ", ":"))


def constraint_of(task: Task, train: Sequence[Example]) -> Constraint | None:
    """Labels, schema or pattern; None where the task has none. A schema is written as the first train answers are."""
    if task.labels:
        return Constraint("labels", task.labels)
    if task.schema:
        return Constraint("json_schema", _as_written(task.schema, [e.output for e in train[:_READ]]))
    return Constraint("regex", task.pattern) if task.pattern else None


def refused(examples: Sequence[Example], constraint: Constraint | None) -> tuple[Finding, ...]:
    """A warning for each example whose answer does not meet the schema in the order and spacing of most answers.

    No warning where no grammar can be made of the schema: the model's own check of the constraint says so.
    """
    if constraint is None or constraint.kind != "json_schema":
        return ()
    import llguidance

    assert isinstance(constraint.value, Mapping)
    tokenizer = llguidance.LLTokenizer("byte")
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(constraint.value))
    except ValueError:
        return ()
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    if matcher.is_error():
        return ()
    message = "The answer does not meet schema: in task.yaml, in the order and spacing of most answers. Correct it."

    def findings() -> Iterator[Finding]:
        for example in examples:
            text = list(example.output.encode())
            again = matcher.deep_copy()
            if again.try_consume_tokens(text) < len(text) or not again.is_accepting():
                yield Finding("schema_mismatch", "warning", example.row, message, (example.id,))

    return bounded(findings())


def form_in_words(task: Task, train: Sequence[Example]) -> str | None:
    """The form of an answer as a text for the prompt; None where the task has no labels, schema or pattern.

    train: where the order of JSON keys and the example of a pattern come from.
    """
    if task.labels:
        notes = [f"- {label}: {note}" for label in task.labels if (note := task.label_notes.get(label))]
        return "\n".join([f"Answer with exactly one of: {', '.join(task.labels)}.", *notes])
    if task.schema:
        return schema_in_words(
            _ordered(task.schema, [value for _, value in _values([e.output for e in train[:_READ]])])
        )
    if task.pattern:
        example = next((e.output for e in train if re.fullmatch(task.pattern, e.output)), None)
        words = f"Answer only with text that matches the regular expression {task.pattern}"
        return words if example is None else f"{words}, for example: {example}"
    return None


def _as_written(schema: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """The schema with its properties in the order of the outputs, and with their spacing (an llguidance extension)."""
    values = list(_values(outputs))
    ordered: dict[str, Any] = _ordered(schema, [value for _, value in values])
    if "x-guidance" in schema:
        return ordered
    spacing: dict[str, Any] = {"whitespace_flexible": False}
    if values:
        written = {pair: sum(_is_written(text, value, pair) for text, value in values) for pair in _SEPARATORS}
        item, key = max(written, key=lambda pair: written[pair])
        flexible = written[item, key] < len(values) / 2  # indented, or each answer in another way
        spacing = {"whitespace_flexible": flexible}
        if not flexible:
            spacing |= {"item_separator": item, "key_separator": key}
    return {**ordered, "x-guidance": spacing}


def _values(outputs: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for text in outputs:
        try:
            yield text.strip(), json.loads(text)
        except ValueError:
            continue


def _is_written(text: str, value: Any, separators: tuple[str, str]) -> bool:
    return any(text == json.dumps(value, separators=separators, ensure_ascii=ascii) for ascii in (False, True))


def _ordered(schema: Any, values: Sequence[Any]) -> Any:
    """The schema with properties in the order of their mean place among the keys of the values, at every level."""
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        objects = [value for value in values if isinstance(value, Mapping)]
        places: dict[str, list[int]] = defaultdict(list)
        for value in objects:
            for place, key in enumerate(value):
                places[key].append(place)
        names = list(properties)

        def place_of(name: str) -> tuple[float, int]:
            seen = places.get(name)
            return sum(seen) / len(seen) if seen else len(names), names.index(name)

        result["properties"] = {
            name: _ordered(properties[name], [value[name] for value in objects if name in value])
            for name in sorted(names, key=place_of)
        }
    if isinstance(schema.get("items"), Mapping):
        result["items"] = _ordered(schema["items"], [item for v in values if isinstance(v, list) for item in v])
    return result
