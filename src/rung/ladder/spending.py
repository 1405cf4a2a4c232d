"""What the stages of a run cost, with what commands had spent on them before they were killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.records import read_json, write_json

if TYPE_CHECKING:
    from rung.models.local import LocalModel

_KEPT = "spent.json"
_EVERY_S = 2.0


class Spending:
    """Seconds, computed tokens and answers of one stage, from its first command on.

    Kept in the stage's folder while it lasts; None: not kept.
    """

    def __init__(self, model: LocalModel, folder: Path | None = None) -> None:
        self._model = model
        self._path = folder / _KEPT if folder is not None else None
        before = (read_json(self._path) if self._path is not None else None) or {}
        self._began: float = time.monotonic() - before.get("seconds", 0.0)
        self._first_token = model.engine.computed_tokens - before.get("tokens", 0)
        self._first_call = model.answered - before.get("calls", 0)
        self._kept = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def record(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 2),
            "tokens": self._model.engine.computed_tokens - self._first_token,
            "calls": self._model.answered - self._first_call,
        }

    def keep(self) -> None:
        """Called often while the stage works: what it has cost so far is on disk every few seconds."""
        if self._path is not None and time.monotonic() - self._kept > _EVERY_S:
            write_json(self._path, self.record())
            self._kept = time.monotonic()

    def done(self) -> None:
        """The stage's own record holds it now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def spent_before(folder: Path) -> tuple[float, int]:
    """Seconds and answers of earlier commands on a run: on stages that are done, and on those cut or given up."""
    records = [e for e in runs.events(folder) if "seconds" in e]  # those of stages that are done
    records += [record for path in folder.rglob(_KEPT) if (record := read_json(path)) is not None]
    return sum(r.get("seconds", 0.0) for r in records), sum(r.get("calls", 0) for r in records)
