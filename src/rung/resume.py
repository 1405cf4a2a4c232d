"""How a run continues: a stage looks for its record first, works only if there is none, and writes the record whole.

This is the only place that asks whether a stage is done. Whatever was decided is read back from its record and never
computed again, so that a run can be killed at any moment, goes on, and reaches the same verdict.
Knows files and locks, nothing of what a stage does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rung.errors import DamagedRecord
from rung.records import SCRATCH, read_json, scratch_beside, write_json


def is_done(record: Path) -> bool:
    """Whether the stage that leaves this file or folder is done."""
    return record.exists()


def recorded(record: Path) -> dict[str, Any] | None:
    """What the stage recorded, or None when it is not done. Raises DamagedRecord where the file is damaged."""
    return read_json(record)


def record_of(record: Path) -> dict[str, Any]:
    """As `recorded`; empty when the stage is not done."""
    found = recorded(record)
    return {} if found is None else found  # one that is empty still knows its file


def once(record: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The stage's record; where there is none, what `make` returns, after it has been written whole."""
    found = recorded(record)
    if found is None:
        found = dict(make())
        write_json(record, found)
    return found


def once_for_all(record: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """As `once`, for a record that several runs share: one process at a time makes it, the others wait and read it."""
    from filelock import FileLock

    with suppress(DamagedRecord):  # a cache is made anew, and whoever waits for the lock reads the new one
        if (found := read_json(record)) is not None:
            return found
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(record) + ".lock")
        lock.acquire()
    except OSError:  # a cache that cannot be written spoils no run
        return dict(make())
    try:
        return once(record, make)
    except DamagedRecord as damaged:
        if damaged.file != record:
            raise
        record.unlink(missing_ok=True)
        return once(record, make)
    finally:
        lock.release()


def folder_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The stage's folder; where there is none, `make` fills a scratch folder, which then gets the name in one step."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(f"{folder.name}.*{SCRATCH}"):
        shutil.rmtree(stale, ignore_errors=True)
    scratch = scratch_beside(folder)
    scratch.mkdir()
    try:
        make(scratch)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
