"""Paired tests, and intervals that agree with them."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.paired_tests import KnownRate, McNemar, SignFlips, mcnemar_exact, paired_permutation, paired_test
from rung.evaluation.statistics import compare, compare_all


def excludes_zero(interval: tuple[float, float]) -> bool:
    return interval[0] > 0 or interval[1] < 0


# ---- right and wrong


def test_mcnemar_equals_statsmodels_on_every_small_table() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    for only_a, only_b in itertools.product(range(8), repeat=2):
        table = [[5, only_a], [only_b, 3]]
        assert mcnemar_exact(only_a, only_b) == pytest.approx(mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize(
    ("n", "alpha"), [(60, 0.05), (75, 0.05), (400, 0.05), (2000, 0.05), (100, 0.05 / 6), (400, 0.001)]
)
def test_the_interval_of_rates_excludes_zero_exactly_when_the_exact_test_rejects(n: int, alpha: float) -> None:
    for only_a, only_b in itertools.product(range(61), repeat=2):
        if only_a + only_b > 60:
            continue
        test = McNemar(only_a, only_b, n)
        low, high = test.interval(alpha, test.p < alpha)
        assert excludes_zero((low, high)) == (test.p < alpha), (only_a, only_b)
        assert -1 <= low <= (only_b - only_a) / n <= high <= 1


def test_the_interval_of_rates_narrows_with_examples() -> None:
    for only_a, only_b in [(0, 0), (0, 6), (3, 9), (20, 10)]:
        widths = []
        for times in (1, 2, 4, 8):
            test = McNemar(times * only_a, times * only_b, times * 40)
            low, high = test.interval(0.05, test.p < 0.05)
            widths.append(high - low)
        assert all(later < earlier for earlier, later in itertools.pairwise(widths))


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(40, 0.05, 0.15), (40, 0.02, 0.4), (100, 0.1, 0.1), (100, 0.0, 0.9)]
)
def test_the_interval_of_rates_covers_the_truth_often_enough(n: int, only_a: float, only_b: float) -> None:
    random = np.random.default_rng(4)
    tables = random.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=2000)
    known: dict[tuple[int, int], bool] = {}
    for a, b, _ in tables.tolist():
        if (a, b) not in known:
            test = McNemar(a, b, n)
            low, high = test.interval(0.05, test.p < 0.05)
            known[a, b] = low <= only_b - only_a <= high
    assert np.mean([known[a, b] for a, b, _ in tables.tolist()]) >= 0.94


def test_a_difference_that_is_not_significant_is_never_printed_as_if_it_were() -> None:
    # 1 and 7 of 21: p = 0.07, and the score interval alone, 2.6 to 52 points, would exclude zero.
    found = compare("a", "b", [1.0] + [0.0] * 20, [0.0] + [1.0] * 7 + [0.0] * 13, "test")
    assert found.p == pytest.approx(0.0703, abs=1e-4)
    assert found.low <= 0 < found.difference < found.high


# ---- against a known rate


def test_a_rate_is_compared_with_a_known_one_by_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    for right, n, known in [(0, 3, 0.5), (5, 7, 0.1), (8, 8, 0.125), (12, 40, 1 / 3), (1, 30, 0.4)]:
        b = [1.0] * right + [0.0] * (n - right)
        found = compare("chance", "lora", [known] * n, b, "test")
        tails = [binomtest(right, n, known, alternative=side).pvalue for side in ("less", "greater")]
        assert found.p == pytest.approx(min(1.0, 2 * min(tails)))
        ends = binomtest(right, n, known).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((ends.low - known, ends.high - known))
        turned = compare("lora", "chance", b, [known] * n, "test")
        assert (turned.p, turned.low, turned.high) == pytest.approx((found.p, -found.high, -found.low))


def test_few_examples_suffice_against_a_known_rate() -> None:
    names = ["zero_shot", "few_shot", "rag", "lora"]
    scores = {name: [1.0] * 8 for name in names} | {"chance": [1 / 8] * 8}
    found = compare_all([("chance", name) for name in names], scores, "test")
    assert all(c.p_corrected < 1e-5 and c.low > 0 for c in found)
    assert compare("chance", "lora", [0.1] * 7, [1.0] * 5 + [0.0] * 2, "test").p < 0.001


@pytest.mark.parametrize("known", [0.1, 0.125, 0.5])
def test_the_interval_against_a_known_rate_excludes_zero_exactly_when_the_test_rejects(known: float) -> None:
    for n in (1, 2, 7, 30):
        for right, alpha, sign in itertools.product(range(n + 1), (0.05, 0.05 / 6), (1, -1)):
            test = KnownRate(right, n, known, sign)
            low, high = test.interval(alpha, test.p < alpha)
            assert excludes_zero((low, high)) == (test.p < alpha)
            assert -1 <= low <= sign * (right / n - known) <= high <= 1


def test_rates_that_differ_between_examples_and_groups_are_compared_by_sign_flips() -> None:
    b, known = [1.0] * 8, [0.1] * 8
    assert isinstance(paired_test([0.2, *known[1:]], b), SignFlips)
    assert isinstance(paired_test(known, b, groups=list("aabbccdd")), SignFlips)
    assert isinstance(paired_test(known, [0.5, *b[1:]]), SignFlips)


# ---- sign flips


def brute_force(sums: list[float]) -> float:
    flips = list(itertools.product([-1, 1], repeat=len(sums)))
    observed = abs(sum(sums))
    return sum(abs(sum(s * x for s, x in zip(f, sums, strict=True))) >= observed - 1e-9 for f in flips) / len(flips)


def test_sign_flips_equal_brute_force() -> None:
    random = np.random.default_rng(8)
    for n in (1, 2, 5, 9):
        a, b = random.random((2, n)).round(1)
        assert paired_permutation(a.tolist(), b.tolist()) == pytest.approx(brute_force((b - a).tolist()))


def test_whole_groups_are_flipped() -> None:
    random = np.random.default_rng(9)
    a, b = random.random((2, 21))
    groups = [i % 7 for i in range(21)]
    sums = [float((b - a)[g::7].sum()) for g in range(7)]
    assert paired_permutation(a.tolist(), b.tolist(), groups=groups) == pytest.approx(brute_force(sums))
    assert compare("a", "b", a.tolist(), b.tolist(), "test", groups=groups).p == pytest.approx(brute_force(sums))


def test_enumerated_flips_of_rates_equal_exact_mcnemar() -> None:
    a, b = [1.0] * 3 + [0.0] * 29, [0.0] * 3 + [1.0] * 9 + [0.0] * 20
    assert paired_permutation(a, b) == pytest.approx(mcnemar_exact(3, 9))


def test_random_flips_come_near_exact_mcnemar_and_are_never_zero() -> None:
    a, b = [1.0] * 10 + [0.0] * 25, [0.0] * 10 + [1.0] * 25
    assert paired_permutation(a, b, seed=3) == pytest.approx(mcnemar_exact(10, 25), abs=0.005)
    assert paired_permutation([0.0] * 200, [0.5] * 200) == pytest.approx(1 / 20_001)


def brute_p(sums: np.ndarray, sizes: np.ndarray, true: float) -> float:
    """The p-value of a true difference, by trying all flips."""
    shifted = sums - true * sizes
    return brute_force(shifted.tolist())


@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_sign_flips_is_the_set_of_differences_that_the_test_does_not_reject(grouped: bool) -> None:
    random = np.random.default_rng(11)
    for units in (6, 8, 10):
        sizes = random.integers(1, 4, units) if grouped else np.ones(units, dtype=int)
        groups = np.repeat(np.arange(units), sizes)
        a = random.random(len(groups))
        b = np.clip(a + random.normal(0.2, 0.2, len(groups)), 0, 1)
        test = paired_test(a.tolist(), b.tolist(), groups=groups.tolist())
        assert isinstance(test, SignFlips)
        sums = np.bincount(groups, weights=b - a)
        for alpha in (0.05, 0.1, 0.3):
            # Without the widening for few units, which is tested elsewhere.
            place = int(np.ceil(alpha * len(test.lows) - 1e-9)) - 1
            low, high = float(test.lows[place]), float(test.highs[place])
            if not np.isfinite([low, high]).all():
                continue
            for inside in (low + 1e-6, (low + high) / 2, high - 1e-6):
                assert brute_p(sums, sizes, inside) >= alpha
            for outside in (low - 1e-6, low - 0.1, high + 1e-6, high + 0.1):
                assert brute_p(sums, sizes, outside) < alpha


@pytest.mark.parametrize("kind", ["graded", "sparse", "groups", "few", "equal", "rates in groups"])
def test_the_interval_excludes_zero_exactly_when_the_permutation_test_rejects(kind: str) -> None:
    random = np.random.default_rng(12)
    rejected = 0
    for seed in range(60):
        n = {"few": 7, "equal": 9}.get(kind, 40)
        a = random.random(n)
        b = np.clip(a + random.normal(random.choice([0.0, 0.08, 0.12]), 0.2, n), 0, 1)
        groups = None
        if kind == "sparse":
            b = np.where(random.random(n) < 0.75, a, b)
        if kind == "equal":
            a, b = np.full(n, 0.3), np.full(n, 0.3 + random.choice([0.0, 0.1]))
        if kind == "few":
            b = np.clip(a + random.normal(0.2, 0.15, n), 0, 1)
        if kind in ("groups", "rates in groups"):
            groups = (np.arange(n) // 2).tolist()
        if kind == "rates in groups":
            a, b = (random.random(n) < 0.4).astype(float), (random.random(n) < 0.65).astype(float)
        p = paired_permutation(a.tolist(), b.tolist(), groups=groups, seed=seed, resamples=2000)
        found = compare("a", "b", a.tolist(), b.tolist(), "test", groups=groups, seed=seed, resamples=2000)
        assert found.p == p
        assert excludes_zero((found.low, found.high)) == (p < 0.05)
        assert found.low <= found.difference <= found.high
        rejected += p < 0.05
    assert 0 < rejected < 60


def test_few_units_and_equal_ones_have_an_interval_with_a_width() -> None:
    five = compare("a", "b", [0.1, 0.2, 0.3, 0.1, 0.2], [0.3, 0.5, 0.4, 0.2, 0.6], "test")
    assert (five.low, five.high) == (-1.0, 1.0)  # no five differences are significant
    equal = compare("a", "b", [0.2] * 30, [0.6] * 30, "test")
    assert equal.low < 0.35 and equal.high > 0.45
    same = compare("a", "b", [0.5] * 30, [0.5] * 30, "test")
    assert same.low < -0.05 and same.high > 0.05


def test_a_widening_for_few_units_does_not_move_a_significant_end_to_zero() -> None:
    a, d = [0.2] * 7, [0.02, 0.05, 0.1, 0.12, 0.15, 0.09, 0.1]
    found = compare("a", "b", a, [x + y for x, y in zip(a, d, strict=True)], "test")
    test = paired_test(a, [x + y for x, y in zip(a, d, strict=True)])
    assert isinstance(test, SignFlips) and found.p < 0.05
    assert found.low == pytest.approx(float(test.lows[int(np.ceil(0.05 * 2**7)) - 1])) and found.low > 0.02
    assert found.high > 0.3  # away from zero the interval stays wide
    turned = compare("b", "a", [x + y for x, y in zip(a, d, strict=True)], a, "test")
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_graded_intervals_cover_the_true_difference_about_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(13)
    covered = 0
    for seed in range(200):
        a = random.beta(2, 2, 30)
        b = np.where(random.random(30) < 0.5, a, random.beta(4, 2, 30))
        found = compare("a", "b", a.tolist(), b.tolist(), "test", seed=seed, resamples=1000)
        covered += found.low <= 0.5 * (4 / 6 - 1 / 2) <= found.high
    assert 181 <= covered <= 199


def test_two_thousand_units_take_bounded_memory() -> None:
    random = np.random.default_rng(14)
    a, b = random.random((2, 2000))
    compare("a", "b", a.tolist(), b.tolist(), "test", resamples=10)  # imports
    tracemalloc.start()
    compare("a", "b", a.tolist(), b.tolist(), "test")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6  # all signs at once would take 320 MB


def test_scores_of_other_examples_are_refused() -> None:
    with pytest.raises(ScoreMismatch):
        paired_permutation([1.0, 0.0], [1.0])
    with pytest.raises(ScoreMismatch):
        paired_test([1.0, 0.0], [1.0])
