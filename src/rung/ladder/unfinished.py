"""The outcome of a run that was kept from trying something that could matter: a verdict from dev, the test sealed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace

from rung import runs
from rung.decision import Evidence, decision_record, unfinished
from rung.evaluation.baselines import FLOORS
from rung.evaluation.sealed import count_reads
from rung.ladder.candidate_costs import candidate_of
from rung.ladder.climbed import Climbed
from rung.ladder.dev_evidence import dev_evidence
from rung.ladder.final_test import evidence_from_dev
from rung.ladder.finalists import baseline_answers, baselines_on_dev, scores_of
from rung.ladder.ledger import Spent
from rung.ladder.plan import Step
from rung.ladder.state import RunState, WholeRun
from rung.records import write_json
from rung.resume import is_done
from rung.types import Comparison, Decision, Skipped

_SPARE = 1.15
"""Times the estimates: what a command with a larger budget should have."""


def missing(climbed: Climbed) -> list[Skipped]:
    """What was kept from being tried although it could have changed the verdict."""
    return [s for s in climbed.skipped.values() if s.matters]


def write_unfinished(run: WholeRun, climbed: Climbed, only: Sequence[str] = ()) -> Decision:
    """Writes decision.json with the choice "unfinished". The test stays sealed."""
    baselines = baselines_on_dev(run.first)
    fields = evidence_from_dev(run, dev_evidence(run, climbed, ()))
    fields["skipped"] = tuple(replace(s, minutes=_minutes(run.of(s.model), s)) for s in fields["skipped"])
    candidates = (*baselines, *(candidate_of(run.of(built.solution.model), built) for built in climbed.built.values()))
    evidence = Evidence(
        metric=run.metric,
        candidates=candidates,
        comparisons=(),
        against_floor=_against_baselines(run, climbed),
        floors=tuple(c.name for c in baselines if c.name in FLOORS),
        minimum_detectable_difference=run.first.plan.detectable["test"],
        test_reads=count_reads(run.files.test_reads),
        **fields,
    )
    decision = unfinished(evidence, command(run, climbed, only))
    runs.log(run.folder, "unfinished", missing=[s.name for s in missing(climbed)])
    write_json(run.files.decision, decision_record(decision))
    return decision


def command(run: WholeRun, climbed: Climbed, only: Sequence[str] = ()) -> str:
    """The command that goes on with enough budget for everything that is missing. Every limit that is set is raised."""
    words = ["rung", "run", str(run.inputs.task.path), "--out", str(run.folder)]
    words += ["--only", ",".join(only)] if only else []
    words += ["--exhaustive"] if run.first.exhaustive else []
    needed = _needed(run, climbed)
    budget = run.first.ledger.budget
    if budget.minutes is not None:
        words += ["--minutes", str(math.ceil(max(budget.minutes, needed.seconds / 60)))]
    if budget.usd is not None:
        words += ["--usd", f"{math.ceil(100 * max(budget.usd, needed.usd)) / 100:g}"]
    if budget.calls is not None:
        words += ["--calls", str(max(budget.calls, needed.calls))]
    return shlex.join(words)


def _needed(run: WholeRun, climbed: Climbed) -> Spent:
    """What all commands together have to spend, so that what the budget kept out is tried and tested."""
    lacking = [s for s in missing(climbed) if s.reason == "budget"]
    spent = run.first.ledger.spent
    if not lacking:
        return spent
    steps = list({step.name: step for s in lacking for step in _steps(run.of(s.model), s)}.values())
    groups = {(s.model, s.family) for s in lacking}
    built = run.first.reserve(climbed)
    more = [run.of(model).reserve(climbed, family) for model, family in groups]
    reserve_s = built.seconds + sum(r.seconds - built.seconds for r in more)
    reserve_calls = built.calls + sum(r.calls - built.calls for r in more)
    reserve_usd = built.usd + sum(r.usd - built.usd for r in more)
    seconds = spent.seconds + _SPARE * (sum(step.seconds for step in steps) + reserve_s)
    calls = spent.calls + math.ceil(_SPARE * sum(step.calls for step in steps)) + reserve_calls
    tokens_usd = run.first.ledger.tokens_usd + _SPARE * (sum(step.usd for step in steps) + reserve_usd)
    return Spent(seconds, calls, tokens_usd + seconds / 3600 * run.first.ledger.hourly)


def _minutes(run: RunState, skipped: Skipped) -> float | None:
    """About how long trying it takes; None where the budget was not the reason."""
    if skipped.reason != "budget":
        return None
    return max(0.1, _SPARE * sum(step.seconds for step in _steps(run, skipped)) / 60)


def _steps(run: RunState, skipped: Skipped) -> list[Step]:
    """What trying it takes: the strategy itself, and its pilot where there was none yet."""
    step = next((s for s in run.plan.steps if s.name == skipped.name), None)
    if step is None:  # a repair
        return []
    return [step, run.plan.pilot] if step.strategy.pilot is not None and not is_done(run.files.pilot) else [step]


def _against_baselines(run: WholeRun, climbed: Climbed) -> tuple[Comparison, ...]:
    """Every solution that answered all of dev against every baseline, on dev."""
    from rung.evaluation.statistics import compare_all, units_of

    inputs, whole = run.inputs, climbed.whole()
    names = [c.name for c in baselines_on_dev(run.first)]
    answers = baseline_answers(run.first)
    scores = {name: scores_of(answers[name]) for name in names}
    scores |= {name: scores_of(built.predictions) for name, built in whole.items()}  # in the order of dev, too
    groups = units_of([e.id for e in inputs.dev], inputs.groups)
    found: list[Comparison] = []
    for baseline in names:
        pairs = [(baseline, name) for name in whole]
        found += compare_all(pairs, scores, "dev", groups=groups, seed=inputs.task.seed)
    return tuple(found)
