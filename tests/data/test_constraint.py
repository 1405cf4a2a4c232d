"""What answers are held to, and that the answers which teach it meet it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llguidance
import pytest

from rung.constraints import fault_of
from rung.data.constraint import constraint_of, form_in_words
from rung.data.key_order import key_orders
from rung.engine.grammar import grammar_of
from rung.types import Constraint, Example, ModelSpec, Task

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


def writes(constraint: Constraint, text: str) -> bool:
    """Whether a grammar of the constraint lets a model write the text."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar_of(constraint, ""))
    assert not matcher.is_error()
    written = list(text.encode())
    return bool(matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting())


def task(**keys: Any) -> Task:
    return Task(
        name="t",
        path=Path("task.yaml"),
        instruction="i",
        examples=(),
        metric="json_match",
        models=(ModelSpec("m", "m"),),
        **keys,
    )


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
    constraint = constraint_of(task(schema=SCHEMA), examples)
    assert constraint is not None and all(writes(constraint, e.output) for e in examples)


def test_keys_stand_in_the_order_of_most_answers_behind_references_and_in_branches() -> None:
    item = {"type": "object", "properties": {"name": {}, "size": {}}, "required": ["name"]}
    schema = {
        "$defs": {
            "Item": item,
            "Root": {
                "type": "object",
                "properties": {"note": {}, "item": {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}]}},
            },
        },
        "$ref": "#/$defs/Root",
    }
    most = '{"item": {"size": 1, "name": "a"}, "note": "n"}'
    value = value_of(rows(most, '{"note": "n", "item": {"name": "a", "size": 1}}', most), schema)
    assert list(value["$defs"]["Root"]["properties"]) == ["item", "note"]
    assert list(value["$defs"]["Item"]["properties"]) == ["size", "name"]


def test_a_schema_that_refers_to_itself_is_put_in_order() -> None:
    node = {"type": "object", "properties": {"n": {}, "child": {"$ref": "#/$defs/node"}}}
    value = value_of(
        rows('{"child": {"child": {}, "n": 2}, "n": 1}'), {"$ref": "#/$defs/node", "$defs": {"node": node}}
    )
    assert list(value["$defs"]["node"]["properties"]) == ["child", "n"]


def test_several_labels_are_an_array_of_distinct_choices_written_as_json_dumps() -> None:
    constraint = constraint_of(task(labels=("b", "a", "ö"), multi_label=True), rows('["b", "ö"]'))
    assert constraint is not None and constraint.kind == "json_schema"
    for subset, allowed in ((["b", "ö"], True), ([], True), (["a"], True), (["a", "b"], False), (["a", "a"], False)):
        assert writes(constraint, json.dumps(subset, ensure_ascii=False)) is allowed
    words = form_in_words(task(labels=("b", "a"), multi_label=True), rows('["b"]'))
    assert words == 'Answer with a JSON list of all that apply, for example ["b"]. Choose from: b, a.'


def test_a_users_array_of_choices_may_list_them_as_the_answers_do() -> None:
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}
    in_order = constraint_of(task(schema=schema), rows('["a", "b"]', "[]"))
    other = constraint_of(task(schema=schema), rows('["b", "a"]'))
    assert in_order is not None and other is not None
    assert writes(in_order, '["a", "b"]') and not writes(in_order, '["b", "a"]')
    assert writes(other, '["b", "a"]') and fault_of(other, '["b", "b"]') is not None


def test_a_schema_that_says_how_it_is_written_is_left_alone() -> None:
    own = {**SCHEMA, "x-guidance": {"whitespace_flexible": True}}
    assert value_of(rows('{"a": 1}'), own)["x-guidance"] == {"whitespace_flexible": True}


def test_labels_and_patterns_are_what_they_are() -> None:
    assert constraint_of(task(), []) is None
    labels = constraint_of(task(labels=("x", "y")), [])
    assert labels is not None and (labels.kind, labels.value) == ("labels", ("x", "y"))
    pattern = constraint_of(task(pattern="a+"), [])
    assert pattern is not None and (pattern.kind, pattern.value) == ("regex", "a+")


def test_the_first_answers_of_a_large_train_set_say_how_json_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: read.append(text) or loads(text))
    examples = rows('{"b": [], "a": 1}') * 5_000
    assert list(value_of(examples)["properties"]) == ["b", "a", "never"]
    assert len(read) == 2_000


def test_labels_in_words_have_a_line_for_each_note() -> None:
    assert form_in_words(task(), []) is None
    assert form_in_words(task(labels=("x", "y")), []) == "Answer with exactly one of: x, y."
    noted = task(labels=("refund", "card"), label_notes={"refund": "asks for money back"})
    assert form_in_words(noted, []) == "Answer with exactly one of: refund, card.\n- refund: asks for money back"


def test_a_schema_in_words_names_keys_types_and_choices_in_the_order_of_the_answers() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": ["string", "null"]},
            "mood": {"enum": ["good", "bad"]},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}},
            "n": {"anyOf": [{"type": "integer"}, {"const": "many"}]},
        },
        "required": ["mood", "stops", "city"],
        "$defs": {"stop": {"type": "object", "properties": {"name": {"type": "string"}, "open": {"type": "boolean"}}}},
    }
    train = rows('{"mood": "good", "city": "Ulm", "stops": []}')
    assert form_in_words(task(schema=schema), train) == (
        "Answer with one JSON object only. Its keys are:\n"
        '- "mood": one of "good", "bad"\n'
        '- "city": text or null\n'
        '- "stops": a list, each item an object with "name": text; "open": true or false\n'
        '- "n": a whole number or "many" (may be left out)'
    )


def test_a_schema_as_pydantic_writes_it_is_put_into_words() -> None:
    schema = {
        "$defs": {
            "Item": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "Order": {
                "type": "object",
                "properties": {
                    "item": {"$ref": "#/$defs/Item"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                    "day": {"type": "string", "format": "date"},
                    "price": {"type": "number", "minimum": 0},
                },
                "required": ["item", "note", "day", "price"],
            },
        },
        "$ref": "#/$defs/Order",
    }
    assert form_in_words(task(schema=schema), []) == (
        "Answer with one JSON object only. Its keys are:\n"
        '- "item": an object with "name": text\n'
        '- "note": text or null\n'
        '- "day": text, a date (YYYY-MM-DD)\n'
        '- "price": a number, at least 0'
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "object"}, "Answer with JSON only, and with no other text."),
        ({"anyOf": [{}, {}]}, "Answer with JSON only, and with no other text."),
        ({"type": "array", "items": {"type": "number"}}, "Answer with JSON only: a list, each item a number."),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {}}},
            "Answer with JSON only, and with no other text.",
        ),
    ],
)
def test_a_schema_without_keys_gives_one_sentence(schema: dict[str, Any], words: str) -> None:
    assert form_in_words(task(schema=schema), []) == words


def test_a_schema_that_contains_itself_is_put_into_words_to_some_depth() -> None:
    node = {"type": "object", "properties": {"child": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}
    words = form_in_words(task(schema={**node, "$defs": {"node": node}}), [])
    assert words is not None and '"n": a whole number' in words and len(words) < 400


def test_a_pattern_in_words_shows_a_train_answer_that_matches() -> None:
    with_pattern = task(pattern=r"[A-Z]\d+")
    words = r"Answer only with text that matches the regular expression [A-Z]\d+"
    assert form_in_words(with_pattern, rows("no", "B12", "C3")) == f"{words}, for example: B12"
    assert form_in_words(with_pattern, rows("no")) == words


def test_json_that_is_nested_too_deeply_ends_nothing() -> None:
    schema = {"type": "array"}
    for text in ("[" * 100_000, "[" * 400 + '{"a": 1}' + "]" * 400):
        assert constraint_of(task(schema=schema), rows(text)) is not None
        assert form_in_words(task(schema=schema), rows(text))
    assert key_orders([json.loads("[" * 400 + '{"a": 1}' + "]" * 400)]) == {}
