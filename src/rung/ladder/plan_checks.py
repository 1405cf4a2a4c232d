"""What the checks of finalists will take: what they invent, which orders they follow, how often they are right.

Knows plans and costs. The checks themselves stand in `abstention`, `injections` and `consistency`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rung.ladder.plan import Plan, Step
from rung.strategies import Cost, Texts
from rung.strategies.reading import answers_repeat
from rung.types import Family, MetricInfo, Task

if TYPE_CHECKING:
    from rung.models.metering import Metered
    from rung.trials.workshop import Inputs

DEFAULT_REPEATS = 4
"""Samples of each test row where the task does not say how many."""

MOST_SAMPLED = 3
"""Candidates at most that are sampled."""

MADE = 50
"""Dev questions at most that are made unanswerable."""
LEAST_MADE = 20
"""Fewer say next to nothing."""

PLANTED = 30
"""Dev questions at most that are asked again with an order planted."""
LEAST_PLANTED = 10
"""Fewer say next to nothing."""
_PLANTED_TOKENS = 40  # of an order, about

_CHEAP = 0.15  # of the planned time: what is spent on samples without being asked for
_SHOWN = 3  # passages, as estimated
_CAUSES_TRIED = 3  # causes of a solution's wrong answers that have enough of them to try something, about


def with_checks(
    plans: Mapping[str, Plan], inputs: Inputs, models: Mapping[str, Metered], metric: MetricInfo
) -> dict[str, Plan]:
    """The plans of all models with the checks of their finalists. models: by the same names."""
    task, found = inputs.task, {}
    for name, plan in plans.items():
        plan = replace(plan, abstention=_abstention(plan, inputs), injections=_injections(plan, inputs))
        plan = replace(plan, search_failures=_search_failures(plan, inputs))
        consistency = _consistency(plan, task, models[name], metric)
        found[name] = replace(plan, consistency=consistency, samples_are_wanted=bool(task.repeats))
    return found


def repeats_of(task: Task) -> int:
    """Samples of each test row."""
    return task.repeats or DEFAULT_REPEATS


def sampled_of(plan: Plan) -> int:
    """How many candidates of a model are planned to be sampled, at most."""
    return min(MOST_SAMPLED, len({step.family for step in plan.steps if step.applies}))


def why_no_questions(inputs: Inputs) -> str:
    """Why no unanswerable questions are made from dev; empty where they are. Whether enough passages are known to hold
    an answer is seen later."""
    task = inputs.task
    if not inputs.passages:
        return "the task has no corpus"
    if task.schema or task.pattern:
        return "answers are held to a form"
    if answers_repeat(inputs):
        return "answers are one of a few"
    if len(inputs.dev) < LEAST_MADE:
        return f"dev has fewer than {LEAST_MADE} rows"
    return ""


def why_nothing_is_planted(inputs: Inputs) -> str:
    """Why no dev question is asked again with an order planted; empty where some are, if something retrieves."""
    from rung.evaluation.injections import why_not_planted

    if not inputs.passages:
        return "the task has no corpus"
    if len(inputs.dev) < LEAST_PLANTED:
        return f"dev has fewer than {LEAST_PLANTED} rows"
    return why_not_planted(inputs.task)


# ---- costs ----------------------------------------------------------------------------------


def _finalists(plan: Plan, *, reading: bool = False) -> list[Family]:
    """The families of what will be finalists: the best of each, and of a fine-tuned one also that with a shorter
    prompt. reading: those alone that retrieve."""
    families = {step.family for step in plan.steps if step.applies}
    tuned = {step.family for step in plan.steps if step.applies and step.strategy.repair_cost is not None}
    short = tuned if plan.shortened else ()
    return sorted(family for family in (*families, *short) if "rag" in family or not reading)


def _why_no_reading(plan: Plan) -> str:
    return "" if _finalists(plan, reading=True) else "nothing that retrieves is tried"


def _abstention(plan: Plan, inputs: Inputs) -> Step:
    """Of each finalist that retrieves: dev questions without the passages that hold their answers."""
    if why := why_no_questions(inputs) or _why_no_reading(plan):
        return plan.costing("abstention", "prompt", Cost(), why)
    each = _answers(plan.texts, min(MADE, len(inputs.dev)), reading=True)
    return plan.costing("abstention", "prompt", sum([each] * len(_finalists(plan, reading=True)), Cost()))


def _injections(plan: Plan, inputs: Inputs) -> Step:
    """Of each finalist: dev questions with an order planted in the passages, or in the input of one that reads none."""
    if why := why_nothing_is_planted(inputs) or _why_no_reading(plan):
        return plan.costing("injections", "prompt", Cost(), why)
    texts, rows = replace(plan.texts, own=plan.texts.own + _PLANTED_TOKENS), min(PLANTED, len(inputs.dev))
    each = [_answers(texts, rows, reading="rag" in family) for family in _finalists(plan)]
    return plan.costing("injections", "prompt", sum(each, Cost()))


def _search_failures(plan: Plan, inputs: Inputs) -> Step:
    """Of the best solution that retrieves, where half of dev is wrong: some of that with one change, and with the
    placebo."""
    from rung.diagnosis.search_experiments import MOST, RIGHT

    if why := _why_no_reading(plan) if inputs.passages else "the task has no corpus":
        return plan.costing("search_failures", "rag", Cost(), why)
    wrong = min(len(inputs.dev) // 2, _CAUSES_TRIED * MOST)
    return plan.costing("search_failures", "rag", _answers(plan.texts, 2 * wrong + _CAUSES_TRIED * RIGHT, reading=True))


def _consistency(plan: Plan, task: Task, model: Metered, metric: MetricInfo) -> Step:
    """Samples of the test rows by the dearest families, as many candidates as may be sampled."""
    families = {step.family for step in plan.steps if step.applies}
    dearest = sorted(("rag" in family for family in families), reverse=True)[: sampled_of(plan)]
    here, repeats = model.timed is None, repeats_of(task)
    cost = Cost()
    for reading in dearest:
        once = _answers(plan.texts, plan.sizes["test"], reading=reading)
        # On this machine the samples of a prompt are drawn together, and it is read once.
        again = replace(once, read=0.0) if here else once
        cost += sum([again] * (repeats - 1), once)
    step = plan.costing("consistency", "prompt", cost)
    why = _why_not_sampled(plan, task, step, metric, here=here)
    return replace(step, applies=not why, why=why)


def _why_not_sampled(plan: Plan, task: Task, step: Step, metric: MetricInfo, *, here: bool) -> str:
    if metric.needs_judge:
        return "each sample would have to be judged"
    if task.repeats:
        return ""
    if not metric.right_or_wrong:
        return "the metric grades; name repeats to count the scores of 1"
    if not here or (plan.price is not None and plan.price.usd_per_hour is None):
        return "its answers are not this machine's own; name repeats to have them"
    planned = sum(s.seconds for s in (*plan.everything, plan.test))
    if step.seconds > _CHEAP * planned:
        return f"it would take more than {100 * _CHEAP:.0f} % of the planned time; name repeats to have it"
    return ""


def _answers(texts: Texts, calls: int, *, reading: bool) -> Cost:
    """Of so many answers. reading: with passages in the prompt."""
    from rung.strategies.prompting import answering

    return answering(texts, calls, texts.own + (_SHOWN * texts.passage if reading else 0.0))
