"""The outcome of a run that was kept from trying something that could matter: a verdict from dev, the test sealed."""

from __future__ import annotations

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
from rung.ladder.going_on import command, minutes_for
from rung.ladder.state import WholeRun
from rung.records import write_json
from rung.types import Comparison, Decision


def write_unfinished(run: WholeRun, climbed: Climbed, only: Sequence[str] = ()) -> Decision:
    """Writes decision.json with the choice "unfinished". The test stays sealed."""
    baselines = baselines_on_dev(run.first)
    fields = evidence_from_dev(run, dev_evidence(run, climbed, ()))
    fields["skipped"] = tuple(replace(s, minutes=minutes_for(run.of(s.model), s)) for s in fields["skipped"])
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
    decision = unfinished(evidence, command(run, climbed, climbed.missing, only))
    runs.log(run.folder, "unfinished", missing=[s.name for s in climbed.missing])
    write_json(run.files.decision, decision_record(decision))
    return decision


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
