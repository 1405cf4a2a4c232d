"""Holds the judge against people before anything is climbed, and decides by the rule whether its scores count.

The rule stands in `evaluation.judge.agreement`: below it, the run is scored by the task's fallback metric. What the
judge says here is kept by request, like all of its replies, so that nothing is paid twice after a kill.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rung import runs
from rung.decision.judging import JudgeCheck, agreed, judge_from_record, judge_record
from rung.errors import ModelError, RungError, TaskError
from rung.evaluation.judge import CALLS, Judge, bound, judge_of
from rung.evaluation.judge.biases import PADDED, Bias, mean_bias, middling, padded, same_family, self_preference
from rung.evaluation.scorer import ScoringFailed
from rung.ladder.ledger import Ledger, Meter, Spent, stage_of
from rung.records import read_lines, write_json
from rung.resume import is_done, once, recorded
from rung.runs import Files
from rung.types import Answer, Example, MetricInfo, ModelSpec, Prediction, Score, SetName, Task

if TYPE_CHECKING:
    from rung.data.judged import Judged
    from rung.ladder.checking import Read
    from rung.ladder.judge_costs import JudgeShare
    from rung.ladder.opening import Opened
    from rung.ladder.options import Listener
    from rung.ladder.state import WholeRun

_BLOCK = 32  # answers between two words of progress

_OF_UNREAD = 0.0
"""Score of an answer whose judgement cannot be read, here as in the run."""


@dataclass(frozen=True)
class HeldJudge:
    """A judge that was held against people. metric: what scores the run, the judge's own or the fallback."""

    judge: Judge
    metric: MetricInfo
    check: JudgeCheck

    def corrected(self, score: Score, share: float = 1.0) -> Score:
        """The score with an interval that carries the judge's errors, where it counts and people scored answers.

        share: of the answers, those that came, so that the judge scored them.
        """
        from rung.evaluation.judge.powered import powered

        return powered(score, self.check.errors, share) if self.check.corrects else score

    def corrected_mean(self, mean: float) -> float:
        """A mean of the judge's scores, corrected as `corrected` does it."""
        return self.corrected(Score(mean, mean, mean, 1)).mean


def read_scored(read: Read) -> tuple[Judged, ...]:
    """The answers that people scored. Raises DataError as `read_judged` does."""
    from rung.data.judged import read_judged

    return read_judged(read.task, read.examples) if read.task.judged else ()


def hold_judge(
    read: Read,
    judged: Sequence[Judged],
    train: Sequence[Example],
    models: Opened,
    share: JudgeShare | None,
    ledger: Ledger,
    folder: Path,
    listener: Listener,
) -> HeldJudge | None:
    """The judge of the task, held against people; None where it has none. Read back where this run has done it.

    Called once the plan is shown. judged: what people scored. train: what is padded where nobody scored an answer.
    share: what an answer takes.
    Raises TaskError where the budget does not allow it, BudgetSpent and ModelError as the model does.
    """
    from rung.ladder.judge_costs import asked_at_first

    task, files, judge = read.task, Files(folder), models.helpers.get("judge")
    if task.judge is None or judge is None or share is None:
        return None
    asker = judge_of(task.judge, judge, files.judged, task.instruction)
    new = not is_done(files.judge)
    if new:
        known = len(read_lines(files.judged / CALLS)) / share.calls  # what an earlier command asked
        n = max(0.0, asked_at_first(len(judged), len(train)) - known)
        more = Spent(n * share.seconds, round(n * share.calls), n * share.usd)
        if (why := ledger.exceeded_by(more)) is not None:
            raise TaskError(f"{task.path}: the judge cannot be held against people: {why}. Give a larger budget.")
    meter = Meter((judge,), files.judged)

    def tell(share_done: float) -> None:
        meter.keep()
        listener.progress("holding the judge against people", share_done, None)

    record = once(files.judge, lambda: judge_record(check_judge(task, asker, judged, train, tell)))
    if new:
        runs.log(folder, "judged", stage=stage_of(folder, files.judged), **meter.record())
        meter.done()
    check = judge_from_record(record)
    metric = bound(read.metric, asker) if check.primary else fallback_of(task)
    if not check.primary:
        scored_by = {"scored_by": metric.name, "right_or_wrong": metric.right_or_wrong}
        write_json(files.task, {**(recorded(files.task) or {}), **scored_by})
        listener.say(f"The judge {check.name} is secondary: {agreed(check)}. Scores from here on are {metric.name}.")
    return HeldJudge(asker, metric, check)


def fallback_of(task: Task) -> MetricInfo:
    """The metric that counts where the judge is secondary."""
    from rung.evaluation.metrics import metric_for

    assert task.judge is not None
    return metric_for(task, task.judge.fallback)


def check_judge(
    task: Task, judge: Judge, judged: Sequence[Judged], train: Sequence[Example], tell: Callable[[float], None]
) -> JudgeCheck:
    """How the judge scores what people scored, and what it prefers beside the rubric."""
    from rung.evaluation.judge.agreement import agreement

    assert task.judge is not None
    name = task.judge.model.name
    plain = [j.answer for j in judged] or middling(train[:PADDED])
    orders = _in_blocks(judge, plain, lambda share: tell(share / 2))
    longer = [padded(answer) for answer in plain[:PADDED]]
    padded_orders = _in_blocks(judge, longer, lambda share: tell((1 + share) / 2))
    scores = [_mean(order) for order in orders]
    differences = [
        long - short
        for long, short in zip(map(_mean, padded_orders), scores, strict=False)
        if long is not None and short is not None
    ]
    check = JudgeCheck(
        name=name,
        mode=task.judge.mode,
        samples=task.judge.samples,
        fallback=task.judge.fallback,
        unread=sum(score is None for score in scores),
        length=mean_bias(differences),
        position=_position(orders),
        relatives=tuple(m.name for m in task.models if same_family(_served_as(m), _served_as(task.judge.model))),
    )
    if not judged:
        return check
    by_judge = [_OF_UNREAD if score is None else score for score in scores]
    by_people = [j.score for j in judged]
    errors = [p - s for p, s in zip(by_people, by_judge, strict=True)]
    models = [j.model for j in judged]
    return replace(
        check,
        agreement=agreement(by_people, by_judge, seed=task.seed),
        people=sum(by_people) / len(by_people),
        judge=sum(by_judge) / len(by_judge),
        scores=tuple(by_judge),
        errors=_by_input(judged, errors),
        family=self_preference([-e for e in errors], models, _served_as(task.judge.model)),
    )


def _by_input(judged: Sequence[Judged], errors: Sequence[float]) -> tuple[float, ...]:
    """Means over the answers to one input: these are alike, and must not count as so many independent errors."""
    same: dict[str, list[float]] = {}
    for one, error in zip(judged, errors, strict=True):
        same.setdefault(one.answer.query.text, []).append(error)
    return tuple(sum(own) / len(own) for own in same.values())


def _served_as(spec: ModelSpec) -> str:
    """What an endpoint calls the model, whatever label the task gives it; of any other, its name in the task."""
    with contextlib.suppress(ValueError):
        if isinstance(entry := json.loads(spec.spec), dict):
            return str(entry.get("name") or spec.name)
    return spec.name


def seen_on_test(
    run: WholeRun, answers: Mapping[str, Sequence[Prediction]], test: Sequence[Example]
) -> JudgeCheck | None:
    """The check with what only the opened test shows: how a judge that counts scores the best, beside what people
    scored; or the means that a secondary one gives. None without a judge. answers: of each finalist to the test.
    """
    held = run.first.held
    if held is None:
        return None
    if held.check.primary:
        best = max(answers, key=lambda name: sum(p.score or 0.0 for p in answers[name]))
        return unlike(held.check, best, answers[best])
    meter, check = Meter((run.first.helpers["judge"],)), held.check
    try:
        check = beside(held, answers, test)
    except (RungError, ScoringFailed) as fault:  # these means decide nothing, so that nothing waits for them
        runs.log(run.folder, "not checked", what="the judge's own means on the test", why=str(fault))
    runs.log(run.folder, "judged", stage="judge of the test", **meter.record())
    return check


def judge_baselines(run: WholeRun, which: SetName, asked: Sequence[Example]) -> None:
    """Has a judge that counts score the baselines' answers to a set, and notes what that took. Done before."""
    from rung.ladder.finalists import answers_of_baselines

    held = run.first.held
    if held is None or not held.check.primary or is_done(run.first.files.baselines / which):
        return
    meter = Meter((run.first.helpers["judge"],))
    run.first.listener.progress(f"judging the baselines on {which}", 0.0, None)
    answers_of_baselines(run.first, asked, which)
    runs.log(run.folder, "baselines judged", stage=f"baselines of {which}", **meter.record())


def beside(held: HeldJudge, answers: Mapping[str, Sequence[Prediction]], test: Sequence[Example]) -> JudgeCheck:
    """The check of a secondary judge, with its means of the finalists."""
    from rung.evaluation.statistics import score

    means = {}
    for name, predictions in answers.items():
        asked = [Answer(e.query, p.text, e.references) for p, e in zip(predictions, test, strict=True) if not p.error]
        judged = [_OF_UNREAD if s is None else s for s in held.judge.try_score(asked)]
        means[name] = score([*judged, *[0.0] * (len(predictions) - len(asked))])
    return replace(held.check, beside=tuple(means.items()))


def unlike(check: JudgeCheck, name: str, predictions: Sequence[Prediction]) -> JudgeCheck:
    """The check, with the judge's means of a candidate's answers and of those that people scored, where they differ."""
    from rung.evaluation.judge.biases import welch

    if not check.corrects or check.judge is None or len(predictions) < 2:
        return check
    theirs = [p.score or 0.0 for p in predictions]
    found = welch(theirs, check.scores)
    if found is None or not found.found:
        return check
    return replace(check, unlike=(name, sum(theirs) / len(theirs), check.judge))


def _in_blocks(
    judge: Judge, answers: Sequence[Answer], tell: Callable[[float], None]
) -> list[tuple[float | None, ...]]:
    found: list[tuple[float | None, ...]] = []
    for start in range(0, len(answers), _BLOCK):
        tell(start / len(answers))
        try:
            found += judge.in_each_order(answers[start : start + _BLOCK])
        except ScoringFailed as fault:
            raise ModelError(
                f"the judge {judge.spec.model.name}: {fault}. It is held against people before anything is built: run "
                "the same again."
            ) from fault
    return found


def _position(orders: Sequence[tuple[float | None, ...]]) -> Bias | None:
    """How much more an answer scores where it stands first; None where each is graded alone."""
    pairs = [(o[0], o[1]) for o in orders if len(o) == 2]
    return mean_bias([first - second for first, second in pairs if first is not None and second is not None])


def _mean(order: tuple[float | None, ...]) -> float | None:
    known = [s for s in order if s is not None]
    return sum(known) / len(known) if len(known) == len(order) else None
