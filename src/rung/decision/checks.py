"""Sentences about the checks of finalists: what they make up where nothing can be answered, and how steady they are."""

from __future__ import annotations

from rung.decision.evidence import Evidence, Invention
from rung.decision.figures import PERCENT, p_value
from rung.decision.rule import Ruling
from rung.decision.words import listed, reads, scale_of, spoken_of
from rung.types import Candidate, Score

_NEARLY_ALWAYS = 0.9
"""Share made up from which a solution refuses next to nothing."""

MOSTLY = 0.5
"""Share made up above which a reader must not miss it, where the task names `abstain`."""

OFTEN = 0.25
"""Share of the answerable rows above which a reader must not miss that they are refused."""

_NUMBERS = ("", "once", "twice", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def invents_more(evidence: Evidence, ruling: Ruling) -> list[str]:
    """A reason against a fine-tuned candidate to ship: it is shown to make up more answers than its base."""
    return [makes_up_more_in_words(found) for found in _of_one(evidence, ruling) if found.worse]


def makes_up_more_in_words(found: Invention) -> str:
    """That a fine-tuned candidate is shown to make up more answers than its base."""
    return (
        f"{found.candidate} makes up more than {found.base}, which is not fine-tuned: an answer to "
        f"{_full(found.share)} of {_questions(found)}, {found.base} to {_full(found.base_share)}. That is "
        f"{PERCENT.gap(found.difference)} more ({PERCENT.ends(found.low, found.high)}), {p_value(found.p)}, and speaks "
        "against it where a wrong answer costs more than none."
    )


def refuses_wrongly(evidence: Evidence, ruling: Ruling) -> list[str]:
    """A warning where the task names `abstain`: most unanswerable questions get an answer, or many answerable none."""
    return [
        f"{made_up_in_words(found)} Do not rely on its refusals."
        for found in _of_one(evidence, ruling)
        if not found.worse and _must_be_told(evidence, found)
    ]


def _must_be_told(evidence: Evidence, found: Invention) -> bool:
    one = evidence.named(found.candidate)
    if not evidence.abstain or one is None or not (found.given or reads(one)):
        return False  # no passages can be taken out of what reads none
    return found.share.mean > MOSTLY or (found.refused is not None and found.refused.mean > OFTEN)


def made_up(evidence: Evidence, ruling: Ruling) -> list[str]:
    """What the candidate that is spoken of makes up, where that is no warning."""
    found = _of_one(evidence, ruling)
    return [made_up_in_words(one) for one in found if not one.worse and not _must_be_told(evidence, one)]


def made_up_in_words(found: Invention) -> str:
    """What a candidate makes up, where it is not shown to make up more than its base."""
    said = f"{found.candidate} makes up an answer to {_full(found.share)} of {_questions(found)}"
    if found.base and found.base_share is not None:
        less = found.difference < 0 and found.high < 0
        shown = "fewer than" if less else "not shown to differ from"
        said += f", {shown} {found.base} before fine-tuning ({_full(found.base_share)})"
    if found.refused is not None and found.refused.mean > 0:
        said += f"; it gives none to {_full(found.refused)} of those that can be answered"
    return f"{said}."


def right_every_time(evidence: Evidence) -> list[str]:
    """lora is right four times in four on 71 % of the sealed test (62–79), where its answers are sampled; …"""
    return [_steady(evidence, c) for c in evidence.by_cost if c.pass_k is not None and c.pass_1 is not None]


def _steady(evidence: Evidence, candidate: Candidate) -> str:
    every, single, n = candidate.pass_k, candidate.pass_1, candidate.repeats
    assert every is not None and single is not None
    right = "is right" if scale_of(evidence).right_or_wrong else "scores 1"
    return (
        f"{candidate.name} {right} {times_in(n)} on {PERCENT.value(every.mean, every.n)} of the sealed test "
        f"({PERCENT.interval(every)}), where its answers are sampled; a single sample {right} on "
        f"{PERCENT.value(single.mean, single.n)}."
    )


def times_in(n: int) -> str:
    """twice in two, four times in four, 12 times in 12"""
    if n == 2:
        return "twice in two"
    number = _NUMBERS[n] if n < len(_NUMBERS) else f"{n}"
    return f"{number} times in {number}"


def name_abstain(evidence: Evidence) -> list[str]:
    """What lets a model refuse, where the task says no answer for that and nothing that retrieves refuses by itself."""
    made = [found for found in evidence.invention if not found.given]
    if evidence.abstain or not made or any(found.share.mean < _NEARLY_ALWAYS for found in made):
        return []
    names = listed(list(dict.fromkeys(found.candidate for found in made)))
    make = "makes" if len({found.candidate for found in made}) == 1 else "make"
    return [
        f"Where no passage holds the answer, {names} nearly always {make} one up. Name `abstain` in task.yaml (the "
        "answer to give then), say it in the instruction, and add examples that have it."
    ]


def _of_one(evidence: Evidence, ruling: Ruling) -> list[Invention]:
    """Of the candidate that is spoken of; of one with a shorter prompt, what was asked of it with its longer one."""
    one = spoken_of(evidence, ruling)
    if one is None:
        return []
    own = [found for found in evidence.invention if found.candidate == one.name]
    long = evidence.long_form_of(one.name)
    return own or [found for found in evidence.invention if found.candidate == long]


def _questions(found: Invention) -> str:
    n = found.share.n
    return f"{n:,} unanswerable dev rows" if found.given else f"{n:,} dev questions whose passages were taken out"


def _full(score: Score | None) -> str:
    return PERCENT.full(score) if score is not None else "–"
