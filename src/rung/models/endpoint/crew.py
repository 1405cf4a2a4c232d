"""Many coroutines at the same time: the first one that raises ends them all, and none outlives its block.

Those that run when one raises, or at a Ctrl-C, may end by themselves first, for a moment: an answer that is paid for is
kept, and a request that is refused as well is known to have cost nothing. What is cut counts with the most that it can
cost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]

_GRACE_S = 1.0
_GRACE_CANCELLED_S = 2.0  # at a Ctrl-C, when most calls in flight may still be answered


class Crew:
    """Runs coroutines within `async with`; at its end, those that still run are cancelled and waited for.

    After an error they have a second to end, and two after a cancellation, such as by Ctrl-C; a second one ends them.

    A task does one piece of work after another. What waits for its turn is no task yet, so that thousands of them are
    no load for the loop and the garbage collector.
    most: how many may run at once, asked for whenever one may begin; None: all.
    """

    def __init__(self, most: Callable[[], int] | None = None) -> None:
        self._most = most
        self._waiting: deque[Work] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._raised: BaseException | None = None
        self._news = asyncio.Event()
        self._is_news: Callable[[], bool] = lambda: False

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._waiting.clear()
        left = list(self._running)
        try:
            if left and isinstance(error, Exception):
                await asyncio.wait(left, timeout=_GRACE_S)
            elif left and isinstance(error, asyncio.CancelledError):
                await asyncio.wait(left, timeout=_GRACE_CANCELLED_S)
        finally:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Runs work(*args): it begins in the loop's next turn, or when it may."""
        self._waiting.append(partial(work, *args))
        self._fill()

    async def room(self, waiting: int) -> None:
        """Returns when at most so many wait for their turn. Raises what one of them raised."""
        await self._until(lambda: len(self._waiting) <= waiting)

    async def rest(self) -> None:
        """Returns when all are done. Raises what one of them raised."""
        await self._until(lambda: not self._waiting and not self._running)

    async def _until(self, met: Callable[[], bool]) -> None:
        self._is_news = met
        await asyncio.sleep(0)  # those that were started begin
        while self._raised is None and not met():
            self._news.clear()
            await self._news.wait()
        if self._raised is not None:
            raise self._raised

    def _fill(self) -> None:
        while self._waiting and (self._most is None or len(self._running) < self._most()):
            task = asyncio.create_task(self._work(self._waiting.popleft()))
            self._running.add(task)
            task.add_done_callback(self._done)

    async def _work(self, work: Work) -> None:
        await work()
        while self._waiting and self._raised is None and (self._most is None or len(self._running) <= self._most()):
            work = self._waiting.popleft()
            self._fill()  # more may run by now than before
            self._tell()
            await work()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._raised = self._raised or task.exception()
        if self._raised is None:
            self._fill()
        self._tell()

    def _tell(self) -> None:
        if self._raised is not None or self._is_news():
            self._news.set()
