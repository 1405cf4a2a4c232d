"""What is wrong with a file of a model, as a plain fact: it is empty, cut off, a pointer, or no JSON.

Libraries say the same in the words of their parsers. Knows nothing of what the files mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

_POINTER = b"version https://git-lfs"
_LITERALS = ("true", "false", "null", "-")  # how a JSON value begins that is not there whole


def fault_of(path: Path) -> str | None:
    """A clause that names the file ("tokenizer.json is cut off at line 147"); None where no fault is seen.

    JSON is parsed; of any other file only its size and its first bytes are looked at.
    """
    try:
        with path.open("rb") as file:
            content = file.read() if path.suffix == ".json" else file.read(len(_POINTER))
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror or error})"
    if not content.strip() and path.stat().st_size == len(content):
        return f"{path.name} is empty"
    if content.startswith(_POINTER):
        return f"{path.name} is a pointer of Git LFS and not the file itself (`git lfs pull` fetches that)"
    return _fault_of_json(path.name, content.decode("utf-8", "replace")) if path.suffix == ".json" else None


def first_fault(folder: Path, patterns: Iterable[str]) -> str | None:
    """As `fault_of`, of the first file with one among those that the patterns name."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return next((fault for path in files if (fault := fault_of(path)) is not None), None)


def _fault_of_json(name: str, text: str) -> str | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].strip()
        # A string of JSON holds no line break, so that one without an end is the last thing in its file.
        if not rest or error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in _LITERALS):
            last = text.rstrip().count("\n") + 1
            return f"{name} is cut off at line {last}"
        return f"{name} is no JSON from line {error.lineno} on"
    except RecursionError:
        return f"{name} is nested too deeply"
    return None
