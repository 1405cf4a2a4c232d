"""What the verdict says of a teacher: how far it comes on dev, and what was learnt of answers of others."""

from __future__ import annotations

from rung.decision.evidence import Evidence, best_of
from rung.decision.figures import p_value
from rung.decision.words import scale_of, value
from rung.evaluation.statistics import ALPHA


def taught_sentences(evidence: Evidence) -> list[str]:
    """The teacher beside the best candidate on dev; for each solution that was taught, from how many answers; and what
    each that has to show its gain brought on dev."""
    return [*_teacher(evidence), *_learnt(evidence), *_proofs(evidence)]


def _proofs(evidence: Evidence) -> list[str]:
    """How far each solution that has to show its gain is ahead on dev, and whether that is shown."""
    scale = scale_of(evidence)
    return [
        f"{found.b} is {scale.gap(found.difference)} above {found.a} on dev ({p_value(found.p)}), "
        + ("which is shown." if found.p < ALPHA else "which is not shown: its gain may be chance.")
        for found in evidence.proofs
    ]


def _teacher(evidence: Evidence) -> list[str]:
    rated = evidence.rated("dev")
    if evidence.teacher is None or not rated:
        return []
    best = best_of(rated, "dev")
    reached = scale_of(evidence).full(evidence.teacher)
    return [f"The teacher reaches {reached} on dev, the best candidate, {best.name}, {value(evidence, best, 'dev')}."]


def _learnt(evidence: Evidence) -> list[str]:
    said = []
    for one in evidence.taught:
        said.append(f"{one.candidate} learnt, beside train, what {one.by} answers to {one.kept:,} inputs.")
        if one.kept < one.asked:
            said[-1] += f" To {one.asked - one.kept:,} others it gave no answer that could be used ({one.left_out})."
    return said
