"""The outcome of a run that was kept from trying something that could matter: a verdict from dev, the test sealed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace

from rung import runs
from rung.decision import Evidence, decision_record, unfinished
from rung.evaluation.baselines import FLOORS
from rung.ladder.candidate_costs import candidate_of
from rung.ladder.dev_evidence import causes, dev_evidence
from rung.ladder.final_test import evidence_from_dev
from rung.ladder.finalists import baseline_answers, baselines_on_dev
from rung.ladder.state import Climbed, RunState
from rung.records import write_json
from rung.types import Comparison, Decision, Diagnosis, Skipped

_SPARE = 1.15
"""Of the estimated minutes: what a command with a larger budget should have."""


def missing(climbed: Climbed) -> list[Skipped]:
    """What was kept from being tried although it could have changed the verdict."""
    return [s for s in climbed.skipped.values() if s.matters]


def write_unfinished(run: RunState, climbed: Climbed, only: Sequence[str] = ()) -> Decision:
    """Writes decision.json with the choice "unfinished". The test stays sealed."""
    baselines = baselines_on_dev(run)
    floor = max((c.dev.mean for c in baselines if c.name in FLOORS), default=0.0)
    record = dev_evidence(run, climbed, (), floor)
    fields = evidence_from_dev(run, record)
    fields["skipped"] = tuple(_with_minutes(run, climbed, s) for s in fields["skipped"])
    fields["diagnosis"] = _proven(causes(run, climbed, by_elimination=False))
    candidates = (*baselines, *(candidate_of(run, built) for built in climbed.built.values()))
    evidence = Evidence(
        metric=run.tools.scorer.metric,
        candidates=candidates,
        comparisons=(),
        against_floor=_against_baselines(run, climbed),
        floors=tuple(c.name for c in baselines if c.name in FLOORS),
        minimum_detectable_difference=run.plan.detectable["test"],
        test_reads=0,
        **fields,
    )
    decision = unfinished(evidence, command(run, climbed, only))
    runs.log(run.folder, "unfinished", missing=[s.name for s in missing(climbed)])
    write_json(run.files.decision, decision_record(decision))
    return decision


def command(run: RunState, climbed: Climbed, only: Sequence[str] = ()) -> str:
    """The command that goes on with enough budget for what is missing."""
    words = ["rung", "run", str(run.inputs.task.path), "--out", str(run.folder)]
    if only:
        words += ["--only", ",".join(only)]
    lacking = [s for s in missing(climbed) if s.reason == "budget"]
    budget, spent = run.ledger.budget, run.ledger.spent
    if lacking and run.ledger.limit_s is not None:
        more_s = sum(60 * (_with_minutes(run, climbed, s).minutes or 0.0) for s in lacking)
        limit_s = max(run.ledger.limit_s, spent.seconds) + more_s
        if budget.minutes is not None:
            words += ["--minutes", str(math.ceil(limit_s / 60))]
        else:
            usd = (budget.usd or 0.0) * limit_s / run.ledger.limit_s
            words += ["--usd", f"{math.ceil(100 * usd) / 100:g}"]
    if lacking and budget.calls is not None:
        steps = {step.name: step for step in run.plan.steps}
        calls = sum(steps[s.name].calls for s in lacking) + (len(lacking) + 1) * len(run.test)
        words += ["--calls", str(spent.calls + calls)]
    return shlex.join(words)


def _with_minutes(run: RunState, climbed: Climbed, skipped: Skipped) -> Skipped:
    """With the minutes that trying it would take: its pilot and the test included, less what is not spent yet."""
    step = next(s for s in run.plan.steps if s.name == skipped.name)
    if skipped.reason != "budget":
        return skipped
    reserve_s, _ = run.reserve(climbed, skipped.family)
    seconds = _SPARE * (step.seconds + reserve_s + (run.plan.pilot.seconds if step.strategy.pilot else 0.0))
    unspent = max(0.0, run.ledger.seconds_left() or 0.0)
    return replace(skipped, minutes=max(0.1, (seconds - unspent) / 60))


def _against_baselines(run: RunState, climbed: Climbed) -> tuple[Comparison, ...]:
    """Every solution that answered all of dev against every baseline, on dev."""
    from rung.evaluation.statistics import compare_all, units_of

    inputs = run.inputs
    names = [c.name for c in baselines_on_dev(run)]
    answers = baseline_answers(run)
    scores = {name: [p.score or 0.0 for p in answers[name]] for name in names}
    order = [e.id for e in inputs.dev]
    for name, built in climbed.whole().items():
        by_id = {p.id: p.score or 0.0 for p in built.predictions}
        scores[name] = [by_id[i] for i in order]
    groups = units_of(order, inputs.groups)
    found: list[Comparison] = []
    for baseline in names:
        pairs = [(baseline, name) for name in climbed.whole()]
        found += compare_all(pairs, scores, "dev", groups=groups, seed=inputs.task.seed)
    return tuple(found)


def _proven(diagnosis: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """What an experiment fixed; nothing is named by elimination while something is missing."""
    return tuple(d for d in diagnosis if d.fixed)
