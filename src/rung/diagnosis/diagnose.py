"""Why the remaining answers are wrong, as one record (diagnosis.json): rescue rates, causes, and every example.

The record holds what each experiment says by itself, so that shares of causes may overlap there. `causes.all_causes`
gives each failed example to one cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rung.data.findings import KEPT
from rung.diagnosis.evidence import combinations, observed, rescues
from rung.diagnosis.experiment import answer_all, right_from, set_up
from rung.diagnosis.interventions import LENIENT
from rung.diagnosis.label_noise import conflicts
from rung.diagnosis.lenient import derivable
from rung.diagnosis.outcomes import Outcomes
from rung.diagnosis.placebo import PLACEBO
from rung.errors import came
from rung.trials.workshop import Workshop
from rung.types import Example, MetricInfo, Prediction, Solution

POOR = 0.05
"""Below this share of right dev answers there may be nothing to intervene on."""

NONE_RIGHT_OF = 40
"""A prompt that is right in none of so many answers is not diagnosed: a pilot of fine-tuning is the experiment then."""


def worth_diagnosing(predictions: Sequence[Prediction], metric: MetricInfo) -> bool:
    """Whether interventions can tell something: not where the base is right in none of `NONE_RIGHT_OF` answers."""
    answered = [p for p in predictions if came(p.error)]
    right = right_from(metric)
    return len(answered) < NONE_RIGHT_OF or any((p.score or 0.0) >= right for p in answered)


def diagnose(
    workshop: Workshop,
    base: Solution,
    predictions: Sequence[Prediction],
    folder: Path,
    *,
    most: int = 20,
    near: Iterable[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """What fixes the base's wrong dev answers, as a record of plain values.

    base: the best prompt or rag solution. predictions: its scored answers to dev. folder: where new answers are kept.
    most: at most so many failed examples are answered again, and half as many right ones. near: pairs of ids of train
    and dev that are near-duplicates, where they are known. An answer is right at score 1, or from a half where the
    metric grades. Inputs without an answer are counted and not diagnosed.

    Shares are of the sampled failed examples, net of the placebo where something was answered again. An example may
    have several causes here. `unresolved` are those that nothing rescued, no two changes together either. `poor` says
    that too little was right, and too little fixed, for the rest to mean much. Of rows that contradict each other, the
    first `KEPT` pairs are listed.
    """
    experiment = set_up(workshop, base, predictions, folder, most)
    sampled = experiment.sampled
    outcomes = Outcomes(experiment, answer_all(experiment))
    noise = conflicts((*workshop.inputs.train, *workshop.inputs.dev), experiment.by, near) if sampled.failed else []
    causes = [*rescues(outcomes), *observed(outcomes, noise)] if sampled.failed else []
    unresolved = outcomes.unresolved
    at_hand = sampled.rate(e.id for e in sampled.failed if derivable(e, experiment.common))
    return {
        "base": base.name,
        "dev": {
            "n": len(predictions),
            "right": experiment.right_share,
            "right_from": experiment.by.right,
            "errors": experiment.errors,
        },
        "failed": len(sampled.failed),
        "succeeded": len(sampled.succeeded),
        "poor": _is_poor(outcomes, causes),
        "interventions": _rates(outcomes),
        "causes": sorted(causes, key=lambda c: -c["share"]),
        "unresolved": {**asdict(sampled.rate(unresolved)), "ids": unresolved},
        "combinations": combinations(outcomes),
        "label_noise": noise[:KEPT],
        "derivable": asdict(at_hand),
        "examples": [_example(e, outcomes, causes) for e in experiment.asked],
    }


def _is_poor(outcomes: Outcomes, causes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether hardly anything is right and hardly anything could be fixed, not even by chance."""
    experiment = outcomes.experiment
    if not experiment.sampled.failed or experiment.right_share >= POOR:
        return False
    by_chance = any(outcomes.by_name[name].get(e.id) for name in (PLACEBO, LENIENT) for e in experiment.sampled.failed)
    return not by_chance and not any(c["low"] > 0 for c in causes if c["net_of_placebo"])


def _rates(outcomes: Outcomes) -> dict[str, dict[str, Any]]:
    """How often each change rescued a wrong answer and broke a right one; None where none was tried."""
    experiment = outcomes.experiment
    rows: dict[str, dict[str, Any]] = {}
    for name, outcome in outcomes.by_name.items():
        rescued = [outcome[e.id] for e in experiment.sampled.failed if e.id in outcome]
        broken = [not outcome[e.id] for e in experiment.sampled.succeeded if e.id in outcome]
        rows[name] = {
            "failed": len(rescued),
            "rescued": sum(rescued),
            "rescue_rate": sum(rescued) / len(rescued) if rescued else None,
            "succeeded": len(broken),
            "broken": sum(broken),
            "break_rate": sum(broken) / len(broken) if broken else None,
            "harmful": name in outcomes.harmful,
        }
        if name in experiment.changes:
            intervention = experiment.changes[name].intervention
            rows[name] |= {"changes": intervention.changes, "cause": intervention.cause}
    return rows | {name: {"skipped": why} for name, why in experiment.skipped.items()}


def _example(example: Example, outcomes: Outcomes, causes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One example: its old answer, how each change came out, and its causes."""
    experiment, drawn = outcomes.experiment, outcomes.drawn(example)
    gold = (n for n, c in experiment.changes.items() if c.retriever is not None)
    brought = [outcomes.answers[n][example.id].passages for n in gold if example.id in outcomes.answers[n]]
    return {
        "id": example.id,
        "failed": example in experiment.sampled.failed,
        "answer": experiment.old[example.id].text,
        "outcomes": {name: o[example.id] for name, o in outcomes.by_name.items() if example.id in o},
        "gold_passages": list(brought[0]) if brought else [],
        "causes": [c["cause"] for c in causes if example.id in c["ids"]],
        "samples_right": sum(map(outcomes.is_right, drawn)) / max(1, len(drawn)),
        "samples_distinct": outcomes.distinct(example),
    }
