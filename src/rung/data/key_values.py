"""What several keys of task.yaml have in common: paths beside the task, names for folders, errors within a mapping."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import ValidationInfo


class WrongKey(ValueError):
    """What is wrong with a key within the value of a key. inside: the keys that lead to it.

    The text follows the whole name of the key: `"model.timeout" is text; write timeout: 60`.
    """

    def __init__(self, text: str, *inside: str) -> None:
        super().__init__(text)
        self.inside = inside


def beside_task(value: str, info: ValidationInfo) -> Path:
    """A path of the task, absolute. Paths are relative to the folder of the task."""
    folder: Path = (info.context or {})["folder"]
    return Path(os.path.abspath(folder / value))


def folder_name_problem(name: str) -> str | None:
    """Why a text cannot name a folder on every system, or None."""
    if not name.strip():
        return "is empty"
    if bad := re.search(r'[\x00-\x1f\x7f/\\:*?"<>|]', name):
        return f"holds {bad.group()!r}"
    if name != name.strip() or name.startswith((".", "-")) or name.endswith("."):
        return "starts or ends with a dot, dash or space"
    return "is longer than 100 bytes" if len(name.encode()) > 100 else None
