from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rung.models.endpoint.crew import Crew


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


class Desk:
    """Work that waits until it is let go, and counts itself."""

    def __init__(self) -> None:
        self.running = self.peak = self.done = 0
        self.open = asyncio.Event()

    async def work(self, number: int) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if number < 0:
                raise ValueError(number)
            self.done += 1
        finally:
            self.running -= 1


def test_at_most_so_many_run_at_once_and_all_are_done() -> None:
    async def go() -> None:
        desk = Desk()
        async with Crew(lambda: 3) as crew:
            for number in range(50):
                crew.start(desk.work, number)
            await asyncio.sleep(0)
            assert desk.running == 3
            desk.open.set()
            await crew.rest()
        assert (desk.done, desk.peak, desk.running) == (50, 3, 0)

    run(go())


def test_a_limit_that_grows_or_shrinks_is_heeded_at_once() -> None:
    async def go() -> None:
        desk, limit = Desk(), 2
        async with Crew(lambda: limit) as crew:
            for number in range(100):
                crew.start(desk.work, number)
            limit = 10
            desk.open.set()
            await crew.room(50)
            assert desk.peak == 10
            limit, desk.peak = 1, 0
            await crew.room(30)
            desk.peak = 0
            await crew.rest()
        assert (desk.done, desk.peak) == (100, 1)

    run(go())


def test_room_is_told_when_few_wait_for_their_turn() -> None:
    async def go() -> None:
        desk = Desk()
        async with Crew(lambda: 4) as crew:
            for number in range(20):
                crew.start(desk.work, number)
            desk.open.set()
            await crew.room(10)
            assert 4 <= desk.done + desk.running <= 20
            assert desk.done >= 6
            await crew.rest()
        assert desk.done == 20

    run(go())


def test_what_one_of_them_raises_ends_those_that_run_and_those_that_wait() -> None:
    async def go() -> None:
        desk = Desk()
        with pytest.raises(ValueError, match="-1"):
            async with Crew(lambda: 2) as crew:
                for number in (1, -1, *range(2, 20)):
                    crew.start(desk.work, number)
                await asyncio.sleep(0)
                desk.open.set()
                await crew.rest()
        assert desk.running == 0 and desk.done < 6

    run(go())


def test_a_cancelled_crew_leaves_nothing_behind() -> None:
    async def go() -> None:
        desk = Desk()

        async def block() -> None:
            async with Crew(lambda: 2) as crew:
                for number in range(20):
                    crew.start(desk.work, number)
                await crew.rest()

        before = asyncio.all_tasks()
        task = asyncio.create_task(block())
        await asyncio.sleep(0.01)
        assert desk.running == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert desk.running == 0 and asyncio.all_tasks() == before

    run(go())


def test_those_that_run_when_one_raises_may_end_by_themselves() -> None:
    async def go() -> None:
        ended: list[int] = []

        async def work(number: int) -> None:
            await asyncio.sleep(0.02 * number)
            if number == 1:
                raise ValueError(number)
            ended.append(number)

        with pytest.raises(ValueError, match="1"):
            async with Crew(lambda: 3) as crew:
                for number in range(1, 9):
                    crew.start(work, number)
                await crew.rest()
        assert ended == [2, 3]

    run(go())
