"""Trainings on other cards, here processes on the CPU: what they bring is what one card would have trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.errors import BudgetSpent, Diverged
from rung.models import cards as cards_module
from rung.models.card_worker import Ahead
from rung.models.cards import Cards, other_cards
from rung.models.loading import load_model
from rung.types import DPO, Message, PreferenceRow, Progress, TrainingRow
from trained import OPTIONS, same

COLOURS = ("red", "green", "blue")
LONG = replace(OPTIONS, steps=400)


def messages(i: int) -> tuple[Message, ...]:
    return (Message("system", "Say the colour."), Message("user", f"thing {i}"))


ROWS = tuple(TrainingRow(f"r{i}", messages(i), COLOURS[i % 3]) for i in range(12))
PAIRS = tuple(PreferenceRow(f"p{i}", messages(i), COLOURS[i % 3], COLOURS[(i + 1) % 3]) for i in range(12))


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tiny model in three processes: this one and two others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNG_CARDS", "cpu:3")
        found = load_model(str(tiny_folder))
        found.train(ROWS, OPTIONS, tmp_path_factory.mktemp("first"), until=1)  # adapters are checked once a machine
        cards = found.cards
        assert cards is not None and cards.cards == ("cpu", "cpu")
        cards.start()
        until(lambda: cards.ready == 2)
        yield found
        cards.close()


@pytest.fixture
def alone(tiny_folder: Path) -> Any:
    """The same model in one process."""
    return load_model(str(tiny_folder))


def training(folder: Path, *untils: int, **more: Any) -> Ahead:
    return Ahead(**{"rows": ROWS, "options": OPTIONS, "folder": folder, "untils": untils or (6,), **more})


def test_without_other_cards_nothing_is_started(alone: Any) -> None:
    assert alone.cards is None
    with alone.ahead([training(Path("nowhere"))], print):
        assert alone.cards is None


@pytest.mark.parametrize(
    ("device", "found"), [("cuda", ["cuda:1", "cuda:2"]), ("cuda:2", ["cuda:0", "cuda:1"]), ("cpu", [])]
)
def test_the_other_cards_are_all_but_the_one_of_the_model(
    monkeypatch: pytest.MonkeyPatch, device: str, found: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert other_cards(torch.device(device)) == found
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert other_cards(torch.device(device)) == [], "those of a group have cards of their own"


@pytest.mark.parametrize(("visible", "seen"), [("", "1"), ("4,7", "7"), ("GPU-a, GPU-b", "GPU-b")])
def test_a_process_sees_its_own_card_alone(monkeypatch: pytest.MonkeyPatch, visible: str, seen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment = cards_module._environment("cuda:1")
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["RUNG_CARDS"]) == (seen, "1")


def test_what_other_cards_train_is_bit_by_bit_what_one_card_trains(model: Any, alone: Any, tmp_path: Path) -> None:
    others = [replace(OPTIONS, learning_rate=rate) for rate in (1e-3, 2e-3)]
    jobs = [training(tmp_path / f"lr-{o.learning_rate:g}", 3, 6, options=o) for o in others]
    here, before, first, told = model.engine.computed_tokens, model.computed_tokens, alone.computed_tokens, []
    with model.ahead(jobs, print):
        until(lambda: model.cards.busy)
        until(lambda: not model.cards.busy)
        for options, job in zip(others, jobs, strict=True):
            for step in (3, 6):
                brought = model.train(ROWS, options, job.folder, until=step, on_step=told.append)
                assert brought == job.folder / f"step-{step}"
                assert same(brought, alone.train(ROWS, options, tmp_path / f"alone-{job.folder.name}", until=step))
    assert [p.step for p in told] == [1, 2, 3, 4, 5, 6] * 2
    assert model.engine.computed_tokens == here
    assert model.computed_tokens - before == alone.computed_tokens - first
    assert model.facts()["computed"][0]["cards"] == 1 + model.cards.trained > 1


def test_pairs_are_learnt_from_as_on_one_card(model: Any, alone: Any, tmp_path: Path) -> None:
    job = training(tmp_path / "pairs", rows=PAIRS, how=DPO())
    with model.ahead([job], print):
        until(lambda: model.cards.busy)
        brought = model.prefer(PAIRS, OPTIONS, job.folder, how=DPO(), until=6)
    assert same(brought, alone.prefer(PAIRS, OPTIONS, tmp_path / "alone", how=DPO()))


def test_a_training_that_no_card_has_begun_is_done_here(model: Any, alone: Any, tmp_path: Path) -> None:
    jobs = [training(tmp_path / f"{i}", 400, options=LONG) for i in range(2)]
    mine = training(tmp_path / "mine")
    here = model.engine.computed_tokens
    with model.ahead([*jobs, mine], print):
        until(lambda: all((job.folder / "training.json").exists() for job in jobs))
        assert same(model.train(ROWS, OPTIONS, mine.folder), alone.train(ROWS, OPTIONS, tmp_path / "alone"))
    assert model.engine.computed_tokens > here
    assert not model.cards.busy


def test_a_stopped_training_has_its_checkpoint_and_goes_on_bit_by_bit(model: Any, alone: Any, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=30)
    job = training(tmp_path / "long", 30, options=options)

    reached = 0

    def stop(progress: Progress) -> None:
        nonlocal reached
        reached = progress.step
        if progress.step >= 4:
            raise BudgetSpent("no time is left")

    with pytest.raises(BudgetSpent), model.ahead([job], print):
        until(lambda: model.cards.busy)
        model.train(ROWS, options, job.folder, on_step=stop)
    assert not model.cards.busy
    assert torch.load(job.folder / "checkpoint.pt")["step"] == reached, "what it did meanwhile is not computed again"
    assert same(model.train(ROWS, options, job.folder), alone.train(ROWS, options, tmp_path / "alone"))


def test_a_process_that_had_nothing_to_do_for_long_is_not_taken_for_dead(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cards_module, "_TELL_S", 0.001)
    for worker in model.cards._workers:
        worker.heard_at -= 2 * cards_module._SILENT_S
    job = training(tmp_path / "late")
    with model.ahead([job], print):
        until(lambda: model.cards.busy)
        assert model.train(ROWS, OPTIONS, job.folder) == job.folder / "step-6"
    assert model.cards.ready == len(model.cards._workers)


def test_a_loss_that_is_no_number_is_the_same_error_as_on_one_card(model: Any, tmp_path: Path) -> None:
    options = replace(OPTIONS, learning_rate=1e30)
    job = training(tmp_path / "wild", options=options)
    with model.ahead([job], print), pytest.raises(Diverged, match=r"Use a lower learning rate than 1e\+30"):
        until(lambda: model.cards.busy)
        model.train(ROWS, options, job.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise there")
def test_a_process_that_is_killed_loses_nothing_but_time(model: Any, alone: Any, tmp_path: Path) -> None:
    options = replace(OPTIONS, steps=80)
    job, said, killed = training(tmp_path / "killed", 80, options=options), [], []

    def kill(progress: Progress) -> None:
        if progress.step == 3 and not killed:
            (worker,) = [w for w in model.cards._workers if w.job is not None]
            os.kill(worker.process.pid, signal.SIGKILL)
            killed.append(worker)

    with model.ahead([job], said.append):
        until(lambda: model.cards.busy)
        brought = model.train(ROWS, options, job.folder, on_step=kill)
    assert killed
    assert same(brought, alone.train(ROWS, options, tmp_path / "alone"))
    assert any("goes on elsewhere" in line for line in said) or brought.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed otherwise there")
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from rung.models.cards import Cards\n"
        "cards = Cards(['cpu'], 'no-model', 'v', 'float32', 1); cards.start()\n"
        "print(cards._workers[0].process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: _has_ended(pid), 20.0)


def test_a_list_of_processes_says_what_each_of_them_is(model: Any) -> None:
    for worker in model.cards._workers:
        assert worker.process.args[:2] == [sys.executable, "-c"]
        assert worker.process.args[2].startswith("rung_trains_on = 'cpu';")


def _has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path("/proc").is_dir() and not Path(f"/proc/{pid}").exists()
    return state == "Z"


NOT_LOADED = """import sys; sys.path[:] = {path!r}
from rung.models import card_worker
def fail(load): raise OSError("no such model")
card_worker._loaded = fail
card_worker.main()"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (NOT_LOADED, "a-model could not be loaded there (no such model)"),
        ("import sys; sys.exit('no such library')", "its process ended while it loaded (status 1, no such library)"),
        (None, "no process could be started for it (no room)"),
    ],
    ids=["an error", "a death", "no process"],
)
def test_a_card_that_cannot_be_used_is_done_without_and_it_is_said_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str | None, said: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError("no room")

    if code is None:
        monkeypatch.setattr(cards_module, "_Worker", refuse)
    else:
        monkeypatch.setattr(cards_module, "_START", code)
    cards, heard = Cards(["cpu"], "a-model", "v", "float32", 1), []
    cards.start()
    until(lambda: cards._remarks)
    with cards.ahead([training(tmp_path / "x")], heard.append):
        assert cards.take(tmp_path / "x", 6, lambda _: None) is None
        assert cards.take(tmp_path / "y", 6, lambda _: None) is None
    cards.close()
    assert (cards.ready, len(heard)) == (0, 1)
    assert said in heard[0]


def test_what_processes_computed_counts_when_they_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "_START", NOT_LOADED)
    cards = Cards(["cpu", "cpu"], "a-model", "v", "float32", 1)
    cards.start()
    for worker in cards._workers or ():
        worker.computed = 7
    cards.close()
    assert cards.computed_tokens == 14
