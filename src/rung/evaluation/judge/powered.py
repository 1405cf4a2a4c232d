"""Intervals of a mean score that carry the errors of the judge that gave it: prediction-powered inference.

The mean of people's scores over answers that nobody has scored is estimated by the judge's mean over them, plus the
mean of (person - judge) over the answers that people did score (the rectifier). Its interval joins that of the judge's
mean with that of the rectifier, which are independent.

Sources: Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Prediction-powered inference (2023), for the estimator; Zou
and Donner, Construction of confidence limits about effect measures (2008), for joining two intervals whose ends lie at
unequal distances from their means. Departures: the weight of the judge stays 1. The weight of PPI++ (Angelopoulos,
Duchi and Zrnic, 2023) shortens the interval where people scored a random part of these very answers, but pulls the
estimate towards the mean of *their* answers, which is wrong where these came from other solutions; `bench/judges.py`
shows both. Quantiles are Student's, because 20 to 100 answers are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rung.evaluation.intervals import ALPHA, tango, unseen
from rung.types import Score

_RARE = 5
"""Up to so many errors that differ from the usual one, their spread says too little; the unseen share then counts."""


def powered(judged: Score, errors: Sequence[float], share: float = 1.0) -> Score:
    """The mean of people's scores, estimated from the judge's mean and its errors.

    judged: the judge's mean with its interval. errors: person - judge, of the answers that people scored, in [-1, 1],
    shape (n,), n >= 2, independent of each other. share: of the answers, those that the judge scored; the others did
    not come, and score 0 with people too. Assumes that the judge errs here as it does there. n counts the answers, as
    before.
    """
    shift = share * sum(errors) / len(errors)
    low, high = (share * end for end in rectifier(errors))
    mean = judged.mean + shift
    down = math.hypot(judged.mean - judged.low, shift - low)
    up = math.hypot(judged.high - judged.mean, high - shift)
    return Score(_clipped(mean), _clipped(mean - down), _clipped(mean + up), judged.n)


def rectifier(errors: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of errors, or of other differences of scores, in [-1, 1].

    Tango's, where all are -1, 0 or 1 (a difference of two paired rates); else Student's, and at least as wide as the
    share of answers makes it that has not been seen, where nearly all errors are equal.
    """
    n, mean = len(errors), sum(errors) / len(errors)
    if set(errors) <= {-1.0, 0.0, 1.0}:
        return tango(sum(e < 0 for e in errors), sum(e > 0 for e in errors), n)
    low, high = student(errors)
    usual = max(set(errors), key=list(errors).count)
    if sum(e != usual for e in errors) <= _RARE:
        wide_low, wide_high = unseen(mean, n, -1.0)
        return min(low, wide_low), max(high, wide_high)
    return low, high


def student(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t, of at least two values."""
    import numpy as np
    from scipy.stats import t

    found = np.asarray(values, float)
    half = float(t.isf(ALPHA / 2, len(found) - 1)) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return float(found.mean()) - half, float(found.mean()) + half


def _clipped(x: float) -> float:
    return min(1.0, max(0.0, x))
