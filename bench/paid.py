"""What is paid twice, and what is paid beyond a budget, when rung is killed again and again. Nothing may be.

    python bench/paid.py [--json FILE] [--calls 5000] [--kills 10] [--in-flight 200] [--budget-in-flight 20]
                         [--latency 0.05] [--faults 0.1] [--usd 1.0] [--seed 0]

A fake endpoint (`rung.testing.endpoint`) runs in a process of its own and records what a provider would charge. A
client, `open_model` with what a run puts around it, asks `calls` different requests in another process. This script
kills it (SIGKILL) at random moments, starts it again with the same cache folder and the same purse, and lets it end.
The moments spread the kills over the work: the more is left to do, the longer the next process may live.

- What a client had received is what lay in its call cache when it died. The files of the cache are copied at once and
  read here by the format alone. A call that arrives later for one of these requests, and is charged, is paid again.
- In flight at a kill are the charged calls of a process whose answers did not lie in the cache when it died. They are
  paid twice where they are asked again; nothing can avoid that. There may be at most `in_flight` of them a kill.
- Dollars: at the price used, all calls would cost three times the budget. The endpoint's own count of tokens, at that
  price, says what was charged, also for calls whose reply was cut, or came after the kill. The purse counts a call
  that a kill cut off with the most that it can cost, so fewer are in flight here: 200 would reserve a third of $1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMITS = ("429", "429-retry-after", "429-date", "429-headers")
KINDS = (*LIMITS, "500", "503", "drop", "cut", "slow", "stall", "bad-json", "html", "empty", "no-choices")
"""Every kind of fault that a retry cures."""

WORDS = "Classify the message. " * 6
ASKING = "asking\n"
CACHE, PURSE = "calls.sqlite", "purse.json"
TOKENS = 20  # of a request as the endpoint counts them, and of its answer, which repeats it
MOST_TOKENS = 32
DEARER = 3.0  # all calls cost so many times the budget
OUT = 4.0  # a token of an answer costs so many times one of a prompt
TIMEOUT_S, BUDGET_TIMEOUT_S = 60.0, 6.0  # of a call; an attempt that stalls ends after half of it
WARM_S, EARLY = 0.15, 3
"""Seconds until about the first answer; every third process is not given them, and mostly dies before it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--budget-in-flight", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that the endpoint takes to answer")
    parser.add_argument("--faults", type=float, default=0.1, help="share of requests that get a fault, with a budget")
    parser.add_argument("--usd", type=float, default=1.0, help="the budget")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills, and of faults")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--price", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options)
        return
    found = killed(options) | with_budget(options)
    if options.json:
        options.json.write_text(json.dumps({"paid": found}, indent=1) + "\n", "utf-8")


# ---- the two tables --------------------------------------------------------------------------


def killed(options: argparse.Namespace) -> dict[str, Any]:
    """The first table: no budget, no faults."""
    with endpoint(options, 0.0) as url, tempfile.TemporaryDirectory() as folder:
        work = worked(options, url, Path(folder), options.in_flight, options.kills)
        calls = charged_calls(url)
    again, flying = judged(calls, work)
    asked = {number_of(call["answer"]) for call in calls}
    twice = len(calls) - len(asked) - again
    found = {
        "calls": options.calls,
        "kills": len(work.had),
        "had_at_kills": [len(had) for had in work.had],
        "charged": len(calls),
        "in_flight": sum(flying),
        "most_in_flight_at_a_kill": max(flying, default=0),
        "in_flight_charged_twice": twice,
        "again": again,
        "right": work.row["right"],
        "lost": options.calls - work.row["right"],
    }
    print(f"{options.calls} requests, {options.in_flight} in flight, killed {len(work.had)} times")
    print(f"  answers kept when it died                 {' '.join(map(str, found['had_at_kills']))}")
    for words, key in (
        ("answers charged", "charged"),
        ("in flight at the kills", "in_flight"),
        ("  at most at one kill", "most_in_flight_at_a_kill"),
        ("  of these charged twice", "in_flight_charged_twice"),
        ("kept before a kill and charged again", "again"),
        ("right answers at the end", "right"),
        ("answers lost", "lost"),
    ):
        print(f"  {words:40} {found[key]:6}")
    return found


def with_budget(options: argparse.Namespace) -> dict[str, Any]:
    """The second table. A row each: kills and faults, faults, neither."""
    rows = {
        "": budget_row(options, options.faults, options.kills),
        "unkilled_": budget_row(options, options.faults, 0),
        "plain_": budget_row(options, 0.0, 0),
    }
    print(f"a budget of ${options.usd:.2f} where {options.calls} answers cost ${DEARER * options.usd:.2f}")
    print(f"  {'':22} {'charged $':>10} {'purse $':>9} {'share used':>11} {'answers':>8} {'again':>6} {'short $':>8}")
    for prefix, row in rows.items():
        name = {"": f"{row['kills']} kills, faults", "unkilled_": "faults", "plain_": "neither"}[prefix]
        print(
            f"  {name:22} {row['usd_charged']:10.4f} {row['usd_purse']:9.4f} {row['share_used']:11.3f}"
            f" {row['answers']:8} {row['again']:6} {row['usd_short']:8.4f}"
        )
    print("  short: the most by which the purse's file ever said less than was charged")
    found: dict[str, Any] = {"usd_limit": options.usd, "share_used": rows["unkilled_"]["share_used"]}
    found |= {"usd_charged": max(row["usd_charged"] for row in rows.values())}
    return found | {f"budget_{prefix}{key}": value for prefix, row in rows.items() for key, value in row.items()}


def budget_row(options: argparse.Namespace, faults: float, kills: int) -> dict[str, Any]:
    price = price_of(options)
    with endpoint(options, faults) as url, tempfile.TemporaryDirectory() as folder:
        work = worked(options, url, Path(folder), options.budget_in_flight, kills, price)
        time.sleep(3 * options.latency)  # what was in flight is charged by now
        calls = charged_calls(url)
        answers = len(kept(Path(folder)))
    usd = [0.0] * len(work.begun)  # charged to each process
    for call in calls:
        usd[asker(call, work)] += (call["tokens_in"] + OUT * call["tokens_out"]) * price / 1e6
    so_far = [sum(usd[: at + 1]) for at in range(len(usd))]
    return {
        "kills": len(work.had),
        "usd_charged": round(so_far[-1], 6),
        "usd_purse": round(work.purse[-1], 6),
        "share_used": round(so_far[-1] / options.usd, 4),
        "answers": answers,
        "again": judged([call for call in calls if call["fault"] in (None, "slow")], work)[0],
        "usd_short": round(max(0.0, *(a - b for a, b in zip(so_far, work.purse, strict=True))), 6),
        "seconds": round(work.seconds, 1),
    }


def price_of(options: argparse.Namespace) -> float:
    """Dollars for a million tokens of prompts."""
    return float(DEARER * options.usd / options.calls / (TOKENS + OUT * TOKENS) * 1e6)


# ---- the client, killed and started again ----------------------------------------------------


@dataclass
class Work:
    """What several processes did, one after another; the last one came to its end.

    begun: when each began to open its model, in seconds since 1970. had: the requests whose answers lay in the cache
    when it was killed, for all but the last. purse: what the purse's file said after each. row: what the last printed.
    """

    begun: list[float] = field(default_factory=list)
    had: list[set[int]] = field(default_factory=list)
    purse: list[float] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def worked(
    options: argparse.Namespace, url: str, folder: Path, in_flight: int, kills: int, price: float | None = None
) -> Work:
    """Kills the client so many times, then lets it end. price: it asks for what the budget suffices for."""
    command = [sys.executable, __file__, "--client", url, "--in-flight", str(in_flight), "--usd", str(options.usd)]
    command += ["--calls", str(options.calls), *(["--price", str(price)] if price is not None else [])]
    environment = {**os.environ, "RUNG_CACHE": str(folder)}
    draw = random.Random(options.seed).random
    work, started = Work(), time.monotonic()
    for kills_left in range(kills, -1, -1):
        rest = options.calls - (len(work.had[-1]) if work.had else 0)
        if price is not None:
            rest = options.calls / DEARER * (1 - (work.purse[-1] if work.purse else 0.0) / options.usd)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            opening = process.stdout.readline()
            if not opening:
                sys.exit("the client did not start")
            work.begun.append(float(opening))
            if kills_left:
                if kills_left % EARLY:
                    process.stdout.readline()  # it begins to ask
                    time.sleep(WARM_S)
                # At most the time in which an ideal client does the rest, where one kill is left; else less.
                time.sleep(2 * draw() * rest / (kills_left + 1) * options.latency / in_flight)
                process.kill()
            row = process.stdout.read().removeprefix(ASKING)
        work.purse.append(json.loads((folder / PURSE).read_text("utf-8"))["usd"] if (folder / PURSE).exists() else 0.0)
        if row.strip():
            work.row = json.loads(row)
            break  # it may have been through before it was killed
        if not kills_left:
            sys.exit("the client failed")
        work.had.append(kept(folder))
    work.seconds = time.monotonic() - started
    return work


def kept(folder: Path) -> set[int]:
    """Numbers of the requests whose answers lie in the call cache."""
    return {number_of(json.loads(record)["text"]) for record in kept_records(folder).values()}


def kept_records(folder: Path) -> dict[str, str]:
    """Key -> record of the answers in the call cache: in its SQLite file, or in journals beside it.

    Read from a copy, so that the next process finds what the killed one left.
    """
    records: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob(f"{CACHE}*"):
            shutil.copy(file, copy)
        for file in Path(copy).glob(f"{CACHE}.*.[ab]"):
            lines = file.read_text("utf-8").split("\n")[:-1]  # the last one was torn by the kill, or is empty
            records |= {key: record for key, _, record in (line.partition(" ") for line in lines)}
        if (Path(copy) / CACHE).exists():
            database = sqlite3.connect(Path(copy) / CACHE)
            if database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'calls'").fetchone() == (1,):
                records |= dict(database.execute("SELECT key, record FROM calls"))
            database.close()
    return records


def client(options: argparse.Namespace) -> None:
    """Asks all requests; with a price, the dollars come from the purse, as `rung.ladder.loading` does it."""
    import rung.models.endpoint.endpoint  # noqa: F401  before the clock starts: kills are to fall on work
    from rung.cache import cache_folder
    from rung.errors import BudgetSpent
    from rung.models import metered, open_model
    from rung.models.purse import Purse
    from rung.testing.endpoint import spec_of
    from rung.types import Decoding, Message, Price, Request

    print(time.time(), flush=True)
    timeout_s = BUDGET_TIMEOUT_S if options.price else TIMEOUT_S
    spec = spec_of(options.client, "fake-1", in_flight=options.in_flight, timeout=timeout_s)
    price = Price(usd_per_million_in=options.price, usd_per_million_out=OUT * options.price) if options.price else None
    model = metered(open_model(spec), price)
    purse = Purse(cache_folder() / PURSE, options.usd) if price is not None else None
    if purse is not None:
        model.use_purse(purse)
    requests = [Request((Message("user", text(number)),), Decoding(MOST_TOKENS)) for number in range(options.calls)]
    answers = []
    spent = False
    print(ASKING, end="", flush=True)
    try:
        answers = model.generate(requests)
    except BudgetSpent:
        spent = True
    if purse is not None:
        purse.close()
    right = sum(answer.text == text(number) for number, answer in enumerate(answers))
    print(json.dumps({"right": right, "spent": spent}), flush=True)


# ---- requests, and what the endpoint charged -------------------------------------------------


def text(number: int) -> str:
    return f"{WORDS}Message {number}."


def number_of(answer: str) -> int:
    """The request that an answer belongs to: the endpoint repeats it."""
    found = re.search(r"Message (\d+)\.$", answer)
    assert found is not None and answer == text(int(found[1])), answer
    return int(found[1])


@contextmanager
def endpoint(options: argparse.Namespace, faults: float) -> Iterator[str]:
    from rung.testing.endpoint import endpoint_process

    shares = dict.fromkeys(KINDS, faults / len(KINDS)) if faults else None
    with endpoint_process(faults=shares, seed=options.seed, latency_s=options.latency) as url:
        yield url


def charged_calls(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/fake/record?calls=1") as reply:
        return [call for call in json.loads(reply.read())["each"] if call["charged"]]


def asker(call: Mapping[str, Any], work: Work) -> int:
    """Which process asked it: a killed one's last calls arrive before the next process is as far as to open a model."""
    return bisect_right(work.begun, call["arrived"]) - 1


def judged(calls: list[dict[str, Any]], work: Work) -> tuple[int, list[int]]:
    """Charged calls for what an earlier process had; and calls in flight at each kill."""
    again = 0
    flying: Counter[int] = Counter()
    for call in calls:
        number, process = number_of(call["answer"]), asker(call, work)
        again += any(number in had for had in work.had[:process])
        flying[process] += process < len(work.had) and number not in work.had[process]
    return again, [flying[at] for at in range(len(work.had))]


if __name__ == "__main__":
    main()
