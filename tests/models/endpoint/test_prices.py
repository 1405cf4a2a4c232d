"""Prices of endpoints, as genai-prices has them."""

from __future__ import annotations

import builtins
from datetime import UTC, date, datetime
from typing import Any

import pytest

from rung.models.endpoint.prices import Found, batch_price, batch_share, price_of, why_no_price
from rung.types import Price

genai_prices = pytest.importorskip("genai_prices")

OPENAI = "https://api.openai.com/v1"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def found(url: str, name: str) -> Found:
    price = price_of(url, name, now=NOW)
    assert price is not None, why_no_price(url, name)
    return price


def test_a_well_known_model_has_its_list_price_with_its_source() -> None:
    mini = found(OPENAI, "gpt-4o-mini-2024-07-18")
    assert mini.price == Price(usd_per_million_in=0.15, usd_per_million_out=0.6, usd_per_million_cached=0.075)
    assert (mini.provider, mini.model) == ("openai", "gpt-4o-mini")
    assert mini.source == f"genai-prices {genai_prices.__version__}"
    assert "2026-01-01" < date.fromisoformat(mini.dated).isoformat() <= "2026-11-20"


@pytest.mark.parametrize(
    ("url", "name", "read", "written"),
    [
        ("https://mine.openai.azure.com/openai/v1", "gpt-4o", 2.5, 10.0),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash", 0.3, 2.5),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "models/gemini-2.5-flash", 0.3, 2.5),
        ("https://api.anthropic.com/v1", "claude-haiku-4-5", 1.0, 5.0),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o-mini", 0.15, 0.6),
        ("https://api.together.ai/v1", "meta-llama/Llama-3.3-70B-Instruct-Turbo", 0.88, 0.88),
        ("https://api.groq.com/openai/v1", "llama-3.1-8b-instant", 0.05, 0.08),
        ("https://api.mistral.ai/v1", "mistral-small-latest", 0.15, 0.6),
    ],
)
def test_the_host_says_which_provider_it_is(url: str, name: str, read: float, written: float) -> None:
    price = found(url, name).price
    assert (price.usd_per_million_in, price.usd_per_million_out) == (read, written)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "https://models.example.org/v1"])
def test_an_unknown_host_has_no_price_whatever_the_name(url: str) -> None:
    assert price_of(url, "gpt-4o-mini") is None
    assert "knows no provider at" in why_no_price(url, "gpt-4o-mini")


def test_an_unknown_model_has_no_price_and_the_reason_says_what_to_do() -> None:
    assert price_of(OPENAI, "gpt-99-nano") is None
    reason = why_no_price(OPENAI, "gpt-99-nano")
    assert "knows no model gpt-99-nano of OpenAI" in reason and reason.endswith(
        "Give the model a `price` in task.yaml."
    )


def test_a_price_that_grows_with_the_prompt_is_that_of_short_prompts_and_says_so() -> None:
    pro = found("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-pro")
    assert pro.price.usd_per_million_in == 1.25 and pro.price.usd_per_million_out == 10
    assert pro.note == "It holds for prompts of up to 200,000 tokens, longer ones cost more."


def test_a_price_that_changes_with_the_hour_is_the_dearest_at_any_hour() -> None:
    night, day = (datetime(2026, 11, 20, hour, tzinfo=UTC) for hour in (20, 10))
    prices = [price_of("https://api.deepseek.com", "deepseek-chat", now=moment) for moment in (night, day)]
    assert prices[0] == prices[1] and prices[0] is not None
    assert prices[0].price.usd_per_million_in == 0.27 and "hour" in prices[0].note


def test_a_batch_job_gets_the_discount_that_is_known_and_no_other() -> None:
    gemini = "https://generativelanguage.googleapis.com/v1beta/openai"
    for url, name in ((OPENAI, "gpt-5-mini"), (OPENAI, "gpt-99-nano"), (gemini, "gemini-2.5-flash")):
        assert batch_share(url, name, now=NOW) == pytest.approx(0.5)
    assert batch_share("https://api.x.ai/v1", "grok-99", now=NOW) == pytest.approx(0.8)
    for url in ("https://api.deepseek.com", "http://127.0.0.1:8000/v1", "https://models.example.org/v1"):
        assert batch_share(url, "deepseek-chat", now=NOW) == 1.0
    own = Price(usd_per_million_in=3.0, usd_per_million_cached=1.0)
    assert batch_price(own, OPENAI, "gpt-5-mini", now=NOW) == Price(usd_per_million_in=1.5, usd_per_million_cached=0.5)


def test_what_a_provider_charges_for_writing_its_cache_is_known() -> None:
    price = found("https://api.anthropic.com/v1", "claude-haiku-4-5").price
    assert price.usd_per_million_cache_written == 1.25


def test_a_model_that_is_charged_by_the_request_as_well_has_no_price_by_tokens() -> None:
    assert price_of("https://api.perplexity.ai", "sonar", now=NOW) is None
    assert "more than tokens" in why_no_price("https://api.perplexity.ai", "sonar")


def test_a_missing_package_gives_no_price_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("genai_prices"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert price_of(OPENAI, "gpt-4o-mini") is None
    assert 'pip install "rung[endpoint]"' in why_no_price(OPENAI, "gpt-4o-mini")
    assert batch_share(OPENAI, "gpt-4o-mini") == 1.0
