from __future__ import annotations

from dataclasses import replace

import pytest

from export_cases import ask_of
from rung.evaluation.metrics import METRICS
from rung.serving.exports.parity import ParityResult, ScoreChange, measured
from rung.types import Decoding, Solution

SOLUTION = Solution("s", "Answer.", Decoding(8))
RESULT = ParityResult("r", "recorded on dev", 100, 98, ())


def change(difference: float, low: float, high: float) -> ScoreChange:
    return ScoreChange(0.9, 0.9 + difference, difference, low, high)


def test_equal_answers_are_counted_with_the_space_around_them_left_out() -> None:
    asks = [ask_of(f"{i}", "yes", ("yes",)) for i in range(4)]
    found = measured(
        SOLUTION, asks, ["yes", " yes\n", "no", "yes."], metric=METRICS["exact_match"], runtime="r", reference="here"
    )
    assert (found.rows, found.equal, found.share) == (4, 2, 0.5)
    assert [(d.id, d.export) for d in found.differing] == [("2", "no"), ("3", "yes.")]
    assert found.score is not None and (found.score.before, found.score.difference) == (1.0, -0.5)


def test_bytes_that_are_no_character_are_no_difference() -> None:
    found = measured(SOLUTION, [ask_of("1", "a caf\ufffd")], ["a caf"], metric=None, runtime="r", reference="here")
    assert found.equal == 1


def test_space_that_an_answer_begins_with_counts_where_the_bundle_keeps_it() -> None:
    keeps = replace(SOLUTION, decoding=Decoding(8, keep_space=True))
    found = measured(keeps, [ask_of("1", " yes")], [" yes "], metric=None, runtime="r", reference="here")
    assert found.equal == 1 and found.score is None


@pytest.mark.parametrize(
    ("result", "fails"),
    [
        (RESULT, False),
        (replace(RESULT, equal=97), True),
        (replace(RESULT, score=change(-0.01, -0.03, 0.01)), False),
        (replace(RESULT, score=change(-0.02, -0.04, 0.0)), True),
        (replace(RESULT, score=change(0.02, 0.0, 0.04)), False),
        (replace(RESULT, since_recorded=change(-0.1, -0.2, -0.03)), True),
        (replace(RESULT, since_recorded=change(-0.1, -0.2, -0.01)), False),
    ],
)
def test_at_the_same_precision_98_percent_are_equal_and_the_score_drops_by_a_point_at_most(
    result: ParityResult, fails: bool
) -> None:
    assert (result.fault(quantised=False) is not None) == fails


@pytest.mark.parametrize(("high", "fails"), [(-0.03, True), (-0.01, False), (0.05, False)])
def test_a_quantised_export_fails_only_where_its_drop_is_shown_to_be_large(high: float, fails: bool) -> None:
    result = replace(RESULT, equal=10, score=change(-0.1, -0.2, high))
    assert (result.fault(quantised=True) is not None) == fails
