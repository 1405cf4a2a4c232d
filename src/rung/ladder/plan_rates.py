"""What a model and its teacher take for their tokens: seconds by their speeds, dollars by their prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.records import from_record
from rung.strategies import Cost, Texts
from rung.types import Model, Price, Speed

if TYPE_CHECKING:
    from rung.models.metering import Metered


@dataclass(frozen=True)
class PlanRates:
    """What a cost takes: seconds by the model's speed, dollars by its price of tokens. teacher: of the teacher; None:
    the model is its own. thought: tokens that it writes before an answer."""

    speed: Speed
    price: Price | None = None
    teacher: PlanRates | None = None
    thought: int = 0

    def of(self, cost: Cost) -> tuple[float, float]:
        """(seconds, dollars)"""
        return round(seconds_of(cost, self.speed), 2), round(cost.usd(self.price), 6)

    def as_taught(self, texts: Texts) -> Texts:
        """The token counts where the teacher answers: it has thoughts of its own."""
        return texts if self.teacher is None else replace(texts, thought=self.teacher.thought)


def rates_of(
    model: Model, price: Price | None, teacher: Metered | None, earlier: Mapping[str, Any] | None
) -> PlanRates:
    """What a model and its teacher take for their tokens; speeds as an earlier command measured them, if one has."""
    from rung.models.speed import speed_of

    before = earlier or {}
    speed = from_record(Speed, before["speed"]) if earlier else speed_of(model)
    if teacher is None:
        return PlanRates(speed, price)
    known = before.get("teacher_speed")
    theirs = from_record(Speed, known) if known else speed_of(teacher)
    return PlanRates(speed, price, PlanRates(theirs, teacher.price, thought=teacher.thought_tokens))


def seconds_of(cost: Cost, speed: Speed) -> float:
    """Estimated seconds for reading, writing and training so many tokens."""
    return cost.read / speed.read + cost.written / speed.write + cost.trained / speed.train
