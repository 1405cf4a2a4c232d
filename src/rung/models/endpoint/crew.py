"""Many coroutines at the same time: the first one that raises ends them all, and none outlives its block."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Crew:
    """Runs coroutines within `async with`; at its end, those that still run are cancelled and waited for.

    A coroutine that is done is let go at once, so that thousands of them are no load for the garbage collector.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._raised: BaseException | None = None
        self._most = 0
        self._news = asyncio.Event()

    async def __aenter__(self) -> Crew:
        return self

    async def __aexit__(self, *_: object) -> None:
        left = list(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    async def room(self, most: int) -> None:
        """Returns when at most so many run. Raises what one of them raised."""
        self._most = most
        await asyncio.sleep(0)  # those that were started begin
        while self._raised is None and len(self._running) > most:
            self._news.clear()
            await self._news.wait()
        if self._raised is not None:
            raise self._raised

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._raised = self._raised or task.exception()
        if self._raised is not None or len(self._running) <= self._most:
            self._news.set()
