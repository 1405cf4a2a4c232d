"""A process that trains on a card of its own what another process asks it to (`cards.py` starts it).

It hears from its parent over standard input and answers over standard output, in pickled messages. When the parent is
gone, a training writes its checkpoint and the process ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from rung.errors import Diverged, first_line
from rung.types import DPO, PreferenceRow, Progress, TrainingOptions, TrainingRow

if TYPE_CHECKING:
    from rung.models.local import LocalModel

_TO_STOP_S = 60.0  # for the step that is under way when the parent is gone


# ---- what it is asked -----------------------------------------------------------------------


@dataclass(frozen=True)
class CardModel:
    """The first message: which model, and how. dtype: as torch names it. threads: of the CPU."""

    spec: str
    device: str
    dtype: str
    threads: int


@dataclass(frozen=True)
class Ahead:
    """A training that another card may do: the arguments of `Trainable.train` or, with `how`, of `Preferring.prefer`.

    untils: the steps that it will be asked for, in order.
    """

    rows: tuple[TrainingRow, ...] | tuple[PreferenceRow, ...]
    options: TrainingOptions
    folder: Path
    untils: tuple[int, ...]
    start: Path | None = None
    how: DPO | None = None


@dataclass(frozen=True)
class Stop:
    """The training that is under way is no longer wanted. Its checkpoint is written."""


# ---- what it says ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    version: str


@dataclass(frozen=True)
class Stepped:
    """A step is done. computed: tokens that this process has put through its network since it was loaded."""

    progress: Progress
    computed: int


@dataclass(frozen=True)
class Reached:
    """The training has come to that step, and what it had learnt then lies in the folder."""

    until: int
    folder: Path
    computed: int


@dataclass(frozen=True)
class Ended:
    """Nothing is under way any more. fault: why, where it failed. diverged: whether the loss was no number."""

    fault: str | None = None
    diverged: bool = False


class _Stopped(Exception):
    """Passes through a training, which then writes its checkpoint."""


class _Process:
    """stopping: whether the training under way is to end. busy: whether there is one."""

    def __init__(self, heard: BinaryIO, said: BinaryIO) -> None:
        self._heard, self._said = heard, said
        self._jobs: SimpleQueue[Ahead | None] = SimpleQueue()
        self._first: SimpleQueue[CardModel] = SimpleQueue()
        self._loaded_with = 0
        self._stopping, self._busy = threading.Event(), threading.Event()
        threading.Thread(target=self._hear, daemon=True, name="rung-card-hears").start()

    def work(self) -> None:
        """Loads the model and trains, until the parent is gone."""
        load = self._first.get()
        try:
            model = _loaded(load)
        except Exception as error:
            self._say(Ended(first_line(error)))
            return
        self._loaded_with = model.computed_tokens
        self._say(Ready(model.version))
        while (job := self._jobs.get()) is not None:
            self._busy.set()
            self._say(self._trained(model, job))
            self._busy.clear()

    def _trained(self, model: LocalModel, job: Ahead) -> Ended:
        def on_step(progress: Progress) -> None:
            self._say(Stepped(progress, self._computed(model)))
            if self._stopping.is_set():
                raise _Stopped

        how: dict[str, Any] = {"start": job.start, "on_step": on_step}
        rows: Any = job.rows
        try:
            for until in job.untils:
                if job.how is not None:
                    folder = model.prefer(rows, job.options, job.folder, how=job.how, until=until, **how)
                else:
                    folder = model.train(rows, job.options, job.folder, until=until, **how)
                self._say(Reached(until, folder, self._computed(model)))
                if self._stopping.is_set():
                    break
        except _Stopped:
            return Ended()
        except Diverged as error:
            return Ended(str(error), diverged=True)
        except Exception as error:
            return Ended(first_line(error))
        return Ended()

    def _computed(self, model: LocalModel) -> int:
        """Tokens of trainings: those of checks at loading are no part of any stage's work."""
        return model.computed_tokens - self._loaded_with

    def _say(self, message: Ready | Stepped | Reached | Ended) -> None:
        try:
            pickle.dump(message, self._said)
            self._said.flush()
        except OSError:  # the parent is gone
            self._stopping.set()

    def _hear(self) -> None:
        """In a thread of its own, so that the end of the parent is heard in the middle of a training."""
        while True:
            try:
                message = pickle.load(self._heard)
            except (EOFError, OSError, pickle.UnpicklingError):
                break
            if isinstance(message, CardModel):
                self._first.put(message)
            elif isinstance(message, Stop):
                self._stopping.set()
            else:
                self._stopping.clear()  # what was to stop has ended
                self._jobs.put(message)
        self._stopping.set()
        self._jobs.put(None)
        if self._busy.is_set():
            time.sleep(_TO_STOP_S)  # the process ends before, when the step is done
        os._exit(1)


def _loaded(load: CardModel) -> LocalModel:
    import torch

    from rung.models.loading import load_model

    return load_model(load.spec, device=load.device, dtype=getattr(torch, load.dtype), threads=load.threads)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process of a terminal: the parent decides
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no message
    _Process(sys.stdin.buffer, said).work()
    os._exit(0)
