"""Which strategies apply to a task and a model, and why another does not, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from rung.errors import TaskError
from rung.strategies import STRATEGIES, Need, Strategy
from rung.types import Model, Preferring, Task, Trainable

OFF_BY_DEFAULT = "off by default"

LEAST_PROPOSER = 1_000_000_000
"""Weights of a model below which it is not asked for instructions unless the strategy is named (bench/headroom.py)."""

_NEED_WORDS: dict[Need, str] = {
    "corpus": "the task has no corpus",
    "trainable": "the model cannot be trained from here",
    "constraint": "the task has no labels, schema or pattern",
    "teacher": "the task has no teacher",
    "unlabelled": "the task has no unlabelled inputs",
    "synthetic": "the task has neither a teacher nor synthetic rows",
    "preferences": "the task has no preferences",
    "trainable by pairs": "the model does not learn from pairs of answers",
    "proposer": "the task has no teacher, and so small a model writes no instructions that help",
    "instruction search": "gepa is not installed: pip install 'rung[search]'",
}


def has(model: Model, task: Task, *, corpus: bool, constrained: bool) -> set[Need]:
    """What a model, the task and this machine have of what strategies need."""
    have: dict[Need, bool] = {
        "corpus": corpus,
        "trainable": isinstance(model, Trainable),
        "constraint": constrained,
        "teacher": task.teacher is not None,
        "unlabelled": bool(task.unlabelled),
        "synthetic": task.teacher is not None or bool(task.synthetic),
        "preferences": bool(task.preferences),
        "trainable by pairs": isinstance(model, Preferring),
        "proposer": task.teacher is not None or _writes_instructions(model),
        "instruction search": find_spec("gepa") is not None,
    }
    return {need for need, there in have.items() if there}


def _writes_instructions(model: Model) -> bool:
    """Whether the model may be its own teacher: unless it is known to be too small for that."""
    weights = getattr(getattr(model, "inner", model), "parameters", None)
    return not isinstance(weights, int) or weights >= LEAST_PROPOSER


def check_that_some_apply(only: Sequence[str], have: Iterable[set[Need]]) -> None:
    """Raises TaskError where no strategy applies to any model. have: of each model."""
    why = [{name: why_not(strategy, own, only) for name, strategy in STRATEGIES.items()} for own in have]
    if not any(reason == "" for reasons in why for reason in reasons.values()):
        told = dict.fromkeys(f"{name}: {reasons[name]}" for reasons in why for name in only)
        raise TaskError(f"none of the strategies named by --only applies ({'; '.join(told)}). Name others.")


def why_not(strategy: Strategy, have: Iterable[Need], only: Sequence[str]) -> str:
    waived = {"proposer"} if strategy.name in only else set()
    lacks = [need for need in sorted(strategy.needs) if need not in have and need not in waived]
    if lacks:
        return _NEED_WORDS[lacks[0]]
    if strategy.name in only or not (only or strategy.asked_for):
        return ""
    return OFF_BY_DEFAULT if strategy.asked_for else "left out by --only"
