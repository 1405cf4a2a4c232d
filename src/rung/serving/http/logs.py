"""One line of JSON a request, on standard error: never what was asked and answered, unless that is wanted."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rung.serving.http.errors import place_of


@dataclass
class RequestRecord:
    """What is known of a request, as it goes on. model: as the client named it. known: whether there is such a model.

    fault: the code or the type of its error; why: what the client was not told of it. first_s: seconds until the first
    piece of an answer. asked and answered are kept for the log alone, where contents are logged.
    """

    id: str
    method: str
    path: str
    client: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    model: str | None = None
    known: bool = False
    streams: bool = False
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    first_s: float | None = None
    fault: str | None = None
    why: str | None = None
    asked: Any = None
    answered: Any = None

    def first_piece(self) -> None:
        if self.first_s is None:
            self.first_s = self.elapsed_s

    def fail(self, fault: str, why: str | None = None) -> None:
        self.fault, self.why = fault, why

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


class RequestLog:
    """quiet: only faults of the server are told. contents: what was asked and answered, too."""

    def __init__(self, *, quiet: bool = False, contents: bool = False) -> None:
        self.quiet, self.contents = quiet, contents

    def write(self, record: RequestRecord) -> None:
        if self.quiet and not (record.status == 500 or record.why):
            return
        line: dict[str, Any] = {
            "time": _now(),
            "id": record.id,
            "method": record.method,
            "path": record.path[:200],
            "model": record.model[:130] if record.model else None,
            "status": record.status,
            "stream": record.streams,
            "tokens_in": record.tokens_in,
            "tokens_cached": record.tokens_cached,
            "tokens_out": record.tokens_out,
            "ms": round(record.elapsed_s * 1000, 1),
            "ttft_ms": None if record.first_s is None else round(record.first_s * 1000, 1),
            "client": record.client,
        }
        if record.fault is not None:
            line["fault"] = record.fault
        if record.why is not None:
            line["why"] = record.why
        if self.contents:
            line |= {"asked": record.asked, "answered": record.answered}
        write_line(line)


def write_line(line: dict[str, Any]) -> None:
    with suppress(OSError, ValueError):  # nobody reads standard error any more: answers go on
        print(json.dumps(line), file=sys.stderr, flush=True)


class _JsonLines(logging.Handler):
    """What else is said in this process, as lines of the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        line = {"time": _now(), "level": record.levelname.lower(), "message": record.getMessage().strip()}
        if record.exc_info and (error := record.exc_info[1]) is not None:
            line["error"] = f"{type(error).__name__}{place_of(error)}"
        write_line(line)


def log_libraries(*, quiet: bool) -> None:
    """Sends warnings of uvicorn and of rung's engines to the log, and which ways to compute are given up. With quiet,
    their errors alone."""
    lines = _JsonLines(logging.ERROR if quiet else logging.WARNING)
    logging.getLogger("uvicorn.error").propagate = False
    for name in ("uvicorn.error", "rung"):
        logging.getLogger(name).handlers = [lines]
    ways = logging.getLogger("rung.engine.ways")
    ways.setLevel(logging.INFO)
    ways.handlers = [] if quiet else [_JsonLines(logging.INFO)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
