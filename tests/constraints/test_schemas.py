"""JSON Schemas: what a grammar holds, what is checked after the answer, and the reasons that a user reads."""

from __future__ import annotations

import json
from typing import Any

import llguidance
import pytest

from rung.constraints import fault_of, loosened, subset_labels
from rung.constraints.schemas import HELD_FORMATS, NEVER_HELD, loosened_schema
from rung.errors import ConstraintError
from rung.types import Constraint

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}
NODE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"n": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["n"],
        }
    },
    "$ref": "#/$defs/Node",
}


def of(schema: dict[str, Any]) -> Constraint:
    return Constraint("json_schema", schema)


def writes(schema: dict[str, Any], value: object) -> bool:
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps({**schema, "x-guidance": {"lenient": False}}))
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.is_error(), matcher.get_error()
    written = list(json.dumps(value, ensure_ascii=False).encode())
    return bool(matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting())


@pytest.mark.parametrize(
    ("schema", "good", "bad", "left_out"),
    [
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a"], ["a", "a"], ("uniqueItems",)),
        ({"type": "array", "contains": {"const": 1}}, [1], [2], ("contains",)),
        ({"type": "string", "not": {"const": "x"}}, "y", "x", ("not",)),
        ({**OBJECT, "minProperties": 1}, {"a": 1}, {}, ("minProperties",)),
        ({**OBJECT, "if": {"required": ["a"]}, "then": {"required": ["b"]}}, {}, {"a": 1}, ("if", "then")),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, 0.5, 1, ("oneOf",)),
        ({"type": "string", "pattern": "^(?!x)[a-z]+$"}, "ax", "xa", ("look-aheads of pattern",)),
        ({"type": "string", "pattern": r"\bab\b"}, "c ab", "cab", ("word borders of pattern",)),
        ({"type": "string", "format": "regex"}, "a+", "(", ("format regex",)),
    ],
)
def test_what_no_grammar_holds_is_named_and_checked_after(
    schema: dict[str, Any], good: object, bad: object, left_out: tuple[str, ...]
) -> None:
    held, names = loosened_schema(schema)
    assert names == left_out
    assert writes(held, good) and writes(held, bad)
    assert fault_of(of(schema), json.dumps(good)) is None
    assert fault_of(of(schema), json.dumps(bad)) is not None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 7}, 6.9, 7),
        ({"type": "number", "multipleOf": 0.01}, 1.11, 1.111),
        ({"type": "string", "maxLength": 2}, "ab", "abc"),
        ({"type": "string", "format": "date"}, "2024-02-29", "29 Feb"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, 1),
        ({"enum": ["red", 2, None]}, None, "blue"),
        ({**OBJECT, "additionalProperties": False}, {"a": 1}, {"b": 1}),
        (NODE, {"n": 1, "children": [{"n": 2, "children": []}]}, {"n": 1, "children": [{}]}),
    ],
)
def test_what_a_grammar_holds_is_held_and_checked_alike(schema: dict[str, Any], good: object, bad: object) -> None:
    held, names = loosened_schema(schema)
    assert names == () and held == schema
    assert writes(held, good) and not writes(held, bad)
    assert fault_of(of(schema), json.dumps(good)) is None
    assert fault_of(of(schema), json.dumps(bad)) is not None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"format": "date-time"}, "2024-02-29T10:00:00Z", "2024-02-29"),
        ({"format": "date-time"}, "2024-02-29 10:00:00.25", "29 Feb, 10:00"),
        ({"format": "time"}, "10:00", "25:00"),
        ({"format": "duration"}, "-P1DT0.5S", "1 day"),
        ({"format": "email"}, "jörg@müller.de", "jörg"),
        ({"format": "uri"}, "https://example.com/ü", "example com"),
        ({"pattern": "^[A-Z]{2}$"}, "AB", "ABC"),
        ({"pattern": r"^\w+ \d$"}, "Größe 3", "Größe"),
        ({"pattern": r"^[a&&b]$"}, "&", "c"),
    ],
)
def test_formats_and_patterns_are_held_as_they_are_checked(schema: dict[str, Any], good: str, bad: str) -> None:
    schema = {"type": "string", **schema}
    held, names = loosened_schema(schema)
    assert names == ()
    assert writes(held, good) and not writes(held, bad)
    assert fault_of(of(schema), json.dumps(good)) is None
    assert fault_of(of(schema), json.dumps(bad)) is not None


def test_a_day_that_is_in_no_calendar_is_no_date_time() -> None:
    assert fault_of(of({"format": "date-time"}), '"2023-02-29T10:00:00Z"') is not None


def test_a_format_beside_a_pattern_is_checked_after_the_answer() -> None:
    schema = {"type": "string", "format": "email", "pattern": "^[a-z@.]+$"}
    assert loosened_schema(schema)[1] == ("format email",)
    assert fault_of(of(schema), '"abc"') is not None and fault_of(of(schema), '"a@b.de"') is None


def test_a_pattern_of_another_dialect_is_held_and_one_of_none_is_an_error() -> None:
    schema = {"type": "string", "pattern": r"^\p{L}+$"}
    held, names = loosened_schema(schema)
    assert names == () and writes(held, "é") and not writes(held, "3")
    loosened(of(schema))
    with pytest.raises(ConstraintError, match="is not a 'regex'"):
        loosened(of({"type": "string", "pattern": "("}))


def test_the_list_of_keywords_that_are_refused_is_that_of_llguidance() -> None:
    values: dict[str, Any] = {"$dynamicRef": "#a", "$recursiveRef": "#", "minContains": 1, "maxContains": 1}
    values |= {"uniqueItems": True, "dependentRequired": {"a": ["b"]}, "dependentSchemas": {}, "dependencies": {}}
    for name in NEVER_HELD:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps({name: values.get(name, {})}))
        matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
        assert name in matcher.get_error(), f"{name} is held now: take it out of NEVER_HELD"
    for name in HELD_FORMATS:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps({"type": "string", "format": name}))
        assert not llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar).is_error(), name


def test_a_property_that_is_called_like_a_keyword_stays() -> None:
    schema = {"type": "object", "properties": {"not": {"type": "string"}, "format": {"enum": ["contains"]}}}
    assert loosened_schema(schema) == (schema, ())


def test_a_format_that_means_nothing_is_not_said_to_be_checked() -> None:
    assert loosened_schema({"type": "string", "format": "password"}) == ({"type": "string"}, ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "x"}', "$.a: 'x' is not an integer"),
        ("no JSON", "it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[1]", "$: [1] is not an object"),
    ],
)
def test_a_reason_says_where_and_what(text: str, reason: str) -> None:
    assert fault_of(of(OBJECT), text) == reason


def test_order_of_keys_space_and_extra_keys_make_no_answer_wrong() -> None:
    assert fault_of(of(OBJECT), '{ "extra" : 1,\n "a": 2}') is None


def test_a_reason_may_keep_the_value_to_itself() -> None:
    assert fault_of(of(OBJECT), '{"a": "secret"}', shown=False) == "$.a: it breaks type"
    assert "secret" not in str(fault_of(Constraint("regex", "a"), "secret", shown=False))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "#/$defs/none"}, "#/$defs/none names nothing in it"),
        ({"$ref": "https://example.com/s.json"}, "no other file is read"),
        ({"type": "text"}, "it is no JSON Schema: type: 'text'"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "no answer can meet it"),
    ],
)
def test_a_schema_that_nothing_can_meet_is_an_error(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ConstraintError, match=words.replace("$", r"\$")):
        loosened(of(schema))


def test_a_schema_that_llguidance_refuses_as_a_whole_is_checked_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.constraints.schemas._refusal", lambda schema: "too large")
    held, names = loosened_schema(OBJECT)
    assert held == {"type": "object"} and names == ("the schema as a whole (too large)",)


def test_distinct_choices_are_a_set_of_labels() -> None:
    schema = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "uniqueItems": True}
    assert subset_labels(schema) == ("a", "b")
    assert subset_labels({**schema, "x-any-order": True}) is None
    assert subset_labels({**schema, "maxItems": 1}) is None
    assert subset_labels({"type": "array", "items": {"enum": ["a", 1]}, "uniqueItems": True}) is None
