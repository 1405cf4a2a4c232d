"""A sample of requests, kept for the next run: opt-in, masked, bounded, and never in the way of an answer.

Lines of JSON that `unlabelled:` of a task and `rung drift` read: input, and where there are any context, instruction
and turns; model is the name that was asked. Personal data and secrets are replaced as `rung check --mask` does; a
request in which something is left is not kept. A thread of its own masks and writes, so that a request waits for
nothing; what the thread cannot keep up with is left out, and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rung.errors import DamagedRecord, RunError
from rung.records import append_lines, read_lines
from rung.types import Example, Message, Query

MOST = 10_000
"""Rows that a file holds at most, where nobody says otherwise."""
LONGEST = 100_000
"""Characters of a request; a longer one is not kept."""
MOST_BYTES = 200_000_000
"""Of a file."""
_WAITING = 1_000  # requests that wait for the thread
_AT_ONCE = 100  # lines of one write

_LOG = logging.getLogger(__name__)


class RequestSample:
    """The sample of one server in one file, which later servers continue.

    path: the file; its mode is 0600. share: of the requests, from 0 to 1. most: rows of the file at most; None: MOST.
    Raises RunError where the file cannot be written or holds something else.
    """

    def __init__(self, path: Path, share: float, most: int | None = None, *, seed: int | None = None) -> None:
        if not 0 <= share <= 1:
            raise RunError(f"a share of requests lies between 0 and 1, and is not {share}.")
        self._path, self._share, self._most = path, share, MOST if most is None else most
        self._random = random.Random(seed)
        self._counts: Counter[str] = Counter()
        self._told = False
        self._held = self._read()
        self._queue: queue.Queue[tuple[str, Query] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="sample", daemon=True)
        self._thread.start()

    def add(
        self,
        text: str,
        *,
        model: str,
        context: str | None = None,
        instruction: str | None = None,
        turns: Sequence[Message] = (),
    ) -> None:
        """Maybe keeps a request. Returns at once and never raises; may be called from any thread."""
        if self._random.random() >= self._share:
            return
        try:
            self._queue.put_nowait((model, Query("0", text, context, instruction, tuple(turns))))
        except queue.Full:
            self._counts["too many at once"] += 1

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the requests that were drawn: how many are "kept", and of the others why they are not."""
        return dict(self._counts)

    def close(self, grace_s: float = 5.0) -> None:
        """Writes what waits, for at most `grace_s` seconds, and ends."""
        try:
            self._queue.put(None, timeout=grace_s)
        except queue.Full:
            return
        self._thread.join(grace_s)

    # ---- the thread -------------------------------------------------------------------------

    def _read(self) -> set[int]:
        """Hashes of the requests that the file holds. Makes the file, readable by its owner alone."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._make()
            self._path.chmod(0o600)
            rows = read_lines(self._path)
            return {_key(_query(row), str(row.get("model"))) for row in rows}
        except OSError as error:
            fact = f"{self._path}: requests cannot be kept here ({error.strerror})"
            raise RunError(f"{fact}. Name another file.") from error
        except (DamagedRecord, ValueError, KeyError, TypeError, AttributeError) as error:
            fact = f"{self._path}: holds something else than requests that rung kept"
            raise RunError(f"{fact}. Name another file.") from error

    def _make(self) -> None:
        """Makes the file where there is none, readable by its owner alone."""
        os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600))

    def _work(self) -> None:
        open_ = True
        while open_:
            asked = [self._queue.get()]
            while len(asked) < _AT_ONCE and not self._queue.empty():
                asked.append(self._queue.get_nowait())
            open_ = None not in asked
            try:
                self._keep([one for one in asked if one is not None])
            except Exception as error:  # a server answers on, whatever a text does to the masks
                self._fail(error, len(asked))

    def _keep(self, asked: Sequence[tuple[str, Query]]) -> None:
        from rung.data.shapes.writing import query_row

        rows: dict[int, dict[str, Any]] = {}
        if not self._path.exists():  # taken away meanwhile: a new one begins
            self._held.clear()
        for model, query in asked:
            if len(query.text) > LONGEST:
                self._counts["too long"] += 1
            elif not query.input.strip():
                self._counts["empty"] += 1
            elif (masked := _masked(query)) is None:
                self._counts["not masked"] += 1
            elif (key := _key(masked, model)) in self._held or key in rows:
                self._counts["kept before"] += 1
            elif len(self._held) + len(rows) >= self._most or self._path_bytes() >= MOST_BYTES:
                self._counts["file is full"] += 1
            else:
                rows[key] = {**query_row(masked), "model": model}
        if not rows:
            return
        try:
            self._make()
            append_lines(self._path, rows.values())
        except OSError as error:
            self._fail(error, len(rows))
            return
        self._held |= rows.keys()
        self._counts["kept"] += len(rows)

    def _path_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _fail(self, error: Exception, number: int) -> None:
        """Counts requests that are lost, and says the first time why; never what they hold."""
        self._counts["failed"] += number
        if not self._told:
            self._told = True
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            _LOG.warning("%s: requests are not kept (%s). Answers go on.", self._path, why)


def _masked(query: Query) -> Query | None:
    """The query with names in place of personal data and secrets; None where a value is still found in it.

    The names are numbered within a request, so that nothing about one person is kept from request to request.
    """
    from rung.data.masking import Masks
    from rung.data.sensitive import sensitive

    example = Example("0", query.input, "", (), None, query.context, instruction=query.instruction, turns=query.turns)
    masked, _ = Masks([example], ()).example(example)
    parts = (masked.input, masked.context or "", masked.instruction or "", *(t.content for t in masked.turns))
    return None if any(map(sensitive, parts)) else masked.query


def _key(query: Query, model: str) -> int:
    from rung.text import normal_form

    return hash((normal_form(query.text), model))


def _query(row: Mapping[str, Any]) -> Query:
    turns = tuple(Message(turn["role"], turn["content"]) for turn in row.get("turns", ()))
    return Query("0", row["input"], row.get("context"), row.get("instruction"), turns)
