"""The soak of bench/serving.py: many clients ask all the time while adapters come and go."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving_client import Connection, Reply
from serving_servers import KEY, Server

STEADY = 4  # adapters that stay loaded
NAMES = 4  # names whose adapters are exchanged
STAY_S = 1.0  # that an adapter is loaded at least
NEW_TOKENS = 8
MOST_GROWTH = 0.05  # of memory, from the second quarter of the time to the last
INPUTS = (
    "The lamp of my order is broken.",
    "Where is my parcel? It should have come last week.",
    "Please change the address of my account.",
    "I was charged twice for the green kettle and the cable.",
    "How long does the battery of the speaker last?",
)


@dataclass
class Stood:
    """For which adapters a name has stood, and since when: seconds of a clock. None: for none."""

    times: list[tuple[float, str | None]] = field(default_factory=list)

    def put(self, adapter: str | None) -> None:
        self.times.append((time.monotonic(), adapter))

    def between(self, begin: float, end: float) -> set[str | None]:
        """All that it may have stood for at any moment of that time."""
        ends = [*(at for at, _ in self.times[1:]), float("inf")]
        return {adapter for (at, adapter), until in zip(self.times, ends, strict=True) if at <= end and until >= begin}


class Clients:
    """expected: the answer of each adapter (or the base) to each input."""

    def __init__(self, server: Server, expected: Mapping[tuple[str, str], str], until: float) -> None:
        self.server, self.expected, self.until = server, expected, until
        self.names: dict[str, Stood] = {}
        self.open: set[str] = set()  # names that may be asked
        self.seen: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.examples: list[str] = []

    async def ask_until_the_end(self, number: int) -> None:
        drawn = random.Random(number)
        connection = Connection(self.server.url)
        while time.monotonic() < self.until:
            name, text = drawn.choice(sorted(self.open)), drawn.choice(INPUTS)
            begin = time.monotonic()
            reply = await connection.post("/v1/chat/completions", body(name, text))
            self._judge(name, text, reply, self.names[name].between(begin, time.monotonic()))
        connection.close()

    def _judge(self, name: str, text: str, reply: Reply, stood: set[str | None]) -> None:
        if reply.status == 404 and None in stood:
            self.seen["gone"] += 1  # it was unloaded while the request was on its way
            return
        if reply.status != 200:
            self._remember("errors", f"{name}: status {reply.status}, {reply.body}")
            return
        self.seconds.append(reply.seconds)
        if reply.text in {self.expected[a, text] for a in stood if a is not None}:
            self.seen["right"] += 1
            return
        others = [
            adapter for (adapter, asked), answer in self.expected.items() if (asked, answer) == (text, reply.text)
        ]
        allowed = sorted(str(adapter) for adapter in stood)
        what = f"{name} ({', '.join(allowed)}) answered {reply.text!r} to {text!r}"
        if others:
            self._remember("wrong_adapter", f"{what}, as {', '.join(others)}")
        else:
            self._remember("other_text", what)

    def _remember(self, what: str, example: str) -> None:
        self.seen[what] += 1
        if self.seen[what] <= 3:
            self.examples.append(f"{what}: {example}")

    async def exchange(self, name: str, adapters: Mapping[str, Path]) -> None:
        """Loads one adapter after another under the name, until the end."""
        drawn = random.Random(name)
        connection = Connection(self.server.url, KEY)
        stood = self.names[name] = Stood()
        while time.monotonic() < self.until:
            adapter = drawn.choice(list(adapters))
            stood.put(adapter)
            asked = {"lora_name": name, "lora_path": str(adapters[adapter].resolve())}
            if await self._changed(connection, "load", asked):
                self.open.add(name)
                await asyncio.sleep(STAY_S)
                self.open.discard(name)
                stood.put(None)  # from the sending on it may be gone
                await self._changed(connection, "unload", {"lora_name": name})
        connection.close()

    async def _changed(self, connection: Connection, how: str, asked: Mapping[str, str]) -> bool:
        reply = await connection.post(f"/v1/{how}_lora_adapter", asked)
        if reply.status == 200:
            self.seen[f"{how}ed"] += 1
            return True
        self._remember("errors", f"{how} {asked}: status {reply.status}, {reply.body}")
        await asyncio.sleep(STAY_S)
        return False


async def soak(server: Server, adapters: Mapping[str, Path], *, clients: int, seconds: float) -> dict[str, Any]:
    steady = list(adapters)[:STEADY]
    for name in steady:
        await asyncio.to_thread(server.load, name, adapters[name])
    expected = await recorded(server, adapters, steady)
    all_clients = Clients(server, expected, time.monotonic() + seconds)
    for name in (server.base, *steady):
        all_clients.names[name] = Stood()
        all_clients.names[name].put(name)
        all_clients.open.add(name)
    memory: list[float] = []
    watching = asyncio.create_task(_watch(server, memory))
    asking = [all_clients.ask_until_the_end(number) for number in range(clients)]
    exchanging = [all_clients.exchange(f"changing-{i}", adapters) for i in range(NAMES)]
    await asyncio.gather(*exchanging, *asking)
    watching.cancel()
    return _told(all_clients, memory, seconds, clients, len({answer for answer in expected.values()}))


async def recorded(server: Server, adapters: Mapping[str, Path], steady: Sequence[str]) -> dict[tuple[str, str], str]:
    """What each adapter and the base answer to each input, asked one at a time."""
    connection = Connection(server.url)
    expected = {}
    for name in (server.base, *adapters):
        if name in adapters and name not in steady:
            await asyncio.to_thread(server.load, name, adapters[name])
        for text in INPUTS:
            reply = await connection.post("/v1/chat/completions", body(name, text))
            if reply.status != 200:
                raise SystemExit(f"{name}: status {reply.status}, {reply.body}")
            expected[name, text] = reply.text
        if name in adapters and name not in steady:
            await asyncio.to_thread(server.post, "/v1/unload_lora_adapter", {"lora_name": name})
    connection.close()
    return expected


def body(name: str, text: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    return {"model": name, "messages": asked, "max_tokens": NEW_TOKENS, "temperature": 0.0}


async def _watch(server: Server, memory: list[float]) -> None:
    while True:
        memory.append(server.memory_mb())
        await asyncio.sleep(1)


def _told(clients: Clients, memory: Sequence[float], seconds: float, number: int, distinct: int) -> dict[str, Any]:
    seen, times = clients.seen, sorted(clients.seconds)
    quarter = max(1, len(memory) // 4)
    settled = memory[quarter : 2 * quarter] or memory  # the first quarter fills caches
    begin, end = statistics.median(settled), statistics.median(memory[-quarter:])
    tenth = max(1, len(memory) // 10)
    row: dict[str, Any] = {
        "seconds": seconds,
        "clients": number,
        "answers": len(times),
        "distinct_answers": distinct,
        "expected_answers": len(clients.expected),
        **{key: seen[key] for key in ("errors", "wrong_adapter", "other_text", "gone", "loaded", "unloaded")},
        "memory_begin_mb": round(begin, 1),
        "memory_end_mb": round(end, 1),
        "memory_growth": round(end / begin - 1, 4),
        "memory_by_tenths_mb": [round(statistics.median(memory[i : i + tenth])) for i in range(0, len(memory), tenth)],
    }
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        row[f"latency_{name}_s"] = round(times[min(len(times) - 1, int(share * len(times)))], 3) if times else None
    print(f"  soak: {number} clients for {seconds:g} s: {len(times)} answers, {seen['loaded']} adapters loaded")
    wrong, other = seen["wrong_adapter"], seen["other_text"]
    print(f"    {seen['errors']} errors, {wrong} answers as another adapter's, {other} as none's")
    print(f"    {distinct} of {len(clients.expected)} recorded answers differ from each other")
    print(f"    p50 {row['latency_p50_s']} s, p99 {row['latency_p99_s']} s, {row['gone']} came after an unload")
    print(f"    memory {begin:.0f} MB in the second quarter, {end:.0f} MB in the last ({row['memory_growth']:+.1%})")
    for example in clients.examples:
        print(f"    {example}"[:600])
    return row


def soak_fails(row: Mapping[str, Any]) -> bool:
    """Whether an answer was lost or wrong, or memory grew."""
    return bool(row["errors"] or row["wrong_adapter"] or row["other_text"] or row["memory_growth"] > MOST_GROWTH)
