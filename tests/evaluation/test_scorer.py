"""Scoring in batches, whatever a metric does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rung.evaluation.metrics import METRICS
from rung.evaluation.scorer import Scorer
from rung.types import Answer, MetricInfo, Outcome, Query


def answers(*texts: str) -> list[Answer]:
    return [Answer(Query(t, t), t, ("a",)) for t in texts]


def test_outcomes_stand_in_the_order_of_the_answers() -> None:
    assert [o.score for o in Scorer(METRICS["exact_match"]).score(answers("a", "b", "a"))] == [1.0, 0.0, 1.0]
    assert Scorer(METRICS["exact_match"]).score([]) == []
    assert Scorer(METRICS["exact_match"]).one("b", ["a", "b"]) == 1.0


def test_a_batch_that_raises_is_scored_answer_by_answer() -> None:
    calls: list[int] = []

    def score(batch: Sequence[Answer]) -> list[float]:
        calls.append(len(batch))
        if any(a.text == "bad" for a in batch):
            raise KeyError("bad")
        return [1.0] * len(batch)

    outcomes = Scorer(MetricInfo("m", score)).score(answers("a", "bad", "c"))
    assert outcomes == [Outcome(1.0), Outcome(0.0, "KeyError: 'bad'"), Outcome(1.0)]
    assert calls == [3, 1, 1, 1]


@pytest.mark.parametrize("given", [[0.5], [2.0, 0.5], [float("nan"), 1.0], None, ["x", 1.0]])
def test_nonsense_from_a_metric_scores_zero_with_a_reason(given: Any) -> None:
    outcomes = Scorer(MetricInfo("m", lambda batch: given)).score(answers("a", "b"))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert (outcome.score == 0.0 and outcome.error) or given == [0.5]


def test_an_interruption_is_not_swallowed() -> None:
    def score(batch: Sequence[Answer]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scorer(MetricInfo("m", score)).score(answers("a"))
