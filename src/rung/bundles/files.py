"""The hashes of a bundle's files, written when it is made and compared when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from rung.errors import RunError
from rung.models.identity import file_sha256
from rung.records import SCRATCH

NOTE = "bundle.json"
CARD = "README.md"
"""People may add to the card: its hash is recorded and not compared."""

_READ = ("adapter", "index", "metric")
"""Folders of a bundle in which whatever lies is read. A file there that the bundle does not list is refused, Python's
bytecode too: it would run in the place of the metric that was read."""


def hashes_of(folder: Path) -> dict[str, str]:
    """Path inside the folder, with slashes -> SHA-256 in hexadecimal digits; of every file but bundle.json."""
    return {name: _digest(folder / name) for name in _names(folder) if name != NOTE}


def check_files(folder: Path, hashes: Mapping[str, str] | None) -> None:
    """Raises RunError that names the file which is missing, changed, or not one of the bundle's.

    hashes: as bundle.json lists them. The hash of a large file is remembered by its path, size and time.
    """
    if not isinstance(hashes, Mapping) or "solution.json" not in hashes:
        raise RunError(f"{folder / NOTE}: does not list the bundle's files. {_AGAIN}")
    for name, hash_ in hashes.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            raise RunError(f"{folder / NOTE}: lists {name!r}, which is no file of the bundle. {_AGAIN}")
        if not (folder / name).is_file():
            raise RunError(f"{folder}: {name} is missing. {_AGAIN}")
        if name != CARD and file_sha256(folder / name) != hash_:
            raise RunError(f"{folder}: {name} is not what it was when the bundle was made. {_AGAIN}")
    for name in (*_names(folder), *_linked_folders(folder)):
        if name not in hashes and PurePosixPath(name).parts[0] in _READ:
            raise RunError(f"{folder}: {name} is no file of this bundle. Delete it, or copy the bundle again.")


_AGAIN = "Copy the bundle again, or make it anew with rung bundle RUN SOLUTION --out DIR."


def _names(folder: Path) -> list[str]:
    """Files inside, also what links lead to; none that is hidden or being written."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not p.name.endswith(SCRATCH))
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _linked_folders(folder: Path) -> list[str]:
    """Links to folders: what lies behind them is not gone through, and would be read."""
    return [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() and p.is_dir()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
