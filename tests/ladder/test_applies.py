"""Which strategies apply, by what a task and a model have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rung.ladder.applies import LEAST_PROPOSER, has, why_not
from rung.models import metered
from rung.strategies import STRATEGIES
from rung.testing import FakeTrainable
from rung.types import ModelSpec, Task

TASK = Task("t", Path("t"), "Answer.", (Path("e.jsonl"),), "exact_match", (ModelSpec("m", "fake"),))
RULES = STRATEGIES["stated_rules"]


class Sized(FakeTrainable):
    """A model that knows how many weights it has."""

    parameters = 0


def reason(weights: int | None, task: Task = TASK, only: tuple[str, ...] = ()) -> str:
    model = FakeTrainable(lambda _: "a") if weights is None else Sized(lambda _: "a")
    if weights is not None:
        model.parameters = weights  # type: ignore[attr-defined]
    return why_not(RULES, has(metered(model), task, corpus=False, constrained=False), only)


def test_a_model_that_is_too_small_to_write_instructions_writes_none_unless_it_is_asked_to() -> None:
    assert reason(135_000_000) == "the task has no teacher, and so small a model writes no instructions that help"
    assert reason(135_000_000, only=("stated_rules",)) == ""
    assert reason(LEAST_PROPOSER) == "" and reason(None) == ""


def test_a_teacher_writes_instructions_for_any_model() -> None:
    assert reason(135_000_000, replace(TASK, teacher=ModelSpec("large", "large:one"))) == ""


def test_what_teaches_is_needed_by_name() -> None:
    have = has(metered(FakeTrainable(lambda _: "a")), TASK, corpus=False, constrained=False)
    assert why_not(STRATEGIES["synth_lora"], have, ()) == "the task has neither a teacher nor synthetic rows"
    assert why_not(STRATEGIES["dpo"], have, ()) == "the task has no preferences"
    told = replace(TASK, synthetic=(Path("s.jsonl"),))
    have = has(metered(FakeTrainable(lambda _: "a")), told, corpus=False, constrained=False)
    assert why_not(STRATEGIES["synth_lora"], have, ()) == ""
