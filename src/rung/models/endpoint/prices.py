"""What an endpoint's model costs, from the data that come with the package genai-prices. Nothing is fetched.

Knows nothing about tasks: a price that the task gives goes before the one that is found here.
A price is a fact with a date: it is recorded with its source, so that a reader can see how old it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from statistics import mode
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rung.types import Price

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_PROMPT_TOKENS = 8_000  # where a price grows with the length of the prompt, the one of prompts up to so long is taken
_OTHER_HOSTS = {"api.together.ai": "api.together.xyz"}  # hosts of a provider that the package knows by another one
_BESIDE_TOKENS = ("requests_kcount", "output_citation_mtok")  # charges that a Price cannot hold


@dataclass(frozen=True)
class Found:
    """A price and where it is from.

    price: dollars by the million tokens. source: the package and its version ("genai-prices 0.2.3"). dated: the newest
    change of any price that these data have and that is in force, "2026-11-09"; they are at least as new as that.
    provider, model: the ids under which the package holds the price. note: what a reader must know of it, one sentence
    or "".
    """

    price: Price
    source: str
    dated: str
    provider: str
    model: str
    note: str = ""


def price_of(url: str, name: str, *, now: datetime | None = None) -> Found | None:
    """The price of a model at an endpoint; None where it is not known (`why_no_price` says why).

    url: of the endpoint; its host says which provider it is. name: of the model, as calls name it. now: when the prices
    are to hold.
    """
    found = _look_up(url, name, now or datetime.now(UTC))
    return found if isinstance(found, Found) else None


def why_no_price(url: str, name: str) -> str:
    """Why `price_of` gives None, as a sentence that ends in what to do; "" where it gives a price."""
    found = _look_up(url, name, datetime.now(UTC))
    return "" if isinstance(found, Found) else f"{found}. Give the model a `price` in task.yaml."


def batch_share(url: str, name: str, *, now: datetime | None = None) -> float:
    """What a batch job costs, as a share of the price of single calls; 1 where no discount is known.

    That of the model; of a model without one in the data, that of most models of the provider. It is a half at OpenAI,
    Anthropic, Gemini, Mistral and Groq (genai-prices 0.2.3).
    """
    now = now or datetime.now(UTC)
    snapshot, _ = _snapshot()
    provider = _provider(snapshot, url) if snapshot is not None else None
    if snapshot is None or provider is None:
        return 1.0
    if (own := _model(snapshot, provider, name)) is not None and (share := _share(own, now)) is not None:
        return share
    shares = [round(share, 3) for m in provider.models if (share := _share(m, now)) is not None]
    return mode(shares) if shares else 1.0


def batch_price(price: Price, url: str, name: str, *, now: datetime | None = None) -> Price:
    """The price of tokens in batch jobs, from that of single calls, which may be the task's."""
    share = batch_share(url, name, now=now)

    def part(usd: float | None) -> float | None:
        return None if usd is None else usd * share

    return replace(
        price,
        usd_per_million_in=part(price.usd_per_million_in),
        usd_per_million_out=part(price.usd_per_million_out),
        usd_per_million_cached=part(price.usd_per_million_cached),
        usd_per_million_cache_written=part(price.usd_per_million_cache_written),
    )


# ---- from the package's data ----------------------------------------------------------------


def _look_up(url: str, name: str, now: datetime) -> Found | str:
    """The price, or why there is none, without a full stop."""
    snapshot, source = _snapshot()
    if snapshot is None:
        return 'prices of endpoints need the package genai-prices: pip install "rung[endpoint]"'
    provider = _provider(snapshot, url)
    if provider is None:
        return f"{source} knows no provider at {_host(url)}"
    model = _model(snapshot, provider, name)
    if model is None:
        return f"{source} knows no model {name} of {provider.name}"
    prices = _dearest_of_the_day(model, now)
    price = _price(prices)
    if price is None:
        return f"{source} has no price by the token of {name} at {provider.name}"
    if beside := [kind for kind in _BESIDE_TOKENS if prices.__dict__.get(kind)]:
        return f"{provider.name} charges {name} for more than tokens ({beside[0]} in {source})"
    dated = _newest_change(snapshot.providers, now.date()).isoformat()
    return Found(price, source, dated, provider.id, model.id, _note(model, prices))


def _snapshot() -> tuple[DataSnapshot | None, str]:
    """The data that came with the package, whatever a program has set or fetched, and the package's name and version.

    None where it is not installed.
    """
    try:
        from genai_prices import __version__
        from genai_prices.data import providers
        from genai_prices.data_snapshot import DataSnapshot
    except ImportError:
        return None, ""
    return DataSnapshot(providers, from_auto_update=False), f"genai-prices {__version__}"


def _host(url: str) -> str:
    return (urlsplit(url).hostname or url).lower()


def _provider(snapshot: DataSnapshot, url: str) -> Provider | None:
    host = _host(url)
    try:
        return snapshot.find_provider(None, None, f"https://{_OTHER_HOSTS.get(host, host)}{urlsplit(url).path}")
    except LookupError:
        return None


def _model(snapshot: DataSnapshot, provider: Provider, name: str) -> ModelInfo | None:
    try:
        return snapshot.find_provider_model(name.removeprefix("models/"), provider, None, None)[1]
    except LookupError:
        return None


def _dearest_of_the_day(model: ModelInfo, now: datetime) -> ModelPrice:
    """The prices of that day; where they change with the hour, the dearest, so that no budget is passed."""
    hours = [datetime.combine(now.date(), time(hour, minute), UTC) for hour in range(24) for minute in (0, 30)]

    def dear(prices: ModelPrice) -> float:
        price = _price(prices)
        return (price.usd_per_million_in or 0.0) + (price.usd_per_million_out or 0.0) if price is not None else -1.0

    moments = hours if _by_the_hour(model) else [now]
    return max((model.get_prices(moment) for moment in moments), key=dear)


def _price(prices: ModelPrice) -> Price | None:
    """None where input or output tokens have no price."""
    read, written = _usd(prices.input_mtok), _usd(prices.output_mtok)
    if read is None or written is None:
        return None
    return Price(
        usd_per_million_in=read,
        usd_per_million_out=written,
        usd_per_million_cached=_usd(prices.cache_read_mtok),
        usd_per_million_cache_written=_usd(prices.cache_write_mtok),
    )


def _usd(price: Any) -> float | None:
    """Dollars by the million tokens for prompts of _PROMPT_TOKENS. price: Decimal, TieredPrices or None."""
    if price is None:
        return None
    if hasattr(price, "tiers"):
        reached = [tier.price for tier in price.tiers if tier.start < _PROMPT_TOKENS]
        return float(reached[-1] if reached else price.base)
    return float(price)


def _note(model: ModelInfo, prices: ModelPrice) -> str:
    parts = []
    starts = [t.start for price in prices.__dict__.values() for t in getattr(price, "tiers", ())]
    longer = [start for start in starts if start >= _PROMPT_TOKENS]
    if longer:
        parts.append(f"it holds for prompts of up to {min(longer):,} tokens, longer ones cost more")
    if _by_the_hour(model):
        parts.append("it changes with the hour of the day, and this is the dearest")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _share(model: ModelInfo, now: datetime) -> float | None:
    """The price of batch jobs as a share of the price of single calls; None where the data do not have it."""
    variants = [v for v in model.price_variants or () if v.when == {"processing": "batch"}]
    if not any(v.constraint is None or v.constraint.active(now) for v in variants):
        return None
    single, batch = (_price(model.get_prices(now, context)) for context in (None, {"processing": "batch"}))
    if single is None or batch is None:
        return None
    pairs = [
        (single.usd_per_million_in, batch.usd_per_million_in),
        (single.usd_per_million_out, batch.usd_per_million_out),
    ]
    return max((b / a for a, b in pairs if a and b is not None), default=None)


def _by_the_hour(model: ModelInfo) -> bool:
    return any(hasattr(constraint, "start_time") for constraint in _constraints(model))


def _constraints(model: ModelInfo) -> Iterator[Any]:
    conditional = model.prices if isinstance(model.prices, list) else []
    for one in (*conditional, *(model.price_variants or ())):
        yield one.constraint


def _newest_change(providers: list[Provider], today: date) -> date:
    """The newest day on which a price of these data begins to hold, announced ones aside. The package has no date."""
    starts = (getattr(c, "start_date", None) for p in providers for m in p.models for c in _constraints(m))
    return max((start for start in starts if start is not None and start <= today), default=date.min)
