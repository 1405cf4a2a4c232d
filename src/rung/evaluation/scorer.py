"""Scoring: answers in, one outcome each out. The only way in which a metric is called.

A metric that raises spoils no run: its batch is scored again answer by answer, and an answer that raises by itself
scores 0 with the reason. Knows nothing of what is scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rung.types import Answer, MetricInfo, Outcome, Query

_NOBODY = Query("", "")


@dataclass(frozen=True)
class Scorer:
    """A metric that never raises for an answer."""

    metric: MetricInfo

    def score(self, answers: Sequence[Answer]) -> list[Outcome]:
        """One outcome per answer, in order."""
        if not answers:
            return []
        try:
            return [Outcome(s) for s in _checked(self.metric, self.metric.score(answers), len(answers))]
        except Exception:  # a user's metric raises what it likes
            return [self._alone(answer) for answer in answers]

    def one(self, text: str, references: Sequence[str], query: Query = _NOBODY) -> float:
        """The score of one text; 0 where the metric cannot score it."""
        return self.score([Answer(query, text, tuple(references))])[0].score

    def _alone(self, answer: Answer) -> Outcome:
        try:
            return Outcome(_checked(self.metric, self.metric.score([answer]), 1)[0])
        except Exception as error:
            fact = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Outcome(0.0, fact)


def _checked(metric: MetricInfo, scores: Sequence[float], n: int) -> list[float]:
    found = [float(s) for s in scores]
    if len(found) != n:
        raise ValueError(f"{metric.name} gave {len(found)} scores for {n} answers")
    for s in found:
        if not math.isfinite(s) or not 0.0 <= s <= 1.0:
            raise ValueError(f"{metric.name} gave {s}; a score is a number in [0, 1]")
    return found
