"""The words that the verdict's sentences share: names of families and causes, and clauses about scores.

The sentences stand in `headline`, `warnings`, `reasons` and `advice`; numbers are written by `figures`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rung.decision.evidence import Evidence, best_of, costs_less, score_of
from rung.decision.figures import PERCENT, Scale, p_value, price_share
from rung.decision.rule import LEAST_USEFUL, Ruling, shortfall, too_few, unbeaten_learner
from rung.types import Candidate, Comparison, Diagnosis, Family, SetName, Skipped, candidate_name, kind_of, model_of

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
_MOST_DEARER = 3


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
    """The chosen candidate against what is dearer: the best of each dearer group, and a better one of its own.

    Left out is what it was not to be compared with.
    """
    others = [best] if evidence.group_of(best) == evidence.group_of(chosen) and best is not chosen else []
    for members in _groups_from(evidence, chosen)[1:]:
        if compared := [c for c in members if evidence.asked(chosen, c)]:
            others.append(best_of(compared, "test"))
    return [evidence.contrast(chosen, other, "test") for other in others]


def nearest_dearer(evidence: Evidence, chosen: Candidate, best: Candidate) -> list[Comparison]:
    """Of `dearer`, what the sentences speak of: all with one model, of several models the few that come highest."""
    against = dearer(evidence, chosen, best)
    if not evidence.several:
        return against
    highest = sorted(against, key=lambda c: -c.difference)[:_MOST_DEARER]
    return [c for c in against if c in highest]


def cheaper_groups(evidence: Evidence, chosen: Candidate) -> list[list[Candidate]]:
    """The tested candidates of each cheaper group, cheapest first."""
    group = evidence.group_of(chosen)
    return list(itertools.takewhile(lambda m: evidence.group_of(m[0]) != group, evidence.groups("test")))


def _groups_from(evidence: Evidence, chosen: Candidate) -> list[list[Candidate]]:
    """The tested candidates of its own group and of each dearer one."""
    group = evidence.group_of(chosen)
    return list(itertools.dropwhile(lambda m: evidence.group_of(m[0]) != group, evidence.groups("test")))


def rival_of(evidence: Evidence, chosen: Candidate) -> Candidate | None:
    """The best of the cheaper groups that was to be compared with it."""
    compared = [c for members in cheaper_groups(evidence, chosen) for c in members if evidence.asked(chosen, c)]
    return best_of(compared, "test") if compared else None


def subject(evidence: Evidence) -> Candidate | None:
    """Of several models, the candidate whose wrong answers were diagnosed. None with one model: it needs no name."""
    return evidence.named(evidence.diagnosed) if evidence.several else None


def dearer_models(evidence: Evidence, model: str, on: SetName) -> list[Candidate]:
    """The candidates of the listed models that are dearer than this one."""
    models = evidence.models_by_cost
    later = models[models.index(model) + 1 :] if model in models else ()
    return [c for c in evidence.rated(on) if c.model in later]


def learner_of(evidence: Evidence, ruling: Ruling) -> Candidate | None:
    """The baseline that may make a language model needless, beside the candidate to ship or the best one."""
    candidate = ruling.ship or ruling.best
    return None if candidate is None else unbeaten_learner(evidence, candidate, ruling.on)


# ---- names ------------------------------------------------------------------------------------


def called(evidence: Evidence, candidate: Candidate) -> str:
    """lora; of several models, in words that name the model: smollm2 with LoRA, gpt-5-mini's few-shot prompt."""
    if not evidence.several or not candidate.model:
        return candidate.name
    strategy = kind_of(candidate.name)
    words = re.sub("(?i)lora", "LoRA", strategy.replace("_", " "))
    if candidate.family == "prompt":
        return f"{candidate.model}'s {words.replace(' ', '-')} prompt"
    if candidate.family == "rag":
        return f"{candidate.model} with retrieval" + (f" ({strategy})" if strategy != "rag" else "")
    if "LoRA" not in words:
        words += " fine-tuning"
    if candidate.family == "rag+fine-tune":
        words = f"retrieval and {words.removeprefix('rag ')}"
    return f"{candidate.model} with {words}"


def deed(evidence: Evidence, candidate: Candidate) -> str:
    """What to do, with the model where there are several: Fine-tune smollm2."""
    what = FAMILY_WORDS[candidate.family][0]
    if not evidence.several or not candidate.model:
        return what
    return f"{what} {'with ' if candidate.family == 'rag' else ''}{candidate.model}"


def skipped_name(evidence: Evidence, skipped: Skipped) -> str:
    """Its name; in a run of several models with that of its model."""
    if not evidence.several or not skipped.model or model_of(skipped.name):
        return skipped.name
    return candidate_name(skipped.name, skipped.model)


# ---- clauses ----------------------------------------------------------------------------------


def priced(candidate: Candidate, other: Candidate) -> str:
    """at a 40th of the price; empty where a price is missing."""
    if candidate.cost_per_1k_usd is None or other.cost_per_1k_usd is None:
        return ""
    return price_share(candidate.cost_per_1k_usd, other.cost_per_1k_usd)


def cheaper_per_request(candidate: Candidate, other: Candidate) -> str:
    """By what a request of it is cheaper than one of another of its model, by 5 % or more; empty where it is not.

    Dollars decide where both have a price; else tokens, of which one that is written counts as three that are read.
    """
    if candidate.cost_per_1k_usd is not None and other.cost_per_1k_usd is not None:
        if not costs_less(candidate, other):
            return ""
        return f"{candidate.cost_per_1k_usd:.2g} against {other.cost_per_1k_usd:.2g} USD per 1,000"
    sizes = [c.tokens_in + 3 * c.tokens_out for c in (candidate, other)]
    if sizes[0] > 0.95 * sizes[1]:
        return ""
    read, written = ([getattr(c, key) for c in (candidate, other)] for key in ("tokens_in", "tokens_out"))
    said = f"{read[0]:,.0f} tokens read against {read[1]:,.0f}, {written[0]:,.0f} written against {written[1]:,.0f}"
    seconds = [c.latency_s_p50 for c in (candidate, other)]
    if seconds[0] is not None and seconds[1] is not None and seconds[0] < seconds[1]:
        said += f", {seconds[0]:.2g} s against {seconds[1]:.2g} s"
    return said


def cheaper_how(evidence: Evidence, candidate: Candidate, other: Candidate) -> str:
    """In what way a candidate of a cheaper group is the cheaper one: its request may cost more all the same."""
    if evidence.several and costs_less(candidate, other):
        return "which costs less per request"
    return "of the cheaper model" if candidate.model != other.model else "which is simpler to build"


def reach(evidence: Evidence, candidate: Candidate, on: SetName, *, name: bool = True, words: bool = False) -> str:
    """What it scored, as a clause: lora answers 81 % of the sealed test right (76–86 %). words: see `called`."""
    who = f"{called(evidence, candidate) if words else candidate.name} " if name else ""
    score, scale = score_of(candidate, on), scale_of(evidence)
    if scale.right_or_wrong:
        share = f"{scale.value(score.mean, score.n)} of {SET_WORDS[on]} right"
        return f"{who}answers {share} ({scale.interval(score)} %)"
    metric = "judge's score" if evidence.metric.needs_judge else evidence.metric.name.rpartition(":")[2]
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


def spoken_of(evidence: Evidence, ruling: Ruling) -> Candidate | None:
    """The candidate whose sources and refusals are told: the one to ship; where the verdict is none or unfinished, the
    best that reads passages, if there is one."""
    if ruling.choice not in ("none", "unfinished"):
        return ruling.ship
    reading = [c for c in evidence.rated("dev") if reads(c)]
    if ruling.best in reading:
        return ruling.best
    return best_of(reading, "dev") if reading else ruling.ship


def reads(candidate: Candidate) -> bool:
    """Whether it reads passages."""
    return "rag" in candidate.family


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def bare(text: str) -> str:
    return text.rstrip(".")


def given(candidate: Candidate | None) -> Candidate:
    """The candidate that the ruling must name."""
    assert candidate is not None, "the ruling names one"
    return candidate
