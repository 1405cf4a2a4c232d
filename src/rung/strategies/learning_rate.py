"""The learning rate of a training, by short probes: each rate trains the first part of its own schedule.

Knows rates and losses, nothing of how a rate is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from rung.errors import Diverged
from rung.records import write_json
from rung.resume import record_of

LEARNING_RATES = (5e-4, 1e-3, 2e-3)
"""The grid that a search starts with. A best rate at its edge is followed beyond it."""

LEAST_RATE, MOST_RATE = 6.25e-5, 8e-3

_CLEARLY = 0.99  # of the best loss. A short probe lies in the warm-up, where a rate that is too high does little harm


def search(loss_of: Callable[[float], float], record: Path) -> float:
    """The rate with the lowest loss; of equals, the one tried first. Every probe is recorded, and so is the choice.

    Probes go from the highest rate of the grid downwards, by halves, until the loss gets worse. If the highest is the
    best, they go upwards by doubles until the loss gets worse. loss_of: rate -> loss; what diverged may be raised as
    Diverged. Raises Diverged when every rate does.
    """
    state = record_of(record)
    if "chosen" in state:
        return float(state["chosen"])
    losses: dict[str, float | None] = state.setdefault("dev_loss", {})

    def loss_at(rate: float) -> float:
        name = f"{rate:g}"
        if name not in losses:
            try:
                losses[name] = loss_of(rate)
            except Diverged:
                losses[name] = None
            write_json(record, state)
        loss = losses[name]
        return math.inf if loss is None else loss

    _probe(loss_at)
    whole = [(loss, float(name)) for name, loss in losses.items() if loss is not None]
    if not whole:
        raise Diverged(f"{record.parent}: training diverged at every learning rate of {', '.join(losses)}.")
    state["chosen"] = min(whole, key=lambda pair: pair[0])[1]
    write_json(record, state)
    return float(state["chosen"])


def _probe(loss_at: Callable[[float], float]) -> None:
    """Asks for losses, outwards from the grid, until they get worse on both sides of the best."""
    highest = rate = max(LEARNING_RATES)
    best = first = loss_at(highest)
    while (rate := rate / 2) >= LEAST_RATE:
        loss = loss_at(rate)
        beyond = rate < min(LEARNING_RATES) and math.isfinite(best)
        if loss > best or (beyond and loss == best):
            break
        best = loss
    if best < first or not math.isfinite(best):
        return
    rate = highest
    while (rate := rate * 2) <= MOST_RATE and (loss := loss_at(rate)) < _CLEARLY * best:
        best = loss
