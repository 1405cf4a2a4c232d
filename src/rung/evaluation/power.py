"""What a comparison can show: the smallest true difference that it detects at a given power.

For right/wrong scores the power of the exact McNemar test is computed by exact binomial sums from an assumed share of
discordant examples. For graded scores and groups it is an approximation by Student's t from the observed standard
errors. Imports numpy and scipy when called.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from rung.evaluation.intervals import ALPHA
from rung.types import Comparison

_UNEVEN = 6
"""Up to so many fewer examples may detect a little more: an exact test's critical value moves every two to six."""


def minimum_detectable_difference(
    n: int, *, comparisons: int = 1, discordance: float = 0.2, alpha: float = ALPHA, power: float = 0.8
) -> float:
    """The smallest true difference of two right/wrong scores that n examples show with at least that power.

    The test is the two-sided exact McNemar test at level alpha / comparisons, the least that Holm's correction leaves
    to one of so many comparisons. discordance: the assumed share of examples that exactly one of the two solutions gets
    right, in (0, 1]. A difference cannot exceed the discordance. Where the answer would, every discordant example is
    taken to favour the better solution, so that the discordance equals the difference. With groups, n is the number of
    groups. Returns 1.0 when n examples show no difference at all (n < 6 at the default level).
    Rounded up to two figures, as it is printed. It never grows with n: an exact test is a little uneven, and whoever
    has more examples could use fewer.
    Source: Duffy, Asymptotic and exact power for the McNemar test (1984).
    """
    if not (0 < discordance <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"discordance {discordance}, alpha {alpha} and power {power} must lie in (0, 1)")
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}, not at least 1")
    sizes = range(max(1, n - _UNEVEN), n + 1)
    least = min((_detectable(m, discordance, alpha / comparisons, power) for m in sizes), default=1.0)
    return _rounded_up(least)


def detectable_as_seen(
    comparisons: Sequence[Comparison], units: int, *, alpha: float = ALPHA, power: float = 0.8
) -> float:
    """The smallest true difference detectable at `power` in every one of the comparisons, from their standard errors.

    For graded scores and groups, whose variation `minimum_detectable_difference` does not know. An approximation: the
    largest standard error times Student's t quantiles for so many units (examples, or groups of them), at the least
    level that Holm's correction leaves. In (0, 1], rounded up to two figures; 1.0 for fewer than two units or no
    variation.
    """
    from scipy.stats import t

    if units < 2 or not comparisons:
        return 1.0
    error = max(c.standard_error for c in comparisons)
    quantiles = t.isf(alpha / 2 / len(comparisons), units - 1) + t.isf(1 - power, units - 1)
    return _rounded_up(float(quantiles * error)) if error > 1e-12 else 1.0


def _rounded_up(difference: float) -> float:
    """To two figures, and 1 at most."""
    unit: float = 10.0 ** (math.floor(math.log10(difference)) - 1)
    return min(1.0, round(math.ceil(difference / unit - 1e-9) * unit, 12))


@cache
def _detectable(n: int, discordance: float, alpha: float, power: float) -> float:
    from scipy.optimize import brentq

    def missing(difference: float) -> float:
        return _mcnemar_power(n, difference, max(discordance, difference), alpha) - power

    if missing(1.0) < 0:
        return 1.0
    return float(brentq(missing, 0.0, 1.0, xtol=1e-6))


def _mcnemar_power(n: int, difference: float, discordance: float, alpha: float) -> float:
    """P(exact McNemar rejects): over the number d of discordant examples and how many of them favour the better one."""
    import numpy as np
    from scipy.stats import binom

    d = np.arange(n + 1)
    # The largest c with P(Binomial(d, 1/2) <= c) <= alpha / 2; the test rejects at c or fewer on either side.
    critical = binom.ppf(alpha / 2, d, 0.5)
    critical = np.where(binom.cdf(critical, d, 0.5) <= alpha / 2, critical, critical - 1)  # (n + 1,)
    favour = (1 + difference / discordance) / 2
    rejects = binom.cdf(critical, d, favour) + binom.sf(d - critical - 1, d, favour)
    return float((binom.pmf(d, n, discordance) * np.where(critical < 0, 0.0, rejects)).sum())
