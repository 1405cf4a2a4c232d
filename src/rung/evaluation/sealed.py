"""The one place that opens the sealed test set, and the log of its openings.

The log line is on disk before the first example is returned, so every opening is counted, whatever is killed. A lock
makes reading the log and adding a line one step, so that two processes cannot count as one read or erase each other's
line. Knows nothing about scores and chooses nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rung.errors import RunError, SealedTestError
from rung.types import Example, SealedTest


def open_test(
    test: SealedTest,
    *,
    log: Path,
    solutions: Sequence[str],
    why: str,
    built: str = "",
    clock: Callable[[], float] = time.time,
) -> tuple[Example, ...]:
    """The test examples, after one line about this opening has been added to the log and synced to disk.

    log: test_reads.jsonl of the run. solutions: names of the recorded finalists. built: a digest of what they are,
    since one that was built again bears the same name. clock: seconds since 1970.
    The line: time (UTC), read (number of the logical read, from 1), solutions, why, n, digest (SHA-256 of the sorted
    ids), built, continues. A run that was interrupted and continued opens the same ids for the same set of solutions:
    that is the same logical read, and `continues` is true. Other solutions or other ids make a new read.
    Raises SealedTestError when no solution or reason is named or the log cannot be written, RunError when the log is
    damaged; the test then stays sealed. A line torn by a kill is dropped: its opening never returned an example.
    """
    from filelock import FileLock

    if not solutions or not why.strip():
        raise SealedTestError("the test set stays sealed: name the solutions it is opened for, and why")
    digest = hashlib.sha256(json.dumps(sorted(test.ids)).encode()).hexdigest()
    try:
        with FileLock(log.with_name(f".{log.stem}.lock")):
            _add_opening(test, log, solutions, why, digest, built, clock())
    except OSError as error:
        raise SealedTestError(f"{log} cannot be written ({error}), so the test set stays sealed") from error
    # The private name as Python mangles it. A test makes sure that it is written nowhere else in the package.
    examples: tuple[Example, ...] = test._SealedTest__examples  # type: ignore[attr-defined]
    return examples


def count_reads(log: Path) -> int:
    """The number of logical reads in the log; 0 when there is no log. Raises RunError when it is damaged."""
    return len({record["read"] for record in _read_log(log)[0]})


def earlier_readings(log: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(when it was first made (ISO 8601), names of the solutions) of each logical reading but that of now, in order.

    That of now is the one that the last line belongs to, be it a new reading or an earlier one that goes on.
    """
    first: dict[int, tuple[str, tuple[str, ...]]] = {}
    now = 0
    for record in _read_log(log)[0]:
        now = record["read"]
        first.setdefault(now, (str(record.get("time", "")), tuple(map(str, record["solutions"]))))
    return [reading for number, reading in sorted(first.items()) if number != now]


def _add_opening(
    test: SealedTest, log: Path, solutions: Sequence[str], why: str, digest: str, built: str, seconds: float
) -> None:
    """Adds the line of this opening. The caller holds the log's lock."""
    records, whole_bytes, newline = _read_log(log)
    same = [
        r["read"]
        for r in records
        if set(r["solutions"]) == set(solutions) and r["digest"] == digest and r.get("built", "") in ("", built)
    ]
    record = {
        "time": datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"),
        "read": same[0] if same else max((r["read"] for r in records), default=0) + 1,
        "solutions": list(solutions),
        "why": why,
        "n": len(test),
        "digest": digest,
        "built": built,
        "continues": bool(same),
    }
    _append(log, newline + json.dumps(record).encode(), whole_bytes)


def _read_log(log: Path) -> tuple[list[dict[str, Any]], int, bytes]:
    """The records, the length in bytes of the part that they fill, and the newline that this part lacks, if any.

    Only a last line without its newline may be torn. Every other unreadable line is damage, which could hide a read.
    """
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return [], 0, b""
    except OSError as error:
        raise RunError(f"{log} cannot be read ({error}), so the reads of the test set cannot be counted") from error
    *lines, last = content.split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            raise RunError(
                f"{log}, line {number}: not a record of an opening, so the reads of the test set cannot be counted. "
                "Restore the file or start a new run."
            )
        records.append(record)
    unfinished = _parse(last)
    if unfinished is None:
        return records, len(content) - len(last), b""
    return [*records, unfinished], len(content), b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    types = {"read": int, "solutions": list, "digest": str}
    if not isinstance(record, dict) or not all(isinstance(record.get(k), kind) for k, kind in types.items()):
        return None
    return record


def _append(log: Path, line: bytes, whole_bytes: int) -> None:
    """Cuts a torn line off, adds this one, and returns when it is on disk."""
    new = not log.exists()
    with log.open("ab") as file:
        file.truncate(whole_bytes)
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new and os.name == "posix":  # a new name is durable only when its folder is synced too
        folder = os.open(log.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
