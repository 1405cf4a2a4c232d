"""Trainings side by side: one process on each further card, which trains what will be asked for later.

Whoever asks goes on as if there were one card: it says beforehand which trainings are to come (`ahead`), and asks for
one after the other as always. One that another card has begun is waited for; any other is done where it is asked for.
So results, folders and their order are those of one card. What was trained ahead and is never asked for was in vain.
A process that dies or fails costs nothing but time: its training goes on from its checkpoint in another one or here.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.errors import Diverged
from rung.interrupts import unhurried
from rung.models.card_worker import Ahead, CardModel, Ended, Reached, Ready, Stepped, Stop
from rung.types import Progress

_START = (
    "rung_trains_on = {card!r}; import sys; sys.path[:] = {path!r}\nfrom rung.models.card_worker import main\nmain()"
)
"""What a process runs. Its first words are for lists of processes."""

_TELL_S = 5.0  # without a step, after which the caller is told of the last one once more: it looks at its budget then
_SILENT_S = 900.0  # without a step, after which a process counts as dead; a first step may compile
_TO_STOP_S = 60.0  # for a training that is no longer wanted to write its checkpoint
_TO_END_S = 5.0  # for a process whose standard input is closed
_TRIES = 2  # of processes at one training
_LAST_BYTES = 2000  # of what a process wrote on standard error


def other_cards(device: Any) -> list[str]:
    """The cards of a run beside the one that its model is on, as `devices.cards` names them. device: a torch.device."""
    from rung.engine.devices import cards
    from rung.training.together import is_one_of_several

    return [] if is_one_of_several() else cards(device)[1:]


@dataclass
class _Job:
    """A training and what was heard of it. tries: of processes. running, ended: whether it is under way, or over."""

    ahead: Ahead
    heard: deque[Stepped | Reached | Ended] = field(default_factory=deque)
    tries: int = 0
    running: bool = False
    ended: bool = False


class _Worker:
    """A process, and what it does. computed: tokens that it has put through its network."""

    def __init__(self, card: str, load: CardModel) -> None:
        self.card = card
        self.load = load
        self.ready = self.gone = False
        self.job: _Job | None = None
        self.computed = 0
        self.heard_at = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed in `ended`)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(card=card, path=[os.path.abspath(p) for p in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(card),
        )

    def send(self, message: CardModel | Ahead | Stop) -> None:
        """Nothing is sent to a process that has died: its end is heard elsewhere."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def messages(self) -> Iterator[Ready | Stepped | Reached | Ended]:
        """Until the process ends."""
        assert self.process.stdout is not None
        while True:
            try:
                yield pickle.load(self.process.stdout)
            except Exception:  # what is no message may raise anything
                return

    def ended(self) -> str:
        """Waits for its end; its status, and the last line that it wrote on standard error."""
        status = _end(self.process)
        with self._errors:
            self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"status {status}" + (f", {said}" if said else "")


def _environment(card: str) -> dict[str, str]:
    """That of this process, with one card to see. Whatever uses several cards is off there."""
    found = {**os.environ, "RUNG_CARDS": "1"}
    kind, _, index = card.partition(":")
    if kind == "cuda":
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        found["CUDA_VISIBLE_DEVICES"] = visible[int(index)] if visible else index
    else:
        found["CUDA_VISIBLE_DEVICES"] = "-1"
    return found


class Cards:
    """The processes on the other cards, all with the same model. They start when they are first needed.

    spec, version: of the model. dtype: as torch names it. threads: of each process on the CPU.
    """

    def __init__(self, cards: Sequence[str], spec: str, version: str, dtype: str, threads: int) -> None:
        self.cards = tuple(cards)
        self._spec, self._version, self._dtype, self._threads = spec, version, dtype, threads
        self._workers: list[_Worker] | None = None
        self._jobs: dict[Path, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._computed = 0  # by processes that were closed
        self._trained = 0  # of processes that were closed, those that trained; the most at once
        self._remarks: list[str] = []
        self._say: Callable[[str], None] = lambda _: None
        self._changed = threading.Condition()

    @property
    def computed_tokens(self) -> int:
        """Put through the networks of all of them so far."""
        return self._computed + sum(worker.computed for worker in self._workers or ())

    @property
    def trained(self) -> int:
        """Number of processes that have trained anything so far: the most at once."""
        return max(self._trained, sum(worker.computed > 0 for worker in self._workers or ()))

    @property
    def ready(self) -> int:
        """Number of processes that have loaded the model and live."""
        return sum(worker.ready and not worker.gone for worker in self._workers or ())

    @property
    def busy(self) -> bool:
        """Whether any of them trains, or is about to."""
        live = [worker for worker in self._workers or () if not worker.gone]
        return bool(live and self._waiting) or any(worker.job is not None for worker in live)

    def start(self) -> None:
        """Starts the processes, which load their models meanwhile. Does nothing where they are started."""
        if self._workers is not None:
            return
        self._workers = []
        for card in self.cards:
            load = CardModel(self._spec, card.partition(":")[0], self._dtype, self._threads)
            worker = None
            try:
                worker = _Worker(card, load)
                threading.Thread(target=self._listen, args=(worker,), daemon=True, name=f"rung-{card}").start()
                self._workers.append(worker)
            except (OSError, RuntimeError) as error:  # the system allows no more processes, or no more threads
                self._remarks.append(f"{card} is not used: no process could be started for it ({error})")
                if worker is not None:
                    worker.process.kill()
                    worker.ended()

    def close(self) -> None:
        """Ends the processes. They start anew when they are needed again."""
        self._trained = self.trained
        workers, self._workers = self._workers or [], None
        for worker in workers:
            with contextlib.suppress(OSError):
                if worker.process.stdin is not None:
                    worker.process.stdin.close()
        for worker in workers:
            _end(worker.process)
            self._computed += worker.computed

    @contextmanager
    def ahead(self, jobs: Sequence[Ahead], say: Callable[[str], None]) -> Iterator[None]:
        """Within: these trainings are done on the other cards, in that order, until they are asked for or no more.

        Afterwards none is under way: one that was not asked for to its end has written its checkpoint. say: hears what
        went wrong, while `take` waits.
        """
        self.start()
        with self._changed:
            self._say = say
            self._waiting.extend(_Job(job) for job in jobs)
            self._jobs = {job.ahead.folder: job for job in self._waiting}
            self._hand_out()
        try:
            yield
        finally:
            with unhurried():
                self._stop(list(self._jobs.values()))
            self._jobs = {}

    def take(self, folder: Path, until: int, on_step: Callable[[Progress], None]) -> Path | None:
        """What a training in that folder has learnt by that step; None where it is to be done here.

        Waits for it where another card has begun it, and tells on_step of its steps, one by one. What on_step raises
        passes through. Raises Diverged as the training does.
        """
        self._tell_remarks()
        job = self._jobs.get(folder)
        if job is None or self._given_back(job, until):
            return None
        last: Progress | None = None
        while True:
            self._tell_remarks()
            message = self._next_of(job)
            if isinstance(message, Stepped):
                last = message.progress
                self._tell(job, last, on_step)
            elif isinstance(message, Reached):
                if message.until == until:
                    return message.folder
            elif isinstance(message, Ended):
                if message.diverged:
                    raise Diverged(message.fault)
                if message.fault is not None:
                    self._remarks.append(f"a training on another card failed ({message.fault}): it is done here")
                break
            elif not job.running:
                break
            elif last is not None:
                self._tell(job, last, on_step)
        self._given_back(job)
        self._tell_remarks()
        return None

    # ---- what is under way --------------------------------------------------------------------

    def _given_back(self, job: _Job, until: int | None = None) -> bool:
        """Whether a training is to be done here. Then no card works at it, and none will.

        until: the step that is asked for; None: it is done here in any case.
        """
        with self._changed:
            begun = job.running or job.ended or bool(job.heard)
            if until is not None and begun and until in job.ahead.untils:
                return False
        self._stop([job])
        self._jobs.pop(job.ahead.folder, None)
        return True

    def _next_of(self, job: _Job) -> Stepped | Reached | Ended | None:
        """The next message of a training; None where there was none for a while, or no card is at it any more."""
        with self._changed:
            self._changed.wait_for(lambda: bool(job.heard) or not job.running, timeout=_TELL_S)
            if job.heard:
                return job.heard.popleft()
            silent = [w for w in self._workers or () if w.job is job and time.monotonic() - w.heard_at > _SILENT_S]
        for worker in silent:
            worker.process.kill()
        return None

    def _tell(self, job: _Job, progress: Progress, on_step: Callable[[Progress], None]) -> None:
        """Tells of a step. Where that raises, the training is ended, and its last step is told: its checkpoint holds
        all that the other card has done meanwhile."""
        try:
            on_step(progress)
        except Exception:
            self._stop([job])
            with self._changed:
                steps = [message.progress for message in job.heard if isinstance(message, Stepped)]
            with contextlib.suppress(Exception):  # it is raised already why it ends
                for newest in steps[-1:]:
                    on_step(newest)
            raise

    def _tell_remarks(self) -> None:
        while self._remarks:
            self._say(self._remarks.pop(0))

    def _stop(self, jobs: Sequence[_Job]) -> None:
        """Returns when no card works at any of them."""
        with self._changed:
            for job in jobs:
                if job in self._waiting:
                    self._waiting.remove(job)
                job.tries = _TRIES
            working = [w for w in self._workers or () if any(w.job is job for job in jobs)]
            for worker in working:
                worker.send(Stop())
            self._changed.wait_for(lambda: not any(job.running for job in jobs), timeout=_TO_STOP_S)
            late = [w for w in working if any(w.job is job for job in jobs)]
        for worker in late:
            worker.process.kill()
            worker.process.wait()

    def _hand_out(self) -> None:
        """Gives what waits to those that are free. The lock is held."""
        for worker in self._workers or ():
            if self._waiting and worker.ready and not worker.gone and worker.job is None:
                job = self._waiting.popleft()
                job.running, job.tries, worker.job = True, job.tries + 1, job
                worker.heard_at = time.monotonic()
                worker.send(job.ahead)

    def _listen(self, worker: _Worker) -> None:
        """In a thread: hears a process until it ends."""
        worker.send(worker.load)
        for message in worker.messages():
            with self._changed:
                worker.heard_at = time.monotonic()
                self._heard(worker, message)
                self._hand_out()
                self._changed.notify_all()
        status = worker.ended()
        with self._changed:
            if not worker.ready and not worker.gone and worker in (self._workers or ()):
                self._remarks.append(f"{worker.card} is not used: its process ended while it loaded ({status})")
            worker.gone = True
            if (job := worker.job) is not None:
                worker.job, job.running = None, False
                if job.tries < _TRIES:
                    job.heard.clear()
                    self._waiting.appendleft(job)
                self._remarks.append(
                    f"the process on {worker.card} ended in the middle of a training ({status}), which goes on "
                    "elsewhere from its checkpoint"
                )
            self._hand_out()
            self._changed.notify_all()

    def _heard(self, worker: _Worker, message: Ready | Stepped | Reached | Ended) -> None:
        """The lock is held."""
        job = worker.job
        if isinstance(message, Ready):
            worker.ready = message.version == self._version
            if not worker.ready:
                worker.gone = True
                self._remarks.append(f"{worker.card} is not used: {self._spec} has changed on disk since it was loaded")
                worker.process.terminate()
        elif job is None:  # of a process that could not load its model
            worker.gone = True
            fault = message.fault if isinstance(message, Ended) else None
            self._remarks.append(f"{worker.card} is not used: {self._spec} could not be loaded there ({fault})")
        else:
            if isinstance(message, Ended):
                worker.job, job.running, job.ended = None, False, True
            else:
                worker.computed = message.computed
            job.heard.append(message)


def _end(process: subprocess.Popen[bytes]) -> int:
    """The status of a process that is about to end; one that does not is killed."""
    try:
        status = process.wait(_TO_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    return status
