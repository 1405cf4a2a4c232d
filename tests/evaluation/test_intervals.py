"""Intervals by formula and bootstrap, against published values and other implementations."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from rung.evaluation.intervals import bca, conditional, tango, unseen, wilson


def test_wilson_gives_the_published_intervals() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_tangos_interval_is_the_published_one() -> None:
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850: airway hyper-responsiveness of 21 children
    # before and after a transplantation, 1 and 7 discordant; the score interval is -0.517 to -0.026.
    assert tango(7, 1, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_tangos_interval_inverts_the_score_test_by_a_search_for_the_likeliest_shares() -> None:
    from scipy.optimize import minimize_scalar
    from scipy.stats import norm

    def p_value(only_a: int, only_b: int, n: int, difference: float) -> float:
        def unlikely(q: float) -> float:  # q: share of "only a"; that of "only b" is q + difference
            shares = (q, q + difference, 1 - 2 * q - difference)
            counts = (only_a, only_b, n - only_a - only_b)
            return -sum(k * np.log(max(x, 1e-300)) for k, x in zip(counts, shares, strict=True))

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        q = float(minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
        variance = n * (2 * q + difference - difference**2)
        return float(2 * norm.sf(abs(only_b - only_a - n * difference) / variance**0.5))

    for only_a, only_b, n in [(1, 7, 21), (5, 5, 40), (12, 3, 60), (2, 30, 40)]:
        for alpha in (0.05, 0.01):
            low, high = tango(only_a, only_b, n, alpha)
            assert p_value(only_a, only_b, n, low) == pytest.approx(alpha, abs=1e-4)
            assert p_value(only_a, only_b, n, high) == pytest.approx(alpha, abs=1e-4)


def test_tangos_interval_stays_inside_the_range_at_its_ends() -> None:
    assert tango(0, 30, 30)[1] == 1.0 and tango(30, 0, 30)[0] == -1.0
    low, high = tango(0, 0, 50)
    z2 = 1.959964**2
    assert (low, high) == pytest.approx(
        (-z2 / (50 + z2), z2 / (50 + z2)), abs=1e-6
    )  # the closed form without discordance


def test_the_conditional_interval_is_clopper_and_pearsons_of_the_discordant_share() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for only_a, only_b in [(0, 6), (3, 9), (10, 10), (7, 0)]:
        low, high = proportion_confint(only_b, only_a + only_b, method="beta")
        scale = (only_a + only_b) / 50
        assert conditional(only_a, only_b, 50) == pytest.approx(((2 * low - 1) * scale, (2 * high - 1) * scale))
    assert conditional(0, 0, 50) == (0.0, 0.0)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_equals_scipys_bca(grouped: bool) -> None:
    from scipy.stats import bootstrap

    random = np.random.default_rng(3)
    for units in (2, 5, 12, 40):
        sizes = random.integers(1, 5, units).astype(float) if grouped else np.ones(units)
        sums = random.beta(4, 1.5, units) * sizes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = bootstrap(
                (sums, sizes),
                lambda s, m, axis=-1: s.sum(axis=axis) / m.sum(axis=axis),
                paired=True,
                n_resamples=2000,
                rng=np.random.default_rng(7),
            ).confidence_interval
        if np.isfinite([theirs.low, theirs.high]).all():
            assert bca(sums, sizes, seed=7, resamples=2000) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_bootstrap_of_two_thousand_units_stays_within_its_memory() -> None:
    values = np.random.default_rng(0).random(2000)
    bca(values[:10], np.ones(10), resamples=10)  # imports
    tracemalloc.start()
    bca(values, np.ones(2000), resamples=3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # a jackknife of 2000 x 2000 values alone would take 32 MB twice, all draws at once 48 MB thrice


def test_what_is_unseen_widens_a_mean_towards_both_ends() -> None:
    share = wilson(0, 9)[1]
    assert unseen(0.5, 9, 0.0) == pytest.approx((0.5 - share / 2, 0.5 + share / 2))
    assert unseen(0.0, 9, -1.0) == pytest.approx((-share, share))
