"""What answers are held to, and that the answers which teach it meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rung.data.constraint import constraint_of, refused
from rung.types import Example, Task

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "b": {"type": "array", "items": {"type": "object", "properties": {"x": {}, "y": {"type": "string"}}}},
        "never": {"type": "integer"},
    },
    "additionalProperties": False,
}


def rows(*outputs: str) -> list[Example]:
    return [Example(str(i), f"input {i}", text, (text,), row=f"line {i}") for i, text in enumerate(outputs)]


def task(**keys: Any) -> Task:
    return Task(name="t", path=Path("task.yaml"), instruction="i", examples=(), metric="json_match", model="m", **keys)


def value_of(examples: list[Example], schema: dict[str, Any] = SCHEMA) -> dict[str, Any]:
    constraint = constraint_of(task(schema=schema), examples)
    assert constraint is not None and isinstance(constraint.value, dict)
    return constraint.value


def test_keys_stand_in_the_order_of_the_answers_inside_lists_too() -> None:
    value = value_of(rows('{"b": [{"y": "n", "x": 1}], "a": 1}', '{"b": [], "a": 2}'))
    assert list(value["properties"]) == ["b", "a", "never"]
    assert list(value["properties"]["b"]["items"]["properties"]) == ["y", "x"]


@pytest.mark.parametrize(
    ("dumped", "spacing"),
    [
        ({}, {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}),
        (
            {"separators": (",", ":")},
            {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
        ),
        ({"indent": 2}, {"whitespace_flexible": True}),
    ],
)
def test_space_is_that_of_the_answers_and_the_answers_meet_it(dumped: dict[str, Any], spacing: dict[str, Any]) -> None:
    examples = rows(*(json.dumps({"b": [{"y": "ä"}], "a": n}, ensure_ascii=False, **dumped) for n in range(3)))
    assert value_of(examples)["x-guidance"] == spacing
    assert refused(examples, constraint_of(task(schema=SCHEMA), examples)) == ()


def test_answers_that_the_schema_refuses_are_named() -> None:
    examples = rows('{"b": [], "a": 1}', '{"b": [], "a": 2}', '{"a": 1, "b": []}', '{"b": [], "a": "one"}', "no JSON")
    found = refused(examples, constraint_of(task(schema=SCHEMA), examples))
    assert [f.row for f in found] == ["line 2", "line 3", "line 4"]


def test_a_schema_that_says_how_it_is_written_is_left_alone() -> None:
    own = {**SCHEMA, "x-guidance": {"whitespace_flexible": True}}
    assert value_of(rows('{"a": 1}'), own)["x-guidance"] == {"whitespace_flexible": True}


def test_labels_and_patterns_are_what_they_are() -> None:
    assert constraint_of(task(), []) is None
    labels = constraint_of(task(labels=("x", "y")), [])
    assert labels is not None and (labels.kind, labels.value) == ("labels", ("x", "y"))
    pattern = constraint_of(task(pattern="a+"), [])
    assert pattern is not None and (pattern.kind, pattern.value) == ("regex", "a+")
