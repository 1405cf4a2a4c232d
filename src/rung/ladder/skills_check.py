"""What a fine-tuned finalist has forgotten, and its repair by replay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rung import runs
from rung.decision.evidence import Skills
from rung.errors import BudgetSpent, ModelError, TrainingError
from rung.evaluation.skills import SkillsReport
from rung.ladder.climbed import Built, Climbed
from rung.ladder.ledger import COSTS, Meter, stage_of
from rung.ladder.state import RunState, tidy
from rung.resume import is_done, once, once_for_all, record_of
from rung.strategies import REPAIRED, STRATEGIES, function_of
from rung.types import Skipped, SkipReason, kind_of

_NEAR = 0.1
"""A fine-tuned solution this far below the best on dev is hardly shipped, so nothing is spent on its skills."""


@dataclass(frozen=True)
class Checked:
    """The solution to go on with, and the skills of what was checked."""

    keep: str
    skills: tuple[Skills, ...] = ()


def check_skills(run: RunState, climbed: Climbed, name: str, floor: float) -> Checked:
    """Compares a fine-tuned finalist with its base model; after a real loss tries to repair it.

    floor: dev score of the best baseline that learns nothing. The repaired solution is kept where dev is no worse and
    the skills are better: the task comes first.
    """
    built = climbed.built[name]
    if built.solution.adapter is None or not may_be_shipped(climbed, name, floor):
        return Checked(name)
    report = _report(run, climbed, name)
    if report is None:
        return Checked(name)
    skills = _compared(name, report)
    repair = STRATEGIES[kind_of(name)].repair if kind_of(name) in STRATEGIES else None
    if not report.loses or repair is None:
        return Checked(name, (skills,))
    run.listener.say(
        f"{name} answers {100 * -report.total.difference:.0f} points fewer of {report.total.n} general prompts; "
        "training it on with the base model's own answers mixed in."
    )
    other = run.named(REPAIRED.format(kind_of(name)))
    repaired = _repair(run, climbed, name, other)
    if repaired is None or repaired.solution.adapter is None:
        return Checked(name, (skills,))
    climbed.built[other] = repaired
    try:
        again = _skills_of(run, other, repaired.solution.adapter)
    except (BudgetSpent, ModelError) as error:
        runs.log(run.folder, "not checked", solution=other, why=str(error))
        return Checked(name, (skills,))
    as_good = repaired.dev.mean >= built.dev.mean
    better = again.total.difference > report.total.difference
    keep = other if as_good and better else name
    return Checked(keep, (replace(skills, repaired=other), _compared(other, again)))


def skills_of(run: RunState, climbed: Climbed, name: str) -> Skills | None:
    """The general skills of a fine-tuned solution; None where the budget or a fault kept them from being measured."""
    report = _report(run, climbed, name)
    return _compared(name, report) if report is not None else None


def _report(run: RunState, climbed: Climbed, name: str) -> SkillsReport | None:
    from rung.evaluation.skills import suite

    adapter = climbed.built[name].solution.adapter
    assert adapter is not None, "only what was fine-tuned can have forgotten something"
    if not is_done(_record(run, name)) and run.over_budget(climbed, 0.0, len(suite()), usd=run.plan.skills.usd):
        return None
    run.listener.progress(f"checking what {name} has forgotten", 0.0, None)
    meter = Meter(run.asked)
    try:
        report = _skills_of(run, name, adapter)
    except (BudgetSpent, ModelError) as error:
        runs.log(run.folder, "not checked", solution=name, why=str(error))
        return None
    runs.log(run.folder, "checked", stage=f"skills of {name}", solution=name, loses=report.loses, **meter.record())
    return report


def _compared(name: str, report: SkillsReport) -> Skills:
    """As the verdict reads it."""
    total = report.total
    return Skills(name, total.difference, total.low, total.high, total.n, report.loses, base=total.base)


def may_be_shipped(climbed: Climbed, name: str, floor: float) -> bool:
    """Whether a fine-tuned solution is ahead of the floor and of every prompt that costs less, and near the best."""
    cheaper = climbed.up_to(climbed.built[name].solution.model)
    prompts = [b.dev.mean for b in climbed.built.values() if b.family == "prompt" and b.solution.model in cheaper]
    best = max(b.dev.mean for b in climbed.built.values())
    return climbed.built[name].dev.mean > max([*prompts, best - _NEAR, floor])


def _repair(run: RunState, climbed: Climbed, name: str, other: str) -> Built | None:
    """The repaired solution with its answers to dev; None where the budget or a fault kept it from being built."""
    from rung.solutions.store import load_solution, save_solution
    from rung.trials.trial import attempt

    folder = run.files.solution(other)
    meter = Meter(run.asked, folder)
    repair = STRATEGIES[kind_of(name)].repair
    assert repair is not None
    try:
        workshop = run.workshop(folder, climbed, meter)
        if is_done(folder / "solution.json"):
            solution = replace(load_solution(folder), model=run.name)
        else:
            tuned = replace(climbed.built[name].solution, name=kind_of(name))  # as strategies call it
            built = function_of(repair)(workshop, tuned)
            solution = replace(built, name=other, model=run.name)
            solution = save_solution(solution, folder, passages=run.inputs.passages)
        predictions = attempt(workshop, solution, run.inputs.dev, folder / "predictions.dev.jsonl")
    except (BudgetSpent, TrainingError, ModelError) as failed:
        reason: SkipReason = "budget" if isinstance(failed, BudgetSpent) else "fault"
        runs.log(run.folder, "not repaired", solution=other, why=str(failed))
        climbed.skipped[other] = Skipped(
            other, climbed.built[name].family, reason, str(failed), begun=True, model=run.name
        )
        return None
    costs, stage = once(folder / "built.json", lambda: {**meter.record(), "left": None}), stage_of(run.folder, folder)
    if stage not in {e.get("stage") for e in runs.standing_events(run.folder)}:  # or a kill came between the two
        runs.log(run.folder, "repaired", stage=stage, solution=other, **{k: costs[k] for k in COSTS})
    meter.done()
    tidy(folder)
    each, most = run.usd_of_answers(predictions)
    score = run.score(predictions)
    repaired = Built(solution, tuple(predictions), score, usd_per_answer=each, most_usd=most)
    run.listener.tried(other, repaired.family, repaired.dev, float(record_of(folder / "built.json")["seconds"]))
    return repaired


def _skills_of(run: RunState, name: str, adapter: str) -> SkillsReport:
    """The solution's skills against the base's. The base model's outcomes are kept for all runs with that model."""
    from rung.evaluation.skills import answered, compare_skills, suite_version
    from rung.models import answers_key
    from rung.models.cache import cache_folder

    shared = cache_folder() / "skills" / f"{answers_key(run.model)}-{suite_version()}.json"
    base = once_for_all(shared, lambda: {"outcomes": answered(run.model, None)})
    tuned = once(_record(run, name), lambda: {"outcomes": answered(run.model, adapter)})
    return compare_skills([bool(x) for x in base["outcomes"]], [bool(x) for x in tuned["outcomes"]])


def _record(run: RunState, name: str) -> Path:
    return run.files.solution(name) / "skills.json"
