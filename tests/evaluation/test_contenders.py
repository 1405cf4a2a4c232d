"""Who may be the best by dev, and which pairs the test is asked about."""

from __future__ import annotations

import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.contenders import contenders, named_pairs

GOOD, NEAR, POOR = [1.0] * 18 + [0.0] * 2, [1.0] * 14 + [0.0] * 6, [1.0] * 8 + [0.0] * 12


def test_what_dev_does_not_show_to_be_worse_than_the_best_may_be_the_best() -> None:
    scores = {"a": POOR, "b": NEAR, "c": GOOD}
    # b differs from c in four examples (p = 0.125), a in ten (p = 0.002).
    assert contenders(scores, ["a", "b", "c"]) == ("b", "c")
    assert contenders(scores, ["c", "a", "b"]) == ("c", "b")
    assert contenders(scores, ["a"]) == ("a",)
    assert contenders({}, []) == ()


def test_of_equal_means_the_first_in_order_is_the_best_and_the_others_stay() -> None:
    assert contenders({"a": GOOD, "b": GOOD[::-1]}, ["a", "b"]) == ("a", "b")


def test_whole_groups_are_the_unit_of_the_test_on_dev() -> None:
    scores = {"a": POOR, "c": GOOD}
    # Five groups, however they differ, cannot show anything.
    assert contenders(scores, ["a", "c"], [i // 4 for i in range(20)], resamples=99) == ("a", "c")


def test_scores_of_other_examples_are_refused() -> None:
    with pytest.raises(ScoreMismatch):
        contenders({"a": GOOD, "b": GOOD[:-1]}, ["a", "b"])
    with pytest.raises(KeyError):
        contenders({"a": GOOD}, ["a", "b"])


def test_pairs_of_two_that_cannot_win_are_not_named() -> None:
    assert named_pairs(["a", "b", "c", "d"], ["b"]) == [("a", "b"), ("b", "c"), ("b", "d")]
    assert named_pairs(["a", "b", "c"], ["b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(named_pairs(["a", "b", "c"], [])) == 3
