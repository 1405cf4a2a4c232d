"""Metrics of JSON and numbers."""

from __future__ import annotations

import json
import random

import pytest

from rung.errors import MetricError
from rung.evaluation.structured_metrics import json_fields, json_match, numeric_match

# ---- JSON


@pytest.mark.parametrize(
    "prediction",
    [
        '{"b": [2.0, 1], "a": "x  y "}',
        '```json\n{"a": "x y", "b": [1, 2]}\n```',
        '\n```\n{"a": "x y", "b": [1, 2]}```\n',
    ],
)
def test_json_is_compared_by_content_and_not_by_order_or_fence(prediction: str) -> None:
    assert json_match(prediction, ['{"a": "x y", "b": [1, 2]}']) == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("[1, 1, 2]", "[1, 2, 2]"),
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


def test_lists_of_objects_are_compared_as_multisets() -> None:
    assert json_match('[{"a": [1, {"b": 2}]}, 3]', ['[3, {"a": [{"b": 2.0}, 1]}]']) == 1.0


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


def test_all_fields_are_right_exactly_when_the_whole_is() -> None:
    random_ = random.Random(3)
    for _ in range(300):
        a, b = ({k: random_.choice([1, [1, 2], [2, 1]]) for k in random_.sample("pqr", 2)} for _ in "ab")
        fields = json_fields(json.dumps(a), [json.dumps(b)])
        assert (min(fields.values()) == 1.0) == (json_match(json.dumps(a), [json.dumps(b)]) == 1.0)


# ---- numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", "42"),
        ("It costs $1,234.50.", "1234.5"),
        ("1.234,56 €", "1234.56"),
        ("3,14", "3.14"),
        ("1\u202f234\u202f567", "1234567"),
        ("a 12,345", "12345"),
        ("\u22127", "-7"),
        ("-$7", "-7"),
        ("$-7", "-7"),
        ("from 10-20", "20"),
        ("3/4", "0.75"),
        ("1/3", "0.33333333"),
        ("50 %", "50"),
        ("6.02e23", "602000000000000000000000"),
        (".5", "0.5"),
        ("45 km2", "45"),
        ("COVID-19 hit 7 towns", "7"),
        ("2 + 3 = 5 apples in 1 basket", "5"),
        ("The answer is 8, since 4+4 = 9 - 1.", "8"),
        ("answer: 3; no, the answer is 4 of 5", "4"),
        ("7 * 6 = 41\n#### 42", "42"),
        ("First 3, then 4", "4"),
        ("The answer is here: x = 6", "6"),
        ("6 and that = all", "6"),
    ],
)
def test_the_number_of_a_text_is_read(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 1.0
    assert numeric_match(number, [text]) == 1.0


@pytest.mark.parametrize(
    ("text", "number"),
    [("none", "0"), ("7", "-7"), ("12345678", "12345679"), ("1.00001", "1.0"), ("5/0", "5"), ("", "1"), ("CO2", "2")],
)
def test_another_number_or_none_is_wrong(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 0.0


def test_numbers_with_a_fraction_match_to_a_millionth() -> None:
    assert numeric_match("3.1415926", ["3.1415927"]) == 1.0
    assert numeric_match("2.0", ["2"]) == 1.0


def test_a_reference_without_a_number_is_an_error() -> None:
    with pytest.raises(MetricError, match="'many' is not a number"):
        numeric_match("3", ["many"])
