"""What several keys of task.yaml have in common: paths beside the task, names for folders, errors within a mapping."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import ValidationInfo

from rung.data.rows import nearest


class WrongKey(ValueError):
    """What is wrong with a key within the value of a key. inside: the keys that lead to it.

    The text follows the whole name of the key: `"model.timeout" is text; write timeout: 60`.
    """

    def __init__(self, text: str, *inside: str) -> None:
        super().__init__(text)
        self.inside = inside


def task_folder(info: ValidationInfo) -> Path:
    """The folder that the paths of a task are relative to."""
    folder: Path = (info.context or {})["folder"]
    return folder


def beside_task(value: str, info: ValidationInfo) -> Path:
    """A path of the task, absolute. Paths are relative to the folder of the task; ~/ is the user's home folder."""
    path = task_folder(info) / value
    if value.startswith("~/") and not os.path.exists(path):
        path = Path(value).expanduser()
    return Path(os.path.abspath(path))


def no_such_path(value: str, path: Path) -> str:
    """What to say of a path that does not exist: where it was looked for, and what was probably meant."""
    where = "~ is your home folder" if value.startswith("~/") else "Paths are relative to the task file"
    guess = None
    if "\\" in value and os.path.exists(there := path.parent / value.replace("\\", "/")):
        guess = os.path.relpath(there, path.parent)
    elif len(value) > 2 and value[0] in "“”„‘’'\"" and value[-1] in "“”„‘’'\"":
        guess = value[1:-1]  # a word processor's quotes, which YAML takes for part of the name
    elif path.parent.is_dir():
        near = nearest(path.name, [p.name for p in sorted(path.parent.iterdir())[:1000] if not p.name.startswith(".")])
        guess = value.removesuffix(path.name) + near if near and value.endswith(path.name) else None
    hint = f" Did you mean {guess}?" if guess else ""
    return f"does not exist ({path}). {where}.{hint}"


def folder_name_problem(name: str) -> str | None:
    """Why a text cannot name a folder on every system, or None."""
    if not name.strip():
        return "is empty"
    if bad := re.search(r'[\x00-\x1f\x7f/\\:*?"<>|]', name):
        return f"holds {bad.group()!r}"
    if name != name.strip() or name.startswith((".", "-")) or name.endswith("."):
        return "starts or ends with a dot, dash or space"
    return "is longer than 100 bytes" if len(name.encode()) > 100 else None
