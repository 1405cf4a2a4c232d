"""Per-example scores in; scores with intervals and paired comparisons out.

Scores lie in [0, 1] and stand in the order of the examples. Where examples come in groups, groups are the unit: they
are drawn, flipped and counted whole. The same seed gives the same numbers.

What is exact and what is approximate: McNemar's p-value, the binomial one, the permutation p-value (by enumeration, or
up to the number of draws) and the power of McNemar's test are exact. Wilson's and Tango's intervals, the bootstrap, and
the detectable difference from observed standard errors are approximations.

Knows nothing about texts, models or which score ought to win. Imports numpy and scipy when called.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rung.errors import ScoreMismatch
from rung.evaluation.intervals import ALPHA as ALPHA
from rung.evaluation.intervals import FEW_UNITS, bca, unseen, wilson
from rung.evaluation.paired_tests import RESAMPLES, PairedTest, paired_test
from rung.evaluation.power import detectable_as_seen as detectable_as_seen
from rung.evaluation.power import minimum_detectable_difference as minimum_detectable_difference
from rung.evaluation.units import all_binary, as_scores, unit_sums
from rung.evaluation.units import units_of as units_of
from rung.types import Comparison, Score, SetName

if TYPE_CHECKING:
    from rung.evaluation.units import FloatArray

MARGIN = 0.02
"""A difference of at most this much does not matter, on the scale of the metric."""


def score(
    values: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> Score:
    """The mean of per-example scores with its 95 % interval.

    values: scores in [0, 1], shape (n,), n >= 1. groups: the group of each example; None makes each its own unit.
    Right/wrong scores without groups: Wilson. Otherwise a bootstrap of whole units (`bca`). A bootstrap cannot know
    what it has not seen: when all units are equal or there are fewer than FEW_UNITS, the interval also covers every
    mean that an unseen share of units could make (see `unseen`). Score.n counts examples.
    Raises ScoreMismatch when values and groups differ in length.
    """
    scores = as_scores(values)
    sums, sizes = unit_sums(scores, groups)
    mean = float(scores.mean())
    if len(sums) == len(scores) and all_binary(scores):
        low, high = wilson(float(scores.sum()), len(scores))
    else:
        equal = bool((abs(sums / sizes - mean) < 1e-12).all())
        low, high = (mean, mean) if equal else bca(sums, sizes, seed=seed, resamples=resamples)
        if equal or len(sums) < FEW_UNITS:
            unseen_low, unseen_high = unseen(mean, len(sums), 0.0)
            low, high = min(low, unseen_low), max(high, unseen_high)
        low, high = max(0.0, low), min(1.0, high)
    return Score(mean, low, high, len(scores))


def compare(
    name_a: str,
    name_b: str,
    a: Sequence[float],
    b: Sequence[float],
    set: SetName,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """mean(b) - mean(a) on the same examples, its two-sided p-value, and the 95 % interval of the same test.

    a, b: scores in [0, 1], shape (n,), same examples in the same order, n >= 1. groups: as in `score`.
    The test (see `paired_test`) is exact McNemar for right/wrong scores without groups, exact binomial for such scores
    against a known rate, sign flips of whole units otherwise; the interval excludes zero exactly when p < ALPHA.
    p_corrected is p: for several comparisons use `compare_all`.
    Raises ScoreMismatch when a, b and groups differ in length.
    """
    contrast = _contrast(name_a, name_b, a, b, groups, seed, resamples)
    return _comparison(contrast, set, contrast.test.p, ALPHA)


def compare_all(
    pairs: Sequence[tuple[str, str]],
    scores: Mapping[str, Sequence[float]],
    set: SetName,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Comparison, ...]:
    """As `compare` for every pair (a, b) of names in `scores`, corrected by Holm for making all these comparisons.

    Each interval is at the level 1 - ALPHA p / p_corrected, so that it excludes zero exactly when p_corrected < ALPHA.
    All pairs share one seed, so each pair's p-value and interval come from the same sign flips.
    Raises ScoreMismatch when the scores and groups differ in length, KeyError when a name has no scores.
    """
    contrasts = [_contrast(a, b, scores[a], scores[b], groups, seed, resamples) for a, b in pairs]
    values = [contrast.test.p for contrast in contrasts]
    return tuple(
        # p / corrected lies in [1 / number of pairs, 1]; a p that underflows to 0 stays 0 after Holm.
        _comparison(contrast, set, corrected, ALPHA * (p / corrected if corrected > 0 else 1 / len(pairs)))
        for contrast, p, corrected in zip(contrasts, values, holm(values), strict=True)
    )


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of one family of tests, corrected for making them all; in their order.

    The k-th smallest of m is multiplied by m - k + 1, is no less than those before it, and at most 1. statsmodels gives
    the same (a test compares them), and collects the process's garbage at every call, which can take a second.
    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, (len(values) - rank) * values[place])
        corrected[place] = min(1.0, largest)
    return corrected


@dataclass(frozen=True)
class _Contrast:
    """One pair before correction. n: number of examples."""

    a: str
    b: str
    difference: float
    standard_error: float
    n: int
    test: PairedTest


def _contrast(
    name_a: str,
    name_b: str,
    a: Sequence[float],
    b: Sequence[float],
    groups: Sequence[Hashable] | None,
    seed: int,
    resamples: int,
) -> _Contrast:
    if len(a) != len(b):
        raise ScoreMismatch(
            f"{name_a} has {len(a)} scores and {name_b} has {len(b)}; "
            "both must have answered the same examples, in the same order"
        )
    test = paired_test(a, b, groups=groups, resamples=resamples, seed=seed)
    difference = as_scores(b) - as_scores(a)
    error = _standard_error(*unit_sums(difference, groups))
    return _Contrast(name_a, name_b, float(difference.mean()), error, len(difference), test)


def _standard_error(sums: FloatArray, sizes: FloatArray) -> float:
    """Observed standard error of sum(sums) / sum(sizes) over units; 0.0 for one unit.

    Source: Cochran, Sampling Techniques (1977), ch. 6, the ratio estimator.
    """
    units = len(sums)
    if units < 2:
        return 0.0
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float((units / (units - 1) * (residuals**2).sum()) ** 0.5 / sizes.sum())


def _comparison(contrast: _Contrast, set: SetName, p_corrected: float, alpha: float) -> Comparison:
    low, high = contrast.test.interval(alpha, significant=p_corrected < ALPHA)
    return Comparison(
        a=contrast.a,
        b=contrast.b,
        set=set,
        difference=contrast.difference,
        low=low,
        high=high,
        p=contrast.test.p,
        p_corrected=p_corrected,
        n=contrast.n,
        level=1 - alpha,
        standard_error=contrast.standard_error,
    )
