"""The teacher on dev: how far whoever learns its answers can be expected to come.

It is asked once a run, with the best prompt there is, before any strategy that learns its answers is weighed. It is no
candidate: what it reaches is a ceiling to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rung import runs
from rung.errors import BudgetSpent, ModelError
from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Meter, stage_of
from rung.ladder.state import RunState, WholeRun, scale_of
from rung.resume import once, recorded
from rung.types import Score

RECORD = "teacher.json"
"""In the folder of the teacher: {mean, low, high, n, solution, teacher}."""


def teacher_on_dev(run: RunState, climbed: Climbed) -> Score | None:
    """The teacher's score on dev with the best prompt of this model; None where it was not measured.

    Its answers stand in teacher/predictions.dev.jsonl, its score in teacher/teacher.json, which is read back. It is not
    asked where the task has no teacher, no prompt is built, or the budget does not allow it.
    """
    from rung.teaching.answering import held_to
    from rung.trials.trial import attempt

    folder, teacher, step = run.files.teacher, run.helpers.get("teacher"), run.plan.teacher
    if (known := recorded(folder / RECORD)) is not None:
        return score_of_teacher(known)
    name = climbed.best("prompt", run.name)
    if teacher is None or name is None or not step.applies:
        return None
    if (why := run.over_budget(climbed, step.seconds, step.calls, usd=step.usd)) is not None:
        runs.log(run.folder, "teacher not asked", why=why)
        return None
    meter = Meter(run.asked, folder)
    try:
        workshop = run.workshop(folder, climbed, meter)
        asking = held_to(workshop, teacher, replace(climbed.built[name].solution, constraint=run.inputs.constraint))
        answers = attempt(workshop, asking, run.inputs.dev, folder / "predictions.dev.jsonl", model=teacher)
    except (BudgetSpent, ModelError) as failed:
        runs.log(run.folder, "teacher not asked", why=str(failed))
        return None
    score = run.score(answers)
    record = {"mean": score.mean, "low": score.low, "high": score.high, "n": score.n}
    once(folder / RECORD, lambda: {**record, "solution": name, "teacher": teacher.name})
    runs.log(run.folder, "taught", stage=stage_of(run.folder, folder), solution=name, **meter.record())
    meter.done()
    run.listener.say(f"the teacher on dev: {scale_of(run).full(score)}")
    return score


def score_of_teacher(record: Mapping[str, Any]) -> Score:
    """The score that the record holds."""
    return Score(record["mean"], record["low"], record["high"], record["n"])


def taught_by_others(run: WholeRun, climbed: Climbed) -> list[dict[str, Any]]:
    """Fields of Taught: what was learnt beside train for each candidate, as its folder says it."""
    from rung.strategies.distilling import taught_counts

    found = []
    for name in climbed.built:
        if counts := taught_counts(run.files.solution(name)):
            left_out = ", ".join(f"{n:,} {why}" for why, n in counts["left_out"].items())
            facts = {"by": counts["by"], "asked": counts["asked"], "kept": counts["kept"], "left_out": left_out}
            found.append({"candidate": name, **facts})
    return found
