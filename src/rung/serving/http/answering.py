"""The answers to one request, as they are written: several side by side, in one queue. Knows nothing of HTTP.

What is asked ends when nobody takes it any more, when its time is over, and when the server ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from rung.errors import Busy
from rung.serving.events import Done, Event, ModelCall
from rung.serving.http.errors import ClientGone
from rung.serving.service import ModelService

_Result = TypeVar("_Result")
_HELD = 64  # events that wait for a slow reader; then its answers wait too


class Answering:
    """Answers to calls, each event with the number of its call, from `start` to `end`.

    seconds: all answers have so long together.
    """

    def __init__(self, service: ModelService, calls: Sequence[ModelCall], seconds: float) -> None:
        self._service, self._calls, self._seconds = service, calls, seconds
        self._queue: asyncio.Queue[tuple[int, Event] | Exception] = asyncio.Queue(_HELD)
        self._left = len(calls)
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Asks. Within a running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._seconds, self._end, TimeoutError())
        self._tasks = [loop.create_task(self._one(number, call)) for number, call in enumerate(self._calls)]

    async def end(self) -> None:
        """Ends what still runs. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """The server ends: whoever takes the next event hears that there is none."""
        self._end(Busy("the server ended before this answer did. Ask again.", 5.0))

    async def next(self) -> tuple[int, Event] | None:
        """The next event, or None after the last one. Raises what an answer fails with; TimeoutError; Busy."""
        if not self._left:
            return None
        found = await self._queue.get()
        if isinstance(found, Exception):
            raise found
        if isinstance(found[1], Done):
            self._left -= 1
        return found

    def _end(self, error: Exception) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(error)

    async def _one(self, number: int, call: ModelCall) -> None:
        try:
            async with aclosing(self._service.answer(call)) as events:  # type: ignore[type-var]
                async for event in events:
                    await self._queue.put((number, event))
        except Exception as error:
            await self._queue.put(error)


class InFlight:
    """The requests that are being answered."""

    def __init__(self) -> None:
        self._answering: set[Answering] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._answering)

    def enter(self, answering: Answering) -> None:
        self._answering.add(answering)
        self._idle.clear()

    def leave(self, answering: Answering) -> None:
        self._answering.discard(answering)
        if not self._answering:
            self._idle.set()

    async def idle(self, seconds: float) -> bool:
        """Waits until nothing is being answered. Returns False where that takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return not self._answering

    def cut(self) -> None:
        """Ends all answers."""
        for answering in tuple(self._answering):
            answering.cut()


async def while_heard(receive: Any, work: Coroutine[Any, Any, _Result]) -> _Result:
    """What `work` returns. Where the client goes, it is cancelled and ClientGone is raised.

    receive: of ASGI, after the body was read whole.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
