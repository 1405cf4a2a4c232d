"""Metrics of JSON, tool calls and sets of labels."""

from __future__ import annotations

import json
import random

import pytest

from rung.errors import MetricError
from rung.evaluation.structured_metrics import (
    json_fields,
    json_match,
    label_set_f1,
    label_set_match,
    tool_call_match,
)

# ---- JSON


@pytest.mark.parametrize(
    "prediction",
    [
        '{"b": [1, 2.0], "a": "x  y "}',
        '```json\n{"a": "x y", "b": [1, 2]}\n```',
        '\n```\n{"a": "x y", "b": [1, 2]}```\n',
    ],
)
def test_json_is_compared_by_content_and_not_by_order_of_keys_or_fence(prediction: str) -> None:
    assert json_match(prediction, ['{"a": "x y", "b": [1, 2]}']) == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("[1, 2]", "[2, 1]"),
        ('{"box": [40, 30]}', '{"box": [30, 40]}'),
        ("[1, 1]", "[1]"),
        ("true", "1"),
        ("0", "false"),
        ("null", "{}"),
        ('"1"', "1"),
        ("[]", "{}"),
        ('[["a", 1]]', '{"a": 1}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('Here it is: {"a": 1}', '{"a": 1}'),
        ("{'a': 1}", '{"a": 1}'),
        ("NaN", "0"),
    ],
)
def test_json_that_differs_or_is_none_scores_nothing(prediction: str, reference: str) -> None:
    assert json_match(prediction, [reference]) == 0.0


def test_lists_are_compared_as_multisets_where_their_order_does_not_count() -> None:
    prediction, reference = '[{"a": [1, {"b": 2}]}, 3]', '[3, {"a": [{"b": 2.0}, 1]}]'
    assert json_match(prediction, [reference], unordered=True) == 1.0
    assert json_match(prediction, [reference]) == 0.0
    assert json_match("[1, 1, 2]", ["[1, 2, 2]"], unordered=True) == 0.0


def test_strings_that_look_the_same_are_equal() -> None:
    assert json_match('{"caf\u00e9": "ＡＢ\u200b  c"}', ['{"cafe\u0301": "AB c"}']) == 1.0


def test_an_empty_answer_is_right_where_the_reference_is_empty() -> None:
    assert json_match(" ", [""]) == tool_call_match("", [""]) == 1.0
    assert json_match("{}", [""]) == json_match("", ["{}"]) == 0.0


def test_json_nested_past_all_reason_scores_without_raising() -> None:
    for depth in (100, 300, 400, 900, 5000):
        deep = "[" * depth + "]" * depth
        assert json_match(deep, ["[]"]) == 0.0
    reasonable = "[" * 50 + "]" * 50
    assert json_match(reasonable, [reasonable]) == 1.0


def test_a_reference_that_is_no_json_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(MetricError, match="'yes' is not JSON"):
        json_match("{}", ["yes"])
    assert json_match("{}", ["yes", "{}"]) == 1.0


def test_json_fields_scores_each_field_against_the_reference_that_fits_best() -> None:
    references = ['{"name": "Ada", "age": 36}', '{"name": "Ada", "age": 37, "city": "London"}']
    assert json_fields('{"age": 37, "name": "Ada", "x": 1}', references) == {
        "name": 1.0,
        "age": 1.0,
        "city": 0.0,
        "x": 0.0,
    }
    assert json_fields("no object", references[:1]) == {"name": 0.0, "age": 0.0}
    assert json_fields("[1]", ["[1]"]) == {}


def test_json_fields_take_the_order_of_lists_as_json_match_does() -> None:
    assert json_fields('{"a": [1, 2]}', ['{"a": [2, 1]}']) == {"a": 0.0}
    assert json_fields('{"a": [1, 2]}', ['{"a": [2, 1]}'], unordered=True) == {"a": 1.0}


def test_all_fields_are_right_exactly_when_the_whole_is() -> None:
    random_ = random.Random(3)
    for _ in range(300):
        a, b = ({k: random_.choice([1, [1, 2], [2, 1]]) for k in random_.sample("pqr", 2)} for _ in "ab")
        fields = json_fields(json.dumps(a), [json.dumps(b)])
        assert (min(fields.values()) == 1.0) == (json_match(json.dumps(a), [json.dumps(b)]) == 1.0)


# ---- tool calls

CALL = '{"name": "search", "arguments": {"query": "red kettle", "limit": 3}}'


@pytest.mark.parametrize(
    "prediction",
    [
        '{"arguments": {"limit": 3.0, "query": "red  kettle"}, "name": "search"}',
        f"[{CALL}]",
        f"```json\n{CALL}\n```",
        '{"name": "search", "arguments": "{\\"query\\": \\"red kettle\\", \\"limit\\": 3}"}',
        '{"name": "search", "parameters": {"query": "red kettle", "limit": 3}}',
        f'{{"tool_calls": [{{"id": "c1", "type": "function", "function": {CALL}}}]}}',
    ],
)
def test_a_tool_call_is_right_however_it_is_written(prediction: str) -> None:
    assert tool_call_match(prediction, [CALL]) == 1.0
    assert tool_call_match(CALL, [prediction]) == 1.0


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        "search",
        "[]",
        '{"name": "find", "arguments": {"query": "red kettle", "limit": 3}}',
        '{"name": "search", "arguments": {"query": "red kettle"}}',
        '{"name": "search", "arguments": {"query": "red kettle", "limit": "3"}}',
        '{"query": "red kettle", "limit": 3}',
        f"[{CALL}, {CALL}]",
    ],
)
def test_another_tool_call_is_wrong(prediction: str) -> None:
    assert tool_call_match(prediction, [CALL]) == 0.0


def test_the_order_of_several_tool_calls_counts_unless_the_task_says_otherwise() -> None:
    other = '{"name": "open", "arguments": {}}'
    assert tool_call_match(f"[{other}, {CALL}]", [f"[{CALL}, {other}]"]) == 0.0
    assert tool_call_match(f"[{other}, {CALL}]", [f"[{CALL}, {other}]"], unordered=True) == 1.0
    assert tool_call_match('{"name": "open"}', [other]) == 1.0  # no arguments are empty ones


def test_where_no_tool_is_to_be_called_the_answer_is_compared_as_text() -> None:
    assert tool_call_match("I cannot  do that.", ["I cannot do that."]) == 1.0
    assert tool_call_match(CALL, ["I cannot do that."]) == 0.0
    assert tool_call_match("[]", ["[]"]) == 1.0


def test_a_reference_that_is_json_and_no_tool_call_is_an_error() -> None:
    with pytest.raises(MetricError, match="is not a tool call"):
        tool_call_match(CALL, ['{"query": "x"}'])


# ---- sets of labels


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ('["billing", "login"]', '["login", "billing"]', 1.0),
        ('["Billing", "billing"]', '["billing"]', 1.0),
        ('["billing"]', '["login", "billing"]', 2 / 3),  # precision 1, recall 1/2
        ('["delivery"]', '["login"]', 0.0),
        ("[]", "[]", 1.0),
        ("", "[]", 1.0),
        ("[]", '["login"]', 0.0),
        ("billing, login", '["login", "billing"]', 1.0),
        ("- billing\n- login", '["login", "billing"]', 1.0),
        ("['billing', 'login']", '["login", "billing"]', 1.0),
        ("退款、物流", '["物流", "退款"]', 1.0),
        ('["a, b"]', '["a", "b"]', 0.0),
    ],
)
def test_the_f1_of_a_set_of_labels_is_that_of_the_formula(prediction: str, reference: str, f1: float) -> None:
    assert label_set_f1(prediction, [reference]) == pytest.approx(f1)
    assert label_set_f1(prediction, ['["other"]', reference]) == pytest.approx(f1)
    assert label_set_match(prediction, [reference]) == float(f1 == 1.0)


def test_the_f1_of_label_sets_equals_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random_ = random.Random(4)
    for _ in range(100):
        a, b = (random_.sample("pqrs", random_.randint(0, 4)) for _ in "ab")
        rows = [[[float(label in row) for label in "pqrs"]] for row in (a, b)]
        expected = metrics.f1_score(rows[1], rows[0], average="samples", zero_division=1.0)
        assert label_set_f1(json.dumps(a), [json.dumps(b)]) == pytest.approx(expected)
