"""Honesty, by simulated runs through the real path; bench/simulation.py makes thousands of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rung.evaluation.statistics import minimum_detectable_difference


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
