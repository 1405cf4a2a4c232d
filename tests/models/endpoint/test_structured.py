"""Constraints of an endpoint: what is sent in each mode, and how a reply is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rung.errors import ConstraintError
from rung.models.endpoint.structured import Form, UnfitReply, check, is_strict, modes, plain_pattern
from rung.types import Constraint

LABELS = Form(Constraint("labels", ("billing", "card lost", "Card", "card")))
OPEN = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}}}
CLOSED = {**OPEN, "required": ["name", "age"], "additionalProperties": False}
PERSON = Form(Constraint("json_schema", {**CLOSED, "x-guidance": {"whitespace_flexible": False}}))
PATTERN = Form(Constraint("regex", r"[A-Z]{2}\d+"))


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("billing", "billing"),
        (' {"label": "card lost"}\n', "card lost"),
        ('```json\n{"label": "billing"}\n```', "billing"),
        ('"billing"', "billing"),
        ("**Billing.**", "billing"),
        ("Card", "Card"),
        ("card", "card"),
    ],
)
def test_a_label_is_read_plain_however_it_was_wrapped(reply: str, label: str) -> None:
    assert LABELS.read(reply) == label


@pytest.mark.parametrize("reply", ["", "It is billing", "CARD", '{"label": "x"}', '{"label": 1}', "{", "[]"])
def test_a_reply_that_is_no_label_is_unfit(reply: str) -> None:
    with pytest.raises(UnfitReply):
        LABELS.read(reply)


def test_json_is_held_against_the_schema_in_any_order_of_its_keys() -> None:
    assert PERSON.read(' {"age": 3, "name": "é"} ') == '{"age": 3, "name": "é"}'
    for wrong in ('{"age": 3}', '{"age": -1, "name": "x"}', '{"age": 3, "name": "x", "more": 1}', "[1]", "no"):
        with pytest.raises(UnfitReply):
            PERSON.read(wrong)


def test_keys_are_ordered_behind_references_too() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]}
    schema = {"type": "object", "properties": {"of": {"$ref": "#/$defs/inner"}}, "$defs": {"inner": inner}}
    assert Form(Constraint("json_schema", schema)).read('{"of": {"b": 1, "a": 2}}')


KINDS = [
    {"type": "object", "properties": {"kind": {"const": kind}, name: {"type": "integer"}}, "required": ["kind", name]}
    for kind, name in (("a", "y"), ("b", "x"), ("c", "x"))
]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": KINDS}, '{"x": 1, "kind": "b"}'),
        ({"anyOf": [*KINDS[:2], {**KINDS[2], "properties": {"x": {"type": "integer"}, "kind": {"const": "c"}}}]},
         '{"kind": "c", "x": 1}'),
        ({"oneOf": [{"type": "null"}, KINDS[0]]}, '{"y": 1, "kind": "a"}'),
        ({"type": "array", "items": {"anyOf": KINDS}}, '[{"x": 1, "kind": "b"}, {"y": 1, "kind": "a"}]'),
        ({"type": "array", "prefixItems": [{"type": "string"}, KINDS[1]]}, '["a", {"x": 1, "kind": "b"}]'),
        ({"type": "object", "additionalProperties": KINDS[1]}, '{"of": {"x": 1, "kind": "b"}}'),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": KINDS[1]}}, '{"x": 1, "kind": "b"}'),
        ({"allOf": [{"type": "object", "properties": {"b": {}}}, {"type": "object", "properties": {"a": {}, "c": {}}}]},
         '{"c": 1, "a": 2, "b": 3}'),
        ({"type": "object", "properties": {"a": {}, "of": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}},
         '{"of": {"of": null, "a": 1}, "a": 1}'),
    ],
)  # fmt: skip
def test_keys_are_ordered_in_branches_items_and_other_keys_too(schema: dict[str, Any], text: str) -> None:
    assert Form(Constraint("json_schema", schema)).read(text) == text


def test_labels_of_marks_and_spaces_are_read_as_they_are() -> None:
    marks = Form(Constraint("labels", ("!", "no", " no", 'say "no"', "two\nlines")))
    for label in ("!", "no", " no", 'say "no"', "two\nlines"):
        assert marks.read(label) == label == marks.read(json.dumps({"label": label}))
    with pytest.raises(UnfitReply):
        marks.read("")


def test_anchors_of_a_pattern_are_not_sent() -> None:
    for pattern, sent in ((r"^\d{4}$", r"\d{4}"), (r"^a|b$", "a|b"), (r"a\$", r"a\$"), (r"a\\$", r"a\\")):
        form = Form(Constraint("regex", pattern))
        assert form.fields("choice") == {"structured_outputs": {"regex": sent}}
    assert plain_pattern(r"^\d{4}$") == "[0-9]{4}"
    assert Form(Constraint("regex", r"^\d{4}$")).read("1969\n") == "1969"


def test_what_a_grammar_cannot_hold_is_not_sent_and_checked_in_the_reply() -> None:
    tags = {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "contains": {"const": "x"}}
    form = Form(Constraint("json_schema", tags))
    assert form.fields("json_object")["response_format"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert not form.must_hold("json_object")
    assert form.read('["x"]') == '["x"]'
    with pytest.raises(UnfitReply, match="non-unique") as raised:
        form.read('["x", "x"]')
    assert "uniqueItems" in form.again(raised.value)

    digits = Form(Constraint("regex", r"(?!000)\d{3}"))
    assert digits.fields("choice") == {"structured_outputs": {"regex": r"[\d]{3}"}} and not digits.must_hold("choice")
    assert digits.read("001") == "001"
    with pytest.raises(UnfitReply):
        digits.read("000")


def test_several_labels_are_read_as_a_list_in_any_order_without_repetition() -> None:
    schema = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "uniqueItems": True}
    form = Form(Constraint("json_schema", {**schema, "x-guidance": {"whitespace_flexible": False}}))
    assert form.read('```json\n["b", "a"]\n```') == '["b", "a"]'
    for wrong in ('["a", "a"]', '["c"]', '"a"'):
        with pytest.raises(UnfitReply):
            form.read(wrong)


def test_a_pattern_matches_the_whole_reply() -> None:
    assert PATTERN.read("AB12\n") == "AB12"
    with pytest.raises(UnfitReply, match="regular expression"):
        PATTERN.read("it is AB12")


def test_modes_end_with_parsing_and_begin_with_what_the_server_is_known_for() -> None:
    labels, schema, regex = LABELS.constraint, PERSON.constraint, PATTERN.constraint
    assert modes("auto", None, labels) == ("json_schema", "json_object", "none")
    assert modes("auto", "llama-cpp-python", labels) == ("grammar", "json_object", "none")
    assert modes("auto", "llama-cpp-python", schema) == ("json_object", "none")
    assert modes("auto", "vllm", regex) == ("choice", "none")
    assert modes("auto", None, regex) == ("none",)
    assert modes("auto", "llama.cpp", regex) == ("json_schema", "none")
    assert modes("auto", "llama-cpp-python", regex) == ("json_object", "none")
    assert modes("json_object", "vllm", schema) == ("json_object", "none")
    assert modes("none", "vllm", schema) == ("none",)


def test_bodies_hold_the_constraint_as_each_interface_takes_it() -> None:
    sent: dict[str, Any] = PERSON.fields("json_schema")["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"] is True
    assert sent["json_schema"]["schema"] == CLOSED
    assert PERSON.fields("json_object") == {"response_format": {"type": "json_object", "schema": CLOSED}}
    assert LABELS.fields("choice") == {"structured_outputs": {"choice": ["billing", "card lost", "Card", "card"]}}
    assert Form(Constraint("labels", ('a"b', "c\\d"))).fields("grammar") == {"grammar": r'root ::= "a\"b" | "c\\d"'}
    assert LABELS.fields("none") == {}
    wrapped = LABELS.fields("json_schema")["response_format"]["json_schema"]
    assert wrapped["strict"] and wrapped["schema"]["properties"]["label"]["enum"] == list(LABELS.constraint.value)
    json.dumps([LABELS.fields("json_schema"), PERSON.fields("choice")])


def test_a_schema_with_open_objects_is_not_sent_as_strict() -> None:
    assert is_strict(CLOSED) and not is_strict(OPEN)
    assert not is_strict({**CLOSED, "properties": {"name": OPEN, "age": {"type": "integer"}}})
    assert not is_strict({"type": "array", "items": CLOSED})
    assert not Form(Constraint("json_schema", OPEN)).must_hold("json_schema")
    assert PERSON.must_hold("json_schema") and not PERSON.must_hold("none")


def test_a_constraint_that_nothing_can_be_held_against_is_refused() -> None:
    for constraint in (
        Constraint("labels", ()),
        Constraint("regex", "("),
        Constraint("json_schema", {"type": "nonsense"}),
    ):
        with pytest.raises(ConstraintError):
            check(constraint)
    check(PERSON.constraint)


def test_a_repeated_question_says_what_was_wrong() -> None:
    with pytest.raises(UnfitReply) as raised:
        LABELS.read("none of them")
    assert "billing" in LABELS.again(raised.value) and "none of them" in LABELS.again(raised.value)


def test_a_pattern_is_sent_as_that_of_a_json_string_and_read_out_of_it() -> None:
    schema = PATTERN.fields("json_object")["response_format"]["schema"]
    assert schema == {"type": "string", "pattern": "^([A-Z]{2}[0-9]+)$"}
    assert PATTERN.read('"AB12"\n') == "AB12"
    assert PATTERN.must_hold("json_schema")
    with pytest.raises(UnfitReply):
        PATTERN.read('"AB"')


def test_a_reply_that_ran_out_of_tokens_may_be_the_beginning_of_an_answer_or_babble() -> None:
    assert LABELS.may_be_cut("card l", "grammar") and LABELS.may_be_cut("", "none")
    assert not LABELS.may_be_cut("\n\n \n", "json_object"), "spaces without end"
    assert not LABELS.may_be_cut("I think that", "none")
    assert PERSON.may_be_cut('{"name": "a very lo', "json_schema") and not PERSON.may_be_cut("Well, she", "json_schema")
    assert PATTERN.may_be_cut('"AB123', "json_schema") and not PATTERN.may_be_cut("AB or", "none")


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        (r"[A-Z]{2}\d+", "[A-Z]{2}[0-9]+"),
        (r"[\d.]+ (?:EUR|USD)", "[0-9.]+ (?:EUR|USD)"),
        (r"\w+@\w+\.com", r"[A-Za-z0-9_]+@[A-Za-z0-9_]+\.com"),
        ("[^,]{3}", "[^,]{3}"),
        (r"\bfoo\b", None),
        ("(?i)yes|no", None),
        ("a+?", None),
        (r"\D+", None),
    ],
)
def test_a_pattern_goes_to_llama_cpp_only_where_its_grammars_know_every_part(pattern: str, plain: str | None) -> None:
    assert plain_pattern(pattern) == plain
    if plain is None:
        assert modes("auto", "llama.cpp", Constraint("regex", pattern)) == ("none",)
