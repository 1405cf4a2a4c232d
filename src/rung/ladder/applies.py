"""Which strategies apply to a task and a model, and why another does not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rung.errors import TaskError
from rung.strategies import STRATEGIES, Need, Strategy
from rung.types import Model, Trainable

OFF_BY_DEFAULT = "off by default"
_NEED_WORDS: dict[Need, str] = {
    "corpus": "the task has no corpus",
    "trainable": "the model cannot be trained from here",
    "constraint": "the task has no labels, schema or pattern",
    "teacher": "the task has no teacher",
}


def has(model: Model, *, corpus: bool, constrained: bool) -> set[Need]:
    """What a model and the task have of what strategies need."""
    have: set[Need] = {"corpus"} if corpus else set()
    have |= {"trainable"} if isinstance(model, Trainable) else set()
    return have | ({"constraint"} if constrained else set())


def check_that_some_apply(only: Sequence[str], have: Iterable[set[Need]]) -> None:
    """Raises TaskError where no strategy applies to any model. have: of each model."""
    why = [{name: why_not(strategy, own, only) for name, strategy in STRATEGIES.items()} for own in have]
    if not any(reason == "" for reasons in why for reason in reasons.values()):
        told = dict.fromkeys(f"{name}: {reasons[name]}" for reasons in why for name in only)
        raise TaskError(f"none of the strategies named by --only applies ({'; '.join(told)}). Name others.")


def why_not(strategy: Strategy, have: Iterable[Need], only: Sequence[str]) -> str:
    if missing := next((_NEED_WORDS[need] for need in sorted(strategy.needs) if need not in have), ""):
        return missing
    if strategy.name in only or not (only or strategy.asked_for):
        return ""
    return OFF_BY_DEFAULT if strategy.asked_for else "left out by --only"
