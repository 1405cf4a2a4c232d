"""Evidence: the causes that the outcomes of one experiment speak for, each with its share of the failed examples.

A cause whose evidence is rescue has a net share (see `shares`). A cause whose evidence is only observed has a plain
rate: rows that contradict each other, and samples that disagree where there is no corpus to look an answer up in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rung.diagnosis.interventions import FORMAT, INCONSISTENCY, LENIENT
from rung.diagnosis.lenient import derivable
from rung.diagnosis.outcomes import Outcomes
from rung.diagnosis.placebo import PLACEBO, SAMPLES
from rung.diagnosis.shares import Outcome

LABEL_NOISE = "label noise"
KNOWLEDGE = "knowledge"

SPREAD = 3
"""So many different answers among the samples, none of them right, are a sign of guessing."""

Row = dict[str, Any]


def rescues(outcomes: Outcomes) -> list[Row]:
    """One row for each cause that something was tried for: the experiment with the largest share.

    cause, share, low, high, tried (failed examples it was tried on), evidence, net_of_placebo, ids (rescued ones).
    """
    telling, placebo = outcomes.telling, outcomes.by_name[PLACEBO]
    rows = [_format(outcomes, *pair) for pair in _constraints(outcomes)]
    if INCONSISTENCY in telling:
        evidence = f"the majority of {SAMPLES} samples"
        rows.append(_rescue(outcomes, INCONSISTENCY, telling[INCONSISTENCY], placebo, evidence))
    for name, change in outcomes.experiment.changes.items():
        if name in telling and change.intervention.cause != FORMAT:
            intervention = change.intervention
            rows.append(_rescue(outcomes, intervention.cause, telling[name], placebo, intervention.evidence))
    largest: dict[str, Row] = {}
    for row in rows:
        if row["cause"] not in largest or row["share"] > largest[row["cause"]]["share"]:
            largest[row["cause"]] = row
    return list(largest.values())


def _constraints(outcomes: Outcomes) -> list[tuple[Outcome, str]]:
    """(outcome, evidence) of each change of the format; one that changes nothing where there is none."""
    changes = outcomes.experiment.changes.items()
    tried = [(n, c.intervention) for n, c in changes if c.intervention.cause == FORMAT and n in outcomes.telling]
    return [(outcomes.telling[n], f"reading leniently, or {i.evidence}") for n, i in tried] or [
        ({}, "reading leniently")
    ]


def _format(outcomes: Outcomes, forced: Outcome, evidence: str) -> Row:
    """Rescued by a lenient reading of the old answer, or by a change of the format.

    A lenient reading answers nothing again, so there is no chance in it to subtract, and it breaks nothing.
    """
    lenient, placebo = outcomes.by_name[LENIENT], outcomes.by_name[PLACEBO]
    rescued = {**forced, **{i: right or forced.get(i, False) for i, right in lenient.items()}}
    only_read = {i for i, right in lenient.items() if right or i not in forced}
    chance = {i: right and i not in only_read for i, right in placebo.items()}
    return _rescue(outcomes, FORMAT, rescued, chance, evidence)


def _rescue(outcomes: Outcomes, cause: str, outcome: Outcome, chance: Outcome, evidence: str) -> Row:
    sampled = outcomes.experiment.sampled
    tried = [e.id for e in sampled.failed if e.id in outcome]
    net = asdict(sampled.share(outcome, chance))
    ids = [i for i in tried if outcome[i]]
    plain = {"tried": len(tried), "evidence": f"fixed by {evidence}", "net_of_placebo": True, "ids": ids}
    return {"cause": cause, **net, **plain}


def combinations(outcomes: Outcomes) -> list[Row]:
    """Pairs of causes that only together are fixed: the changed answer is right only when it is read leniently.

    Net of what a lenient reading of the placebo's answer fixes.
    """
    experiment, rows = outcomes.experiment, []
    for name, outcome in outcomes.together.items():
        tried = [e for e in experiment.sampled.failed if e.id in outcome]
        chance = {e.id: outcomes.leniently(e, outcomes.answers[PLACEBO]) for e in tried}
        net = asdict(experiment.sampled.net_rescue(outcome, chance))
        pair = [experiment.changes[name].intervention.cause, FORMAT]
        rows.append({"causes": pair, **net, "ids": [i for i, right in outcome.items() if right]})
    return [row for row in rows if row["ids"]]


def observed(outcomes: Outcomes, conflicts: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The causes whose evidence is observed, not tried."""
    experiment = outcomes.experiment
    noisy = {i for pair in conflicts for i in pair["ids"]}
    signs = [(LABEL_NOISE, noisy, "nearly the same input has another answer")]
    if not experiment.workshop.inputs.passages:
        evidence = "the samples disagree and none is right: a sign of missing knowledge, no proof"
        signs.append((KNOWLEDGE, set(_guesses(outcomes)), evidence))
    rows = []
    for cause, members, evidence in signs:
        ids = [e.id for e in experiment.sampled.failed if e.id in members]
        plain = {"tried": len(experiment.sampled.failed), "evidence": evidence, "net_of_placebo": False, "ids": ids}
        rows.append({"cause": cause, **asdict(experiment.sampled.rate(ids)), **plain})
    return rows


def _guesses(outcomes: Outcomes) -> Iterable[str]:
    """Failed examples that nothing rescued, whose answer the input does not hold and whose samples disagree."""
    experiment, unresolved = outcomes.experiment, set(outcomes.unresolved)
    for example in experiment.sampled.failed:
        if example.id not in unresolved or experiment.by.labels or derivable(example, experiment.common):
            continue
        if not any(map(outcomes.is_right, outcomes.drawn(example))) and outcomes.distinct(example) >= SPREAD:
            yield example.id
