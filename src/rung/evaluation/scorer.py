"""Scoring: answers in, one outcome each out. This is the only caller of a metric.

A metric that raises does not end the run: its batch is scored again, answer by answer, and an answer that raises alone
scores 0 with the reason. Only what ends the model of a judge is passed on. Knows nothing about solutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rung.errors import RungError
from rung.types import Answer, MetricInfo, Outcome, Query

_NOBODY = Query("", "")


class ScoringFailed(Exception):
    """A metric could not score an answer; the message gives the place and the reason. It never leaves a Scorer."""


class NoScore(ScoringFailed):
    """A metric gave something else than a number in [0, 1], which is a fault of the metric and not of the answer."""


@dataclass(frozen=True)
class Scorer:
    """A metric that never raises for an answer. A judge may raise BudgetSpent and ModelError, as its model does."""

    metric: MetricInfo

    def score(self, answers: Sequence[Answer]) -> list[Outcome]:
        """One outcome per answer, in order."""
        if not answers:
            return []
        try:
            return [Outcome(s) for s in _checked(self.metric, self.metric.score(answers), len(answers))]
        except Exception as error:  # a user's metric may raise anything
            self._pass_on(error)
            return [self._alone(answer) for answer in answers]

    def one(self, text: str, references: Sequence[str], query: Query = _NOBODY) -> float:
        """The score of one text; 0 where the metric cannot score it."""
        return self.score([Answer(query, text, tuple(references))])[0].score

    def _alone(self, answer: Answer) -> Outcome:
        try:
            return Outcome(_checked(self.metric, self.metric.score([answer]), 1)[0])
        except Exception as error:
            self._pass_on(error)
            if isinstance(error, ScoringFailed | RungError):
                return Outcome(0.0, str(error).removesuffix("."))
            return Outcome(0.0, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _pass_on(self, error: Exception) -> None:
        """Raises what concerns the model of a judge and no answer: its budget is spent, or it cannot be asked."""
        if self.metric.needs_judge and isinstance(error, RungError):
            raise error


def _checked(metric: MetricInfo, scores: Sequence[float], n: int) -> list[float]:
    numbers = [float(s) for s in scores]
    if len(numbers) != n:
        raise ScoringFailed(f"{metric.name} gave {len(numbers)} scores for {n} answers")
    for s in numbers:
        if not math.isfinite(s) or not 0.0 <= s <= 1.0:
            raise NoScore(f"{metric.name} gave {s}; a score is a number in [0, 1]")
    return numbers
