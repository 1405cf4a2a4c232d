"""How close rung's calls to an endpoint come to the ideal, beside other clients, and whether faults lose anything.

    python bench/http.py [--json FILE] [--calls 5000] [--in-flight 200] [--latency 0.05] [--faults 0.1]
                         [--rounds 3] [--peers PYTHON]

A fake endpoint (`rung.testing.endpoint`) runs in a process of its own, answers after `latency` seconds, and refuses
more than `in_flight` calls at once. Every client runs in a process of its own, with the same calls and at most
`in_flight` of them at once:

    rung       Endpoint.generate: request bodies, the call cache on disk, parsing, usage
    calls      rung's Calls and Transport alone, with json.loads of the reply
    openai     a plain AsyncOpenAI loop with a semaphore, max_retries=0 and enough connections
    aiohttp    a plain aiohttp loop with a semaphore, and json.loads
    httpx      the same with httpx, only where aiohttp is not installed

The ideal is calls x latency / in_flight. Clients take turns, `rounds` times; the best round of each is shown. Peers
that are not installed say so; --peers names another interpreter to look for them. The second table sends a share of
faults of every kind to rung's Endpoint: answers lost, requests answered twice, and faults that rung did not count.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

OPTIONAL = ("openai", "aiohttp", "httpx")
WORDS = "Classify the message. " * 20
WARM_UP = 10  # calls before the clock starts, one after another

KINDS = {
    "429": ("429", "429-retry-after", "429-date", "429-headers"),
    "500": ("500",),
    "503": ("503",),
    "closed": ("drop",),
    "truncated": ("cut",),
    "unusable": ("bad-json", "html", "empty", "no-choices"),
}
"""What rung counts -> what the endpoint sends. "unusable": whatever else rung counts. "slow" answers come whole."""

Ask = Callable[[int], Awaitable[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that the endpoint takes to answer")
    parser.add_argument("--faults", type=float, default=0.1, help="share of requests that get a fault")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="an interpreter that has the peers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    found = speeds(options) | with_faults(options)
    if options.json:
        options.json.write_text(json.dumps({"http": found}, indent=1) + "\n", "utf-8")


def speeds(options: argparse.Namespace) -> dict[str, Any]:
    """The first table."""
    from rung.testing.endpoint import endpoint_process

    ideal = options.calls * options.latency / options.in_flight
    print(f"{options.calls} calls of {options.latency * 1000:g} ms, {options.in_flight} in flight; ideal {ideal:.2f} s")
    names = ["rung", "calls", "openai", *(["aiohttp"] if installed("aiohttp", options) else ["httpx"])]
    best: dict[str, dict[str, float]] = {}
    missing = [name for name in names if name in OPTIONAL and not installed(name, options)]
    for _ in range(options.rounds):
        for name in names:
            if name in missing:
                continue
            with endpoint_process(latency_s=options.latency, most_in_flight=options.in_flight) as url:
                row = part(options, name, url)
            if row["answered"] != options.calls:
                sys.exit(f"{name} got {row['answered']} of {options.calls} answers")
            if name not in best or row["seconds"] < best[name]["seconds"]:
                best[name] = row
    found: dict[str, Any] = {"calls": options.calls, "in_flight": options.in_flight, "ideal_s": ideal}
    print(f"  {'client':8} {'seconds':>8} {'share of ideal':>15} {'x rung':>7} {'CPU s':>6}")
    for name in names:
        prefix = "" if name == "rung" else f"{name}_"
        row = best.get(name, {})
        share = ideal / row["seconds"] if row else None
        found |= {
            f"{prefix}share_of_ideal": round(share, 3) if share is not None else None,
            f"{prefix}seconds": round(row["seconds"], 3) if row else None,
            f"{prefix}cpu_s": round(row["cpu_s"], 3) if row else None,
        }
        if share is None:
            print(f"  {name:8} not installed")
            continue
        ratio = row["seconds"] / best["rung"]["seconds"]
        if name != "rung":
            found[f"ratio_vs_{name}"] = round(ratio, 2)
        print(f"  {name:8} {row['seconds']:8.2f} {share:15.3f} {ratio:7.2f} {row['cpu_s']:6.2f}")
    return found


def with_faults(options: argparse.Namespace) -> dict[str, Any]:
    """The second table."""
    from rung.testing.endpoint import endpoint_process

    kinds = [*(kind for kinds in KINDS.values() for kind in kinds), "slow"]
    shares = dict.fromkeys(kinds, options.faults / len(kinds))
    with endpoint_process(faults=shares, latency_s=options.latency, most_in_flight=options.in_flight) as url:
        row = part(options, "rung", url)
        record = json.loads(urllib.request.urlopen(url.removesuffix("/v1") + "/fake/record").read())
    sent = {ours: sum(record["faults"].get(kind, 0) for kind in theirs) for ours, theirs in KINDS.items()}
    sent["429"] += record["faults"].get("in-flight", 0)
    counted = Counter(row["faults"])
    told = {kind: counted.pop(kind, 0) for kind in KINDS}
    told["unusable"] = counted.total()
    twice = sum(each["delivered"] - 1 for each in record["by_request"].values() if each.get("delivered", 0) > 1)
    print(f"the same with {options.faults:.0%} faults: {row['seconds']:.2f} s, {record['calls']} requests")
    print(f"  {'fault':10} {'sent':>6} {'counted':>8}")
    for kind in KINDS:
        print(f"  {kind:10} {sent[kind]:6} {told[kind]:8}")
    lost, uncounted = options.calls - row["answered"], sum(abs(sent[kind] - told[kind]) for kind in KINDS)
    print(f"  {row['answered']} answered, {lost} lost, {twice} answered twice, {uncounted} faults not counted")
    return {
        "faults_sent": sum(sent.values()),
        "faults_lost": lost,
        "faults_doubled": twice,
        "faults_uncounted": uncounted,
        "faults_seconds": round(row["seconds"], 3),
    }


def installed(name: str, options: argparse.Namespace) -> bool:
    if options.peers == sys.executable:
        return importlib.util.find_spec(name) is not None
    return subprocess.run([options.peers, "-c", f"import {name}"], capture_output=True).returncode == 0


def part(options: argparse.Namespace, name: str, url: str) -> dict[str, Any]:
    """What one client measures, in a process of its own."""
    python = options.peers if name in OPTIONAL else sys.executable
    numbers = ["--calls", str(options.calls), "--in-flight", str(options.in_flight)]
    command = [python, __file__, "--part", name, "--url", url, *numbers]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr.strip()}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


# ---- the clients, each in its own process ----------------------------------------------------


def text(number: int) -> str:
    return f"{WORDS}Message {number}."


def body(number: int) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": text(number)}], "max_tokens": 200}


def answer_of(record: Any) -> str:
    return str(record["choices"][0]["message"]["content"])


def row_of(seconds: float, cpu_s: float, answers: list[str], **more: Any) -> dict[str, Any]:
    """The fake endpoint echoes the last turn: an answer counts when it is that of its own request."""
    answered = sum(answer.strip() == text(number).strip() for number, answer in enumerate(answers))
    return {"seconds": seconds, "cpu_s": cpu_s, "answered": answered, **more}


async def timed(ask: Ask, calls: int, in_flight: int | None) -> dict[str, Any]:
    """All calls at once behind a semaphore; in_flight None: the client has its own."""
    room = asyncio.Semaphore(in_flight or calls)

    async def one(number: int) -> str:
        async with room:
            return str(await ask(number))

    for number in range(WARM_UP):
        await one(calls + number)
    begun, cpu = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*(one(number) for number in range(calls)))
    return row_of(time.perf_counter() - begun, time.process_time() - cpu, answers)


def rung_part(options: argparse.Namespace) -> dict[str, Any]:
    from rung.models.endpoint.endpoint import Endpoint
    from rung.models.endpoint.spec import parse
    from rung.testing.endpoint import spec_of
    from rung.types import Decoding, Message, Request

    def request(number: int) -> Request:
        return Request((Message("user", text(number)),), Decoding(max_new_tokens=200))

    with tempfile.TemporaryDirectory() as folder:
        spec = parse(spec_of(options.url, "fake-1", in_flight=options.in_flight))
        endpoint = Endpoint(spec, folder=Path(folder))
        for number in range(WARM_UP):
            endpoint.generate([request(options.calls + number)])
        requests = [request(number) for number in range(options.calls)]
        begun, cpu = time.perf_counter(), time.process_time()
        answers = endpoint.generate(requests)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        faults = endpoint.facts()["faults"]
        endpoint.close()
    return row_of(seconds, cpu, [answer.text for answer in answers], faults=faults)


def calls_part(options: argparse.Namespace) -> dict[str, Any]:
    from rung.models.endpoint.policy import Calls
    from rung.models.endpoint.transport import Hidden, Transport

    async def go() -> dict[str, Any]:
        transport = Transport(options.url)
        calls = Calls(transport, options.in_flight)
        headers = {"authorization": Hidden(lambda: "Bearer no key"), "content-type": "application/json"}

        async def ask(number: int) -> str:
            data = json.dumps(body(number)).encode()
            return await calls.call(
                "/chat/completions", data, accept=lambda reply: answer_of(json.loads(reply.body)), headers=headers
            )

        row = await timed(ask, options.calls, None)
        await transport.aclose()
        return row

    return asyncio.run(go())


def openai_part(options: argparse.Namespace) -> dict[str, Any]:
    import httpx
    import openai

    async def go() -> dict[str, Any]:
        limits = httpx.Limits(max_connections=2 * options.in_flight, max_keepalive_connections=2 * options.in_flight)
        client = openai.AsyncOpenAI(
            base_url=options.url,
            api_key="no key",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(limits=limits),
        )

        async def ask(number: int) -> str:
            fields: Any = body(number)
            reply = await client.chat.completions.create(**fields)
            return str(reply.choices[0].message.content)

        row = await timed(ask, options.calls, options.in_flight)
        await client.close()
        return row

    return asyncio.run(go())


def aiohttp_part(options: argparse.Namespace) -> dict[str, Any]:
    import aiohttp

    async def go() -> dict[str, Any]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=options.in_flight)) as session:

            async def ask(number: int) -> str:
                headers = {"authorization": "Bearer no key"}
                url = f"{options.url}/chat/completions"
                async with session.post(url, json=body(number), headers=headers) as reply:
                    return answer_of(await reply.json())

            return await timed(ask, options.calls, options.in_flight)

    return asyncio.run(go())


def httpx_part(options: argparse.Namespace) -> dict[str, Any]:
    import httpx

    async def go() -> dict[str, Any]:
        limits = httpx.Limits(max_connections=2 * options.in_flight, max_keepalive_connections=2 * options.in_flight)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def ask(number: int) -> str:
                reply = await client.post(f"{options.url}/chat/completions", json=body(number))
                return answer_of(reply.json())

            return await timed(ask, options.calls, options.in_flight)

    return asyncio.run(go())


PARTS = {
    "rung": rung_part,
    "calls": calls_part,
    "openai": openai_part,
    "aiohttp": aiohttp_part,
    "httpx": httpx_part,
}

if __name__ == "__main__":
    main()
