"""plan.json: the plans of all models as the run folder and the plan screen hold them, and what is read back from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rung.ladder.plan import Plan

if TYPE_CHECKING:
    from rung.models.metering import Metered


def plan_record(plans: Mapping[str, Plan], hourly: float = 0.0) -> dict[str, Any]:
    """As plan.json holds it. plans: name of a model -> its plan. hourly: dollars an hour of the machine."""
    any_plan = next(iter(plans.values()))
    at_the_test = [step for plan in plans.values() for step in (plan.test, plan.consistency) if step.applies]
    everything = [*(step for plan in plans.values() for step in plan.everything), *at_the_test]
    seconds = sum(step.seconds for step in everything)
    return {
        "steps": [asdict(step) for plan in plans.values() for step in plan.steps],
        "experiments": [asdict(s) for plan in plans.values() for s in (*plan.experiments, plan.consistency)],
        "calls": sum(step.calls for step in everything),
        "tokens": sum(step.tokens for step in everything),
        "seconds": round(seconds, 1),
        "usd": round(seconds / 3600 * hourly + sum(step.usd for step in everything), 4),
        "sizes": any_plan.sizes,
        "capped": any_plan.capped,
        "minimum_detectable_difference": any_plan.detectable,
        "comparisons": any_plan.comparisons,
        "max_new_tokens": any_plan.decoding.max_new_tokens,
        "models": {name: _basis_of(plan) for name, plan in plans.items()},
        "search": next((plan.searching.record() for plan in plans.values() if plan.searching is not None), None),
    }


def start_record(models: Iterable[Metered]) -> dict[str, Any]:
    """What plan.json says of what starts before the clock of a budget does: `start_s`, seconds; nothing where no model
    has such a start."""
    seconds = sum(float(getattr(model.inner, "start_s", 0.0)) for model in models)
    return {"start_s": round(seconds, 1)} if seconds else {}


def _basis_of(plan: Plan) -> dict[str, Any]:
    """What the estimates rest on, to be read back."""
    own = {"texts": asdict(plan.texts), "speed": asdict(plan.speed)}
    return own if plan.teacher_speed is None else {**own, "teacher_speed": asdict(plan.teacher_speed)}


def planned_before(record: Mapping[str, Any] | None, model: str) -> Mapping[str, Any] | None:
    """What plan.json says of a model; None where it says nothing."""
    own: Mapping[str, Any] | None = (record or {}).get("models", {}).get(model)
    return own
