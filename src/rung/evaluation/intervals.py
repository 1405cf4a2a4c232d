"""Confidence intervals by formula and by bootstrap: a rate, a difference of paired rates, a mean of units.

Every interval here is at level 1 - alpha. Knows nothing about names, sets or corrections. Imports numpy and scipy when
called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rung.evaluation.units import FloatArray

ALPHA = 0.05
"""A p-value below this is significant; intervals are at level 1 - ALPHA unless a correction says otherwise."""

FEW_UNITS = 10
"""Below so many units a bootstrap or a permutation interval is too narrow; `unseen` then widens it."""

_CELLS = 1_000_000
"""Units drawn at once in a bootstrap; bounds its memory to about 30 MB."""


def wilson(successes: float, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Interval of a rate, from the number of successes in n trials, 0 <= successes <= n, n >= 1.

    An approximation: it inverts the normal score test.
    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927); statsmodels.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    # Rounding leaves 1e-17 where the formula gives the bound itself.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def tango(only_a: int, only_b: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Interval of the difference of two paired rates, b minus a: the score test, inverted.

    only_a, only_b: how many of n examples only a, or only b, gets right. An approximation: the score is taken to be
    normal. Source: Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design (1998).
    """
    from scipy.stats import norm

    z = float(norm.isf(alpha / 2))
    observed = (only_b - only_a) / n

    def rejected(difference: float) -> bool:
        # q: maximum-likelihood share of "only a" when the true difference is this one, the root of A q^2 + B q + C.
        linear = (2 * n - only_b + only_a) * difference - only_b - only_a  # B; A is 2n
        constant = -only_a * difference * (1 - difference)  # C
        q = max(0.0, -difference, (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n))
        variance = n * max(0.0, 2 * q + difference - difference**2)
        return (only_b - only_a - n * difference) ** 2 > z**2 * variance

    return _boundary(rejected, -1.0, observed), _boundary(rejected, 1.0, observed)


def _boundary(rejected: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where rejection ends on the way from `outside` to `inside`, by bisection; `outside` when it is not rejected."""
    if not rejected(outside):
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return inside


def conditional(only_a: int, only_b: int, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Interval of the difference of two paired rates: the exact McNemar test, inverted.

    Given that d = only_a + only_b examples are discordant, the share that favours b is binomial. Its Clopper-Pearson
    interval (l, u) gives (2l - 1) d / n and (2u - 1) d / n. It excludes zero exactly when the exact McNemar test
    rejects at alpha; the number of discordant examples counts as fixed, so alone it is too narrow far from zero.
    Source: Clopper and Pearson, The use of confidence or fiducial limits (1934).
    """
    from scipy.stats import beta

    discordant = only_a + only_b
    low = float(beta.ppf(alpha / 2, only_b, only_a + 1)) if only_b else 0.0
    high = float(beta.isf(alpha / 2, only_b + 1, only_a)) if only_a else 1.0
    return (2 * low - 1) * discordant / n, (2 * high - 1) * discordant / n


def bca(
    sums: FloatArray, sizes: FloatArray, *, alpha: float = ALPHA, seed: int = 0, resamples: int = 10_000
) -> tuple[float, float]:
    """Bootstrap interval of sum(sums) / sum(sizes) when whole units are drawn.

    sums, sizes: shape (units,), not all sums / sizes equal. BCa; percentile where BCa is not defined. The jackknife of
    a ratio is known in closed form: without unit i it is (S - s_i) / (M - m_i).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 14; Field and Welsh, Bootstrapping
    clustered data (2007), for groups.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    random = np.random.default_rng(seed)
    total, size, units = sums.sum(), sizes.sum(), len(sums)
    means = np.empty(resamples)
    step = max(1, _CELLS // units)
    for start in range(0, resamples, step):
        drawn = random.integers(0, units, (min(step, resamples - start), units))  # (draws, units)
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tails = np.array([alpha / 2, 1 - alpha / 2])
    observed = total / size
    with np.errstate(all="ignore"):  # what is not defined becomes NaN
        below = ((means < observed).sum() + (means <= observed).sum()) / (2 * resamples)
        bias = ndtri(below)
        without = (total - sums) / (size - sizes)  # (units,)
        away = without.mean() - without
        acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
        shifted = bias + ndtri(tails)
        adjusted = ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(means, adjusted if np.isfinite(adjusted).all() else tails)
    return float(low), float(high)


def unseen(mean: float, units: int, floor: float, alpha: float = ALPHA) -> tuple[float, float]:
    """The range of means that units not seen so far could make.

    When all units are equal, up to a share w of all units, w = Wilson's upper end for none in `units`, may differ and
    lie anywhere in [floor, 1]: the mean is then between mean + w (floor - mean) and mean + w (1 - mean).
    """
    share = wilson(0, units, alpha)[1]
    return mean + share * (floor - mean), mean + share * (1.0 - mean)
