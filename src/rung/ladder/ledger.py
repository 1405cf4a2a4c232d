"""What a run has spent, over all its commands, and what it may still spend.

The ledger knows the metered models, the purse that dollars for tokens come from, and a clock. A stage that is under
way keeps what it has cost on disk every few seconds, so that a budget also counts what was spent before a kill.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.errors import DamagedRecord
from rung.records import read_json, write_json
from rung.types import Budget

if TYPE_CHECKING:
    from rung.models.metering import Metered
    from rung.models.purse import Purse

_KEPT = "spent.json"
_CLOCK = "clock.json"
_EVERY_S = 2.0


@dataclass(frozen=True)
class Spent:
    """Seconds, answers of the model and dollars."""

    seconds: float = 0.0
    calls: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """The budget, and what earlier commands and this one have spent of it.

    hourly: dollars an hour of the machine, while a command works. purse: counts dollars for tokens, over all commands;
    None: nothing is paid by the token. before: by earlier commands, without what the purse counts.
    """

    budget: Budget
    models: tuple[Metered, ...]
    hourly: float = 0.0
    purse: Purse | None = None
    before: Spent = Spent()
    started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> Spent:
        """By all commands on this run folder."""
        here = time.monotonic() - self.started
        seconds, calls = self.before.seconds + here, self.before.calls + sum(m.calls for m in self.models)
        return Spent(seconds, calls, self._hours_usd(seconds) + self.tokens_usd)

    @property
    def tokens_usd(self) -> float:
        """Dollars for tokens, by all commands."""
        return self.purse.spent if self.purse is not None else self.before.usd + sum(m.usd for m in self.models)

    def _hours_usd(self, seconds: float) -> float:
        return seconds / 3600 * self.hourly

    @property
    def limit_s(self) -> float | None:
        """Seconds that the budget allows in all: its minutes, and what its dollars pay of the machine."""
        limits = [self.budget.minutes * 60] if self.budget.minutes is not None else []
        if self.budget.usd is not None and self.hourly:
            limits.append(max(0.0, self.budget.usd - self.tokens_usd) / self.hourly * 3600)
        return min(limits) if limits else None

    def keep_back(self, usd: float) -> None:
        """From now on, so many dollars for tokens are left for what comes later."""
        if self.purse is not None:
            self.purse.keep_back(usd + self._hours_usd(self.spent.seconds))

    def close(self) -> None:
        """Writes down what is spent for tokens, once nothing is spent any more."""
        if self.purse is not None:
            self.purse.close()

    def seconds_left(self, reserved: float = 0.0) -> float | None:
        """Seconds until the limit, less what is reserved; None without a limit."""
        return None if self.limit_s is None else self.limit_s - self.spent.seconds - reserved

    def exceeded_by(self, more: Spent, *, reserved: Spent = Spent()) -> str | None:
        """Reason why so much more would exceed the budget, or None. reserved: of the final test, which comes first."""
        minutes = self.budget.minutes
        if minutes is not None and self.spent.seconds + reserved.seconds + more.seconds > minutes * 60:
            return f"the budget of {minutes:.3g} minutes leaves no time for it"
        most = self.budget.calls
        if most is not None and self.spent.calls + reserved.calls + more.calls > most:
            return f"its {more.calls} answers would exceed the budget of {most}, of which the test is reserved first"
        if self.budget.usd is not None and self._exceeds_usd(more, reserved):
            return f"it would exceed the budget of {self.budget.usd:g} USD, of which the test is reserved first"
        return None

    def _exceeds_usd(self, more: Spent, reserved: Spent) -> bool:
        """Whether so much more costs more than is left: tokens by their price, the machine by its hours."""
        spent = self.spent
        wanted = more.usd + reserved.usd + self._hours_usd(more.seconds + reserved.seconds)
        left = (self.budget.usd or 0.0) - spent.usd
        return left <= 0 or wanted > left


class Meter:
    """Seconds, computed tokens, answers and dollars of one stage, from its first command on."""

    def __init__(self, models: Sequence[Metered], folder: Path | None = None) -> None:
        """models: what the stage asks. folder: its own, where its costs are kept while it lasts; None: they are not."""
        self._models = models
        self._path = folder / _KEPT if folder is not None else None
        before = (read_json(self._path) if self._path is not None else None) or {}
        self._began: float = time.monotonic() - before.get("seconds", 0.0)
        tokens, calls, usd = self._counted()
        self._first = (tokens - before.get("tokens", 0), calls - before.get("calls", 0), usd - before.get("usd", 0.0))
        self._kept = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _counted(self) -> tuple[int, int, float]:
        models = self._models
        return sum(m.computed_tokens for m in models), sum(m.calls for m in models), sum(m.usd for m in models)

    def record(self) -> dict[str, Any]:
        tokens, calls, usd = (now - first for now, first in zip(self._counted(), self._first, strict=True))
        return {"seconds": round(self.seconds, 2), "tokens": tokens, "calls": calls, "usd": round(usd, 6)}

    def keep(self) -> None:
        """Called often while the stage works: what it has cost so far is on disk every few seconds."""
        if self._path is not None and time.monotonic() - self._kept > _EVERY_S:
            write_json(self._path, self.record())
            self._kept = time.monotonic()

    def done(self) -> None:
        """The stage's own record holds its costs now."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


COSTS = ("seconds", "tokens", "calls", "usd")
"""What a stage has cost, in its record and in its event."""


def spent_on(folder: Path) -> Spent:
    """What commands that were killed or gave up have spent on a stage so far; nothing once its event says it."""
    record = read_json(folder / _KEPT) or {}
    return Spent(record.get("seconds", 0.0), record.get("calls", 0), record.get("usd", 0.0))


def stage_of(run: Path, folder: Path) -> str:
    """The name of a stage in its event: where its folder lies in that of the run."""
    return folder.relative_to(run).as_posix()


@contextmanager
def clocked(folder: Path) -> Iterator[None]:
    """Within: the seconds of all commands on a run are on disk every few seconds, whatever a stage does meanwhile."""
    before, began, over = spent_before(folder).seconds, time.monotonic(), threading.Event()

    def keep() -> None:
        if (folder / "task.json").exists():  # before, the folder does not say whose it is
            seconds = round(before + time.monotonic() - began, 2)
            write_json(folder / _CLOCK, {"seconds": seconds}, synced=False)

    def tick() -> None:
        while not over.wait(_EVERY_S):
            with contextlib.suppress(OSError):  # a full disk ends the work elsewhere
                keep()

    with contextlib.suppress(OSError):  # at once: one that is torn is whole again for who reads it
        keep()

    thread = threading.Thread(target=tick, daemon=True, name="rung-clock")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            keep()


def spent_before(folder: Path) -> Spent:
    """What earlier commands spent on a run: on stages that are done, and on those that were cut or given up.

    usd: for tokens.
    """
    events = [e for e in runs.events(folder) if "seconds" in e]  # those of stages that are done
    done = {e.get("stage") for e in runs.standing_events(folder) if "seconds" in e}
    kept = [path.parent for path in folder.rglob(_KEPT)]
    under_way = [spent_on(stage) for stage in kept if stage_of(folder, stage) not in done]
    stages = sum(e["seconds"] for e in events) + sum(s.seconds for s in under_way)
    seconds = max(stages, _on_clock(folder))
    usd = sum(e.get("usd", 0.0) for e in events) + sum(s.usd for s in under_way)
    calls = sum(e.get("calls", 0) for e in events) + sum(s.calls for s in under_way)
    return Spent(seconds, calls, usd)


def _on_clock(folder: Path) -> float:
    """Seconds that the clock of a run shows. A power cut may tear its file; what stages took is known without it."""
    try:
        record = read_json(folder / _CLOCK) or {}
    except DamagedRecord:
        return 0.0
    return float(record.get("seconds", 0.0))
