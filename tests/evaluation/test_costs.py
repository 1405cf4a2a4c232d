"""Prices, and after how many requests building pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rung.evaluation.costs import break_even, build_usd, frontier, request_usd
from rung.types import Candidate, Price, Score

HOURLY = Price(usd_per_hour=3.6)
TOKENS = Price(usd_per_million_in=1.0, usd_per_million_out=4.0, usd_per_million_cached=0.1)


def candidate(name: str, mean: float, tokens: float) -> Candidate:
    score = Score(mean, mean, mean, 10)
    return Candidate(name, "prompt", score, score, tokens, 10, None, None, None, 0, 0)


def test_a_machine_is_paid_for_by_its_seconds() -> None:
    assert request_usd(HOURLY, tokens_in=9, tokens_cached=0, tokens_out=9, seconds=2) == pytest.approx(0.002)
    assert build_usd(HOURLY, 1000) == pytest.approx(1.0)
    assert build_usd(TOKENS, 1000) == build_usd(None, 1000) == 0.0


def test_tokens_are_paid_for_by_the_million_and_cached_ones_by_their_own_price() -> None:
    usd = request_usd(TOKENS, tokens_in=1000, tokens_cached=800, tokens_out=50, seconds=9)
    assert usd == pytest.approx((200 * 1.0 + 800 * 0.1 + 50 * 4.0) / 1e6)
    plain = replace(TOKENS, usd_per_million_cached=None)
    assert request_usd(plain, tokens_in=1000, tokens_cached=800, tokens_out=0, seconds=0) == pytest.approx(1e-3)


def test_break_even_is_what_building_costs_by_what_a_request_saves() -> None:
    found = break_even("lora", "few_shot", 2.0, 0.5, [0.001] * 8, [0.004] * 8)
    assert found is not None and found.requests == pytest.approx(500)
    assert found.low == pytest.approx(500) and found.high == pytest.approx(500)
    assert found.saving_per_1k_usd == pytest.approx(3.0)


def test_a_saving_that_may_be_nothing_has_no_upper_end() -> None:
    found = break_even("lora", "few_shot", 1.0, 0.0, [1, 1, 1, 1], [0.5, 3, 0.5, 3])
    assert found is not None and found.high is None and found.low < found.requests


def test_what_saves_nothing_never_pays() -> None:
    assert break_even("lora", "few_shot", 1.0, 0.0, [2.0], [1.0]) is None
    assert break_even("lora", "few_shot", 0.0, 0.0, [1.0], [2.0]) is None


def test_two_thousand_requests_take_bounded_memory() -> None:
    import tracemalloc

    break_even("lora", "few_shot", 1.0, 0.0, [1.0, 2.0], [2.0, 2.0])  # imports
    tracemalloc.start()
    break_even("lora", "few_shot", 1.0, 0.0, [1.0] * 2000, [2.0] * 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # all draws at once would take 320 MB


def test_the_frontier_leaves_out_what_another_beats_at_no_more_cost() -> None:
    cheap, dear, beaten = candidate("a", 0.5, 1.0), candidate("b", 0.9, 3.0), candidate("c", 0.4, 2.0)
    assert frontier([cheap, dear, beaten, replace(beaten, name="untested", test=None)]) == ("a", "b")
    assert frontier([cheap, replace(cheap, name="same")]) == ("a", "same")
    by_usd = [replace(cheap, cost_per_1k_usd=9.0), replace(dear, cost_per_1k_usd=1.0)]
    assert frontier(by_usd) == ("b",)


def test_without_prices_tokens_of_two_models_are_never_compared() -> None:
    small = replace(candidate("a", 0.5, 900.0), model="small")
    large, worse = (replace(candidate(n, m, 10.0), model="large") for n, m in (("b", 0.8), ("c", 0.4)))
    models = ("small", "large")
    assert frontier([small, large, worse], models) == ("a", "b")
    assert frontier([small, replace(large, test=small.test)], models) == ("a",), "the later model costs more"
    shorter = replace(small, name="d", tokens_in=5.0)
    assert frontier([small, shorter, large], models) == ("d", "b")
    usd = [replace(small, cost_per_1k_usd=9.0), replace(large, cost_per_1k_usd=1.0)]
    assert frontier(usd, models) == ("b",), "dollars decide where all have a price"
    assert frontier([*usd, replace(worse, test=large.test)], models) == ("a", "b", "c"), "one price is missing"
