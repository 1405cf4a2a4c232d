"""What a request costs, and from how many requests on building something dearer pays.

A local model is paid for by the hour of its machine: a request costs the seconds it takes alone, so what batching
saves in service is not counted. Tokens are paid for by the million.
"""

from __future__ import annotations

from collections.abc import Sequence

from rung.types import BreakEven, Candidate, Price

_RESAMPLES = 10_000


def request_usd(price: Price, *, tokens_in: float, tokens_cached: float, tokens_out: float, seconds: float) -> float:
    """Dollars for one request. tokens_cached: of tokens_in, those that every request begins with."""
    if price.usd_per_hour is not None:
        return seconds / 3600 * price.usd_per_hour
    each_in, each_out = price.usd_per_million_in or 0.0, price.usd_per_million_out or 0.0
    each_cached = each_in if price.usd_per_million_cached is None else price.usd_per_million_cached
    return ((tokens_in - tokens_cached) * each_in + tokens_cached * each_cached + tokens_out * each_out) / 1e6


def build_usd(price: Price | None, seconds: float) -> float:
    """Dollars for building on a machine; 0 where no price by the hour is known."""
    return seconds / 3600 * price.usd_per_hour if price is not None and price.usd_per_hour is not None else 0.0


def break_even(
    dear_to_build: str, dear_to_run: str, build: float, builds_saved: float, a: Sequence[float], b: Sequence[float]
) -> BreakEven | None:
    """From how many requests on the first of two is cheaper; None where it saves nothing or costs nothing to build.

    build, builds_saved: dollars for building the first and the second. a, b: dollars per request of the first and the
    second for the same inputs, shape (n,). The interval is that of the mean saving, by a paired bootstrap.
    """
    import numpy as np

    extra = build - builds_saved
    saving = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    mean = float(saving.mean())
    if extra <= 0 or mean <= 0:
        return None
    random = np.random.default_rng(0)
    means = saving[random.integers(0, len(saving), (_RESAMPLES, len(saving)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return BreakEven(
        dear_to_build,
        dear_to_run,
        1000 * mean,
        extra / mean,
        extra / float(high),
        extra / float(low) if low > 0 else None,
    )


def frontier(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Names of the tested candidates that no other beats in score without costing more.

    Cost is dollars where all have a price, else tokens, an output token counted as three; never a measured time alone.
    """
    tested = [c for c in candidates if c.test is not None]

    def cost(c: Candidate) -> float:
        if all(o.cost_per_1k_usd is not None for o in tested):
            return c.cost_per_1k_usd or 0.0
        return c.tokens_in + 3 * c.tokens_out

    def mean(c: Candidate) -> float:
        return c.test.mean if c.test is not None else 0.0

    return tuple(
        c.name
        for c in tested
        if not any(
            mean(o) >= mean(c) and cost(o) <= cost(c) and (mean(o), -cost(o)) != (mean(c), -cost(c)) for o in tested
        )
    )
