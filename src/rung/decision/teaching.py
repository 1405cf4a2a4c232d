"""What the verdict says of a teacher: how far it comes on dev, and what was learnt of answers of others."""

from __future__ import annotations

from rung.decision.evidence import Evidence, best_of
from rung.decision.words import scale_of, value


def taught_sentences(evidence: Evidence) -> list[str]:
    """The teacher beside the best candidate on dev, and for each solution that was taught, from how many answers."""
    return [*_teacher(evidence), *_learnt(evidence)]


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
