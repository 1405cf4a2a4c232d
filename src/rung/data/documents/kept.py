"""What was read from files of documents, kept by their content and by what read them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from rung import __version__
from rung.cache import cache_folder
from rung.data.documents.kinds import Kind
from rung.data.documents.parsed import ParsedFile, parsed_from
from rung.data.documents.reading import LIBRARIES
from rung.errors import DamagedRecord
from rung.records import read_json, write_json

_OURS = ("documents", "formats")
"""Folders of rung.data whose code reads files."""


def kept_at(path: Path, kind: Kind) -> Path:
    """Where what a file holds is kept. Raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    how = [content, kind, _own_code(), python_version(), *map(_version, LIBRARIES[kind])]
    key = hashlib.sha256(" ".join(how).encode()).hexdigest()[:32]
    return cache_folder() / "documents" / key[:2] / f"{key}.json"


def kept(place: Path) -> ParsedFile | None:
    try:
        record = read_json(place)
        return None if record is None else parsed_from(record)
    except (OSError, DamagedRecord, ValueError, TypeError, KeyError, AttributeError):  # damaged: the file is read again
        return None


def keep(place: Path, parsed: ParsedFile) -> None:
    """Keeps it where that is possible; problems only where they lie in the file."""
    if parsed.problem and not parsed.lasting:
        return
    try:
        write_json(place, parsed.record, synced=False)
    except (OSError, ValueError):
        return


@cache
def _own_code() -> str:
    """Hash of the code here that reads files: where it changes, they are read again, and no number has to be raised."""
    found = hashlib.sha256(__version__.encode())
    for folder in _OURS:
        for path in sorted((Path(__file__).parent.parent / folder).glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
