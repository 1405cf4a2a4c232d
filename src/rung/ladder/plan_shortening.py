"""What shortening the prompts of fine-tuned finalists will take."""

from __future__ import annotations

from dataclasses import replace

from rung.ladder.plan import Plan, cost_of_suite
from rung.ladder.plan_rates import seconds_of
from rung.strategies import Cost, function_of
from rung.strategies.shortening import SHORT_ALREADY, cost_of_shortening, worth_shortening
from rung.types import Family


def with_shortening(plan: Plan) -> Plan:
    """The plan with the shortening of the best of each fine-tuned family, and the check of its general skills."""
    dearest: dict[Family, Cost] = {}
    for step in plan.steps:
        if step.applies and step.strategy.repair_cost is not None:
            cost: Cost = function_of(step.strategy.repair_cost)(plan.texts)
            before = dearest.get(step.family)
            if before is None or seconds_of(cost, plan.speed) > seconds_of(before, plan.speed):
                dearest[step.family] = cost
    if not dearest:
        return plan
    if not worth_shortening(plan.texts):
        return replace(plan, shortening=replace(plan.shortening, why=SHORT_ALREADY))
    skills = cost_of_suite()
    each = [cost_of_shortening(plan.texts, repair) + skills for repair in dearest.values()]
    whole = sum(each, Cost())
    return replace(plan, shortening=plan.costing("shortening", plan.skills.family, whole), shortened=len(each))
