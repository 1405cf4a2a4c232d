from __future__ import annotations

import pytest

from rung.decision.figures import PERCENT, Scale, more_minutes, p_value, price_share, rounded_up
from rung.types import Score

GRADED = Scale(False)


@pytest.mark.parametrize(
    ("x", "n", "written"),
    [(0.815, 60, "82 %"), (0.8154, 2000, "81.5 %"), (0.0, 60, "0 %"), (0.003, 60, "0.3 %"), (0.997, 60, "99.7 %")],
)
def test_a_share_is_whole_unless_there_are_thousands_or_it_would_become_none_or_all(
    x: float, n: int, written: str
) -> None:
    assert PERCENT.value(x, n) == written


def test_a_score_that_is_no_share_keeps_two_decimals() -> None:
    assert GRADED.full(Score(0.5, 0.412, 0.6, 60)) == "0.50 (0.41–0.60)"
    assert PERCENT.full(Score(0.5, 0.412, 0.6, 60)) == "50 % (41–60)"
    assert PERCENT.full(Score(0.25, 0.25, 0.25, 60)) == "25 %", "a value that is known has no interval"


def test_differences_are_written_in_points_for_shares_only() -> None:
    assert [PERCENT.gap(d) for d in (0.15, 0.083, 0.01, 0.0)] == ["15 points", "8.3 points", "1 point", "0 points"]
    assert [PERCENT.signed(d) for d in (0.15, -0.083, -0.0001)] == ["+15", "-8.3", "0"]
    assert (GRADED.gap(0.15), GRADED.signed(-0.15)) == ("0.15", "-0.15")


def test_p_values_never_look_like_zero() -> None:
    assert [p_value(p) for p in (1e-9, 0.0034, 0.47)] == ["p < 0.001", "p = 0.003", "p = 0.47"]


def test_almost_nothing_and_almost_everything_are_never_written_as_that() -> None:
    assert [PERCENT.value(x) for x in (0.0004, 0.9996)] == ["< 0.1 %", "> 99.9 %"]
    assert [PERCENT.value(x, 2000) for x in (0.0004, 0.9996)] == ["< 0.1 %", "> 99.9 %"]


def test_a_difference_of_nothing_has_no_sign() -> None:
    assert [PERCENT.signed(-0.0001), PERCENT.ends(-0.0001, 0.46)] == ["0", "0 to 46"]
    assert GRADED.signed(-0.001) == "+0.00" and GRADED.gap(-0.001) == "0.00"


def test_estimates_are_rounded_up_to_two_figures() -> None:
    assert [rounded_up(n) for n in (0, 4.0000000001, 47.2, 439, 4801)] == ["1", "4", "48", "440", "4,900"]
    assert [more_minutes(m) for m in (0.2, 6.4, 121)] == ["1 more minute", "7 more minutes", "3 more hours"]


@pytest.mark.parametrize(
    ("usd", "other", "written"),
    [
        (0.05, 2.0, "at a 40th of the price"),
        (1.0, 8.0, "at an 8th of the price"),
        (1.0, 21.0, "at a 21st of the price"),
        (1.0, 12.0, "at a 12th of the price"),
        (1.0, 1812.0, "at a 1,800th of the price"),
        (1.0, 11_200.0, "at an 11,000th of the price"),
        (1.0, 2.0, "at half the price"),
        (1.0, 3.1, "at a third of the price"),
        (4.0, 10.0, "at 40 % of the price"),
        (9.0, 10.0, "at 90 % of the price"),
        (1.01, 1.0, "at about the same price"),
        (3.0, 1.0, "at 3 times the price"),
        (13.4, 10.0, "at 1.3 times the price"),
        (3456.0, 1.0, "at 3,500 times the price"),
        (0.0, 0.0, "at the same price"),
        (0.0, 1.0, "at no cost"),
        (0.945, 1.0, "at 94 % of the price"),
        (1.0, 0.0, ""),
    ],
)
def test_a_price_is_written_as_a_share_of_another(usd: float, other: float, written: str) -> None:
    assert price_share(usd, other) == written
