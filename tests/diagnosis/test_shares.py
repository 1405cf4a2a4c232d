"""A share is the net rescue rate minus harm, in failed examples' worth."""

from __future__ import annotations

import random

import pytest

from rung.diagnosis.shares import Sampled, Share, difference
from rung.types import Example

FAILED = tuple(Example(f"f{i}", "?", "x", ("x",)) for i in range(20))
RIGHT = tuple(Example(f"r{i}", "?", "x", ("x",)) for i in range(10))


def sampled(right_per_wrong: float = 0.5, **more: tuple[Example, ...]) -> Sampled:
    given = {"failed": FAILED, "succeeded": RIGHT} | more
    return Sampled(given["failed"], given["succeeded"], right_per_wrong, {}, 0)


def outcome(rescued: int, broken: int, first: int = 0) -> dict[str, bool]:
    """So many of the failed ones right, from the first on, and so many of the right ones wrong."""
    ok = {e.id: first <= i < first + rescued for i, e in enumerate(FAILED)}
    return ok | {e.id: i >= broken for i, e in enumerate(RIGHT)}


def test_a_share_is_what_is_rescued_beyond_the_placebo_less_what_is_broken_beyond_it() -> None:
    found = sampled().share(outcome(12, 4), outcome(2, 1))
    # 12 - 2 of 20 rescued; 4 - 1 of 10 broken, and half a right answer for each wrong one
    assert found.share == pytest.approx(10 / 20 - 0.5 * 3 / 10)
    assert found.low < found.share < found.high


def test_what_the_placebo_breaks_as_well_is_no_harm() -> None:
    assert sampled().share(outcome(12, 4), outcome(2, 4)).share == pytest.approx(10 / 20)
    assert sampled().share(outcome(12, 1), outcome(2, 4)).share == pytest.approx(10 / 20), "and no good either"


def test_harm_grows_with_the_right_answers_there_are_to_break() -> None:
    shares = [sampled(odds).share(outcome(12, 4), outcome(2, 1)).share for odds in (0.1, 1.0, 3.0)]
    assert shares == pytest.approx([0.5 - odds * 0.3 for odds in (0.1, 1.0, 3.0)])


def test_examples_that_could_not_be_tried_are_neither_rescued_nor_broken() -> None:
    half = {i: ok for i, ok in outcome(20, 10).items() if int(i[1:]) % 2 == 0}
    found = sampled().share(half, outcome(0, 0))
    assert found.share == pytest.approx(10 / 20 - 0.5 * 5 / 10)


def test_a_coin_thrown_again_gets_a_share_of_nothing() -> None:
    """Right answers of a coin are broken as often as wrong ones are rescued."""
    shares = []
    for seed in range(40):
        drawn = random.Random(seed)
        change, placebo = ({e.id: drawn.random() < 0.5 for e in (*FAILED, *RIGHT)} for _ in range(2))
        shares.append(sampled(1.0).net_rescue(change, placebo).share)
    assert abs(sum(shares) / len(shares)) < 0.05


@pytest.mark.parametrize(
    ("broken", "by_placebo", "harmful"), [(10, 0, True), (6, 0, True), (5, 0, False), (10, 5, False), (10, 4, True)]
)
def test_harmful_is_what_breaks_more_than_half_beyond_the_placebo(broken: int, by_placebo: int, harmful: bool) -> None:
    assert sampled().is_harmful(outcome(20, broken), outcome(0, by_placebo)) is harmful


def test_one_or_two_right_answers_are_too_few_to_call_a_change_harmful() -> None:
    assert not sampled(succeeded=RIGHT[:2]).is_harmful(outcome(20, 2), outcome(0, 0))
    assert sampled(succeeded=RIGHT[:3]).is_harmful(outcome(20, 3), outcome(0, 0))


def test_the_interval_of_a_difference_is_composed_of_both() -> None:
    found = difference(Share(0.6, 0.5, 0.8), Share(0.2, 0.1, 0.4))
    assert found.share == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - (0.1**2 + 0.2**2) ** 0.5)
    assert found.high == pytest.approx(0.4 + (0.2**2 + 0.1**2) ** 0.5)


def test_where_nothing_failed_no_rate_is_known() -> None:
    assert sampled(failed=()).rate([]) == Share(0.0, 0.0, 1.0)
