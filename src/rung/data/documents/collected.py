"""What a corpus holds, and what is to be said of it, as it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rung.data.rows import GOLD_SUFFIX, SCHEMA_SUFFIX
from rung.types import Document, Finding

_NOTES = ("document_form",)
_BESIDE = (GOLD_SUFFIX, SCHEMA_SUFFIX)  # that rung writes of examples, or reads beside them


@dataclass
class Collected:
    documents: list[Document] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def tell(self, check: str, row: str, message: str, count: int = 1) -> None:
        severity: Literal["warning", "note"] = "note" if check in _NOTES else "warning"
        self.findings.append(Finding(check, severity, row, message, count=count))

    def told(self, check: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.check == check]


def files_below(folder: Path, but: Collection[Path] = ()) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All files below but hidden ones, in the order of their relative paths, and (path, why) of what cannot be opened.

    Links to folders are not followed, and stand among the latter. Left out are the files `but`, and folders of runs,
    which hold rung's own texts.
    """
    left_out = {os.path.realpath(path) for path in but}
    found: list[Path] = []
    troubles: list[tuple[Path, str]] = []

    def refused(error: OSError) -> None:
        troubles.append(
            (Path(os.fsdecode(error.filename or folder)), f"cannot be opened ({error.strerror}); check its permissions")
        )

    for root, folders, files in os.walk(folder, onerror=refused):
        if {"task.json", "events.jsonl"} <= set(files):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [path for name in folders if (path := Path(root) / name).is_symlink()]
        troubles += [(path, "is a link to a folder, which is not followed; copy the folder there") for path in links]
        real = os.path.realpath(root)  # once a folder: it takes longer than reading a small file
        for name in files:
            path = Path(root) / name
            if name.startswith(".") or name.endswith(_BESIDE):
                continue
            if (os.path.realpath(path) if path.is_symlink() else os.path.join(real, name)) in left_out:
                continue
            if os.path.isfile(path):
                found.append(path)
            else:
                link = "is a link to nothing; copy the file there, or remove the link"
                troubles.append((path, link if os.path.islink(path) else "is no file that holds data; remove it"))
    return sorted(found, key=lambda p: p.relative_to(folder).as_posix()), troubles


def shown_name(name: str) -> str:
    """A path as an id and in messages: bytes that are no UTF-8 and control characters are shown as U+FFFD."""
    return re.sub("[\ud800-\udfff\x00-\x1f\x7f\u2028\u2029]", "\ufffd", name)
