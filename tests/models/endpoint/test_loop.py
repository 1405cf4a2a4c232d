from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from rung.errors import ModelError
from rung.models.endpoint import loop as loop_module
from rung.models.endpoint.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread()
    yield made
    made.close()


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def test_coroutines_of_several_threads_run_in_one_loop(loop: LoopThread) -> None:
    results: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: loop.run(double(n))})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: 2 * n for n in range(8)}


def test_what_a_coroutine_raises_comes_out(loop: LoopThread) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        loop.run(fail())
    assert loop.run(double(2)) == 4


def test_a_closed_loop_says_so_and_ends_what_runs() -> None:
    loop = LoopThread()
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    failed: list[BaseException] = []

    def waits() -> None:
        try:
            loop.run(long())
        except ModelError as error:
            failed.append(error)

    thread = threading.Thread(target=waits)
    thread.start()
    time.sleep(0.05)
    loop.close()
    loop.close()
    thread.join(5)
    assert ended.is_set() and "closed meanwhile" in str(failed[0])
    with pytest.raises(ModelError, match="closed"):
        loop.run(double(1))


def test_work_that_does_not_end_when_it_is_cancelled_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_CLOSING_S", 0.1)
    loop, begun = LoopThread(), threading.Event()

    async def stubborn() -> None:
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    failed: list[BaseException] = []

    def waits() -> None:
        try:
            loop.run(stubborn())
        except ModelError as error:
            failed.append(error)

    thread = threading.Thread(target=waits, daemon=True)
    thread.start()
    assert begun.wait(5)
    loop.close()
    thread.join(5)
    assert "closed meanwhile" in str(failed[0]) and not loop._thread.is_alive()


def test_what_ends_a_thread_comes_out_and_ends_the_loop_for_all_others() -> None:
    loop, begun = LoopThread(), threading.Event()
    failed: list[BaseException] = []

    async def waits() -> None:
        begun.set()
        await asyncio.sleep(60)

    async def leave() -> None:
        raise SystemExit(3)

    def other() -> None:
        try:
            loop.run(waits())
        except ModelError as error:
            failed.append(error)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert begun.wait(5)
    with pytest.raises(SystemExit):
        loop.run(leave())
    thread.join(5)
    assert "closed meanwhile" in str(failed[0])
    with pytest.raises(ModelError, match="closed"):
        loop.run(double(1))


def test_closing_while_other_threads_hand_work_over_leaves_nobody_waiting() -> None:
    for _ in range(30):
        loop = LoopThread()
        ends: list[object] = []

        def waits(loop: LoopThread = loop, ends: list[object] = ends) -> None:
            try:
                while True:
                    loop.run(double(1))
            except ModelError as error:
                ends.append(error)

        threads = [threading.Thread(target=waits, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        loop.close()
        for thread in threads:
            thread.join(5)
        assert len(ends) == 3


def test_every_wait_for_a_result_has_a_timeout_so_that_ctrl_c_is_seen_on_windows(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "_LISTENING_S", 0.01)
    waited: list[float | None] = []
    wait = threading.Condition.wait

    def watched(condition: threading.Condition, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            waited.append(timeout)
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", watched)
    loop.run(asyncio.sleep(0.1))
    assert len(waited) > 2 and None not in waited


def test_a_loop_that_would_wait_for_itself_is_refused(loop: LoopThread) -> None:
    async def inside() -> None:
        loop.run(double(1))

    with pytest.raises(RuntimeError, match="wait for itself"):
        loop.run(inside())


CTRL_C = """
import asyncio, signal, sys, time
from rung.models.endpoint.loop import LoopThread
loop = LoopThread()
async def work(patience):
    print("begun", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("ending", flush=True)
        await asyncio.sleep(patience)
        print("ended", flush=True)
try:
    loop.run(work(float(sys.argv[1])))
except KeyboardInterrupt:
    print("raised", flush=True)
loop.close()
"""


def interrupted(patience: float, times: int) -> list[str]:
    """The lines of a process that is interrupted so many times."""
    signal_again = times
    with subprocess.Popen([sys.executable, "-c", CTRL_C, str(patience)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip()]
        while signal_again:
            process.send_signal(signal.SIGINT)
            signal_again -= 1
            if signal_again:
                lines.append(process.stdout.readline().strip())
        lines += process.stdout.read().split()
    return lines


def test_ctrl_c_waits_for_the_clean_end_and_is_raised_again() -> None:
    assert interrupted(0.2, 1) == ["begun", "ending", "ended", "raised"]


def test_a_second_ctrl_c_does_not_wait() -> None:
    assert interrupted(30.0, 2) == ["begun", "ending", "raised"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_after_a_fork_the_child_is_told_to_open_the_model_again(loop: LoopThread) -> None:
    code = """
import os, sys
from rung.errors import ModelError
from rung.models.endpoint.loop import LoopThread
async def one(): return 1
loop = LoopThread()
child = os.fork()
if child == 0:
    try:
        loop.run(one())
    except ModelError as error:
        loop.close()
        os._exit(7 if "forked" in str(error) else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=30)
    assert done.returncode == 7
