"""One event loop in one daemon thread, so that code that knows nothing of asyncio can run coroutines.

A Ctrl-C in the calling thread cancels the coroutine, waits for its clean end and is raised again; a second one is
raised at once. Knows nothing of endpoints.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from rung.errors import ModelError

T = TypeVar("T")
_CLOSING_S = 10.0  # that the clean end of what runs may take when the loop is closed
_LISTENING_S = 0.25  # between two looks for a Ctrl-C: on Windows it ends no wait that has no timeout


class LoopThread:
    """`run` may be called from several threads. After a fork, or after `close`, it raises ModelError."""

    def __init__(self, name: str = "rung-endpoint") -> None:
        self._loop = asyncio.new_event_loop()
        self._process, self._closed = os.getpid(), False
        self._hurried = False  # whether a second Ctrl-C did not wait for the clean end
        self._handing = threading.Lock()  # held while work is handed to the loop, and when that is closed
        self._works: set[_Work[Any]] = set()  # that somebody waits for
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of the coroutine, or what it raised."""
        work = _Work(self._loop, coroutine)
        try:
            self._hand(work)
            _wait(work)
            return work.done.result()
        except KeyboardInterrupt:
            try:
                self._loop.call_soon_threadsafe(work.cancel)
            except RuntimeError:  # the loop is closed
                work.abandon()
            self._hurried = True
            _wait(work)  # a second Ctrl-C is raised here
            self._hurried = False
            raise
        except concurrent.futures.CancelledError:
            raise ModelError("The call was cancelled, because the endpoint was closed meanwhile.") from None
        finally:
            self._works.discard(work)

    def start(
        self, coroutine: Coroutine[Any, Any, T], ended: Callable[[concurrent.futures.Future[T]], None]
    ) -> Callable[[], None]:
        """Returns at once, with what cancels the coroutine. ended: is called once, mostly from the loop's thread."""
        work = _Work(self._loop, coroutine)
        self._hand(work)

        def over(future: concurrent.futures.Future[T]) -> None:
            self._works.discard(work)
            ended(future)

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it all that ran
                self._loop.call_soon_threadsafe(work.cancel)

        work.done.add_done_callback(over)
        return cancel

    def close(self) -> None:
        """Cancel what runs, wait for its clean end for some seconds, and end the thread. A second call does nothing."""
        if self._closed or self._process != os.getpid():
            self._closed = True
            return
        with self._handing:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread and not self._hurried:
            self._thread.join(_CLOSING_S + 1.0)

    def _hand(self, work: _Work[Any]) -> None:
        """Work that is handed over before the loop is closed is ended by that."""
        try:
            self._check()
            with self._handing:
                self._check()
                self._works.add(work)
                self._loop.call_soon_threadsafe(work.start)
        except (ModelError, RuntimeError):
            work.coroutine.close()
            raise

    def _check(self) -> None:
        if self._process != os.getpid():
            raise ModelError("An endpoint cannot be used in a forked process. Open the model in that process again.")
        if self._closed:
            raise ModelError("This endpoint is closed. Open the model again.")
        if threading.current_thread() is self._thread:
            raise RuntimeError("run() was called from its own loop, which would wait for itself; await instead")

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        with contextlib.suppress(SystemExit, KeyboardInterrupt):  # by what runs: it comes out of its `run`
            self._loop.run_forever()
        with self._handing:  # from here on nothing new is handed over
            self._closed = True
        try:
            self._loop.run_until_complete(_cancel_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            for work in list(self._works):
                work.abandon()


class _Work(Generic[T]):
    """A coroutine on its way: `done` brings its end into the calling thread. start and cancel run in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop, self.coroutine = loop, coroutine
        self._task: asyncio.Task[T] | None = None

    def start(self) -> None:
        if self.done.cancelled():
            return
        self._task = self._loop.create_task(self.coroutine)
        self._task.add_done_callback(self._hand_over)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # Ctrl-C came before the start was asked for
            self.coroutine.close()
            self.abandon()

    def abandon(self) -> None:
        """Nothing comes any more: wakes those who wait."""
        if self._task is None:  # it never began
            self.coroutine.close()
        if not self.done.done() and self.done.cancel():
            self.done.set_running_or_notify_cancel()

    def _hand_over(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.abandon()
        elif (error := task.exception()) is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


def _wait(work: _Work[Any]) -> None:
    while not work.done.done():
        concurrent.futures.wait([work.done], timeout=_LISTENING_S)


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_CLOSING_S)
