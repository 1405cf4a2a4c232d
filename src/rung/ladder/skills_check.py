"""What a fine-tuned finalist has forgotten, and its repair by replay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rung import runs
from rung.decision.evidence import Skills
from rung.errors import BudgetSpent, ModelError, TrainingError
from rung.evaluation.skills import SkillsReport
from rung.ladder.building import noted_once, solution_once
from rung.ladder.climbed import Built, Climbed
from rung.ladder.finalist_checks import not_measured
from rung.ladder.ledger import Meter, spent_on
from rung.ladder.plan import cost_of_suite
from rung.ladder.plan_rates import seconds_of
from rung.ladder.state import LEAST_OF_A_STEP, RunState
from rung.resume import is_done, once, once_for_all
from rung.strategies import REPAIRED, STRATEGIES, Cost, function_of
from rung.types import Skipped, SkipReason, kind_of

_NEAR = 0.1
"""A fine-tuned solution this far below the best on dev is hardly shipped, so nothing is spent on its skills."""


@dataclass(frozen=True)
class Checked:
    """The solution to go on with, and the skills of what was checked. said: what kept some from being measured, as a
    whole sentence; else empty."""

    keep: str
    skills: tuple[Skills, ...] = ()
    said: str = ""


def check_skills(run: RunState, climbed: Climbed, name: str, floor: float) -> Checked:
    """Compares a fine-tuned finalist with its base model; after a real loss tries to repair it.

    floor: dev score of the best baseline that learns nothing. The repaired solution is kept where dev is no worse and
    the skills are better: the task comes first. What an earlier command measured is told whatever is known by now.
    """
    built = climbed.built[name]
    if built.solution.adapter is None:
        return Checked(name)
    why = hardly_shipped(climbed, name, floor)
    if why is not None and not is_done(_record(run, name)):
        return Checked(name, said=_unmeasured(name, f"it is {why}"))
    report = _report(run, climbed, name)
    if isinstance(report, str):
        return Checked(name, said=_unmeasured(name, report))
    skills = _compared(name, report)
    repair = STRATEGIES[kind_of(name)].repair if kind_of(name) in STRATEGIES else None
    if not report.loses or repair is None:
        return Checked(name, (skills,))
    other = run.named(REPAIRED.format(kind_of(name)))
    if why is not None and not is_done(_record(run, other)):
        climbed.skipped[other] = Skipped(other, built.family, "gain", f"{name} is {why}", model=run.name)
        runs.log(run.folder, "not repaired", solution=other, why=f"{name} is {why}")
        return Checked(name, (skills,))
    if (late := _no_time_to_repair(run, climbed, name, other)) is not None:
        climbed.skipped[other] = Skipped(other, built.family, "budget", late, model=run.name)
        runs.log(run.folder, "not repaired", solution=other, why=late)
        run.listener.skipped(other, late)
        return Checked(name, (skills,))
    run.listener.say(
        f"{name} answers {100 * -report.total.difference:.0f} points fewer of {report.total.n} general prompts; "
        "training it on with the base model's own answers mixed in."
    )
    repaired = _repair(run, climbed, name, other)
    if repaired is None or repaired.solution.adapter is None:
        return Checked(name, (skills,))
    climbed.built[other] = repaired
    try:
        again = _skills_of(run, other, repaired.solution.adapter)
    except (BudgetSpent, ModelError) as error:
        runs.log(run.folder, "not checked", solution=other, why=str(error))
        return Checked(name, (skills,), _unmeasured(other, str(error)))
    as_good = repaired.dev.mean >= built.dev.mean
    better = again.total.difference > report.total.difference
    keep = other if as_good and better else name
    return Checked(keep, (replace(skills, repaired=other), _compared(other, again)))


def skills_of(run: RunState, climbed: Climbed, name: str) -> Checked:
    """A fine-tuned solution with its general skills, unless the budget or a fault kept them from being measured."""
    report = _report(run, climbed, name)
    if isinstance(report, str):
        return Checked(name, said=_unmeasured(name, report))
    return Checked(name, (_compared(name, report),))


def _unmeasured(name: str, why: str) -> str:
    return not_measured(f"What {name} has forgotten", why)


def _report(run: RunState, climbed: Climbed, name: str) -> SkillsReport | str:
    """The measured skills, or why there are none."""
    from rung.evaluation.skills import suite

    adapter = climbed.built[name].solution.adapter
    assert adapter is not None, "only what was fine-tuned can have forgotten something"
    if not is_done(_record(run, name)):
        seconds = seconds_of(cost_of_suite(), run.plan.speed)
        if (why := run.over_budget(climbed, seconds, len(suite()), usd=run.plan.skills.usd)) is not None:
            runs.log(run.folder, "not checked", solution=name, why=why)
            return why
    run.listener.progress(f"checking what {name} has forgotten", 0.0, None)
    meter = Meter(run.asked)
    try:
        report = _skills_of(run, name, adapter)
    except (BudgetSpent, ModelError) as error:
        runs.log(run.folder, "not checked", solution=name, why=str(error))
        return str(error)
    runs.log(run.folder, "checked", stage=f"skills of {name}", solution=name, loses=report.loses, **meter.record())
    return report


def _compared(name: str, report: SkillsReport) -> Skills:
    """As the verdict reads it."""
    total = report.total
    return Skills(name, total.difference, total.low, total.high, total.n, report.loses, base=total.base)


def hardly_shipped(climbed: Climbed, name: str, floor: float) -> str | None:
    """Why a fine-tuned solution will hardly be shipped, as a predicate: not ahead of the floor and of every prompt
    of its model and of cheaper ones, or not near the best candidate. None where it may be.
    """
    mean, whole = climbed.built[name].dev.mean, climbed.whole()
    cheaper = climbed.up_to(climbed.built[name].solution.model)
    prompts = [n for n, b in whole.items() if b.family == "prompt" and b.solution.model in cheaper]
    ahead = max(prompts, key=lambda n: whole[n].dev.mean, default=None)
    if ahead is not None and mean <= whole[ahead].dev.mean:
        return f"not ahead of {ahead} on dev"
    if mean <= floor:
        return "not above the floor on dev"
    best = climbed.best()
    if best is not None and mean <= whole[best].dev.mean - _NEAR:
        return f"far behind {best} on dev"
    return None


def _no_time_to_repair(run: RunState, climbed: Climbed, name: str, other: str) -> str | None:
    """Reason why no step of the repair is made: the budget has no time for a part of it that would be of use."""
    folder, strategy = run.files.solution(other), STRATEGIES[kind_of(name)]
    if is_done(folder / "solution.json"):
        return None
    cost: Cost = function_of(strategy.repair_cost)(run.plan.texts) if strategy.repair_cost is not None else Cost()
    seconds = LEAST_OF_A_STEP * seconds_of(cost, run.plan.speed)
    return run.over_budget(climbed, max(0.0, seconds - spent_on(folder).seconds), 0)


def _repair(run: RunState, climbed: Climbed, name: str, other: str) -> Built | None:
    """The repaired solution with its answers to dev; None where the budget or a fault kept it from being built."""
    from rung.trials.trial import attempt

    folder = run.files.solution(other)
    meter = Meter(run.asked, folder)
    repair = STRATEGIES[kind_of(name)].repair
    assert repair is not None
    try:
        workshop = run.workshop(folder, climbed, meter)
        tuned = replace(climbed.built[name].solution, name=kind_of(name))  # as strategies call it
        solution = solution_once(run, folder, other, lambda: function_of(repair)(workshop, tuned))
        predictions = attempt(workshop, solution, run.inputs.dev, folder / "predictions.dev.jsonl")
    except (BudgetSpent, TrainingError, ModelError) as failed:
        reason: SkipReason = "budget" if isinstance(failed, BudgetSpent) else "fault"
        runs.log(run.folder, "not repaired", solution=other, why=str(failed))
        climbed.skipped[other] = Skipped(
            other, climbed.built[name].family, reason, str(failed), begun=True, model=run.name
        )
        return None
    record = noted_once(run, folder, meter, "repaired", lambda: {"left": None}, solution=other)
    each, most = run.usd_of_answers(predictions)
    score = run.score(predictions)
    repaired = Built(solution, tuple(predictions), score, usd_per_answer=each, most_usd=most)
    run.listener.tried(other, repaired.family, repaired.dev, float(record["seconds"]))
    return repaired


def _skills_of(run: RunState, name: str, adapter: str) -> SkillsReport:
    """The solution's skills against the base's. The base model's outcomes are kept for all runs with that model."""
    from rung.cache import cache_folder
    from rung.evaluation.skills import answered, compare_skills, suite_version
    from rung.models import answers_key

    shared = cache_folder() / "skills" / f"{answers_key(run.model)}-{suite_version()}.json"
    base = once_for_all(shared, lambda: {"outcomes": answered(run.model, None)})
    tuned = once(_record(run, name), lambda: {"outcomes": answered(run.model, adapter)})
    return compare_skills([bool(x) for x in base["outcomes"]], [bool(x) for x in tuned["outcomes"]])


def _record(run: RunState, name: str) -> Path:
    return run.files.solution(name) / "skills.json"
