"""The process that reads files: a request a line in, what the file holds a line out.

It ends by itself when a file takes too long, whatever a library is doing then, and when nobody asks any more.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import TextIO

from rung.data.documents.parsed import Parsed
from rung.data.documents.reading import parse

MAX_MEMORY = 3_000_000_000
"""Bytes of address space."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(nowhere.fileno(), 1)  # libraries may print
    _limit_memory()
    for line in sys.stdin:
        request = json.loads(line)
        faulthandler.dump_traceback_later(request["seconds"], exit=True, file=nowhere)
        parsed = parse(Path(os.fsdecode(bytes.fromhex(request["path"]))), request["kind"])
        _answer(answers, parsed)
        faulthandler.cancel_dump_traceback_later()


def _answer(answers: TextIO, parsed: Parsed) -> None:
    answers.write(json.dumps(parsed.record) + "\n")
    answers.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ValueError, OSError):  # a lower limit is set already
        return


if __name__ == "__main__":
    main()
