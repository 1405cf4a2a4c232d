"""What a judge takes, said before it is asked: for one answer, in every step of the plan, and held against people.

No call is made for an estimate: tokens are counted here, and the speed of a judge over the network is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.ladder.ledger import Spent
from rung.ladder.plan import Plan, Step
from rung.records import from_record
from rung.strategies import Cost, function_of
from rung.types import Answer, Example, JudgeSpec, Measured, Speed, Task

if TYPE_CHECKING:
    from rung.models.metering import Metered

REMOTE = Speed(read=20_000.0, write=400.0, train=1.0)
"""Tokens a second that are assumed of a judge over the network, with several calls in flight."""

REPLY = 40
"""Tokens of a usual reply: a sentence and a grade."""

_SAMPLED = 16  # train rows that prompts of the judge are made of
_BASELINES = 2  # that are judged: the most frequent answer, and one that learns


@dataclass(frozen=True)
class JudgeShare:
    """What the judge takes for the score of one answer: calls, tokens, seconds, and dollars for tokens.

    beside: what it is asked beside the answers of the steps, in the plan of one model.
    """

    calls: int
    tokens: float
    seconds: float
    usd: float
    beside: tuple[Step, ...] = ()

    def of_baselines(self, rows: int) -> Spent:
        """What the judge takes for the baselines' answers to so many rows."""
        n = _BASELINES * rows
        return Spent(n * self.seconds, n * self.calls, n * self.usd)

    def of(self, step: Step, answers: int) -> Step:
        """The step, with so many answers of it judged."""
        return replace(
            step,
            calls=step.calls + answers * self.calls,
            tokens=step.tokens + round(answers * self.tokens),
            seconds=round(step.seconds + answers * self.seconds, 2),
            usd=round(step.usd + answers * self.usd, 6),
        )


def share_of(
    task: Task, train: Sequence[Example], judge: Metered | None, earlier: Mapping[str, Any] | None
) -> JudgeShare | None:
    """What one answer takes; None where the task has no judge. earlier: plan.json of this run, which then counts."""
    if task.judge is None or judge is None:
        return None
    if earlier is not None and earlier.get("judge"):
        return from_record(JudgeShare, earlier["judge"])
    from rung.evaluation.judge.prompts import graded, pairwise

    some = train[:_SAMPLED]
    answers = [Answer(e.query, e.output, e.references) for e in some]
    spec: JudgeSpec = task.judge
    if spec.mode == "graded":
        requests = [graded(spec, answer, task.instruction, 0, 0.0) for answer in answers]
    else:
        requests = [pairwise(spec, answer, task.instruction, 0, 0.0, first=True) for answer in answers]
    read = sum(judge.count_tokens(m.content) for r in requests for m in r.messages) / max(1, len(requests))
    calls = spec.calls_each
    cost = Cost(calls, calls * read, calls * (REPLY + judge.thought_tokens), sent=calls * read)
    speed = _speed(judge)
    return JudgeShare(
        calls=calls,
        tokens=round(cost.read + cost.written, 1),
        seconds=round(cost.read / speed.read + cost.written / speed.write, 3),
        usd=round(cost.usd(judge.price), 9),
    )


def _speed(judge: Metered) -> Speed:
    """As it measures itself on this machine; over the network, or where calls would tell, assumed."""
    here = judge.timed is None and isinstance(judge.inner, Measured)
    return judge.speed() if here else REMOTE


def with_judge(plans: Mapping[str, Plan], share: JudgeShare | None, judged: int) -> dict[str, Plan]:
    """The plans with what the judge takes in every step that scores answers, and a step of its own in the first.

    judged: number of answers that people scored; 0: none. The step holds what it takes to hold the judge against
    people, to pad answers, and to score the baselines.
    """
    if share is None:
        return dict(plans)
    found = {name: _judging(plan, share) for name, plan in plans.items()}
    first, plan = next(iter(found.items()))
    found[first] = replace(plan, judging=replace(share, beside=(_own_step(plan, share, judged),)))
    return found


def asked_at_first(judged: int, train: int) -> int:
    """Answers that the judge scores before the climb. train: number of train rows."""
    from rung.evaluation.judge.biases import PADDED

    return judged + min(PADDED, judged) if judged else 2 * min(PADDED, train)


def _own_step(plan: Plan, share: JudgeShare, judged: int) -> Step:
    baselines = _BASELINES * (plan.sizes["dev"] + plan.sizes["test"])
    any_step = plan.steps[0]
    step = Step("judge", "prompt", True, "", kind="judge", model=any_step.model)
    return share.of(step, asked_at_first(judged, plan.sizes["train"]) + baselines)


def _judging(plan: Plan, share: JudgeShare) -> Plan:
    """The plan where every scored answer is judged. What the teacher writes is not scored, but its answers to dev; what
    is said to unanswerable questions is read without a judge."""

    def own(step: Step) -> Step:
        if not step.applies and not step.calls:
            return step
        cost: Cost = function_of(step.strategy.cost)(plan.texts)
        return share.of(step, cost.calls)

    return replace(
        plan,
        steps=tuple(own(step) for step in plan.steps),
        diagnosis=share.of(plan.diagnosis, plan.diagnosis.calls),
        pilot=share.of(plan.pilot, plan.pilot.calls),
        teacher=share.of(plan.teacher, plan.teacher.calls),
        shortening=share.of(plan.shortening, plan.shortening.calls),
        search_failures=share.of(plan.search_failures, plan.search_failures.calls),
        judging=share,
    )


def share_record(share: JudgeShare | None) -> dict[str, Any]:
    """As plan.json holds it."""
    return {} if share is None else {"judge": {k: v for k, v in asdict(share).items() if k != "beside"}}
