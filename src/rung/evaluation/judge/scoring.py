"""A judge scores a batch of answers: every request is asked, and paid, once, whatever is killed in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.errors import about_its_prompt, may_pass
from rung.evaluation.judge.prompts import TEMPERATURE, graded, pairwise
from rung.evaluation.judge.replies import grade, preference
from rung.evaluation.scorer import NoScore
from rung.types import Answer, Generation, JudgeSpec, Request

if TYPE_CHECKING:
    from rung.models.journal import Journal

AGAIN = 1_000
"""Added to the seed of a request whose reply could not be read, and which is asked once more."""


@dataclass(frozen=True)
class _Asked:
    """One request about an answer. place: of the answer in its batch. first: in a pair, the answer stands as A."""

    place: int
    seed: int
    first: bool = True


@dataclass(frozen=True)
class Judge:
    """A judge of one task. instruction: what the answers were asked for.

    Answers are scored in batches by `score`, or by `try_score` where a reply that cannot be read is no fault.
    """

    spec: JudgeSpec
    journal: Journal
    instruction: str = ""

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """Scores in [0, 1], in order: the mean over samples, in pairs over both orders.

        Raises NoScore where the replies about an answer cannot be read or did not come, BudgetSpent and ModelError as
        the model does.
        """
        found = self.try_score(answers)
        if any(score is None for score in found):
            raise NoScore(f"the judge {self.journal.model.name} gave no {self._what} that can be read")
        return [score for score in found if score is not None]

    def try_score(self, answers: Sequence[Answer]) -> list[float | None]:
        """As `score`; None where the replies about an answer cannot be read.

        Raises NoScore where one did not come, with the error as the model says it: the answer can be judged later.
        """
        by_order = self.in_each_order(answers)
        return [
            None if any(s is None for s in both) else sum(s for s in both if s is not None) / len(both)
            for both in by_order
        ]

    def in_each_order(self, answers: Sequence[Answer]) -> list[tuple[float | None, ...]]:
        """For each answer its mean score in each order: (as A, as B) in pairs, one value where it is graded alone.

        Raises NoScore as `try_score` does.
        """
        orders = (True, False) if self.spec.mode == "pairwise" else (True,)
        plan = [_Asked(i, seed, o) for i in range(len(answers)) for o in orders for seed in range(self.spec.samples)]
        values = self._read(plan, answers)
        means = [_mean(values[at : at + self.spec.samples]) for at in range(0, len(values), self.spec.samples)]
        return [tuple(means[at : at + len(orders)]) for at in range(0, len(means), len(orders))]

    def _read(self, plan: Sequence[_Asked], answers: Sequence[Answer]) -> list[float | None]:
        """What the judge says to each request; where that cannot be read, what it says when asked once more."""
        what = f"asking the judge {self.journal.model.name}"
        cold = 0.0 if self.spec.samples == 1 else TEMPERATURE
        replies = self.journal.generate([self._request(a, answers, a.seed, cold) for a in plan], what=what)
        values = [self._value(a, reply) for a, reply in zip(plan, replies, strict=True)]
        unread = [i for i, value in enumerate(values) if value is None and not about_its_prompt(replies[i].error or "")]
        if unread:
            again = [self._request(plan[i], answers, plan[i].seed + AGAIN, TEMPERATURE) for i in unread]
            for i, reply in zip(unread, self.journal.generate(again, what=what), strict=True):
                values[i] = self._value(plan[i], reply)
                if values[i] is None and may_pass(reply.error):
                    raise NoScore(reply.error)
        return values

    def _request(self, asked: _Asked, answers: Sequence[Answer], seed: int, temperature: float) -> Request:
        answer = answers[asked.place]
        if self.spec.mode == "graded":
            return graded(self.spec, answer, self.instruction, seed, temperature)
        return pairwise(self.spec, answer, self.instruction, seed, temperature, first=asked.first)

    def _value(self, asked: _Asked, reply: Generation) -> float | None:
        if reply.error is not None and not reply.text:
            return None
        return grade(reply.text) if self.spec.mode == "graded" else preference(reply.text, first=asked.first)

    @property
    def _what(self) -> str:
        return "grade" if self.spec.mode == "graded" else "preference"


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the samples that can be read; None where none can."""
    read = [v for v in values if v is not None]
    return sum(read) / len(read) if read else None
