"""`python -m rung.testing.endpoint --port 0 --latency 0.05 --most-in-flight 200`: a fake endpoint as a process.

It prints its URL as one line of JSON and serves until it is ended. The flags are the fields of Switches.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rung.testing.endpoint import FAULTS, FakeEndpoint, echo
from rung.testing.endpoint.switches import Switches


def main() -> None:
    """Serves until SIGINT or SIGTERM; with --settings-from-input also until its input ends."""
    gc.set_threshold(100_000, 20, 100)  # thousands of records live to the end; each pass over them delays answers
    options = vars(_parser().parse_args())
    settings: dict[str, Any]
    from_input = options.pop("settings_from_input")
    if from_input:
        settings = json.loads(sys.stdin.readline())
    else:
        answers = options.pop("answers")
        settings = {
            "answers": json.loads(answers.read_text("utf-8")) if answers is not None else None,
            "faults": {kind: float(share) for kind, _, share in (text.partition("=") for text in options.pop("fault"))},
            "seed": options.pop("seed"),
            "port": options.pop("port"),
            "switches": {name: value for name, value in options.items() if value is not None},
        }
    endpoint = FakeEndpoint(
        settings["answers"] or echo,
        faults=settings["faults"] or None,
        seed=settings["seed"],
        port=settings.get("port", 0),
        **settings["switches"],
    )

    async def serve() -> None:
        until = asyncio.Event()
        if from_input:
            loop = asyncio.get_running_loop()
            threading.Thread(target=lambda: _wait_for_end(loop, until), daemon=True).start()
        await endpoint.serve(until=until, announce=True)

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        return


def _wait_for_end(loop: asyncio.AbstractEventLoop, until: asyncio.Event) -> None:
    """Sets the event when the process that started this one has closed its end of the input, or is gone."""
    sys.stdin.read()
    loop.call_soon_threadsafe(until.set)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rung.testing.endpoint",
        description=Switches.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answers", type=Path, metavar="FILE", help="JSON: last user turn -> answer; else it echoes")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in FAULTS.items())
    parser.add_argument("--fault", action="append", default=[], metavar="KIND=SHARE", help=kinds.replace("%", "%%"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings-from-input", action="store_true", help=argparse.SUPPRESS)
    hints = get_type_hints(Switches)
    for field in fields(Switches):
        flag = "--" + field.name.removesuffix("_s").replace("_", "-")
        kind, default = hints[field.name], field.default
        if kind is bool:
            parser.add_argument(flag, dest=field.name, action="store_true", default=None)
        elif get_origin(kind) is Literal:
            parser.add_argument(flag, dest=field.name, choices=get_args(kind), help=f"default {default}")
        elif field.name == "more_models":
            parser.add_argument(flag, dest=field.name, type=lambda text: tuple(text.split(",")), metavar="NAME,NAME")
        else:
            number = float if float in (kind, *get_args(kind)) else int if int in (kind, *get_args(kind)) else str
            told = "none" if default in (None, MISSING) else default
            parser.add_argument(flag, dest=field.name, type=number, metavar=number.__name__, help=f"default {told}")
    return parser


if __name__ == "__main__":
    main()
