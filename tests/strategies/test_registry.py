"""The registry of strategies, and what each is expected to cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rung.strategies.registry import STRATEGIES, Cost, Strategy, Texts, function_of, register_strategy
from rung.types import FAMILIES, Price

TEXTS = Texts(
    own=20, answer=3, room=8, instruction=30, forms=0, passage=60, train=400, dev=200, screen=48, training_tokens=10**9
)


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(STRATEGIES)
    yield
    STRATEGIES.clear()
    STRATEGIES.update(before)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_function_that_the_registry_names_is_there(name: str) -> None:
    strategy = STRATEGIES[name]
    assert callable(function_of(strategy.build))
    assert all(callable(function_of(f)) for f in (strategy.pilot, strategy.repair) if f is not None)
    cost = function_of(strategy.cost)(TEXTS)
    assert cost.calls >= TEXTS.dev and (cost.trained > 0) == ("trainable" in strategy.needs)


def cost_of(name: str, **texts: Any) -> Cost:
    cost: Cost = function_of(STRATEGIES[name].cost)(replace(TEXTS, **texts))
    return cost


@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if not (s.needs & {"trainable"} or s.cures)])
def test_the_other_form_of_a_prompt_is_counted_where_there_is_one(name: str) -> None:
    assert cost_of(name, forms=40).calls > cost_of(name).calls


@pytest.mark.parametrize("name", [n for n, s in STRATEGIES.items() if "trainable" in s.needs])
def test_a_training_costs_no_more_than_its_compute_budget_and_has_no_other_form(name: str) -> None:
    assert cost_of(name, train=1_000_000, training_tokens=100_000).trained < 1.15 * 100_000
    assert cost_of(name, forms=40) == cost_of(name)


def test_the_probes_of_a_short_training_weigh_more_and_those_of_a_shorter_one_nothing() -> None:
    from rung.strategies.course import Lengths

    step = Lengths(TEXTS.instruction, TEXTS.own + TEXTS.answer).step
    trained = [cost_of("lora", training_tokens=int(step * steps) + 1).trained / step for steps in (10, 20, 100)]
    assert trained == [10, 20 + 2 * 4, 100 + 2 * 6]


def test_a_strategy_from_outside_stands_behind_the_others_of_its_family(registry: None) -> None:
    register_strategy(Strategy("mine", "prompt", "a dummy", lambda texts: Cost(), lambda workshop: None))
    families = [FAMILIES.index(s.family) for s in STRATEGIES.values()]
    assert families == sorted(families)
    assert [n for n, s in STRATEGIES.items() if s.family == "prompt"][-1] == "mine"
    register_strategy(Strategy("mine", "rag", "the same name again", lambda texts: Cost(), lambda workshop: None))
    assert STRATEGIES["mine"].family == "rag"


@pytest.mark.parametrize("name", STRATEGIES)
def test_thoughts_are_counted_for_every_answer_without_an_adapter(name: str) -> None:
    plain, thinking = cost_of(name), cost_of(name, thought=1024)
    thoughts = 0 if "trainable" in STRATEGIES[name].needs else 1024 * plain.calls
    assert thinking.written - plain.written == pytest.approx(thoughts)
    assert (thinking.calls, thinking.read, thinking.trained) == (plain.calls, plain.read, plain.trained)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_endpoint_is_sent_every_prompt_whole(name: str) -> None:
    """A shared prefix is read once a block of answers on this machine, and charged with every call elsewhere."""
    cost, longer = cost_of(name), cost_of(name, instruction=TEXTS.instruction + 100)
    assert cost.sent > cost.read and longer.sent - cost.sent == pytest.approx(100 * cost.calls)
    assert longer.read - cost.read < 0.2 * (longer.sent - cost.sent)
    assert (cost + cost).sent == 2 * cost.sent


def test_demos_that_every_prompt_shows_are_sent_every_time() -> None:
    texts = replace(TEXTS, screen=90, dev=120, own=10.0, answer=2.0, instruction=20.0, forms=0.0)
    sent = function_of(STRATEGIES["few_shot"].cost)(texts).sent
    fixed = 180 * (30 + (4 + 8 + 16) / 3 * 12) + 120 * (30 + 16 * 12)
    assert sent == pytest.approx(fixed + 90 * (30 + 8 * 12))


def test_dollars_are_those_of_the_tokens_sent_and_written() -> None:
    price = Price(usd_per_million_in=2.0, usd_per_million_out=8.0, usd_per_million_cached=0.2)
    cost = Cost(calls=10, read=100.0, written=500.0, trained=1e9, sent=4000.0)
    assert cost.usd(price) == pytest.approx((4000 * 2 + 500 * 8) / 1e6)
    assert cost.usd(None) == cost.usd(Price(usd_per_hour=9.0)) == 0.0
