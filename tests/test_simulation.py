"""Honesty, by simulated runs through the real path; bench/simulation.py makes thousands of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rung.evaluation.contenders import named_pairs
from rung.evaluation.statistics import compare_all, minimum_detectable_difference


@pytest.fixture(scope="module")
def simulation() -> Any:
    path = Path(__file__).parent.parent / "bench" / "simulation.py"
    spec = importlib.util.spec_from_file_location("simulation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equal_candidates_are_rarely_told_apart(simulation: Any) -> None:
    ends = [simulation.simulate((seed, 0.0, 60)) for seed in range(30)]
    claims = [choice == "rag" or differs for choice, differs in ends]
    assert sum(claims) <= 5  # at one in twenty, more come once in 3,000 times


def test_a_difference_as_large_as_the_printed_one_is_mostly_found(simulation: Any) -> None:
    difference = minimum_detectable_difference(60)
    found = [simulation.simulate((seed, difference, 60))[0] for seed in range(20)].count("rag")
    assert found >= 10  # at four in five, fewer come once in 1,700 times


def test_a_killed_run_ends_in_the_verdict_of_an_undisturbed_one(
    simulation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [(seed, 0.1, 40) for seed in range(8)]
    disturbed = [simulation.simulate(job) for job in jobs]
    monkeypatch.setattr(simulation, "KILLED", 0.0)
    assert [simulation.simulate(job) for job in jobs] == disturbed


# ---- several models ---------------------------------------------------------------------------


def test_between_nine_equal_finalists_of_three_models_hardly_anything_is_claimed(simulation: Any) -> None:
    ends = [simulation.simulate_final((seed, "all_equal", 3, 100)) for seed in range(60)]
    for pairs in ("named", "all"):
        assert sum(end[pairs]["false_claim"] for end in ends) <= 8  # at one in twenty, more come once in 270 times


def test_pairs_that_are_named_by_dev_find_the_better_one_more_often_than_all_pairs(simulation: Any) -> None:
    ends = [simulation.simulate_final((seed, "one_better_of_a_slope", 3, 200)) for seed in range(30)]
    found = {pairs: sum(end[pairs]["shipped_best"] for end in ends) for pairs in ("named", "all")}
    assert found["named"] > found["all"]
    assert all(end["named"]["pairs"] < end["all"]["pairs"] == 36 for end in ends)


def test_what_is_compared_without_intervals_is_compared_as_in_a_run(simulation: Any) -> None:
    rates = simulation.truth("one_better", 6, 60, 3)
    dev, test = (simulation.answers(rates, 3, 60, 3, on) for on in (0, 1))
    names = [f"{family}@m{model}" for model in range(2) for family in ("prompt", "rag", "fine-tune")]
    scores = dict(zip(names, test, strict=True))
    for among in ((), names[3:4]):
        pairs = named_pairs(names, among)
        quick, whole = simulation.compared(pairs, scores), compare_all(pairs, scores, "test")
        assert [(c.a, c.b, c.p, c.p_corrected) for c in quick] == [(c.a, c.b, c.p, c.p_corrected) for c in whole]
        assert [c.difference for c in quick] == pytest.approx([c.difference for c in whole])
        shipped = [simulation.verdict_over(names, dev, test, found, among) for found in (quick, whole)]
        assert shipped[0] == shipped[1]
