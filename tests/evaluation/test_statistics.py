from __future__ import annotations

import itertools

import numpy as np
import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.metrics import exact_match, label_accuracy
from rung.evaluation.statistics import (
    compare,
    detectable_as_seen,
    floor,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_permutation,
    score,
    wilson,
)
from rung.types import Comparison

# ---- one score


def test_wilson_gives_the_published_intervals() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_a_rate_gets_its_wilson_interval() -> None:
    found = score([1.0] * 81 + [0.0] * 182)
    assert (found.mean, found.n) == (81 / 263, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_one_example_and_a_perfect_score_still_have_a_wide_interval() -> None:
    assert (score([1.0]).low, score([1.0]).high) == pytest.approx((0.2065, 1.0), abs=5e-5)
    perfect = score([1.0] * 20, groups=[i // 4 for i in range(20)])
    assert (perfect.low, perfect.high) == pytest.approx(wilson(5, 5))  # five groups, not twenty examples


def test_equal_graded_scores_have_an_interval_with_a_width() -> None:
    found = score([0.5] * 50)
    assert found.low == pytest.approx(0.5 - wilson(0, 50)[1] / 2)
    assert found.high == pytest.approx(0.5 + wilson(0, 50)[1] / 2)


def test_a_graded_interval_covers_the_true_mean_about_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        found = score(random.beta(4, 1.5, 40).tolist(), resamples=400)
        covered += found.low <= 4 / 5.5 <= found.high
    assert 181 <= covered <= 199  # 95 % of 200 is 190; 2 % in each tail


def test_examples_that_only_repeat_their_group_do_not_narrow_the_interval() -> None:
    random = np.random.default_rng(6)
    values = random.beta(2, 2, 30)
    alone = score(values.tolist())
    repeated = score(np.repeat(values, 5).tolist(), groups=np.repeat(np.arange(30), 5).tolist())
    blind = score(np.repeat(values, 5).tolist())
    assert (repeated.mean, repeated.low, repeated.high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert blind.high - blind.low < 0.6 * (alone.high - alone.low)


def test_two_groups_do_not_make_a_narrow_interval() -> None:
    found = score([1.0, 0.0] * 50, groups=["x"] * 50 + ["y"] * 50)
    assert found.high - found.low > 0.5


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly() -> None:
    values = np.random.default_rng(7).random(60).tolist()
    assert score(values, seed=1) == score(values, seed=1)
    assert score(values, seed=1).low == pytest.approx(score(values, seed=2).low, abs=0.01)
    assert score(values, seed=1) != score(values, seed=2)


@pytest.mark.parametrize("values", [[], [1.5], [-0.1], [float("nan")]])
def test_what_is_no_list_of_scores_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        score(values)


# ---- two scores


def test_mcnemar_equals_statsmodels_on_every_small_table() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    for only_a, only_b in itertools.product(range(8), repeat=2):
        table = [[5, only_a], [only_b, 3]]
        assert mcnemar_exact(only_a, only_b) == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_a_comparison_of_rates_is_b_minus_a_with_the_exact_p() -> None:
    a = [1.0] * 40 + [1.0] * 2 + [0.0] * 12 + [0.0] * 46
    b = [1.0] * 40 + [0.0] * 2 + [1.0] * 12 + [0.0] * 46
    found = compare("a", "b", a, b, "test")
    assert (found.a, found.b, found.set, found.n) == ("a", "b", "test", 100)
    assert found.difference == pytest.approx(0.10)
    assert found.p == found.p_corrected == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert 0.0 < found.low < 0.10 < found.high < 0.2
    swapped = compare("b", "a", b, a, "test")
    assert (swapped.difference, swapped.p) == (-found.difference, found.p)


def test_equal_answers_do_not_prove_equal_solutions() -> None:
    found = compare("a", "b", [1.0, 0.0] * 50, [1.0, 0.0] * 50, "dev")
    assert (found.difference, found.p) == (0.0, 1.0)
    assert (-found.low, found.high) == pytest.approx((wilson(0, 100)[1],) * 2)


def test_always_better_by_as_much_has_an_interval_with_a_width_inside_the_range() -> None:
    found = compare("a", "b", [0.0] * 30, [1.0] * 30, "test")
    assert found.high == 1.0
    assert found.low == pytest.approx(1 - 2 * wilson(0, 30)[1])


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


def test_groups_of_one_change_nothing() -> None:
    a, b = np.random.default_rng(10).integers(0, 2, (2, 40)).astype(float).tolist()
    assert compare("a", "b", a, b, "test", groups=list("abcdefghijklmnopqrstuvwxyz") + list(range(14))) == compare(
        "a", "b", a, b, "test"
    )


def test_scores_of_other_examples_are_refused() -> None:
    with pytest.raises(ScoreMismatch, match="a has 2 scores and b has 1"):
        compare("a", "b", [1.0, 0.0], [1.0], "test")
    with pytest.raises(ScoreMismatch, match="2 scores but 1 groups"):
        score([1.0, 0.0], groups=["x"])
    with pytest.raises(ScoreMismatch):
        paired_permutation([1.0, 0.0], [1.0])


def test_holm_gives_the_textbook_values_and_keeps_the_order() -> None:
    contrasts = [Comparison("a", "b", "test", 0.1, 0.0, 0.2, p, p, 50) for p in (0.04, 0.01, 0.03, 0.005)]
    assert [c.p_corrected for c in holm(contrasts)] == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert [c.p for c in holm(contrasts)] == [0.04, 0.01, 0.03, 0.005]
    assert holm([]) == ()


# ---- what could have been shown


def test_the_detectable_difference_is_detected_in_four_of_five_simulated_runs() -> None:
    n, discordance = 150, 0.2
    difference = minimum_detectable_difference(n, discordance=discordance)
    random = np.random.default_rng(11)
    cells = [(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance]
    tables = random.multinomial(n, cells, size=2000)
    known = {(x, y): mcnemar_exact(x, y) for x, y, _ in tables.tolist()}
    power = np.mean([known[x, y] <= 0.05 for x, y, _ in tables.tolist()])
    assert difference == 0.11  # the exact 0.1058, rounded up
    assert 0.8 <= power < 0.85


def test_more_examples_never_make_the_detectable_difference_larger() -> None:
    for discordance in (0.1, 1.0):
        found = [minimum_detectable_difference(n, discordance=discordance) for n in range(40)]
        assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(found))


def test_five_examples_show_nothing_and_six_almost_nothing() -> None:
    assert [minimum_detectable_difference(n) for n in (0, 1, 5)] == [1.0, 1.0, 1.0]
    assert minimum_detectable_difference(6) == 0.97  # all six must agree: 0.8 ** (1 / 6), rounded up


def test_of_several_comparisons_each_must_be_shown_at_its_share_of_the_level() -> None:
    assert minimum_detectable_difference(100) == 0.13
    assert minimum_detectable_difference(100, comparisons=6) == minimum_detectable_difference(100, alpha=0.05 / 6)
    assert minimum_detectable_difference(100, comparisons=6) > 0.13
    with pytest.raises(ValueError):
        minimum_detectable_difference(100, comparisons=0)


def test_what_graded_scores_show_is_told_from_how_much_they_vary() -> None:
    random = np.random.default_rng(1)

    def graded(n: int, better_by: float) -> tuple[list[float], list[float]]:
        a = random.beta(2, 3, n)
        return a.tolist(), np.clip(a + better_by + random.normal(0.0, 0.2, n), 0.0, 1.0).tolist()

    shown = [detectable_as_seen([compare("a", "b", *graded(60, 0.05), "test", seed=seed)], 60) for seed in range(20)]
    middle = float(np.median(shown))
    assert middle < minimum_detectable_difference(60), "graded answers vary less than right and wrong ones"
    found = [compare("a", "b", *graded(60, middle), "test", seed=seed, resamples=200).p < 0.05 for seed in range(200)]
    assert 0.7 < np.mean(found) < 0.9


def test_what_is_shown_falls_with_examples_and_rises_with_comparisons() -> None:
    one = compare("a", "b", [0.1, 0.4, 0.3, 0.9, 0.2, 0.5], [0.3, 0.5, 0.2, 1.0, 0.6, 0.4], "test")
    assert detectable_as_seen([one], 6) < detectable_as_seen([one, one], 6) < detectable_as_seen([one, one], 3)
    same = compare("a", "b", [0.5, 0.5], [0.5, 0.5], "test")
    assert detectable_as_seen([same], 2) == detectable_as_seen([one], 1) == detectable_as_seen([], 9) == 1.0


def test_the_detectable_difference_grows_with_power_and_discordance_and_shrinks_with_alpha() -> None:
    base = minimum_detectable_difference(200)
    assert minimum_detectable_difference(200, power=0.9) > base
    assert minimum_detectable_difference(200, discordance=0.4) > base
    assert minimum_detectable_difference(200, alpha=0.2) < base
    with pytest.raises(ValueError):
        minimum_detectable_difference(200, discordance=0.0)


def test_the_floor_is_the_frequent_answer_or_a_blind_guess() -> None:
    references = [["a"], ["b"], ["b"], ["c"]]
    assert floor(["b", "b ", "a"], exact_match, references) == 0.5
    assert floor(["x", "a", "a", "x"], exact_match, references) == 0.0  # the tie goes to the first
    assert floor(["z"], label_accuracy, references, labels=["a", "b", "c", "d"]) == pytest.approx(0.25)
    assert floor([], exact_match, references) == 0.0
    with pytest.raises(ValueError):
        floor(["a"], exact_match, [])
