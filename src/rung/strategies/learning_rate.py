"""The learning rate of a training, by short probes: each rate trains the first part of its own schedule.

Knows rates and losses, nothing of how a rate is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rung.errors import Diverged
from rung.records import write_json
from rung.resume import record_of


@dataclass(frozen=True)
class Rates:
    """The learning rates of one kind of training.

    grid: what a search starts with. Where the best rate is at its edge, the search goes on beyond it, from `least` to
    `most`.
    """

    grid: tuple[float, ...]
    least: float
    most: float

    @property
    def middle(self) -> float:
        """The rate of a training that is too short to probe any."""
        return sorted(self.grid)[len(self.grid) // 2]


OF_ADAPTERS = Rates((5e-4, 1e-3, 2e-3), least=6.25e-5, most=8e-3)
OF_WEIGHTS = Rates((5e-5, 1e-4, 2e-4), least=6.25e-6, most=8e-4)
"""A tenth of those of adapters. Source: Schulman et al., LoRA without regret (2025)."""

CLEARLY = 0.99  # of the loss next to it. A short probe lies in the warm-up, where a rate that is too high does little
# harm, and where one that is too low looks well on little data but then teaches too little.


def search(
    loss_of: Callable[[float], float], record: Path, *, rates: Rates = OF_ADAPTERS, beyond: bool = True
) -> float:
    """The learning rate whose probe has the lowest loss, within bounds. Records every probe, and the choice.

    Probes go from the highest rate of the grid downwards, by halves, until the loss gets worse; of equals, the higher
    rate is kept. Below the grid, a rate is taken only where its loss is clearly lower (by 1 %) than that of the rate
    above it, and probes end where it is not. If the highest rate of the grid is the best, probes go upwards by doubles
    by the same rule.
    beyond: whether rates outside the grid are probed. loss_of: rate -> loss. A rate whose loss is no number, or for
    which Diverged is raised, is never taken. Raises Diverged when every rate diverges.
    """
    state = record_of(record)
    if "chosen" in state:
        return float(state["chosen"])
    losses: dict[str, float | None] = state.setdefault("dev_loss", {})

    def loss_at(rate: float) -> float:
        name = f"{rate:g}"
        if name not in losses:
            try:
                loss = loss_of(rate)
                losses[name] = loss if math.isfinite(loss) else None
            except Diverged:
                losses[name] = None
            write_json(record, state)
        known = losses[name]
        return known if known is not None and math.isfinite(known) else math.inf

    best = _probed(loss_at, rates, beyond)
    if not math.isfinite(loss_at(best)):
        raise Diverged(f"{record.parent}: training diverged at every learning rate of {', '.join(losses)}.")
    state["chosen"] = best
    write_json(record, state)
    return best


def next_probes(record: Path, rates: Rates, *, beyond: bool, more: int) -> list[float]:
    """The rates that `search` will probably ask for behind its next one, the likeliest first.

    more: how many could be probed beside that one; none where it is 0, else at least the grid's.
    """
    state = record_of(record)
    if "chosen" in state or more < 1:
        return []
    grid = sorted(rates.grid, reverse=True)
    outside = [rate for rate in (grid[-1] / 2, grid[0] * 2) if beyond and rates.least <= rate <= rates.most]
    left = [rate for rate in (*grid, *outside) if f"{rate:g}" not in state.get("dev_loss", {})]
    return left[1 : 1 + max(more, sum(rate in grid for rate in left) - 1)]


def _probed(loss_at: Callable[[float], float], rates: Rates, beyond: bool) -> float:
    """The best rate; one that diverges only where all do."""
    lowest, highest = min(rates.grid), max(rates.grid)
    best = rate = highest
    while (rate := rate / 2) >= (rates.least if beyond else lowest):
        least, loss = loss_at(best), loss_at(rate)  # the highest rate of the grid is probed first
        if loss < (least if rate >= lowest else CLEARLY * least):
            best = rate
        elif math.isfinite(least) and (rate < lowest or loss > least):
            break
    if best == highest and math.isfinite(loss_at(best)):
        while beyond and (rate := best * 2) <= rates.most and loss_at(rate) < CLEARLY * loss_at(best):
            best = rate
    return best
