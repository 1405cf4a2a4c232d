"""What a judge prefers that has nothing to do with the rubric: length, position, and answers of its own family.

Each is a mean difference of scores with its 95 % interval. A bias is found where the interval leaves out zero.
Source of the three: Zheng et al., Judging LLM-as-a-judge with MT-Bench and Chatbot Arena (2023), section 3.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import variance

from rung.evaluation.intervals import ALPHA
from rung.evaluation.judge.powered import rectifier
from rung.types import Answer, Example

PADDED = 20
"""Answers that are padded."""

_LEAST = 5
"""Differences from which a bias is measured; of self-preference so many answers of its own family, and of others."""

_LEAST_WORDS = 30
FILLER = (
    "This is the answer that is given to what was asked above. It has been written down here in full, with care, and "
    "it is meant to be read as a whole. What was asked has been considered before this answer was written, and nothing "
    "beyond what is said here is meant by it."
)
"""Says nothing: it makes no answer better or worse."""


@dataclass(frozen=True)
class Bias:
    """A mean difference of scores with its 95 % interval, over n answers."""

    difference: float
    low: float
    high: float
    n: int

    @property
    def found(self) -> bool:
        return self.low > 0 or self.high < 0


def mean_bias(differences: Sequence[float]) -> Bias | None:
    """Of one difference an answer, with the interval of `rectifier`; None for fewer than _LEAST."""
    if len(differences) < _LEAST:
        return None
    low, high = rectifier(differences)
    return Bias(sum(differences) / len(differences), low, high, len(differences))


def padded(answer: Answer) -> Answer:
    """The same answer with filler behind it: at least twice as long, and longer by _LEAST_WORDS words or more."""
    wanted = max(_LEAST_WORDS, len(answer.text.split()))
    words = FILLER.split()
    filler = " ".join(words[i % len(words)] for i in range(max(wanted, len(words))))
    return replace(answer, text=f"{answer.text.rstrip()}\n\n{filler}")


def middling(examples: Sequence[Example]) -> list[Answer]:
    """Answers that are neither right nor wrong, for a task without scored ones: the first half of each right answer.

    Right ones would score the most there is, and could not gain.
    """
    return [Answer(e.query, _half(e.output), e.references) for e in examples]


def _half(text: str) -> str:
    words = text.split(" ")
    return " ".join(words[: max(1, len(words) // 2)]) if len(words) > 1 else text[: max(1, len(text) // 2)]


def self_preference(errors: Sequence[float], models: Sequence[str], judge: str) -> Bias | None:
    """Mean of (judge - person) on answers of the judge's own family, minus that on the others.

    errors: judge - person, shape (n,). models: what wrote each answer; empty where nobody says. None where either side
    has fewer than five. The interval is Welch's.
    """
    named = [(e, m) for e, m in zip(errors, models, strict=True) if m]
    own = [e for e, m in named if same_family(m, judge)]
    others = [e for e, m in named if not same_family(m, judge)]
    return welch(own, others) if min(len(own), len(others)) >= _LEAST else None


def welch(ones: Sequence[float], others: Sequence[float]) -> Bias | None:
    """mean(ones) - mean(others) with Welch's 95 % interval; None where either side has fewer than two."""
    from scipy.stats import t

    if min(len(ones), len(others)) < 2:
        return None
    parts = [(variance(side) / len(side), len(side) - 1) for side in (ones, others)]
    squared_error = sum(v for v, _ in parts)
    difference = sum(ones) / len(ones) - sum(others) / len(others)
    half = 0.0
    if squared_error > 0:
        freedom = squared_error**2 / sum(v**2 / df for v, df in parts)
        half = float(t.isf(ALPHA / 2, freedom)) * math.sqrt(squared_error)
    return Bias(difference, difference - half, difference + half, len(ones) + len(others))


def family_of(name: str) -> str:
    """The family that a model's name tells: smollm of HuggingFaceTB/SmolLM2-135M-Instruct, gpt of gpt-5-mini."""
    last = re.split(r"[/\\]", name.strip())[-1].casefold()
    found = re.match(r"[a-z]+", last)
    return found[0] if found is not None else last


def same_family(a: str, b: str) -> bool:
    """Whether two names tell the same model or the same family."""
    return family_of(a) == family_of(b)
