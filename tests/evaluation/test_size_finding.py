"""What so few examples can show, and how many more would show 5 and 2 points."""

from __future__ import annotations

import pytest

from rung.data.split import CAPS, SHARES
from rung.evaluation.power import minimum_detectable_difference
from rung.evaluation.size_finding import size_findings, units_needed
from rung.types import Example, SealedTest, Split


def split(train: int, dev: int, test: int, group_of: int = 1) -> Split:
    rows = [Example(f"r{i}", "x", "y", ("y",)) for i in range(train + dev + test)]
    groups = {e.id: f"g{i // group_of}" for i, e in enumerate(rows)}
    return Split(tuple(rows[:train]), tuple(rows[train : train + dev]), SealedTest(rows[train + dev :]), groups)


def test_twenty_rows_hardly_show_anything() -> None:
    (finding,) = size_findings(split(10, 5, 5), shares=SHARES, cap=CAPS["test"])
    assert finding.severity == "warning" and finding.check == "too_small"
    assert finding.message.startswith("20 examples hardly show anything")
    assert "no difference at all" in finding.message and "5 points" in finding.message and "2 points" in finding.message


def test_some_hundred_rows_are_a_note_and_enough_rows_are_none() -> None:
    (finding,) = size_findings(split(250, 125, 125), shares=SHARES)
    assert finding.severity == "note" and "12 points" in finding.message
    assert size_findings(split(3000, 1000, 2000), shares=SHARES) == ()


def test_groups_count_once() -> None:
    (finding,) = size_findings(split(200, 100, 100, group_of=4))
    assert "The test has 25 examples (rows of one group count as one)" in finding.message


def test_more_than_rung_tests_takes_a_test_file_of_ones_own() -> None:
    (finding,) = size_findings(split(250, 125, 125), shares=SHARES, cap=CAPS["test"])
    assert "to see 2 points, the test needs 4,000 examples in a file of your own, 3,900 more" in finding.message
    assert "as 25 % of them are tested" in finding.message
    (own,) = size_findings(split(250, 125, 125))
    assert "To see 5 points, the test needs 630 examples, 510 more" in own.message


@pytest.mark.parametrize("difference", [0.02, 0.05, 0.1])
def test_the_number_needed_agrees_with_the_exact_test(difference: float) -> None:
    n = units_needed(difference)
    assert minimum_detectable_difference(n) == pytest.approx(difference, rel=0.1)
