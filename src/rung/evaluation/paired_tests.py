"""Paired tests of b against a, each with its own inversion: p-value and interval come from the same test.

A test that is inverted gives the interval of all differences that it does not reject at alpha, so the interval
excludes zero exactly when p < alpha. Knows nothing about names, sets or corrections. Imports numpy and scipy when
called.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rung.errors import ScoreMismatch
from rung.evaluation.intervals import FEW_UNITS, conditional, tango, unseen
from rung.evaluation.units import all_binary, as_scores, unit_sums

if TYPE_CHECKING:
    from rung.evaluation.units import FloatArray

EXACT_UNITS = 12
"""Up to so many units with a difference, all sign flips are enumerated."""

RESAMPLES = 20_000
"""Sign flips drawn where there are too many to enumerate."""

_SAME = 1e-9
"""Sums that differ by less count as equal, because they differ only by rounding."""

_CELLS = 2_000_000
"""Signs held at once; bounds the memory to about 20 MB."""


class PairedTest(Protocol):
    """A two-sided test that mean(b) - mean(a) is zero.

    `interval` gives the differences that are not rejected at alpha, inside [-1, 1]. It contains the observed
    difference. significant: whether p < alpha, decided by the caller, so that rounding of alpha cannot contradict it;
    the interval excludes zero exactly then.
    """

    @property
    def p(self) -> float: ...

    def interval(self, alpha: float, significant: bool) -> tuple[float, float]: ...


@dataclass(frozen=True)
class McNemar:
    """The exact McNemar test: only_a and only_b of n examples are right in one of the two alone.

    The interval is the hull of two: the exact test inverted (`conditional`), which agrees with p about zero, and
    Tango's score interval, which keeps its coverage far from zero.
    Source: Fagerland, Lydersen and Laake, The McNemar test for binary matched-pairs data (2013), for the exact form.
    """

    only_a: int
    only_b: int
    n: int

    @property
    def p(self) -> float:
        return mcnemar_exact(self.only_a, self.only_b)

    def interval(self, alpha: float, significant: bool) -> tuple[float, float]:
        exact = conditional(self.only_a, self.only_b, self.n, alpha)
        score = tango(self.only_a, self.only_b, self.n, alpha)
        return _hull(exact, score, (self.only_b - self.only_a) / self.n, significant)


@dataclass(frozen=True)
class KnownRate:
    """The exact binomial test of a rate against a known one, such as that of a blind guess among the labels.

    right: how many of n examples are right. known: the known rate, in (0, 1). sign: 1 where the known rate is that of
    a, -1 where it is that of b. p is twice the smaller tail. The interval is the same test inverted: that of the rate
    minus the known rate.
    Source: Clopper and Pearson, The use of confidence or fiducial limits (1934).
    """

    right: int
    n: int
    known: float
    sign: int

    @property
    def p(self) -> float:
        from scipy.stats import binom

        fewer, more = binom.cdf(self.right, self.n, self.known), binom.sf(self.right - 1, self.n, self.known)
        return min(1.0, 2 * float(min(fewer, more)))

    def interval(self, alpha: float, significant: bool) -> tuple[float, float]:
        from scipy.stats import beta

        wrong = self.n - self.right
        low = float(beta.ppf(alpha / 2, self.right, wrong + 1)) if self.right else 0.0
        high = float(beta.isf(alpha / 2, self.right + 1, wrong)) if wrong else 1.0
        ends = sorted(self.sign * (end - self.known) for end in (low, high))
        inverted = ends[0], ends[1]
        return _hull(inverted, inverted, self.sign * (self.right / self.n - self.known), significant)


@dataclass(frozen=True)
class SignFlips:
    """The sign-flip permutation test over units, with the flips that were made.

    Draw s flips the sign of some units. Let A be the sum of differences, A_s the sum with signs, M and B_s the same for
    the units' sizes. If the true difference were d, the draw would be as extreme as what was observed when
    |A_s - d B_s| >= |A - d M|, that is when d lies between (A - A_s) / (M - B_s) and (A + A_s) / (M + B_s).
    All these ranges contain the observed A / M, so the differences that are not rejected form one interval.
    lows, highs: lower ends ascending and upper ends descending, shape (draws,). p: two-sided, for d = 0.
    units, equal: how many units there are, and whether all of them have the same mean difference.
    Source: Good, Permutation Tests (2000), ch. 3; Garthwaite, Confidence intervals from randomization tests (1996),
    for the inversion.
    """

    p: float
    difference: float
    lows: FloatArray
    highs: FloatArray
    units: int
    equal: bool

    def interval(self, alpha: float, significant: bool) -> tuple[float, float]:
        place = max(1, math.ceil(alpha * len(self.lows) - _SAME)) - 1
        inverted = max(-1.0, float(self.lows[place])), min(1.0, float(self.highs[place]))
        few = self.equal or self.units < FEW_UNITS
        wider = unseen(self.difference, self.units, -1.0, alpha) if few else inverted
        return _hull(inverted, wider, self.difference, significant)


def _hull(
    inverted: tuple[float, float], wider: tuple[float, float], difference: float, significant: bool
) -> tuple[float, float]:
    """The hull of the inverted test and of a wider interval, on the side of zero that the test says.

    Where the difference is significant, a wider end that reaches zero is not used: the end of the inverted test is.
    """
    low, high = min(inverted[0], wider[0], difference), max(inverted[1], wider[1], difference)
    if not significant:
        return min(low, 0.0), max(high, 0.0)
    just_off_zero = difference * 1e-6  # where rounding puts the end of the inverted test at zero
    if difference > 0:
        return (low if low > 0 else max(min(inverted[0], difference), just_off_zero)), high
    return low, (high if high < 0 else min(max(inverted[1], difference), just_off_zero))


def paired_test(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Exact McNemar for right/wrong scores without groups, otherwise sign flips of whole units.

    a, b: scores in [0, 1], shape (n,), same examples in the same order, n >= 1. groups: the group of each example.
    Where one side is right or wrong and the other has the same score strictly between 0 and 1 for all examples (what a
    blind guess is right by on average), that score is a known rate, and without groups the test is exact binomial.
    Raises ScoreMismatch when the lengths differ.
    """
    first, second = as_scores(a), as_scores(b)
    if len(first) != len(second):
        raise ScoreMismatch(f"{len(first)} scores against {len(second)}; both must be about the same examples")
    difference = second - first
    sums, sizes = unit_sums(difference, groups)
    if len(sums) == len(difference):
        if all_binary(first) and all_binary(second):
            return McNemar(int((difference < 0).sum()), int((difference > 0).sum()), len(difference))
        for known, observed, sign in ((first, second, 1), (second, first, -1)):
            if all_binary(observed) and _is_one_rate(known):
                return KnownRate(int(observed.sum()), len(observed), float(known[0]), sign)
    return _sign_flips(sums, sizes, resamples, seed)


def _is_one_rate(scores: FloatArray) -> bool:
    return bool(0 < scores[0] < 1 and (abs(scores - scores[0]) < _SAME).all())


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that a and b are right equally often, from how many examples only one of them gets right."""
    from scipy.stats import binomtest

    return float(binomtest(only_b, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_permutation(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Two-sided p-value that mean(b) - mean(a) is zero, by flipping signs of whole groups.

    a, b: scores, shape (n,), same examples in the same order. groups: the group of each example; None makes each its
    own. Raises ScoreMismatch when the lengths differ.
    Source: Good, Permutation Tests (2000), ch. 3. Exact by enumeration up to EXACT_UNITS groups with a difference (a
    group without one is the same flipped); beyond, the observed order counts as one of the draws, so p > 0: Phipson
    and Smyth, Permutation p-values should never be zero (2010).
    """
    if len(a) != len(b):
        raise ScoreMismatch(f"{len(a)} scores against {len(b)}; both must be about the same examples")
    sums, sizes = unit_sums(as_scores(b) - as_scores(a), groups)
    return _sign_flips(sums, sizes, resamples, seed).p


def _sign_flips(sums: FloatArray, sizes: FloatArray, resamples: int, seed: int) -> SignFlips:
    """sums, sizes: the difference and the size of each unit, shape (units,)."""
    import numpy as np

    total, size = float(sums.sum()), float(sizes.sum())
    both = np.stack([sums, sizes], axis=1)  # (units, 2)
    signed = np.concatenate([(1.0 - 2.0 * flips) @ both for flips in _flips(sums, resamples, seed)])  # (draws, 2)
    extreme = np.abs(signed[:, 0]) >= abs(total) - _SAME
    with np.errstate(divide="ignore", invalid="ignore"):
        one = (total - signed[:, 0]) / (size - signed[:, 1])
        other = (total + signed[:, 0]) / (size + signed[:, 1])
    lows, highs = np.minimum(one, other), np.maximum(one, other)
    whole = size - np.abs(signed[:, 1]) < 0.5  # all units flipped, or none: as extreme whatever the true difference is
    lows[whole], highs[whole] = -np.inf, np.inf
    return SignFlips(
        p=float(extreme.mean()),
        difference=total / size,
        lows=np.sort(lows),
        highs=np.sort(highs)[::-1],
        units=len(sums),
        equal=bool(np.ptp(sums / sizes) < 1e-12),
    )


def _flips(sums: FloatArray, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Which units each draw flips, in chunks of shape (draws, units); the draw that flips none is among them.

    Up to EXACT_UNITS units: every choice once. Where only so many units have a difference: every choice of those, as
    often as it takes to make `resamples` draws, each with random flips of the other units. These other flips do not
    change the p-value, which is therefore exact, but they count where the true difference is not zero.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    units = len(sums)
    differ = np.flatnonzero(np.abs(sums) > 1e-12) if units > EXACT_UNITS else np.arange(units)
    yield np.zeros((1, units))
    if len(differ) <= EXACT_UNITS:
        choices = 2 ** len(differ)
        rows = np.arange(1, choices * (1 if len(differ) == units else math.ceil(resamples / choices)))
    else:
        rows = np.arange(resamples)
    step = max(1, _CELLS // units)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        flips = random.integers(0, 2, (len(some), units), dtype=np.int8)
        if len(differ) <= EXACT_UNITS:
            flips[:, differ] = (some[:, None] >> np.arange(len(differ))) & 1
        yield flips.astype(np.float64)
