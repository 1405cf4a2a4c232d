"""Shorter prompts for fine-tuned finalists: the shortest that is within the margin on dev is a finalist beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rung import runs
from rung.decision.evidence import Shortened
from rung.errors import BudgetSpent, ModelError, NoGain, TrainingError
from rung.ladder.building import noted_once, solution_once
from rung.ladder.climbed import Built, Climbed
from rung.ladder.ledger import Meter, spent_on
from rung.ladder.skills_check import Checked, hardly_shipped, skills_of
from rung.ladder.state import RunState, scale_of
from rung.resume import is_done, record_of
from rung.strategies import SHORTENED
from rung.strategies.shortening import SHORT_ALREADY, SHORTENING, removable, saves, shortened, worth_shortening
from rung.trials.trial import attempt
from rung.trials.workshop import Workshop, cut_of
from rung.types import Skipped, SkipReason, Solution, kind_of

ENDED: tuple[SkipReason, str] = ("budget", "the run was ended before it")


@dataclass(frozen=True)
class Shorter:
    """What shortening a prompt came to. name: of the candidate; None where no shorter prompt is within the margin.
    checked: the candidate, else the finalist, with general skills of the candidate where they are known."""

    outcome: Shortened
    checked: Checked
    name: str | None = None


def shorten(run: RunState, climbed: Climbed, checked: Checked, floor: float, *, finish: bool = False) -> Shorter | None:
    """Shortens the prompt of a fine-tuned finalist that may be shipped, and adds the candidate to what is built.

    checked: the finalist, with its general skills. floor: dev score of the best baseline that learns nothing. finish:
    nothing new is tried. None where nothing was shortened; the reason stands among what was skipped, unless the
    finalist was not fine-tuned.
    """
    long = climbed.built[checked.keep]
    if long.solution.adapter is None:
        return None
    name = run.named(SHORTENED.format(kind_of(checked.keep)))
    folder = run.files.solution(name)
    why_not = hardly_shipped(climbed, checked.keep, floor)
    if why_not is not None and not is_done(folder / SHORTENING):
        _skip(run, climbed, Skipped(name, long.family, "gain", f"{checked.keep} is {why_not}", model=run.name))
        return None
    meter = Meter(run.asked, folder)
    workshop = run.workshop(folder, climbed, meter, family=long.family)
    tuned = replace(long.solution, name=kind_of(checked.keep))  # as strategies call it
    if not is_done(folder / SHORTENING):
        reason = ENDED if finish else _not_worth_it(run, climbed, workshop, tuned)
        if reason is not None:
            _skip(run, climbed, Skipped(name, long.family, *reason, model=run.name))
            return None
    run.listener.progress(f"shortening the prompt of {checked.keep}", 0.0, None)
    try:
        built = _built(run, workshop, name, tuned)
    except (BudgetSpent, TrainingError, ModelError) as failed:
        why: SkipReason = "budget" if isinstance(failed, BudgetSpent) else "fault"
        _skip(run, climbed, Skipped(name, long.family, why, str(failed), begun=True, model=run.name))
        return None
    event = "shortened" if built is not None else "not shortened"
    record = noted_once(run, folder, meter, event, lambda: {"left": None}, solution=name, of=checked.keep)
    outcome = outcome_of(record_of(folder / SHORTENING), checked.keep, name if built is not None else None)
    if built is None and not saves(outcome.tokens, outcome.tokens_before):  # what a template writes is in both
        left = f"of {outcome.tokens_before:,.0f} tokens of a request {outcome.tokens:,.0f} would be left"
        _skip(run, climbed, Skipped(name, long.family, "gain", left, begun=True, model=run.name))
        return None
    if built is None:
        run.listener.say(
            f"No shorter prompt than that of {checked.keep} is within the margin: {outcome.length} is "
            f"{scale_of(run).gap(-outcome.difference)} below it on dev."
        )
        return Shorter(outcome, Checked(checked.keep))
    climbed.built[name] = built
    run.listener.tried(name, built.family, built.dev, float(record["seconds"]))
    return Shorter(outcome, _skills(run, climbed, name, checked, trained=outcome.trained), name)


def outcome_of(record: Mapping[str, Any], tuned: str, short: str | None) -> Shortened:
    """As the verdict reads it: of the length that was taken, else of the shortest one. record: SHORTENING."""
    whole, *others = record["lengths"]
    if record["taken"] is not None:
        row = record["lengths"][record["taken"]]
    else:
        row = min(others, key=lambda r: (r["tokens_in"], -r["score"]["mean"]))
    versus = row["versus"]
    return Shortened(
        tuned=tuned,
        short=short,
        length=row["length"],
        trained=row["trained"],
        tokens=row["tokens_in"],
        tokens_before=whole["tokens_in"],
        mean=row["score"]["mean"],
        difference=versus["difference"],
        low=versus["low"],
        high=versus["high"],
        n=row["score"]["n"],
    )


def _not_worth_it(
    run: RunState, climbed: Climbed, workshop: Workshop, tuned: Solution
) -> tuple[SkipReason, str] | None:
    """Why nothing is shortened: hardly anything could go, or the budget does not allow it."""
    could_go, whole = removable(workshop, tuned)
    if not saves(whole - could_go, whole):
        return "gain", f"of {whole:,.0f} tokens of a prompt only {could_go:,.0f} could go"
    plan, spent = run.plan, spent_on(workshop.folder)
    if not worth_shortening(plan.texts):  # as the plan has it, which counts nothing for it then
        return "gain", SHORT_ALREADY
    step, each, asked = plan.shortening, 1 / max(1, plan.shortened), len(run.test) + plan.timed  # it is tested, too
    seconds = max(0.0, each * step.seconds - spent.seconds) + asked * plan.tuned_answer_seconds
    judged = 0 if plan.judging is None else plan.judging.calls
    calls = max(0, round(each * step.calls) - spent.calls) + len(run.test) * (1 + judged)
    usd = max(0.0, each * step.usd - spent.usd) + asked * climbed.built[run.named(tuned.name)].usd_per_answer
    why = run.over_budget(climbed, seconds, calls, usd=usd)
    return ("budget", why) if why is not None else None


def _built(run: RunState, workshop: Workshop, name: str, tuned: Solution) -> Built | None:
    """The solution with the shorter prompt and its answers to dev; None where none is within the margin."""
    folder = workshop.folder
    try:
        solution = solution_once(run, folder, name, lambda: shortened(workshop, tuned))
    except NoGain:
        return None
    predictions = attempt(workshop, solution, run.inputs.dev, folder / "predictions.dev.jsonl")
    each, most = run.usd_of_answers(predictions)
    score, cut = run.score(predictions), cut_of(folder)
    return Built(solution, tuple(predictions), score, cut=cut, usd_per_answer=each, most_usd=most)


def _skip(run: RunState, climbed: Climbed, skipped: Skipped) -> None:
    climbed.skipped[skipped.name] = skipped
    runs.log(run.folder, "not shortened", solution=skipped.name, reason=skipped.reason, why=skipped.why)
    run.listener.skipped(skipped.name, skipped.why)


def _skills(run: RunState, climbed: Climbed, name: str, checked: Checked, *, trained: bool) -> Checked:
    """Measured where the weights are others than those of the long form, whose skills it has otherwise."""
    if trained:
        return skills_of(run, climbed, name)
    own = (replace(s, candidate=name, repaired=None) for s in checked.skills if s.candidate == checked.keep)
    return Checked(name, tuple(own))
