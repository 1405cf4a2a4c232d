"""How long a training is: its steps, which train examples they visit, and when dev is answered on the way.

A course is sized once and recorded, so that a continued training keeps its options even where the budget has changed.
Counts tokens by messages alone; knows nothing of learning rates and adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.resume import once
from rung.solutions.answer import shared_prefix_tokens, shared_turns
from rung.trials.choose import TURN_TOKENS
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Request, TrainingOptions, TrainingRow

MAX_EPOCHS = 4
LEAST_STEPS = 8
"""Steps of the shortest training, whatever its compute budget. Fewer teach nothing."""

COURSE = "course.json"

_WANTED_STEPS = 120  # small data are gone through more often: behaviour rarely settles in fewer steps
_INTERIM_LOOKS = 3  # at most
_TIMED_INTERIM_LOOKS = 2  # at least, under a time limit: a training that is stopped then has a checkpoint with a score
_LEAST_STEPS_OF_TWO = 24
_SIZED_ON = 64  # rows


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of training rows. shared: of the prefix that all have in common, computed once a step. own: of a
    prompt and its answer behind that prefix."""

    shared: float
    own: float

    @property
    def step(self) -> float:
        """Tokens of one step."""
        return self.shared + TrainingOptions.batch_size * self.own


@dataclass(frozen=True)
class Course:
    """How a training goes.

    steps: of the optimiser. interim_looks: how often `judged` is answered on the way, the last time at the end.
    examples: number of train examples that it can visit. epoch: steps of one pass over all examples it was offered.
    start: an adapter folder to train on from; None: a fresh adapter.
    """

    steps: int
    interim_looks: int
    judged: tuple[Example, ...]
    examples: int
    epoch: int
    start: Path | None = None

    def step_of_interim_look(self, number: int) -> int:
        """The step of an interim look, counted from 1."""
        return round(number * self.steps / self.interim_looks)


def steps_per_epoch(examples: int) -> int:
    """Optimiser steps in which every example is visited once."""
    return max(1, -(-examples // TrainingOptions.batch_size))


def affordable_steps(lengths: Lengths, training_tokens: float) -> int:
    """Steps that a compute budget in tokens allows; at least LEAST_STEPS."""
    return max(LEAST_STEPS, int(training_tokens / max(1.0, lengths.step)))


def steps_of(examples: int, lengths: Lengths, training_tokens: float) -> int:
    """As many steps as are wanted and the compute budget allows, be that less than an epoch."""
    wanted = max(MAX_EPOCHS * steps_per_epoch(examples), _WANTED_STEPS)
    return min(wanted, affordable_steps(lengths, training_tokens))


def interim_looks_of(steps: int, examples: int, *, timed: bool = False) -> int:
    """How many interim looks a training has: one an epoch, within bounds."""
    least = _TIMED_INTERIM_LOOKS if timed and steps >= _LEAST_STEPS_OF_TWO else 1
    return min(_INTERIM_LOOKS, max(least, round(steps / steps_per_epoch(examples))))


def lengths_of(workshop: Workshop, rows: Sequence[TrainingRow]) -> Lengths:
    """Mean lengths of some rows, at least one. The tokens of the chat template are estimated."""
    model = workshop.tools.model
    prompts = [Request(row.messages, workshop.decoding) for row in rows]
    whole = [
        sum(model.count_tokens(m.content) + TURN_TOKENS for m in row.messages) + model.count_tokens(row.answer) + 1
        for row in rows
    ]
    shared = shared_prefix_tokens(prompts, model)
    if shared:
        shared += TURN_TOKENS * shared_turns([row.messages for row in rows])
    return Lengths(shared, sum(whole) / len(whole) - shared)


def whole_course(workshop: Workshop, render: Callable[[Sequence[Example]], list[TrainingRow]]) -> Course:
    """The course of a training on all train examples, sized on a few of them as `render` makes rows of them."""
    train, limits = workshop.inputs.train, workshop.limits

    def size() -> dict[str, Any]:
        some = sample_of(train, _SIZED_ON, workshop.inputs.task.seed)
        steps = steps_of(len(train), lengths_of(workshop, render(some)), limits.training_tokens)
        timed = limits.seconds_left() is not None
        return {
            "steps": steps,
            "interim_looks": interim_looks_of(steps, len(train), timed=timed),
            "examples": min(len(train), steps * TrainingOptions.batch_size),
            "epoch": steps_per_epoch(len(train)),
        }

    return Course(judged=workshop.inputs.dev, **once(workshop.folder / "training" / COURSE, size))
