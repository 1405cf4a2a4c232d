from __future__ import annotations

import pytest

from rung.report.words import Scale, count, duration, p_value, shortened, thousands, tied, time_left
from rung.types import Score

RATES, GRADED = Scale(True), Scale(False)


@pytest.mark.parametrize(
    ("x", "n", "told"),
    [(0.815, 60, "82 %"), (0.8154, 2000, "81.5 %"), (0.0, 60, "0 %"), (0.003, 60, "0.3 %"), (0.997, 60, "99.7 %")],
)
def test_a_share_is_whole_unless_there_are_thousands_or_it_would_become_none_or_all(
    x: float, n: int, told: str
) -> None:
    assert RATES.value(x, n) == told


def test_a_score_that_is_no_share_keeps_two_decimals() -> None:
    assert GRADED.full(Score(0.5, 0.412, 0.6, 60)) == "0.50 (0.41–0.60)"
    assert RATES.full(Score(0.5, 0.412, 0.6, 60)) == "50 % (41–60)"


def test_differences_are_told_in_points_for_shares_only() -> None:
    assert [RATES.gap(d) for d in (0.15, 0.083, 0.01, 0.0)] == ["15 points", "8.3 points", "1 point", "0 points"]
    assert [RATES.signed(d) for d in (0.15, -0.083, -0.0001)] == ["+15", "-8.3", "0"]
    assert (GRADED.gap(0.15), GRADED.signed(-0.15)) == ("0.15", "-0.15")


def test_durations_carry_a_unit_that_fits_their_size() -> None:
    told = ["0.08 s", "1.0 s", "9.9 s", "38 s", "3.2 min", "1.7 h", "–"]
    assert [duration(s) for s in (0.083, 0.996, 9.9, 38.2, 192, 6000, None)] == told


def test_time_left_is_an_estimate_in_words() -> None:
    told = ["less than a minute left", "about 3 min left", "about 2.0 h left"]
    assert [time_left(s) for s in (0, 170, 7200)] == told


def test_p_values_never_look_like_zero() -> None:
    assert [p_value(p) for p in (1e-9, 0.0034, 0.47)] == ["p < 0.001", "p = 0.003", "p = 0.47"]


def test_large_counts_are_told_in_thousands_and_millions() -> None:
    assert [thousands(n) for n in (950, 12_300, 999_600)] == ["950", "12 k", "1.0 M"]
    assert [count(n, "warning") for n in (1, 1200)] == ["1 warning", "1,200 warnings"]


def test_a_shortened_text_ends_at_a_word_and_never_exceeds_its_width() -> None:
    assert shortened("a customer, late again", 20) == "a customer, late…"
    assert shortened("x" * 30, 10) == "x" * 9 + "…"
    assert shortened("short", 5) == "short"


def test_a_line_never_breaks_before_a_percent_sign_or_within_a_p_value() -> None:
    assert tied("20 % with p = 0.47 or p < 0.001").split(" ") == [
        "20\N{NO-BREAK SPACE}%",
        "with",
        "p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.47",
        "or",
        "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001",
    ]
