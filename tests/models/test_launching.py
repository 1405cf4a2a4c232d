"""A training whose steps are taken by other processes. They are forked here but once, when torchrun starts them."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from rung.engine.variables import CARDS
from rung.errors import Diverged, OutOfMemory, TrainingError
from rung.models import launching, training_worker
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.testing import save_tiny_model
from rung.training import loop
from rung.training.batches import TokenRow
from rung.training.checkpoints import checkpoint_of
from rung.training.loss import ANSWERS
from rung.training.together import Together
from rung.types import DPO, Message, PreferenceRow, Progress, TrainingOptions, TrainingRow

OPTIONS = TrainingOptions(learning_rate=5e-3, steps=6, batch_size=4, rank=4, alpha=8, seed=3)
ROWS = [TrainingRow(f"row-{i}", (Message("user", f"number {i}"),), f"answer {i}") for i in range(8)]


class Forked:
    """Processes that a test forks, so that nothing is imported again: torchrun's part."""

    def __init__(self, count: int, variables: Mapping[str, str], before: Callable[[int], None]) -> None:
        fork = multiprocessing.get_context("fork")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
        self.processes = [
            fork.Process(target=_work, args=({**variables, **group, "RANK": str(rank)}, before))
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def poll(self) -> int | None:
        """As torchrun, which ends all processes where one ends."""
        if all(process.is_alive() for process in self.processes):
            return None
        self.kill()
        return 1

    def terminate(self) -> None:
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def wait(self, timeout: float | None = None) -> int:
        for process in self.processes:
            process.join(timeout)
            if process.is_alive():
                raise subprocess.TimeoutExpired("forked", timeout or 0)
        return 0


def _work(variables: Mapping[str, str], before: Callable[[int], None]) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    with contextlib.suppress(BaseException):
        before(int(variables["RANK"]))
        training_worker.main()
    os._exit(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> LocalModel:
    return load_model(str(base), device="cpu", dtype=torch.float32, threads=1)


class Launches:
    """What a test does in each process before it works, and what was started."""

    def __init__(self) -> None:
        self.before: Callable[[int], None] = lambda _: None
        self.started: list[Forked] = []

    def __call__(self, count: int, variables: Mapping[str, str], log: IO[bytes]) -> Forked:
        self.started.append(Forked(count, variables, self.before))
        return self.started[-1]


@pytest.fixture
def launches(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    """Trainings go to two forked processes, however short they are."""
    torch.set_num_threads(1)  # libgomp does not survive a fork with threads of its own
    found = Launches()
    monkeypatch.setenv(CARDS, "cpu:2")
    monkeypatch.setattr(launching, "START_S", 0.0)
    monkeypatch.setattr(launching, "saves", lambda *_: 1.0)
    monkeypatch.setattr(launching, "_CAUSE_S", 0.5)
    monkeypatch.setattr(launching, "torchrun", found)
    yield found
    model.engine.ways.given_up.clear()


def alone(model: LocalModel, folder: Path, options: TrainingOptions = OPTIONS) -> Path:
    return model.train_tokens(model.encode_rows(ROWS), options, folder)


def close(a: Path, b: Path) -> bool:
    from safetensors.torch import load_file

    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (a, b))
    return first.keys() == second.keys() and all(torch.allclose(first[k], second[k], atol=1e-5) for k in first)


def steps_of(model: LocalModel, folder: Path, options: TrainingOptions = OPTIONS, **how: Any) -> list[int]:
    steps: list[int] = []
    model.train(ROWS, options, folder, on_step=lambda p: steps.append(p.step), **how)
    return steps


def test_processes_train_what_one_trains_and_leave_nothing_else(
    model: LocalModel, launches: Launches, tmp_path: Path
) -> None:
    before = model.computed_tokens
    expected = alone(model, tmp_path / "alone")
    here = model.computed_tokens - before
    assert steps_of(model, tmp_path / "both") == [1, 2, 3, 4, 5, 6]
    assert len(launches.started) == 1
    assert close(expected, tmp_path / "both" / "step-6")
    assert (expected / "base.json").read_text() == (tmp_path / "both" / "step-6" / "base.json").read_text()
    left = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("both", "alone")]
    assert left[0] == left[1]
    assert model.computed_tokens - before > here, "what the processes computed counts"
    assert steps_of(model, tmp_path / "both") == []
    assert len(launches.started) == 1, "what is done starts nothing"


def test_what_on_step_raises_stops_all_after_a_checkpoint_and_one_card_goes_on(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(model, tmp_path / "alone")

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.train(ROWS, OPTIONS, tmp_path / "both", on_step=stop)
    assert torch.load(checkpoint_of(tmp_path / "both"))["step"] == 3
    assert launches.started[0].poll() is not None
    monkeypatch.setenv(CARDS, "1")
    assert steps_of(model, tmp_path / "both") == [4, 5, 6]
    assert close(expected, tmp_path / "both" / "step-6")


def test_a_process_that_is_killed_is_named_and_the_training_goes_on_from_its_checkpoint(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == 4:
            launches.started[0].processes[1].kill()

    launches.before = lambda _: setattr(loop, "_CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(TrainingError, match=r"process 1 \(on cpu\)") as caught:
        model.train(ROWS, OPTIONS, tmp_path / "both", on_step=kill)
    assert "RUNG_CARDS" in str(caught.value)
    assert launches.started[0].poll() is not None
    monkeypatch.setenv(CARDS, "1")
    assert steps_of(model, tmp_path / "both")[0] in (4, 5)


@pytest.mark.parametrize(
    ("kind", "stepped"), [(Diverged, False), (OutOfMemory, True)], ids=["diverged", "out of memory later"]
)
def test_an_error_of_one_process_is_raised_as_what_it_is(
    model: LocalModel, launches: Launches, tmp_path: Path, kind: type[Exception], stepped: bool
) -> None:
    def before(rank: int) -> None:
        real, calls = loop._gathered, []

        def gathered(*args: Any) -> Any:
            calls.append(1)
            if rank == 1 and len(calls) > stepped:
                raise kind("what happened, and what to do")
            return real(*args)

        loop._gathered = gathered

    launches.before = before
    with pytest.raises(kind, match="what happened, and what to do"):
        model.train(ROWS, OPTIONS, tmp_path / "both")


def test_processes_that_come_to_no_step_are_done_without(
    model: LocalModel, launches: Launches, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def before(rank: int) -> None:
        if rank == 1:
            raise OSError

    launches.before = before
    assert steps_of(model, tmp_path / "both") == [1, 2, 3, 4, 5, 6]
    assert "since several did not start" in caplog.text
    assert steps_of(model, tmp_path / "other") == [1, 2, 3, 4, 5, 6]
    assert len(launches.started) == 1


def test_processes_that_do_not_reach_each_other_are_done_without(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(rank: int) -> None:
        if rank == 1:
            Together.meet = lambda _: time.sleep(60)

    launches.before = before
    monkeypatch.setattr(launching, "_JOIN_S", 1.0)
    assert steps_of(model, tmp_path / "both") == [1, 2, 3, 4, 5, 6]
    assert "did not reach each other" in model.engine.ways.given_up[launching.TOGETHER]


def test_pairs_are_trained_on_together_too(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [PreferenceRow(row.name, row.messages, row.answer, "no") for row in ROWS]
    together = model.prefer(pairs, OPTIONS, tmp_path / "both", how=DPO(beta=0.1))
    assert len(launches.started) == 1
    monkeypatch.setenv(CARDS, "1")
    assert close(together, model.prefer(pairs, OPTIONS, tmp_path / "alone", how=DPO(beta=0.1)))


def test_several_cards_are_taken_where_they_save_more_than_their_start() -> None:
    rows = [TokenRow(str(i), (*range(100), i), (5,) * 10) for i in range(8)]
    each = 12  # own tokens of a row: all but the prefix of 99 that all share... and its first
    saved = launching.saves(rows, OPTIONS, steps=100, count=2, speed=10.0)
    assert saved == pytest.approx(100 * 4 * each / 2 / 10.0, rel=0.1)
    assert launching.saves(rows, replace(OPTIONS, batch_size=1), steps=100, count=2, speed=10.0) == 0
    assert launching.saves([], OPTIONS, steps=100, count=2, speed=10.0) == 0


def test_one_card_a_group_of_a_scheduler_and_a_short_training_start_nothing(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CARDS, "1")
    assert len(steps_of(model, tmp_path / "one")) == 6
    monkeypatch.setenv(CARDS, "cpu:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(steps_of(model, tmp_path / "group")) == 6
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(launching, "START_S", 30.0)
    assert len(steps_of(model, tmp_path / "short")) == 6
    assert launches.started == []


def test_a_connection_without_the_key_is_turned_away(model: LocalModel, launches: Launches, tmp_path: Path) -> None:
    def before(rank: int) -> None:
        if rank == 0:
            host, _, port = os.environ[launching.ADDRESS].rpartition(":")
            with socket.create_connection((host, int(port))) as other:
                other.sendall(b'{"key": "guessed", "rank": 0}\n')
                assert other.recv(10) == b""

    launches.before = before
    assert steps_of(model, tmp_path / "both") == [1, 2, 3, 4, 5, 6]


def test_where_the_system_allows_no_more_processes_one_card_trains(
    model: LocalModel, launches: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Forked:
        raise BlockingIOError("no room")

    monkeypatch.setattr(launching, "torchrun", refuse)
    assert steps_of(model, tmp_path / "both") == [1, 2, 3, 4, 5, 6]
    assert "no process could be started (no room)" in model.engine.ways.given_up[launching.TOGETHER]


class OneTalker:
    """A process that a thread plays, and that says several things at once."""

    def __init__(self, count: int, variables: Mapping[str, str], log: IO[bytes]) -> None:
        self.variables = variables
        self.thread = threading.Thread(target=self.talk)
        self.thread.start()

    def talk(self) -> None:
        host, _, port = self.variables[launching.ADDRESS].rpartition(":")
        with socket.create_connection((host, int(port))) as parent, parent.makefile("rb") as heard:
            step = {"step": {"step": 1, "steps": 1, "loss": 0.5, "tokens": 3, "seconds": 0.1}}
            said = [{"key": self.variables[launching.KEY], "rank": 0}, {"loaded": True}, {"joined": True}, step]
            parent.sendall("".join(json.dumps(each) + "\n" for each in said).encode())
            heard.readline()  # what it is to do
            assert json.loads(heard.readline()) == {"go": True}
            parent.sendall(json.dumps({"result": "a-folder"}).encode() + b"\n")
            heard.read()

    def poll(self) -> int | None:
        return None

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        self.thread.join(timeout)
        return 0


def job_of(model: LocalModel, folder: Path, options: TrainingOptions, *devices: str) -> launching.SharedTraining:
    as_here = launching.LoadedAs(model.name, "float32", 1, model.engine.base, model.engine.base_version)
    rows = model.encode_rows(ROWS)
    return launching.SharedTraining(as_here, devices, rows, ANSWERS, options, folder, None, None)


def test_what_a_process_says_at_once_is_heard_to_the_last_word(model: LocalModel, tmp_path: Path) -> None:
    steps: list[Progress] = []
    job = job_of(model, tmp_path / "told", OPTIONS, "cpu")
    assert launching.train_together(job, on_step=steps.append, starter=OneTalker) == Path("a-folder")
    assert [progress.step for progress in steps] == [1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them")
def test_torchruns_processes_end_with_a_parent_that_is_killed_and_leave_nothing(
    model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    torch.set_num_threads(1)
    job = job_of(model, tmp_path / "one", replace(OPTIONS, steps=100_000), "cpu")  # a second one would import as long
    fork = multiprocessing.get_context("fork")
    heard, said = fork.Pipe(duplex=False)

    def run() -> None:
        launching.train_together(job, on_step=lambda p: said.send(p.step), starter=launching.torchrun)

    parent = fork.Process(target=run)
    parent.start()
    try:
        assert heard.poll(120)
        assert heard.recv() == 1
        begun = _descendants(parent.pid or 0)
        assert len(begun) >= 2, "torchrun and its process"
    finally:
        parent.kill()
        parent.join()
    until = time.monotonic() + 30
    while (left := [pid for pid in begun if _lives(pid)]) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left
    assert not [*tmp_path.glob("torchelastic*")]


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) in found:
                found.append(int(path.parent.name))
    return found[1:]


def _lives(pid: int) -> bool:
    """Whether a process runs: one that nobody has asked for its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
