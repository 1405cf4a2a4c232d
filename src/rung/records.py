"""Records on disk: whole-file writes that happen or do not, and append-only lines that survive a kill.

Knows bytes and JSON, nothing of what they mean.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

SCRATCH = ".tmp"
"""Ending of files and folders that are being written."""

_TAIL_BYTES = 65_536


def scratch_beside(path: Path) -> Path:
    """A name for unfinished work beside `path` that no other process or thread uses."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{SCRATCH}")


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """Writes the whole file or leaves the old one, whatever interrupts and whoever else writes it.

    synced: it is on disk when this returns; else a power cut, and no kill, may take it.
    """
    _write(path, (text,), synced)


def _write(path: Path, parts: Iterable[str], synced: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_beside(path)
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, record: Mapping[str, Any], *, synced: bool = True) -> None:
    """As `write_text`, for one JSON object."""
    write_text(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n", synced=synced)


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """As `write_text`, for one JSON line a record; they are taken and written one by one."""
    _write(path, map(_line, records))


def link_or_copy(source: str | Path, path: str | Path) -> None:
    """A second name for a file that nobody changes any more: a hard link; a copy where the disk has no such links."""
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None when there is no such file."""
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    return record


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends one JSON line a record, on disk when it returns. A torn last line is cut off first.

    Reads only the end of the file, so that appending costs the same however long the file is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(map(_line, records))
    with path.open("ab+") as file:
        _cut_torn_line(file)
        file.seek(0, os.SEEK_END)
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line torn by a kill is left out. Empty when there is no such file."""
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in written[: written.rfind(b"\n") + 1].splitlines()]


def _line(record: Mapping[str, Any]) -> str:
    """The record as a line of JSON; one that holds half of a surrogate pair, which UTF-8 cannot write, in ASCII."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record)
    return f"{text}\n"


def _cut_torn_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    place = end
    while place > 0:
        start = max(0, place - _TAIL_BYTES)
        file.seek(start)
        newline = file.read(place - start).rfind(b"\n")
        if newline >= 0:
            whole = start + newline + 1
            break
        place = start
    else:
        whole = 0
    if whole < end:
        file.truncate(whole)
