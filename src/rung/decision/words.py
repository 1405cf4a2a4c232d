"""The words that the verdict's sentences share: names of families and causes, and clauses about scores.

The sentences stand in `headline`, `warnings`, `reasons` and `advice`; numbers are written by `figures`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.decision.evidence import Evidence, best_of, of_family, score_of
from rung.decision.figures import PERCENT, Scale, p_value
from rung.decision.rule import LEAST_USEFUL, Ruling, shortfall, too_few, unbeaten_learner
from rung.types import FAMILIES, Candidate, Comparison, Diagnosis, Family, SetName

FAMILY_WORDS: dict[Family, tuple[str, str]] = {
    "baseline": ("Use no language model", "baseline"),
    "prompt": ("Prompt", "prompt"),
    "rag": ("Retrieve", "retrieval"),
    "fine-tune": ("Fine-tune", "fine-tuning"),
    "rag+fine-tune": ("Retrieve and fine-tune", "retrieval with fine-tuning"),
}
"""Family -> (what to do, what it is)."""

CAUSE_WORDS = {
    "format": "answers in the wrong form",
    "inconsistency": "answers that change from one sample to the next",
    "convention": "a convention that only examples show",
    "knowledge": "missing knowledge",
    "retrieval": "passages that the search does not find",
    "reasoning": "reasoning, or the size of the model",
    "label noise": "reference answers that contradict each other",
}
"""Cause -> what stands in the way."""

SET_WORDS: dict[SetName, str] = {"train": "train", "dev": "dev", "test": "the sealed test"}
MOST = 0.5
"""Share from which a cause is most of what stays wrong."""

_WORTH_NAMING = 0.1


def cause_words(cause: str) -> str:
    """A cause, or several joined by "+", in words."""
    return " and ".join(CAUSE_WORDS.get(part, part) for part in cause.split("+"))


def cause_evidence(diagnosis: Diagnosis, beside: Sequence[Diagnosis]) -> str:
    """What says that this is a cause.

    Where an experiment fixed a part of the same cause, "nothing fixed it" would contradict that: the rest is named so.
    """
    if diagnosis.fixed:
        return diagnosis.evidence
    parts = set(diagnosis.cause.split("+"))
    if any(d.fixed and parts & set(d.cause.split("+")) for d in beside):
        return "the experiments fixed a part of it and not this part"
    return diagnosis.evidence


def scale_of(evidence: Evidence) -> Scale:
    return Scale(evidence.metric.right_or_wrong)


def worth_naming(evidence: Evidence) -> list[Diagnosis]:
    """The causes that the sentences and the advice speak of: at most two, or the leading one."""
    return [d for d in evidence.causes if d.share >= _WORTH_NAMING][:2] or list(evidence.causes[:1])


# ---- what is spoken of ------------------------------------------------------------------------


def one_answer_is_always_right(evidence: Evidence) -> bool:
    """Whether the floor is the highest score there is on the test."""
    floor = evidence.floor("test")
    return floor is not None and score_of(floor, "test").mean >= 1.0


def nothing_is_learnt(evidence: Evidence) -> bool:
    """Whether neither a model nor a baseline that learns is shown to beat the floor of the test: then the answers may
    not follow from the inputs."""
    floor, learners = evidence.floor("test"), evidence.learners("test")
    if floor is None or not learners or one_answer_is_always_right(evidence):
        return False
    rated = evidence.rated("test")
    above = any(evidence.shown_above(floor, c, "test") for c in rated)
    return not above and all(score_of(c, "test").low <= score_of(floor, "test").mean for c in learners)


def dearer(evidence: Evidence, chosen: Candidate, best: Candidate) -> list[Comparison]:
    """The chosen candidate against what costs more: the best of each dearer family, and a better one of its own."""
    tested, rank = evidence.rated("test"), FAMILIES.index(chosen.family)
    others = [best] if best.family == chosen.family and best is not chosen else []
    others += [best_of(m, "test") for f in FAMILIES[rank + 1 :] if (m := of_family(tested, f))]
    return [evidence.contrast(chosen, other, "test") for other in others]


def cheaper_families(tested: Sequence[Candidate], chosen: Candidate) -> list[Candidate]:
    return [c for c in tested if FAMILIES.index(c.family) < FAMILIES.index(chosen.family)]


def learner_of(evidence: Evidence, ruling: Ruling) -> Candidate | None:
    """The baseline that may make a language model needless, beside the candidate to ship or the best one."""
    candidate = ruling.ship or ruling.best
    return None if candidate is None else unbeaten_learner(evidence, candidate, ruling.on)


# ---- clauses ----------------------------------------------------------------------------------


def reach(evidence: Evidence, candidate: Candidate, on: SetName, *, name: bool = True) -> str:
    """What it scored, as a clause: lora answers 81 % of the sealed test right (76–86 %)."""
    score, scale, who = score_of(candidate, on), scale_of(evidence), f"{candidate.name} " if name else ""
    if scale.right_or_wrong:
        share = f"{scale.value(score.mean, score.n)} of {SET_WORDS[on]} right"
        return f"{who}answers {share} ({scale.interval(score)} %)"
    metric = evidence.metric.name.rpartition(":")[2]
    return f"{who}reaches a {metric} of {scale.value(score.mean)} on {SET_WORDS[on]} ({scale.interval(score)})"


def value(evidence: Evidence, candidate: Candidate, on: SetName) -> str:
    """81 %"""
    score = score_of(candidate, on)
    return scale_of(evidence).value(score.mean, score.n)


def full_score(evidence: Evidence, candidate: Candidate, on: SetName) -> str:
    """81 % (76–86)"""
    return scale_of(evidence).full(score_of(candidate, on))


def obstacle(evidence: Evidence, candidate: Candidate, on: SetName) -> str:
    """Why it falls short, as a predicate."""
    scale, floor = scale_of(evidence), evidence.floor(on)
    if shortfall(evidence, candidate, on) == "floor" and floor is not None:
        beat = f"beat the floor of {value(evidence, floor, on)}"
        if too_few(evidence, candidate, on):
            return f"cannot be shown to {beat} with so few examples ({score_of(candidate, on).n:,})"
        return f"is not shown to {beat}"
    return f"is too little to ship (below {scale.value(LEAST_USEFUL)})"


def minus(evidence: Evidence, against: Comparison) -> str:
    """lora minus few_shot: 40 points (30 to 50), p < 0.001"""
    return f"{against.b} minus {against.a}: {difference(evidence, against)}"


def difference(evidence: Evidence, against: Comparison) -> str:
    scale = scale_of(evidence)
    return f"{scale.gap(against.difference)} ({scale.ends(against.low, against.high)}), {p_value(against.p_corrected)}"


def percentages(low: float, high: float) -> str:
    return f"{PERCENT.bare(low)}–{PERCENT.bare(high)} %"


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def bare(text: str) -> str:
    return text.rstrip(".")


def given(candidate: Candidate | None) -> Candidate:
    """The candidate that the ruling must name."""
    assert candidate is not None, "the ruling names one"
    return candidate
