"""Answers beside the schema or pattern of their task: what breaks it, what is only written otherwise, what is checked
afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rung.data.checks.answers import answers
from rung.data.checks.material import Material
from rung.data.constraint import constraint_of
from rung.types import Example, Finding, ModelSpec, Task

SCHEMA = {
    "$defs": {"Item": {"type": "object", "properties": {"name": {"type": "string"}, "price": {"type": "number"}}}},
    "$ref": "#/$defs/Item",
}


def found(outputs: list[str], *, test: frozenset[str] = frozenset(), **keys: Any) -> list[Finding]:
    examples = tuple(Example(str(i), f"input {i}", out, (out,), row=f"line {i + 1}") for i, out in enumerate(outputs))
    task = Task("t", Path("task.yaml"), "i", (), "json_match", (ModelSpec("m", "m"),), **keys)
    material = Material(task, {None: examples}, examples, constraint=constraint_of(task, examples), test=test)
    return list(answers(material))


def item(**keys: object) -> str:
    return json.dumps(keys)


def test_an_answer_that_breaks_the_schema_is_named_with_the_reason() -> None:
    (warning,) = found([item(name="a", price=1), item(name="b", price="x"), item(name="c", price=2)], schema=SCHEMA)
    assert (warning.check, warning.severity, warning.row) == ("schema_mismatch", "warning", "line 2")
    assert "$.price: 'x' is not a number" in warning.message


def test_a_reason_shows_nothing_of_a_test_answer() -> None:
    secret = item(name="a", price="zebra")
    (warning,) = found([item(name="a", price=1), secret], schema=SCHEMA, test=frozenset({"1"}))
    assert warning.row == "line 2" and "$.price" in warning.message and "zebra" not in warning.message


def test_order_spacing_and_extra_keys_break_nothing_and_order_is_a_note() -> None:
    outputs = [item(name="a", price=1)] * 5 + ['{"price":1,\n "name": "b"}', item(name="c", price=1, extra=True)]
    (note,) = found(outputs, schema=SCHEMA)
    assert (note.check, note.severity, note.ids) == ("key_order", "note", ("5",))
    assert "1 of 7 answers list their keys in another order than most: line 6" in note.message


def test_a_schema_that_no_answer_meets_is_an_error() -> None:
    (error,) = found([item(price="a"), item(price="b")], schema=SCHEMA)
    assert (error.check, error.severity) == ("schema_mismatch", "error")
    assert error.message.startswith("No answer meets schema: in task.yaml. line 1: $.price: 'a' is not a number.")


def test_what_no_grammar_holds_is_told_before_anything_is_spent() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "contains": {"const": "x"}}
    (note,) = found(['["x"]'], schema=schema)
    assert (note.check, note.severity) == ("checked_after", "note")
    assert note.message.startswith("schema: no grammar can hold uniqueItems, contains.")
    (note,) = found(["001"], pattern=r"(?!000)\d{3}")
    assert note.message.startswith("pattern: no grammar can hold look-aheads.")


def test_answers_that_do_not_match_the_pattern_are_named() -> None:
    (warning,) = found(["AB-1", "ab-2", "AC-3"], pattern=r"^[A-Z]{2}-\d$")
    assert (warning.check, warning.row) == ("pattern_mismatch", "line 2")
    assert r"'ab-2' does not match ^[A-Z]{2}-\d$" in warning.message


def test_a_constraint_that_cannot_be_used_is_an_error() -> None:
    (error,) = found(["1"], schema={"$ref": "#/$defs/none"})
    assert (error.check, error.severity) == ("unusable_constraint", "error")
    (error,) = found(["1"], schema={"type": "integer", "minimum": 3, "maximum": 1})
    assert "no answer can meet it" in error.message


def test_an_answer_that_is_far_longer_than_the_others_is_told() -> None:
    (warning,) = found(["yes"] * 30 + ["word " * 10_000])
    assert (warning.check, warning.row) == ("long_answer", "line 31")
    assert "50,000 characters, and nearly all others at most 3" in warning.message


def test_labels_and_tasks_without_a_form_have_no_findings() -> None:
    assert found(["a", "b"], labels=("a", "b")) == [] == found(["a", "b"])
