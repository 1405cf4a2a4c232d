"""Trains an adapter along a course and keeps its best checkpoint. A killed training goes on from its records.

The learning rate is chosen by short probes. The chosen one goes on from where its probe ended, and nothing is trained
twice. At each interim look, dev is answered and scored by the task's own metric. The last checkpoint is kept unless an
earlier one is clearly better. When the budget ends in the middle, the best of the checkpoints that have a score is the
solution. It stands then: more budget does not train it on.
Where a run has several cards, rates that do not wait for each other are trained side by side. They are judged one after
the other as on one card, with the same results; what was trained ahead and is not wanted then is removed.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rung.errors import BudgetSpent, Diverged
from rung.models.card_worker import Ahead
from rung.records import write_json, write_text
from rung.resume import folder_once, is_done, record_of
from rung.strategies.course import LEAST_STEPS, SWEEP, WIDELY_PROBED, Course, interim_answers, probe_steps
from rung.strategies.learning_rate import next_probes, search
from rung.strategies.training_rows import preferring, trainable, training_rows
from rung.trials.trial import attempt
from rung.trials.workshop import Workshop
from rung.types import PreferenceRow, Progress, Solution, TrainingOptions, TrainingRow

HISTORY = "history.json"

Rows = Sequence[TrainingRow] | Sequence[PreferenceRow]
"""What is trained on: answers, or pairs of answers where the course says how these are learnt from."""

_SLOWER = 3  # rates that are trained at most, each half of the one before, where a training diverges at once
LEAST_JUDGED = 0.25
"""Share of the steps from which a training that the budget ended says something about fine-tuning."""

_SAMPLED_ROWS = 16  # of train, whose loss says how much is left to learn
_LEARNT = 0.02  # mean loss per answer token below which these rows are known by heart


@dataclass(frozen=True)
class Checkpoint:
    """An adapter on the way, and the score of each example that it was judged on."""

    step: int
    adapter: Path
    scores: list[float]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass
class _Training:
    """A training: what it is made of, and how far it has come.

    reached: steps done at `rate`, the last one. answering: whether its checkpoint is being judged. probed: whether its
    rate rests on probes, here or earlier in the run. given: a rate that is taken over. ahead: rates that other cards
    train meanwhile.
    """

    workshop: Workshop
    solution: Solution
    rows: Sequence[Any]
    course: Course
    rate: float = 0.0
    reached: int = 0
    answering: bool = False
    probed: bool = True
    given: float | None = None
    ahead: tuple[float, ...] = ()

    @property
    def folder(self) -> Path:
        return self.workshop.folder / "training"

    def train(self, rate: float, until: int, what: str) -> Path:
        """The adapter after `until` steps at that rate."""
        course, tell = self.course, self.workshop.tools.tell
        if rate != self.rate:
            self.rate, self.reached = rate, 0

        def on_step(progress: Progress) -> None:
            self.reached = progress.step
            tell(f"{what}, loss {progress.loss:.2f}", progress.step / course.steps)

        train = trainable(self.workshop).train
        if course.how is not None:
            train = partial(preferring(self.workshop).prefer, how=course.how)
        options, folder = self.options(rate), self.folder_of(rate)
        return train(self.rows, options, folder, until=until, start=course.start, on_step=on_step)

    def options(self, rate: float) -> TrainingOptions:
        course, seed = self.course, self.workshop.inputs.task.seed
        return TrainingOptions(rate, steps=course.steps, seed=seed, full=course.full)

    def folder_of(self, rate: float) -> Path:
        return self.folder / f"lr-{rate:g}"

    @property
    def cards(self) -> int:
        """Number of other cards that can train meanwhile."""
        cards = getattr(trainable(self.workshop), "cards", None)
        return len(cards.cards) if cards is not None else 0

    def side_by_side(self, rates: Sequence[float], untils: Sequence[int]) -> AbstractContextManager[None]:
        """Within: other cards train at these rates up to each of these steps, as `train` will ask for it."""
        course, tell = self.course, self.workshop.tools.tell
        self.ahead = tuple(rates)
        if not rates:
            return nullcontext()
        jobs = [
            Ahead(tuple(self.rows), self.options(rate), self.folder_of(rate), tuple(untils), course.start, course.how)
            for rate in rates
        ]
        named = ", ".join(f"{rate:g}" for rate in rates)
        tell(f"other cards train at learning rates {named} meanwhile", 0)
        beside: AbstractContextManager[None] = trainable(self.workshop).ahead(jobs, lambda text: tell(text, 0))  # type: ignore[attr-defined]
        return beside

    def drop_unwanted(self, wanted: Collection[str]) -> None:
        """Removes what other cards trained in vain, and says so. wanted: the rates that were judged, as records
        name them."""
        begun = [rate for rate in self.ahead if f"{rate:g}" not in wanted and self.folder_of(rate).exists()]
        for rate in begun:
            shutil.rmtree(self.folder_of(rate), ignore_errors=True)
        if begun:
            named = ", ".join(f"{rate:g}" for rate in begun)
            self.workshop.tools.tell(f"not needed after all: learning rate {named}, tried on another card", 0)
        self.ahead = ()

    def keep_lowest(self, rate: float, loss: float) -> None:
        """Removes the checkpoints of this probe or of the others: all weights of each would fill a disk.

        A rate whose checkpoints are gone and that is chosen after all is trained from its first step again.
        """
        others = record_of(self.folder / SWEEP).get("dev_loss", {})
        best = all(other is None or loss < other for other in others.values())
        unjudged = {self.folder_of(r) for r in self.ahead if r != rate and f"{r:g}" not in others}
        for folder in {*self.folder.glob("lr-*")} - unjudged:
            if (folder.name == f"lr-{rate:g}") != best:
                shutil.rmtree(folder, ignore_errors=True)

    def trial(self, rate: float, step: int) -> Path:
        """Where the judged answers of a checkpoint are kept."""
        return self.workshop.folder / interim_answers(f"{rate:g}", str(step))

    def stopped(self) -> str:
        """Where the budget ended it, as a sentence part."""
        if self.answering:
            return f"the budget ended while dev was answered after step {self.reached} of {self.course.steps}"
        return f"training was stopped by the budget after step {self.reached} of {self.course.steps}"


def fit(workshop: Workshop, solution: Solution, rows: Rows, course: Course, left_out: dict[str, Any]) -> Path:
    """Trains and returns the folder of the adapter to go on with. left_out: of rows that were too long, as recorded.

    Its answers to the judged examples are kept as predictions.dev.jsonl, and the training in training/history.json:
    learning_rate, probed (whether that rate rests on probes, here or earlier in the run), rate_from (in words, where it
    was taken over), steps, epochs [{epoch, dev}],
    kept (an epoch), rates, left_out, all_weights (whether they were trained), bytes (of the folder); cut where the
    budget shortened it, and stopped_at (a step) where it ended it. What was cut stays so: with more budget, the adapter
    is read back and not trained on.
    A training that the budget ends before its first interim look is judged where it stands. Raises Diverged, and
    BudgetSpent when the budget ends before LEAST_JUDGED of the steps.
    """
    training = _Training(workshop, solution, rows, course)
    judged: dict[float, list[Checkpoint]] = {}
    stopped = None
    try:
        with _all_side_by_side(training):
            for rate in _rates(training):
                for checkpoint in _checkpoints(training, rate):
                    judged.setdefault(rate, []).append(checkpoint)
                if judged and not workshop.limits.exhaustive:
                    break
    except BudgetSpent:
        if not judged:
            judged[training.rate] = [_judged_at_last(training)]
        stopped = training.stopped()
    if not judged:
        raise Diverged(f"{training.folder}: the training diverged before its first interim look, at every rate.")
    kept = {rate: kept_of(checkpoints) for rate, checkpoints in judged.items()}
    rate = max(kept, key=lambda r: kept[r].mean)
    best = kept[rate]
    history = {
        "learning_rate": rate,
        "probed": training.probed,
        "steps": course.steps,
        "epochs": [{"epoch": round(c.step / course.epoch, 2), "dev": c.mean} for c in judged[rate]],
        "kept": round(best.step / course.epoch, 2),
        "left_out": left_out,
        "all_weights": course.full,
        "bytes": sum(file.stat().st_size for file in best.adapter.rglob("*")),
    }
    if rate == training.given and workshop.learning_rate_from:
        history["rate_from"] = workshop.learning_rate_from
    if workshop.limits.exhaustive:
        history["rates"] = {f"{r:g}": c.mean for r, c in kept.items()}
    if stopped is not None and rate == training.rate:  # of several rates, one that came to its end may be the best
        history["stopped_at"] = training.reached
    shortened = course.shortened if best.mean < 1.0 else None  # where all is right, more steps could add nothing
    if cut := "; ".join(why for why in (shortened, stopped) if why is not None) or None:
        history["cut"] = cut
    workshop.note_cut("training", cut)
    write_json(training.folder / HISTORY, history)
    # The checkpoint has answered dev already: those are the solution's own predictions.
    write_text(workshop.folder / "predictions.dev.jsonl", training.trial(rate, best.step).read_text("utf-8"))
    return folder_once(
        workshop.folder / "adapter", lambda scratch: shutil.copytree(best.adapter, scratch, dirs_exist_ok=True)
    )


def _judged_at_last(training: _Training) -> Checkpoint:
    """The checkpoint at which the budget ended a training before its first interim look, judged all the same.

    The time for that is reserved while a training goes on. Raises BudgetSpent where too little was trained to be worth
    it.
    """
    reached, rate = training.reached, training.rate
    if reached < max(LEAST_STEPS, LEAST_JUDGED * training.course.steps):
        raise BudgetSpent(f"the budget was spent after {reached} of {training.course.steps} training steps")
    tools = replace(training.workshop.tools, tell=lambda what, share: None)
    workshop = replace(training.workshop, tools=tools)
    adapter = replace(training, workshop=workshop).train(rate, reached, "")
    trial = replace(training.solution, adapter=str(adapter))
    predictions = attempt(workshop, trial, training.course.judged, training.trial(rate, reached))
    trainable(workshop).release(adapter)
    return Checkpoint(reached, adapter, [p.score or 0.0 for p in predictions])


def kept_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The last one, where the schedule has come to rest, unless the best is ahead by more than one standard error.

    Of several checkpoints with a score on some hundred examples, the best is often the luckiest.
    Source: Hastie et al., The Elements of Statistical Learning (2009), 7.10, the one-standard-error rule.
    """
    last = checkpoints[-1]
    best = max(checkpoints, key=lambda c: c.mean)
    gaps = [a - b for a, b in zip(best.scores, last.scores, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return best if best.mean - last.mean > error else last


def _trains_all(training: _Training) -> bool:
    """Whether every rate of the grid is trained in full."""
    return training.workshop.limits.exhaustive and training.course.start is None


def _all_side_by_side(training: _Training) -> AbstractContextManager[None]:
    """Within: other cards train at the rates behind the first one, where every rate is trained in full."""
    course = training.course
    if not _trains_all(training) or not training.cards:
        return nullcontext()
    unfinished = [r for r in course.rates.grid if not is_done(training.folder_of(r) / f"step-{course.steps}")]
    steps = [course.step_of_interim_look(number) for number in range(1, course.interim_looks + 1)]
    return training.side_by_side(unfinished[1:], steps)


def _rates(training: _Training) -> Iterator[float]:
    """The learning rates to train at: each of the grid where everything is tried in full, else the chosen one.

    Behind the chosen one come its halves, for the case that it diverges at once.
    """
    if _trains_all(training):
        yield from training.course.rates.grid
        return
    rate = _first_rate(training)
    for halvings in range(_SLOWER):
        yield rate / 2**halvings


def _first_rate(training: _Training) -> float:
    """The rate that was chosen earlier in the run, else the best of short probes.

    One outside the grid suited another training, often a shorter one: there, rates are probed anew, as where all
    weights are trained, since the one that was chosen is an adapter's. A training that is
    too short for probes takes the middle of the grid.
    """
    given, course = training.workshop.learning_rate, training.course
    grid = course.rates.grid
    if given is not None and (course.start is not None or (min(grid) <= given <= max(grid) and not course.full)):
        training.given = given
        training.probed = course.how is None  # a rate for pairs suits nothing else
        return given
    if probe_steps(course.steps):
        return _probed(training)
    training.probed = False
    return course.rates.middle


def _probed(training: _Training) -> float:
    """The learning rate whose first steps give the lowest loss on the screen, with prompts as answering shows them."""
    workshop, model, steps = training.workshop, trainable(training.workshop), training.course.steps
    screen = training_rows(workshop, training.solution, workshop.inputs.screen, gold=False)
    long = set(model.too_long(screen))
    screen = [row for row in screen if row not in long] or list(training.rows[:_SAMPLED_ROWS])
    until = probe_steps(steps)

    def loss_of(rate: float) -> float:
        adapter = training.train(rate, until, f"trying learning rate {rate:g}")
        try:
            loss = model.loss(screen, adapter)
        finally:
            model.release(adapter)
        if training.course.full:
            training.keep_lowest(rate, loss)
        return loss

    record, rates, beyond = training.folder / SWEEP, training.course.rates, steps >= WIDELY_PROBED
    following = next_probes(record, rates, beyond=beyond, more=training.cards)
    with training.side_by_side(following, [until]):
        found = search(loss_of, record, rates=rates, beyond=beyond)
    training.drop_unwanted(record_of(record)["dev_loss"])
    return found


def _checkpoints(training: _Training, rate: float) -> Iterator[Checkpoint]:
    """The checkpoints of one learning rate, each with its score, until its end or until nothing is left to learn.

    A training that diverges ends where it does.
    """
    workshop, course, model = training.workshop, training.course, trainable(training.workshop)
    means: list[float] = []
    for number in range(1, course.interim_looks + 1):
        step = course.step_of_interim_look(number)
        try:
            adapter = training.train(rate, step, f"training {training.solution.name}")
        except Diverged:
            return
        training.reached = step
        try:
            trial = replace(training.solution, adapter=str(adapter))
            training.answering = True
            predictions = attempt(workshop, trial, course.judged, training.trial(rate, step))
            training.answering = False
            checkpoint = Checkpoint(step, adapter, [p.score or 0.0 for p in predictions])
            yield checkpoint
            no_better = any(mean >= checkpoint.mean for mean in means)
            means.append(checkpoint.mean)
            # Rows that are known by heart have nothing left to teach, so the first one that is no better is the last.
            settled = (
                no_better
                and course.how is None
                and not workshop.limits.exhaustive
                and number < course.interim_looks
                and model.loss(training.rows[:_SAMPLED_ROWS], adapter) < _LEARNT
            )
        finally:
            model.release(adapter)
        if settled or checkpoint.mean >= 1.0:
            return


def tidy_given_up(run: Path) -> None:
    """Removes the checkpoints of trainings of all weights that were given up, each three times as large as the model.

    Where such a training goes on all the same, it begins again at its first step.
    """
    for claim in run.glob("solutions/*/training/lr-*/training.json"):
        if record_of(claim).get("options", {}).get("full"):
            shutil.rmtree(claim.parent, ignore_errors=True)
