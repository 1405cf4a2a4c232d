"""The run folder: which one a command means, who holds it, and its log.

Knows names, locks and lines; nothing of what a run does.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rung.errors import RunError
from rung.records import append_lines, read_json, read_lines, write_json


def identity(record: Mapping[str, Any]) -> str:
    """A hash of everything that decides what a run does; two runs with the same one continue each other."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def choose_folder(name: str, wanted: str, *, out: Path | None, base: Path = Path("runs")) -> Path:
    """The folder to run in: an unfinished run of the same identity goes on, else a new one (<name>, <name>-2, …).

    out: the folder the user named; it must be new, empty, or hold this very run.
    Raises RunError when `out` holds something else.
    """
    if out is not None:
        task = read_json(out / "task.json") if out.is_dir() else None
        if task is None:
            if out.exists() and not (out.is_dir() and _empty(out)):
                raise RunError(f"{out}: exists and is not a run folder. Name another one with --out.")
        elif task.get("identity") != wanted:
            raise RunError(
                f"{out}: holds another run (task, data, model or options differ). Name another folder with --out."
            )
        return out
    number = re.compile(re.escape(name) + r"(-\d+)?")
    taken = [p for p in sorted(base.glob(f"{glob.escape(name)}*")) if p.is_dir() and number.fullmatch(p.name)]
    for folder in taken:
        task = read_json(folder / "task.json")
        if _empty(folder) or (task is not None and task.get("identity") == wanted and not is_finished(folder)):
            return folder
    names = {p.name for p in taken}
    return base / next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1_000_000))) if n not in names)


def _empty(folder: Path) -> bool:
    """Whether nothing was begun here, or it was killed before it had said what it is."""
    return all(p.name == ".lock" or p.suffix == ".tmp" for p in folder.iterdir())


def is_finished(folder: Path) -> bool:
    """The bundle's note is the last thing a run writes."""
    return (folder / "finished.json").is_file()


def mark_finished(folder: Path) -> None:
    write_json(folder / "finished.json", {"time": _now()})


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within: no other process works in the folder. The lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / ".lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder}: another rung is working here. Wait for it, or name another folder with --out."
        ) from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}). Name another folder with --out.") from None
    try:
        yield
    finally:
        lock.release()


def log(folder: Path, event: str, **facts: Any) -> None:
    """One line in events.jsonl, on disk when it returns."""
    append_lines(folder / "events.jsonl", [{"time": _now(), "event": event, **facts}])


def events(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "events.jsonl")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
