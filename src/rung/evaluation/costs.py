"""What a request costs, after how many requests a fine-tuned candidate pays, and which candidates are worth their cost.

A local model is paid for by the hour of its machine: a request costs the seconds it takes when it is answered alone, or
its share of a batch where the task names how many requests come at once. An endpoint is paid for by the million tokens.
Each candidate's requests cost what its own model's price says, so two models may be paid for in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rung.types import BreakEven, Candidate, Price

if TYPE_CHECKING:
    from numpy.random import Generator

    from rung.evaluation.units import FloatArray

_RESAMPLES = 10_000
_CELLS = 1_000_000  # numbers drawn at once; bounds the memory to about 20 MB


def request_usd(price: Price, *, tokens_in: float, tokens_cached: float, tokens_out: float, seconds: float) -> float:
    """Dollars for one request. tokens_cached: how many of tokens_in are in the prefix that all requests share."""
    if price.usd_per_hour is not None:
        return seconds / 3600 * price.usd_per_hour
    return price.tokens_usd(tokens_in, tokens_out, tokens_cached)


def build_usd(price: Price | None, seconds: float) -> float:
    """Dollars for `seconds` of building on a machine; 0 where there is no price by the hour."""
    return seconds / 3600 * price.usd_per_hour if price is not None and price.usd_per_hour is not None else 0.0


def break_even(
    fine_tuned: str,
    prompt: str,
    build: float,
    a: Sequence[float],
    b: Sequence[float],
    *,
    paired: bool = True,
) -> BreakEven | None:
    """Number of requests after which the fine-tuned candidate, build cost included, has cost less than the prompt.

    build: dollars for building the fine-tuned one, as they are paid at each training. What choosing the prompt cost is
    not subtracted: it is not paid again when the other is trained anew, so that the number is rather too high than too
    low. a, b: dollars per request of the fine-tuned candidate and of the prompt, shape (n,), for the same inputs in the
    same order; where not `paired`, for other inputs of the same kind, shapes (n,) and (m,). None where the first saves
    nothing per request or costs nothing to build. The interval is that of the mean saving, by a percentile bootstrap:
    of the differences, or of each side by itself.
    """
    import numpy as np

    tuned, prompted = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    mean = float(prompted.mean() - tuned.mean())
    if build <= 0 or mean <= 0:
        return None
    random = np.random.default_rng(0)
    if paired:
        means = _bootstrap_means(prompted - tuned, random)
    else:
        means = _bootstrap_means(prompted, random) - _bootstrap_means(tuned, random)
    low, high = np.percentile(means, [2.5, 97.5])
    return BreakEven(
        fine_tuned,
        prompt,
        1000 * mean,
        build / mean,
        build / float(high),
        build / float(low) if low > 0 else None,
    )


def _bootstrap_means(values: FloatArray, random: Generator) -> FloatArray:
    """Means of samples drawn with replacement from values of shape (n,); shape (_RESAMPLES,)."""
    import numpy as np

    step = max(1, _CELLS // len(values))  # draws at once
    return np.concatenate(
        [
            values[random.integers(0, len(values), (min(step, _RESAMPLES - start), len(values)))].mean(axis=1)
            for start in range(0, _RESAMPLES, step)
        ]
    )


def frontier(candidates: Sequence[Candidate], models: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the tested candidates that no other candidate beats in score without costing more.

    models: names in the task's order, cheapest first. Cost is dollars where all have a price. Otherwise it is tokens
    within a model, where an output token counts as three, and a candidate of a later model costs more than any of an
    earlier one: tokens of two models are never compared.
    """
    tested = [c for c in candidates if c.test is not None]
    priced = all(c.cost_per_1k_usd is not None for c in tested)

    def cost(c: Candidate) -> tuple[int, float]:
        if priced:
            return 0, c.cost_per_1k_usd or 0.0
        return models.index(c.model) if c.model in models else len(models), c.tokens_in + 3 * c.tokens_out

    def mean(c: Candidate) -> float:
        return c.test.mean if c.test is not None else 0.0

    return tuple(
        c.name
        for c in tested
        if not any(
            mean(o) >= mean(c) and cost(o) <= cost(c) and (mean(o), cost(o)) != (mean(c), cost(c)) for o in tested
        )
    )
