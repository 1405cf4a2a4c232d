"""One training on several cards: torchrun starts a process a card, and this one tells them what to do and listens.

Each process loads the same model (`training_worker`) and computes its share of every batch. This process calls on_step,
stops the others where that raises, and raises their errors as its own. Messages are JSON lines over a socket of this
machine, behind a key that is made anew for each training. When this process is gone, the others end.
Sources: PyTorch's torchrun (torch.distributed.run), for starting processes and ending all of them with any one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import secrets
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import torch

import rung
from rung import errors
from rung.engine.devices import cards
from rung.errors import RungError, TrainingError
from rung.interrupts import unhurried
from rung.resume import is_done
from rung.training.batches import TokenPair, TokenRow
from rung.training.checkpoints import checkpoint_of, claim
from rung.training.loss import Loss
from rung.training.optimisers import optimiser_of, recorded
from rung.training.together import is_one_of_several, saves
from rung.types import Progress, TrainingOptions

if TYPE_CHECKING:
    from rung.models.local import LocalModel

_log = logging.getLogger(__name__)

TOGETHER = "together"
"""The name of this way of training among those that an engine gave up."""

START_S = 30.0
"""Time until the processes take their first step. Several cards are used where they save more than that."""

ADDRESS, KEY = "RUNG_TRAINING_ADDRESS", "RUNG_TRAINING_KEY"
"""Environment variables of the processes: where their parent listens, and what they say first."""

_LOG = "cards.log"
_JOIN_S = 180.0  # for cards to reach each other, once all processes have loaded the model
_LOOK_S, _CAUSE_S, _STOP_S, _END_S, _KEY_S = 0.5, 3.0, 120.0, 15.0, 10.0
_SHOWN_LINES = 8
_SLOWEST = 100.0  # tokens a second that a card trains on


@dataclass(frozen=True)
class LoadedAs:
    """How each process loads the model. threads: of the CPU, each. base, base_version: as the engine's."""

    spec: str
    dtype: str
    threads: int
    base: str
    base_version: str


@dataclass(frozen=True)
class SharedTraining:
    """What is trained; the fields are the arguments of `training.loop.train`, and the devices, one a process."""

    loaded: LoadedAs
    devices: Sequence[str]
    rows: Sequence[TokenRow] | Sequence[TokenPair]
    loss: Loss
    options: TrainingOptions
    folder: Path
    until: int | None
    start: Path | None

    def message(self) -> dict[str, Any]:
        """As one JSON object; `training_worker` reads it."""
        pairs = any(isinstance(row, TokenPair) for row in self.rows)
        return {
            "loaded": asdict(self.loaded),
            "devices": list(self.devices),
            "pairs": [[[r.id, r.prompt, r.target] for r in row.rows] for row in self.rows],
            "references": [row.reference for row in self.rows if isinstance(row, TokenPair)] if pairs else None,
            "loss": dict(self.loss.record),
            "options": asdict(self.options),
            "folder": str(self.folder.absolute()),
            "until": self.until,
            "start": str(self.start.absolute()) if self.start is not None else None,
        }


def train_on_cards(
    model: LocalModel,
    rows: Sequence[TokenRow] | Sequence[TokenPair],
    options: TrainingOptions,
    folder: Path,
    *,
    loss: Loss,
    until: int | None,
    start: Path | None,
    on_step: Callable[[Progress], None],
) -> Path | None:
    """As `training.loop.train`, on all cards of this run; None where there is one, where several save less time than
    they take to start, and where their processes do not come to a first step, which the log tells."""
    engine = model.engine
    devices = cards(engine.device)[: max(1, min(len(rows), options.batch_size))]
    last = options.steps if until is None else min(until, options.steps)
    if len(devices) == 1 or is_done(folder / f"step-{last}"):
        return None
    if TOGETHER in engine.ways.given_up or not {*loss.record} <= {"preferences"} or is_one_of_several():
        return None
    reached = max((n for n in _steps_in(folder) if n < last), default=0)
    most = saves(rows, options, last - reached, len(devices), _SLOWEST)
    if most < START_S or most * _SLOWEST / model.speed().train < START_S:  # short ones need no measured speed
        return None
    claimed = {**loss.record, **recorded(optimiser_of(engine, options, folder))}  # decided here for all processes
    claim(folder, options, rows, start, claimed)  # type: ignore[type-var]
    model.close_cards()
    engine.make_room()  # the first card holds this process's network too
    threads, dtype = max(1, torch.get_num_threads() // len(devices)), str(engine.dtype).removeprefix("torch.")
    loaded = LoadedAs(model.name, dtype, threads, engine.base, engine.base_version)
    before: int | None = None if checkpoint_of(folder).is_file() else 0

    def tell(progress: Progress) -> None:
        nonlocal before
        engine.computed_tokens += 2 * (progress.tokens - before) if before is not None else 0  # there and back
        before = progress.tokens
        on_step(progress)

    try:
        job = SharedTraining(loaded, devices, rows, loss, options, folder, until, start)
        train_together(job, on_step=tell, starter=torchrun)
        model.trained_on = max(model.trained_on, len(devices))
        return folder / f"step-{last}"
    except NotStarted as error:
        engine.ways.give_up(TOGETHER, str(error))
        _log.warning("%s trains on one card, since several did not start: %s", model.name, error)
        return None


def _steps_in(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdigit()]


class NotStarted(Exception):
    """The processes took no step. The message says why, as a clause; what they were to do is done without them."""


class Processes(Protocol):
    """The processes, started: as of subprocess.Popen."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


Starter = Callable[[int, Mapping[str, str], IO[bytes]], Processes]
"""(count, environment variables, file for what they print) -> the processes."""


def torchrun(count: int, variables: Mapping[str, str], log: IO[bytes]) -> Processes:
    """Starts so many processes by PyTorch's launcher, apart from the terminal, whose Ctrl-C is for this process."""
    words = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={count}"]
    words += [f"--log-dir={os.devnull}"]  # it would leave a folder behind, with what each process failed by
    place = str(Path(rung.__file__).parent.parent)
    path = os.pathsep.join(part for part in (place, os.environ.get("PYTHONPATH", "")) if part)
    return subprocess.Popen(
        [sys.executable, *words, "-m", "rung.models.training_worker"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},  # no module of the folder it is in
        start_new_session=True,
    )


def train_together(
    job: SharedTraining,
    *,
    on_step: Callable[[Progress], None],
    starter: Starter,
) -> Path:
    """Trains as `training.loop.train` does, in one process for each device, and returns the same folder.

    What on_step raises, and Ctrl-C, ends the training after a checkpoint, from which any number of cards go on.
    Raises what a process raised; TrainingError where one died; NotStarted where they did not come to a first step.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / _LOG).open("wb") as log, _Parent(job, log, starter) as parent:
        result = parent.follow(on_step)
    (job.folder / _LOG).unlink(missing_ok=True)
    return result


@dataclass
class _Worker:
    """A process that has said the key. lines: what it says. failure: what ended its work, if anything did."""

    rank: int
    socket: socket.socket
    lines: io.RawIOBase
    failure: RungError | None = None

    def say(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # that it is gone is heard when it is read from
            self.socket.sendall(json.dumps(message).encode() + b"\n")


@dataclass
class _Parent:
    """asked: whether process 0 waits to hear if it may go on. stepped: whether a step was taken. cause_by: the time
    until which a better reason for a failure is waited for. join_by: by which the processes have to reach each other.
    lost: those that are gone, in that order."""

    job: SharedTraining
    log: IO[bytes]
    starter: Starter
    workers: dict[int, _Worker] = field(default_factory=dict)
    asked: bool = False
    stepped: bool = False
    failed: bool = False
    cause_by: float | None = None
    loaded: int = 0
    join_by: float = float("inf")
    lost: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> _Parent:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._key = secrets.token_urlsafe(24)
        address = "{}:{}".format(*self._server.getsockname())
        variables = {ADDRESS: address, KEY: self._key, "RUNG_CARDS": "1"}
        if "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(self.job.loaded.threads)
        try:
            self._processes = self.starter(len(self.job.devices), variables, self.log)
        except OSError as error:
            self._selector.close()
            self._server.close()
            raise NotStarted(f"no process could be started ({error})") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes: they end when their parent is gone, whatever they wait for."""
        self._selector.close()
        for worker in self.workers.values():
            with contextlib.suppress(OSError):
                worker.socket.shutdown(socket.SHUT_RDWR)
            worker.lines.close()
            worker.socket.close()
        self._server.close()
        for end in (lambda: None, self._processes.terminate, self._processes.kill):
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes.wait(_END_S)
                break

    # ---- what they say ------------------------------------------------------------------------

    def follow(self, on_step: Callable[[Progress], None]) -> Path:
        """Until the training has ended. Where this process is to stop it, a checkpoint is written first."""
        try:
            while True:
                message = self._next()
                if "result" in message:
                    return Path(message["result"])
                self.asked, self.stepped = True, True
                on_step(Progress(**message["step"]))
                self.workers[0].say({"go": True})
                self.asked = False
        except BaseException:
            if not self.failed and self.stepped:
                with unhurried():
                    self._stop()
            raise

    def _stop(self) -> None:
        """Lets process 0 write a checkpoint, at the end of its step."""
        until = time.monotonic() + _STOP_S
        if self.asked:
            self.workers[0].say({"go": False})
        with contextlib.suppress(RungError):
            while time.monotonic() < until:
                message = self._next(until)
                if not message or "stopped" in message or "result" in message:
                    return
                self.workers[0].say({"go": False})

    def _next(self, until: float = float("inf")) -> dict[str, Any]:
        """The next message of process 0; {} at the time `until`. Raises what a process failed by."""
        while time.monotonic() < until:
            for key, _ in self._selector.select(_LOOK_S):
                if key.data is None:
                    self._accept()
                elif message := self._heard(key.data):
                    return message
            if time.monotonic() > self.join_by:
                self.failed = True
                raise NotStarted(f"the processes did not reach each other within {_JOIN_S:.0f} s of loading the model")
            if self.cause_by is None and self._processes.poll() is not None:
                self.cause_by = time.monotonic()
            if self.cause_by is not None and time.monotonic() >= self.cause_by:
                self._raise()
        return {}

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        connection.settimeout(_KEY_S)
        lines = connection.makefile("rb", buffering=0)  # what is read ahead, the selector would not tell of
        try:
            said = json.loads(lines.readline(1000))
            known = secrets.compare_digest(str(said["key"]), self._key)
        except (OSError, ValueError, LookupError, TypeError):
            known = False
        if not known:
            connection.close()
            return
        connection.settimeout(None)
        worker = _Worker(int(said["rank"]), connection, lines)
        self.workers[worker.rank] = worker
        self._selector.register(connection, selectors.EVENT_READ, worker)
        worker.say(self.job.message())

    def _heard(self, worker: _Worker) -> dict[str, Any] | None:
        """A message of process 0 to act on. A failure is kept: what caused it may be said by another a little later."""
        try:
            message: dict[str, Any] = json.loads(worker.lines.readline())
        except (OSError, ValueError):
            message = {}
        if not message:
            self._selector.unregister(worker.socket)
            self.lost.append(worker)
        if "failed" in message or not message:
            worker.failure = worker.failure or _error_of(message)
            self.cause_by = self.cause_by or time.monotonic() + _CAUSE_S
            return None
        if "loaded" in message:
            self.loaded += 1
            self.join_by = time.monotonic() + _JOIN_S if self.loaded == len(self.job.devices) else self.join_by
            return None
        if worker.rank == 0:
            self.join_by = float("inf")
        return message if worker.rank == 0 and "joined" not in message else None

    def _raise(self) -> None:
        """What ended the training: what a process raised on purpose, else that one died."""
        self.failed = True
        for worker in self.workers.values():
            if worker.failure is not None and not isinstance(worker.failure, _Died):
                if not self.stepped and not isinstance(worker.failure, TrainingError):
                    raise NotStarted(f"process {worker.rank}: {worker.failure}")
                raise worker.failure
        place = self.job.folder / _LOG
        if not self.stepped:
            raise NotStarted(f"the processes did not start: {_end_of(place)}")
        first = [*self.lost, *(worker for worker in self.workers.values() if worker.failure is not None)][:1]
        which = "".join(f"process {w.rank} (on {self.job.devices[w.rank]})" for w in first) or "torchrun"
        raise TrainingError(
            f"training in {self.job.folder}: {which} ended before the training did. What was said is in {place}. "
            "Nothing up to the last checkpoint is lost: start the run again, and it goes on from there; with the "
            "environment variable RUNG_CARDS set to 1, on one card."
        )


class _Died(RungError):
    """A process is gone, or failed by what rung does not raise on purpose, and said nothing more of it."""


def _error_of(message: Mapping[str, Any]) -> RungError:
    """What a process says it failed by."""
    kind = getattr(errors, str(message.get("failed")), None)
    text = str(message.get("text", ""))
    if isinstance(kind, type) and issubclass(kind, RungError):
        return kind(text)
    return _Died(text)


def _end_of(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-_SHOWN_LINES:]) or "nothing was said"
