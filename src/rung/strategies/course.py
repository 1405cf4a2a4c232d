"""How long a training is: its steps, which train examples they visit, and when dev is answered on the way.

A course is sized and recorded before its first step, and a continued training reads it back: it goes on with the same
options, bit by bit. Only where the budget has grown so much that clearly more steps are affordable, and no interim look
is answered yet, the course is sized anew and the training starts over. From the first interim look on, more budget does
not lengthen it.
Counts tokens by messages alone; knows nothing of how a rate is chosen and what an adapter is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.records import write_json
from rung.resume import once, record_of
from rung.solutions.answer import shared_prefix_tokens, shared_turns
from rung.strategies.learning_rate import OF_ADAPTERS, OF_WEIGHTS, Rates
from rung.strategies.registry import begun_from
from rung.training.batches import steps_per_epoch
from rung.trials.choose import TURN_TOKENS
from rung.trials.trial import read_predictions
from rung.trials.workshop import Workshop, sample_of
from rung.types import DPO, Example, Request, TrainingOptions, TrainingRow, kind_of

MAX_EPOCHS = 4
_FEW_STEPS = 40
"""Fewer than these, and than one pass over train, say little of what training can do."""

LEAST_STEPS = 8
"""Steps of the shortest training, whatever its compute budget. Fewer teach nothing."""

COURSE, SWEEP = "course.json", "sweep.json"
"""Files in a training's folder: its course, and the losses by which its learning rate was chosen."""

LEAST_PROBED, WIDELY_PROBED = 16, 40
"""Steps of a training from which learning rates are probed at all, and from which they are probed beyond the grid."""

FULL_COST = 2.5
"""Times as long as training an adapter on the same tokens, for all weights (`bench/variants.py`)."""

_WANTED_STEPS = 120  # small data are gone through more often: behaviour rarely settles in fewer steps
_INTERIM_LOOKS = 3  # at most
_TIMED_INTERIM_LOOKS = 2  # at least, under a time limit: a training that is stopped then has a checkpoint with a score
_LEAST_STEPS_OF_TWO = 24
_SIZED_ON = 64  # rows
_CLEARLY_MORE = 1.5  # times the steps: then a training that was cut short starts over
_PROBE_SHARE = 0.06  # of the schedule, for each learning rate that is probed
_LEAST_PROBE = 4
_TURNS = 3  # of a prompt and its answer
REPAIR_SHARE = 0.1
"""Of the steps of a training, for training it on so that general skills come back."""


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
    wanted: steps that it would have without a limit on time; 0 where time does not decide. start: a folder to train on
    from; None: a fresh adapter, or the base model's weights. full: all weights are trained, and no adapter. how: rows
    are pairs of answers, which are learnt from so; None: rows are answers.
    """

    steps: int
    interim_looks: int
    judged: tuple[Example, ...]
    examples: int
    epoch: int
    wanted: int = 0
    start: Path | None = None
    full: bool = False
    how: DPO | None = None

    @property
    def rates(self) -> Rates:
        """The learning rates that suit it."""
        return OF_WEIGHTS if self.full else OF_ADAPTERS

    @property
    def shortened(self) -> str | None:
        """How far the time cut it, as a sentence part; None where it is as long as planned, and that is long enough."""
        if self.steps < self.wanted:
            return f"the budget had time for {self.steps} of {self.wanted} training steps"
        if self.wanted and self.steps < min(self.epoch, _FEW_STEPS):
            return (
                f"in the time that is planned for it there were {self.steps} training steps, less than one pass over "
                "the train examples; a new run with more --minutes gives it more"
            )
        return None

    def step_of_interim_look(self, number: int) -> int:
        """The step of an interim look, counted from 1."""
        return round(number * self.steps / self.interim_looks)


def epoch_of(examples: int) -> int:
    """Steps in which every example is visited once, in batches of the usual size."""
    return steps_per_epoch(examples, TrainingOptions.batch_size)


def tokens_at(training_tokens: float, *, full: bool) -> float:
    """Tokens of a training that takes as long as training an adapter on so many: all weights take longer."""
    return training_tokens / FULL_COST if full else training_tokens


def affordable_steps(lengths: Lengths, training_tokens: float) -> int:
    """Steps that a compute budget in tokens allows; at least LEAST_STEPS."""
    return max(LEAST_STEPS, int(training_tokens / max(1.0, lengths.step)))


def room_beside(train: int, lengths: Lengths, training_tokens: float) -> int:
    """Rows beside those of train that a training of so many tokens can visit."""
    return max(0, affordable_steps(lengths, training_tokens) * TrainingOptions.batch_size - train)


def steps_of(examples: int, lengths: Lengths, training_tokens: float) -> int:
    """As many steps as are wanted and the compute budget allows, be that less than an epoch."""
    wanted = max(MAX_EPOCHS * epoch_of(examples), _WANTED_STEPS)
    return min(wanted, affordable_steps(lengths, training_tokens))


def interim_looks_of(steps: int, examples: int, *, timed: bool = False) -> int:
    """How many interim looks a training has: one an epoch, within bounds."""
    least = _TIMED_INTERIM_LOOKS if timed and steps >= _LEAST_STEPS_OF_TWO else 1
    return min(_INTERIM_LOOKS, max(least, round(steps / epoch_of(examples))))


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


def lengths_of_texts(instruction: float, own: float, answer: float) -> Lengths:
    """Mean lengths of training rows by those of their texts. The tokens of the chat template are estimated."""
    return Lengths(instruction + TURN_TOKENS, own + answer + (_TURNS - 1) * TURN_TOKENS)


def probe_steps(steps: int) -> int:
    """Steps of each probe of a learning rate; 0 for a training so short that probes would take most of its time."""
    return 0 if steps < LEAST_PROBED else min(steps, max(_LEAST_PROBE, round(_PROBE_SHARE * steps)))


def onward_steps(steps: int, share: float) -> int:
    """Steps of training on, after a training of so many steps."""
    return max(LEAST_STEPS, round(share * steps))


def whole_course(
    workshop: Workshop,
    render: Callable[[Sequence[Example]], list[TrainingRow]],
    judged: tuple[Example, ...],
    *,
    full: bool = False,
) -> Course:
    """The course of a training on all train examples, sized on a few of them as `render` makes rows of them.

    judged: what its interim looks answer. full: as in Course. A recorded course is read back, unless it is sized anew:
    see the module.
    """
    train, limits = workshop.inputs.train, workshop.limits

    def size() -> dict[str, Any]:
        some = sample_of(train, _SIZED_ON, workshop.inputs.task.seed)
        lengths = lengths_of(workshop, render(some))
        steps = steps_of(len(train), lengths, tokens_at(limits.training_tokens, full=full))
        timed = limits.seconds_left() is not None
        return {
            "steps": steps,
            "wanted": steps_of(len(train), lengths, tokens_at(limits.planned, full=full)),
            "interim_looks": interim_looks_of(steps, len(train), timed=timed),
            "examples": min(len(train), steps * TrainingOptions.batch_size),
            "epoch": epoch_of(len(train)),
        }

    path = workshop.folder / "training" / COURSE
    before = record_of(path)
    if before and not _is_judged(workshop, len(judged)):
        now = size()
        if now["steps"] >= _CLEARLY_MORE * before["steps"]:
            start_over(workshop, now)
    return Course(judged=judged, full=full, **once(path, size))


def made_from(folder: Path) -> str | None:
    """The solution that the one in that folder was repaired, shortened or trained on from; None where from none."""
    name = folder.name
    before = begun_from(name) or record_of(folder / "training" / COURSE).get("from")
    # One of its own kind is itself: it was trained in two steps.
    return str(before) if before is not None and kind_of(before) != kind_of(name) else None


def interim_answers(rate: str, step: str) -> str:
    """Where the answers of a checkpoint lie in the workshop's folder; "*" stands for any rate or step."""
    return f"trials/lr-{rate}-step-{step}.jsonl"


def _is_judged(workshop: Workshop, examples: int) -> bool:
    """Whether an interim look on so many examples is answered whole."""
    return any(len(read_predictions(p)) >= examples for p in workshop.folder.glob(interim_answers("*", "*")))


def start_over(workshop: Workshop, course: Mapping[str, Any]) -> None:
    """Gives a training another course: removes checkpoints, probes and answers of the former one.

    The record of the course is replaced last, so that a kill repeats this.
    """
    for folder in (workshop.folder / "training").glob("lr-*"):
        shutil.rmtree(folder, ignore_errors=True)
    (workshop.folder / "training" / SWEEP).unlink(missing_ok=True)
    for answers in workshop.folder.glob(interim_answers("*", "*")):
        answers.unlink()
    write_json(workshop.folder / "training" / COURSE, course)
