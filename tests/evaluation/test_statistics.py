"""Scores and comparisons."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.intervals import wilson
from rung.evaluation.statistics import ALPHA, compare, compare_all, holm, score

# ---- one score


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
    assert 0.7 < found.low < 0.9


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


def test_the_standard_error_is_the_observed_one() -> None:
    random = np.random.default_rng(2)
    a, b = random.random((2, 50))
    found = compare("a", "b", a.tolist(), b.tolist(), "test")
    assert found.standard_error == pytest.approx(np.std(b - a, ddof=1) / 50**0.5)
    doubled = compare("a", "b", [*a, *a], [*b, *b], "test", groups=[*range(50), *range(50)])
    assert doubled.standard_error == pytest.approx(found.standard_error)
    assert compare("a", "b", [0.1], [0.2], "test").standard_error == 0.0


# ---- several comparisons


def test_holm_gives_the_textbook_values_and_keeps_the_order() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([]) == []


def test_holm_equals_that_of_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    random = np.random.default_rng(5)
    for n in (1, 2, 3, 10, 40):
        values = [*(random.random(n) ** 3).tolist(), 0.0, 1.0, 0.03, 0.03]
        assert holm(values) == pytest.approx(multipletests(values, method="holm")[1], abs=1e-15)


@pytest.mark.parametrize("kind", ["rates", "graded", "groups"])
def test_a_corrected_interval_excludes_zero_exactly_when_its_corrected_p_is_significant(kind: str) -> None:
    random = np.random.default_rng(21)
    met: set[tuple[bool, bool]] = set()
    for seed in range(15):
        shift = (0.0, 0.15, 0.22, 0.4)
        columns = [np.clip(random.random(40) * 0.6 + random.normal(s, 0.2, 40), 0, 1) for s in shift]
        if kind == "rates":
            columns = [(c > 0.5).astype(float) for c in columns]
        scores = {name: c.tolist() for name, c in zip("abcd", columns, strict=True)}
        groups = (np.arange(40) // 2).tolist() if kind == "groups" else None
        pairs = list(itertools.combinations("abcd", 2))
        found = compare_all(pairs, scores, "test", groups=groups, seed=seed, resamples=2000)
        assert [(c.a, c.b) for c in found] == pairs
        assert [c.p_corrected for c in found] == pytest.approx(holm([c.p for c in found]))
        for c in found:
            alone = compare(c.a, c.b, scores[c.a], scores[c.b], "test", groups=groups, seed=seed, resamples=2000)
            assert (c.p, c.difference) == (alone.p, alone.difference)
            assert c.low <= alone.low and alone.high <= c.high and c.level >= alone.level == 1 - ALPHA
            significant = c.p_corrected < ALPHA
            assert (c.low > 0 or c.high < 0) == significant
            met.add((alone.p < ALPHA, significant))
    assert met == {(False, False), (True, False), (True, True)}


def test_a_p_value_of_zero_survives_the_correction() -> None:
    scores = {"a": [0.0] * 1200, "b": [1.0] * 1200, "c": [1.0] * 1200}
    found = compare_all([("a", "b"), ("b", "c")], scores, "test")
    assert found[0].p == found[0].p_corrected == 0.0 and found[0].low > 0.9
    assert found[1].p_corrected == 1.0 and found[1].low < 0 < found[1].high


def test_no_pairs_give_no_comparisons() -> None:
    assert compare_all([], {}, "test") == ()


def test_importing_the_statistics_loads_no_numbers_library() -> None:
    code = "import sys, rung.evaluation.statistics; print({'numpy', 'scipy', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
