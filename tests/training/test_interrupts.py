"""Ctrl-C in a training: a real signal, in the middle of a step."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rung import interrupts
from rung.interrupts import held, interrupt, unhurried
from rung.testing import tiny_model
from rung.training import loop
from rung.training.batches import TokenRow
from rung.training.checkpoints import checkpoint_of
from rung.training.loop import train
from rung.training.loss import add_gradients
from rung.types import Progress
from trained import OPTIONS, same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")

ROWS = [TokenRow(str(i), (3, 4, 5, 6 + i), (20 + i, 21, 2)) for i in range(8)]


@pytest.fixture(params=[signal.default_int_handler, interrupt], ids=["a library's user", "the command line"])
def handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGALRM)]
    signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, former in before:
        signal.signal(number, former)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def pressed_in(step: int, times: int, ended: list[int]) -> Callable[..., Any]:
    """`add_gradients`, with Ctrl-C in the middle of that step. ended: gets each step whose gradients came to an end."""
    calls = 0

    def computed(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            for _ in range(times):
                ctrl_c()
                time.sleep(0.01)
        found = add_gradients(*given, **more)
        ended.append(calls)
        return found

    return computed


@pytest.mark.parametrize("step", [1, 3, 6])
def test_ctrl_c_within_a_step_ends_the_training_behind_it_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any, step: int
) -> None:
    engine, told, ended = tiny_model().engine, list[int](), list[int]()
    whole = train(engine, ROWS, OPTIONS, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "add_gradients", pressed_in(step, 1, ended))
        with pytest.raises(KeyboardInterrupt):
            train(engine, ROWS, OPTIONS, tmp_path / "torn", on_step=lambda p: told.append(p.step))
    assert told[-1] == ended[-1] == step
    assert torch.load(checkpoint_of(tmp_path / "torn"))["step"] == step
    assert signal.getsignal(signal.SIGINT) is handler
    assert same(train(engine, ROWS, OPTIONS, tmp_path / "torn", on_step=lambda p: told.append(p.step)), whole)
    assert told == [1, 2, 3, 4, 5, 6], "no step is trained twice"


def test_the_second_ctrl_c_passes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    ended = list[int]()
    monkeypatch.setattr(loop, "add_gradients", pressed_in(3, 2, ended))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model().engine, ROWS, OPTIONS, tmp_path)
    assert ended == [1, 2]
    assert not checkpoint_of(tmp_path).exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_recorded_passes_with_gradients_under_way_end_with_the_checkpoint_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,static")
    engine, right, steps = tiny_model().engine, loop._gathered, list[int]()
    whole = train(engine, ROWS, OPTIONS, tmp_path / "whole")

    def gathered(job: Any, learner: Any, state: Any, captured: Any, step: int) -> Any:
        steps.append(step)
        if step == 3:
            ctrl_c()
        return right(job, learner, state, captured, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_gathered", gathered)
        with pytest.raises(KeyboardInterrupt):
            train(engine, ROWS, OPTIONS, tmp_path / "torn")
    assert steps == [0, 1, 2, 3]
    assert torch.load(checkpoint_of(tmp_path / "torn"))["step"] == 3, "step 4 was only begun"
    assert same(train(engine, ROWS, OPTIONS, tmp_path / "torn"), whole)


def test_a_training_in_another_thread_leaves_signals_alone(tmp_path: Path, handler: Any) -> None:
    seen: list[Any] = []

    def on_step(progress: Progress) -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(
        target=train, args=(tiny_model().engine, ROWS, OPTIONS, tmp_path), kwargs={"on_step": on_step}
    )
    thread.start()
    thread.join()
    assert seen == [handler] * 6


@pytest.mark.parametrize("own", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_a_handler_of_the_programs_own_is_left_alone(handler: Any, own: Any) -> None:
    signal.signal(signal.SIGINT, own)
    with held() as found:
        assert signal.getsignal(signal.SIGINT) is own
    assert found.count == 0


def test_ctrl_c_is_raised_whatever_else_ends_the_work(handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, held():
        ctrl_c()
        raise ValueError("the loss is no number")
    assert raised.value.__suppress_context__
    with pytest.raises(KeyboardInterrupt), held() as found:
        ctrl_c()
        assert found.count == 1


def test_what_waits_for_a_checkpoint_of_others_is_not_interrupted_by_the_same_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    monkeypatch.setattr(interrupts, "_AGAIN_S", 0.05)
    signal.signal(signal.SIGALRM, interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    with unhurried():
        time.sleep(0.1)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)
