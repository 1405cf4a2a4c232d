"""Metrics of numbers."""

from __future__ import annotations

import pytest

from rung.errors import MetricError
from rung.evaluation.number_metrics import numeric_error, numeric_match


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
        ("50%", "0.5"),
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
        ("٣٫٥", "3.5"),
        ("３．５", "3.5"),
        ("๔๒", "42"),
        ("答案是42个", "42"),
        ("1'234'567", "1234567"),
        ("12 500 €", "12500"),
        ("1.234.567", "1234567"),
        ("1\u202f234,56\u00a0€", "1234.56"),
        ("1'234'567,8", "1234567.8"),
        ("12,34,567", "1234567"),
        ("1/3", "0.333333"),
        ("2 1/2 cups", "2.5"),
        ("2½", "2.5"),
        ("1e3", "1000"),
        ("3 × 10⁵", "300000"),
        ("2^10", "1024"),
        ("1.2 million", "1200000"),
        ("5 million", "5"),
        ("3万", "30000"),
        ("1\u200b200", "1200"),
    ],
)
def test_the_number_of_a_text_is_read(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 1.0
    assert numeric_match(number, [text]) == 1.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("50 %", "0.5 %"),
        ("5 million", "5 billion"),
        ("1.200", "1200"),
        ("about 3.14", "3.14159"),
        ("none", "0"),
        ("7", "-7"),
        ("12345678", "12345679"),
        ("1.00001", "1.0"),
        ("5/0", "5"),
        ("", "1"),
        ("CO2", "2"),
    ],
)
def test_another_number_or_none_is_wrong(text: str, number: str) -> None:
    assert numeric_match(text, [number]) == 0.0


def test_numbers_with_a_fraction_match_to_a_millionth() -> None:
    assert numeric_match("3.1415926", ["3.1415927"]) == 1.0
    assert numeric_match("2.0", ["2"]) == 1.0


def test_a_reference_without_a_number_is_an_error() -> None:
    with pytest.raises(MetricError, match="'many' is not a number"):
        numeric_match("3", ["many"])


@pytest.mark.parametrize(
    ("text", "same", "other"),
    [
        ("2024-01-05", "5 January 2024", "2023-12-05"),
        ("2024-01-05", "2024/1/5", "2024-01-06"),
        ("05.01.2024", "Jan. 5th, 2024", "05.02.2024"),
        ("2024年1月5日", "2024-01-05", "2024年2月5日"),
        ("13/01/2024", "01/13/2024", "13/02/2024"),
        ("2024-01-05T12:30", "2024-01-05 12:30:00", "2024-01-05T12:31"),
        ("12:30", "12:30:00", "11:30"),
        ("2:30 p.m.", "14:30", "2:30"),
        ("5 to 7", "5–7", "5"),
        ("5-7 days", "5 - 7", "7"),
        ("1.2.3", "1.2.3", "1.2.4"),
    ],
)
def test_dates_times_and_ranges_are_equal_as_a_whole_only(text: str, same: str, other: str) -> None:
    assert numeric_match(text, [same]) == numeric_error(text, [same]) == 1.0
    assert numeric_match(text, [other]) == numeric_match(other, [text]) == 0.0


def test_a_change_from_one_number_to_another_gives_the_other() -> None:
    assert numeric_match("It rose from 5 to 7.", ["7"]) == 1.0


def test_an_empty_answer_is_right_where_the_reference_is_an_empty_text() -> None:
    assert numeric_match("", [""]) == numeric_error(" ", [""]) == 1.0
    assert numeric_match("0", [""]) == numeric_match("", ["0"]) == 0.0


def test_a_tolerance_is_a_share_of_the_right_number() -> None:
    assert numeric_match("104", ["100"], tolerance=0.05) == numeric_match("-96", ["-100"], tolerance=0.05) == 1.0
    assert (
        numeric_match("106", ["100"], tolerance=0.05)
        == numeric_match("2024-01-05", ["2024-01-06"], tolerance=0.5)
        == 0.0
    )


@pytest.mark.parametrize(
    ("text", "number", "score"),
    [
        ("100", "100", 1.0),
        ("100.9", "100", 1.0),  # within 1 %
        ("110", "100", 0.9),
        ("about 75 kg", "100", 0.75),
        ("-100", "100", 0.0),
        ("500", "100", 0.0),
        ("0", "0", 1.0),
        ("0.25", "0", 0.75),
        ("none", "7", 0.0),
    ],
)
def test_the_score_of_a_numeric_error_is_one_less_the_relative_error(text: str, number: str, score: float) -> None:
    assert numeric_error(text, [number]) == pytest.approx(score)


def test_the_tolerance_of_a_numeric_error_can_be_set() -> None:
    assert numeric_error("110", ["100"], tolerance=0.1) == 1.0
    assert numeric_error("112", ["100"], tolerance=0.1) == pytest.approx(0.88)


@pytest.mark.parametrize(
    "text", ["1" * 5000 + ":" + "1" * 5000, "1-" * 3000, "9^99 million", "1e308 trillion", "1 2/0", "²"]
)
def test_no_odd_number_makes_the_metric_raise_or_slow(text: str) -> None:
    assert numeric_match(text, ["7"]) == 0.0
    assert numeric_error(text, ["7"]) < 1.0
