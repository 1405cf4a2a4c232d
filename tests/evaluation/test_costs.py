"""Prices, and after how many requests building pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rung.evaluation.costs import break_even, build_usd, frontier, request_usd
from rung.models.endpoint.prices import batch_price
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
    found = break_even("lora", "few_shot", 1.5, [0.001] * 8, [0.004] * 8)
    assert found is not None and found.requests == pytest.approx(500)
    assert found.low == pytest.approx(500) and found.high == pytest.approx(500)
    assert found.saving_per_1k_usd == pytest.approx(3.0)


def test_a_saving_that_may_be_nothing_has_no_upper_end() -> None:
    found = break_even("lora", "few_shot", 1.0, [1, 1, 1, 1], [0.5, 3, 0.5, 3])
    assert found is not None and found.high is None and found.low < found.requests


def test_what_saves_nothing_never_pays() -> None:
    assert break_even("lora", "few_shot", 1.0, [2.0], [1.0]) is None
    assert break_even("lora", "few_shot", 0.0, [1.0], [2.0]) is None


def test_a_tuned_local_model_is_set_beside_an_endpoint_each_at_its_own_price() -> None:
    """A machine at 3.6 USD an hour takes 0.1, 0.2 and 0.3 s; the endpoint charges by the token, for other inputs."""
    local = [request_usd(HOURLY, tokens_in=9, tokens_cached=0, tokens_out=1, seconds=s) for s in (0.1, 0.2, 0.3)]
    dear = Price(usd_per_million_in=1.0, usd_per_million_out=4.0)
    remote = [request_usd(dear, tokens_in=n, tokens_cached=0, tokens_out=50, seconds=9) for n in (800, 1000, 1200) * 40]
    found = break_even("lora@small", "few_shot@large", 2.0, local, remote, paired=False)
    assert found is not None and found.saving_per_1k_usd == pytest.approx(1.2 - 0.2)
    assert found.requests == pytest.approx(2000) and found.high is not None
    # Means of three seconds lie between 0.1 and 0.3 (0.04 % of draws at either end); the endpoint's vary little.
    assert 2.0 / 1.12e-3 < found.low < found.requests < found.high < 2.0 / 0.88e-3
    # Where nothing varies, there is one number, whatever the sizes.
    sure = break_even("a", "b", 1.0, [0.001] * 3, [0.002] * 5, paired=False)
    assert sure is not None and sure.low == pytest.approx(sure.requests) == pytest.approx(1000)


def test_pairs_of_requests_tell_more_than_two_separate_samples() -> None:
    tuned = [0.001 * i for i in range(1, 21)]
    prompt = [usd + 0.002 for usd in tuned]  # long inputs are dear for both
    pairs = break_even("a", "b", 1.0, tuned, prompt)
    apart = break_even("a", "b", 1.0, tuned, prompt, paired=False)
    assert pairs is not None and apart is not None and pairs.requests == pytest.approx(apart.requests)
    assert pairs.high == pytest.approx(500) and apart.high is None


def test_a_batch_job_halves_what_tokens_cost_and_nothing_else() -> None:
    pytest.importorskip("genai_prices")
    usage = {"tokens_in": 1000, "tokens_cached": 800, "tokens_out": 50, "seconds": 2}
    where = ("https://api.openai.com/v1", "gpt-5-mini")
    assert request_usd(batch_price(TOKENS, *where), **usage) == pytest.approx(request_usd(TOKENS, **usage) / 2)
    assert request_usd(batch_price(HOURLY, *where), **usage) == request_usd(HOURLY, **usage)


def test_two_thousand_requests_take_bounded_memory() -> None:
    import tracemalloc

    break_even("lora", "few_shot", 1.0, [1.0, 2.0], [2.0, 2.0])  # imports
    tracemalloc.start()
    break_even("lora", "few_shot", 1.0, [1.0] * 2000, [2.0] * 2000)
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
