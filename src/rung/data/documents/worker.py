"""The process that reads files: a request a line in, what the file holds a line out.

It ends by itself when a file takes too long, whatever a library is doing then, and when nobody asks any more.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from rung.data.documents.parsed import ParsedFile
from rung.data.documents.reading import parse

MAX_MEMORY = 2_000_000_000
"""Bytes of address space."""
WALL_TIMES = 5
"""A file may take so many times its seconds of computing: a busy machine decides nothing about a file."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(nowhere.fileno(), 1)  # libraries may print
    _limit_memory_and_dumps()
    for line in sys.stdin:
        request = json.loads(line)
        _limit_seconds(request["seconds"])
        faulthandler.dump_traceback_later(WALL_TIMES * request["seconds"], exit=True, file=nowhere)
        parsed = parse(Path(os.fsdecode(bytes.fromhex(request["path"]))), request["kind"])
        _answer(answers, parsed)
        faulthandler.cancel_dump_traceback_later()


def _answer(answers: TextIO, parsed: ParsedFile) -> None:
    answers.write(json.dumps(parsed.record) + "\n")
    answers.flush()


def _limit_memory_and_dumps() -> None:
    """A crash leaves no picture of the memory in the folder where rung was called."""
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ValueError, OSError):  # a lower limit is set already
        return


def _limit_seconds(seconds: float) -> None:
    """From now on, the process may compute so long."""
    try:
        import resource
    except ImportError:  # Windows: the time on the wall limits it
        return
    try:
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))
    except (ValueError, OSError):
        return


if __name__ == "__main__":
    main()
