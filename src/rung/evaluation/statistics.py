"""Per-example scores in; intervals, comparisons and what they could have shown out.

Scores lie in [0, 1] and stand in the order of the examples. Where examples come in groups, groups are the unit: they
are drawn, flipped and counted whole. No normal approximation anywhere; the same seed gives the same numbers.
Knows nothing about texts, models or which score ought to win. Imports numpy and scipy when called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from rung.errors import ScoreMismatch
from rung.types import Comparison, Metric, Score, SetName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]

FEW_UNITS = 10
"""Below so many units a bootstrap is too narrow, and what may not have been seen yet is added to it."""

EXACT_UNITS = 12
"""Up to so many units with a difference, all sign flips are enumerated."""


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a rate, from the number of successes in n trials, 0 <= successes <= n, n >= 1.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927); statsmodels.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
    # Rounding leaves 1e-17 where the formula gives the bound itself.
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def score(
    values: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> Score:
    """The mean of per-example scores with its 95 % interval.

    values: scores in [0, 1], shape (n,), n >= 1. groups: the group of each example; None makes each its own.
    Right/wrong scores without groups: Wilson. Otherwise a bootstrap of whole units (BCa, or percentile where BCa is
    not defined). A bootstrap cannot imagine what it has not seen: when all units are equal or there are fewer than
    FEW_UNITS, the interval also covers every mean that an unseen share of units could make (see `_unseen`).
    Score.n counts examples. Raises ScoreMismatch when values and groups differ in length.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 14; Field and Welsh, Bootstrapping
    clustered data (2007), for groups.
    """
    scores = _scores(values)
    sums, sizes = _units(scores, groups)
    mean = float(scores.mean())
    if len(sums) == len(scores) and _all_binary(scores):
        low, high = wilson(float(scores.sum()), len(scores))
    else:
        low, high = _interval(sums, sizes, floor=0.0, seed=seed, resamples=resamples)
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
    resamples: int = 10_000,
) -> Comparison:
    """mean(b) - mean(a) on the same examples, its 95 % interval and its two-sided p-value.

    a, b: scores in [0, 1], shape (n,), same examples in the same order, n >= 1. groups: as in `score`.
    p: exact McNemar for right/wrong scores without groups, otherwise `paired_permutation`. Interval: bootstrap of
    whole units, with the cares of `score`. p_corrected is p until `holm` corrects the family of contrasts.
    Raises ScoreMismatch when a, b and groups differ in length.
    Source: Fagerland et al., The McNemar test for binary matched-pairs data (2013), for the exact form.
    """
    first, second = _scores(a), _scores(b)
    if len(first) != len(second):
        raise ScoreMismatch(
            f"{name_a} has {len(first)} scores and {name_b} has {len(second)}; "
            "both must have answered the same examples, in the same order"
        )
    difference = second - first
    sums, sizes = _units(difference, groups)
    if len(sums) == len(difference) and _all_binary(first) and _all_binary(second):
        p = mcnemar_exact(int((difference < 0).sum()), int((difference > 0).sum()))
    else:
        p = paired_permutation(a, b, groups=groups, seed=seed)
    low, high = _interval(sums, sizes, floor=-1.0, seed=seed, resamples=resamples)
    return Comparison(name_a, name_b, set, float(difference.mean()), low, high, p, p, len(difference))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that a and b are right equally often, from how many examples only one of them got right."""
    from scipy.stats import binomtest

    return float(binomtest(only_b, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired_permutation(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 20_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value that mean(b) - mean(a) is zero, by flipping signs of whole groups.

    a, b: scores, shape (n,), same examples in the same order. groups: the group of each example; None makes each its
    own. Raises ScoreMismatch when the lengths differ.
    Source: Good, Permutation Tests (2000), ch. 3. Exact by enumeration up to EXACT_UNITS groups with a difference (a
    group without one is the same flipped); beyond, the observed order counts as one of the draws, so p > 0: Phipson
    and Smyth, Permutation p-values should never be zero (2010).
    """
    import numpy as np

    if len(a) != len(b):
        raise ScoreMismatch(f"{len(a)} scores against {len(b)}; both must be about the same examples")
    sums, _ = _units(_scores(b) - _scores(a), groups)
    sums = sums[np.abs(sums) > 1e-12]
    observed = abs(float(sums.sum())) - 1e-9  # sums that are equal but for rounding count as equally extreme
    units = len(sums)
    if units <= EXACT_UNITS:
        flips = (np.arange(2**units)[:, None] >> np.arange(units)) & 1  # (2**units, units)
        return float((np.abs((1 - 2 * flips) @ sums) >= observed).mean())
    random = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, resamples, 1000):
        signs = 2.0 * random.integers(0, 2, (min(1000, resamples - start), units)) - 1  # (draws, units)
        extreme += int((np.abs(signs @ sums) >= observed).sum())
    return (extreme + 1) / (resamples + 1)


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same comparisons with p_corrected for having made them all.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979); statsmodels.
    """
    from statsmodels.stats.multitest import multipletests

    if not comparisons:
        return ()
    corrected = multipletests([c.p for c in comparisons], method="holm")[1]
    return tuple(replace(c, p_corrected=float(p)) for c, p in zip(comparisons, corrected, strict=True))


def minimum_detectable_difference(
    n: int, *, comparisons: int = 1, discordance: float = 0.2, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest true difference of two right/wrong scores that n examples show with at least that power.

    The test is the two-sided exact McNemar at level alpha / comparisons, the least that Holm's correction leaves to one
    of so many comparisons. discordance: the assumed share of examples that exactly one of the two solutions gets right,
    in (0, 1]. A difference cannot exceed it, so where the answer does, every discordant example is taken to favour the
    better one and the share is the difference itself. With groups, n is the number of groups. Returns 1.0 when n
    examples show no difference whatever (n < 6 at the default level).
    Computed by exact binomial sums, no simulation, and rounded up to two figures, as it is printed. Never grows with n:
    an exact test is a little uneven, and whoever has more examples could look at fewer.
    Source: Duffy, Asymptotic and exact power for the McNemar test (1984).
    """
    if not (0 < discordance <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"discordance {discordance}, alpha {alpha} and power {power} must lie in (0, 1)")
    if comparisons < 1:
        raise ValueError(f"comparisons is {comparisons}, not at least 1")
    sizes = range(max(1, n - _UNEVEN), n + 1)
    least = min((_detectable(m, discordance, alpha / comparisons, power) for m in sizes), default=1.0)
    return _rounded_up(least)


def detectable_as_seen(comparisons: Sequence[Comparison], units: int, *, power: float = 0.8) -> float:
    """The smallest true difference that so much variation leaves to be shown, in every one of the comparisons.

    For graded scores and groups, of which `minimum_detectable_difference` knows no variation: the standard error is
    taken from the widest 95 % interval, with Student's t for that many units (examples, or groups of them) at the
    level that Holm's correction leaves. In (0, 1], rounded up to two figures; 1.0 for fewer than two units.
    """
    from scipy.stats import norm, t

    if units < 2 or not comparisons:
        return 1.0
    error = max(c.high - c.low for c in comparisons) / (2 * norm.isf(0.025))
    times = t.isf(0.025 / len(comparisons), units - 1) + t.isf(1 - power, units - 1)
    return _rounded_up(float(times * error)) if error > 0 else 1.0


def _rounded_up(difference: float) -> float:
    """To two figures, and 1 at most."""
    unit: float = 10.0 ** (math.floor(math.log10(difference)) - 1)
    return min(1.0, round(math.ceil(difference / unit - 1e-9) * unit, 12))


def floor(
    train_outputs: Sequence[str],
    metric: Metric,
    references: Sequence[Sequence[str]],
    *,
    labels: Sequence[str] = (),
) -> float:
    """The score that needs no model: always the most frequent training answer or, with labels, a blind guess.

    train_outputs: the training answers. references: the accepted answers of each example to be scored, n >= 1.
    The better of the two; ties of frequency go to the answer seen first. 0.0 without answers and labels.
    """
    if not references:
        raise ValueError("no examples to score")
    frequent = [answer for answer, _ in Counter(output.strip() for output in train_outputs).most_common(1)]
    always = sum(metric(answer, accepted) for answer in frequent for accepted in references)
    guess = sum(metric(label, accepted) for label in labels for accepted in references) / max(1, len(labels))
    return max(always, guess) / len(references)


# ---- units and their bootstrap ----------------------------------------------------------------


def _scores(values: Sequence[float]) -> FloatArray:
    import numpy as np

    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores have shape {scores.shape}, not (n,) with n >= 1")
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN fails too
        raise ValueError("scores lie outside [0, 1]")
    return scores


def _all_binary(scores: FloatArray) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def units_of(ids: Sequence[str], groups: Mapping[str, str]) -> list[str] | None:
    """The unit of each example: the group it stands under in `groups`, else itself; None where each is its own."""
    units = [groups.get(i, i) for i in ids]
    return units if len(set(units)) < len(units) else None


def _units(values: FloatArray, groups: Sequence[Hashable] | None) -> tuple[FloatArray, FloatArray]:
    """Sum and size of each unit, shape (units,), in the order in which the groups first appear."""
    import numpy as np

    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ScoreMismatch(f"{len(values)} scores but {len(groups)} groups; each example has one group")
    number: dict[Hashable, int] = {}
    index: IntArray = np.array([number.setdefault(group, len(number)) for group in groups])
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)


def _interval(sums: FloatArray, sizes: FloatArray, *, floor: float, seed: int, resamples: int) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(sizes) when whole units are drawn. Scores lie in [floor, 1]."""
    import numpy as np

    mean = float(sums.sum() / sizes.sum())
    equal = bool(np.ptp(sums / sizes) < 1e-12)
    low, high = (mean, mean) if equal else _bootstrap(sums, sizes, seed=seed, resamples=resamples)
    if equal or len(sums) < FEW_UNITS:
        unseen_low, unseen_high = _unseen(mean, len(sums), floor)
        low, high = min(low, unseen_low), max(high, unseen_high)
    return max(floor, low), min(1.0, high)


def _bootstrap(sums: FloatArray, sizes: FloatArray, *, seed: int, resamples: int) -> tuple[float, float]:
    import warnings

    import numpy as np
    from scipy.stats import bootstrap

    def ratio(s: FloatArray, m: FloatArray, axis: int = -1) -> Any:
        return s.sum(axis=axis) / m.sum(axis=axis)

    def run(method: str) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is not defined; NaN says it too
            found = bootstrap(
                (sums, sizes),
                ratio,
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                batch=max(1, 2_000_000 // len(sums)),
                method=method,
                rng=np.random.default_rng(seed),
            )
        return float(found.confidence_interval.low), float(found.confidence_interval.high)

    low, high = run("BCa")
    return (low, high) if np.isfinite([low, high]).all() else run("percentile")


def _unseen(mean: float, units: int, floor: float) -> tuple[float, float]:
    """The means that are possible if some share of units, none of them seen yet, scores quite differently.

    The share is at most the upper Wilson bound of 0 in `units`; those units score between floor and 1. For a rate of
    0 or 1 this is the Wilson interval itself.
    """
    share = wilson(0, units)[1]
    return mean - share * (mean - floor), mean + share * (1 - mean)


# ---- power of the exact McNemar test ----------------------------------------------------------

_UNEVEN = 6
"""How far back an exact test may have been a little stronger: its critical value moves every two to six examples."""


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
