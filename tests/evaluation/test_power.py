"""What a comparison can show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rung.evaluation.paired_tests import mcnemar_exact
from rung.evaluation.statistics import compare, detectable_as_seen, minimum_detectable_difference


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
