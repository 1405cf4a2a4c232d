"""How to run, and who hears what happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rung.types import AnswersBy, Family, Score

if TYPE_CHECKING:
    from rung.trials.trial import Executor


class Listener(Protocol):
    """Hears what happens in a run. Every method returns at once; none may raise."""

    def say(self, text: str) -> None: ...
    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None: ...
    def progress(self, what: str, share: float, left_s: float | None) -> None: ...
    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None: ...
    def skipped(self, name: str, why: str) -> None: ...


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    out: the run folder. only: strategies to try. strict: data warnings stop the run. exhaustive: every strategy that
    applies is built in full, whatever it can be expected to bring. minutes, calls, usd: in the place of the task's
    budget. finish: open the test with what there is, although something that could matter was kept from being tried.
    again: continue a finished run; its test is then opened a further time, and the verdict says so.
    executor: where trials run; None: one after the other in this process. engine: what computes answers, in the place
    of the task's.
    """

    out: Path | None = None
    only: tuple[str, ...] = ()
    strict: bool = False
    exhaustive: bool = False
    minutes: float | None = None
    calls: int | None = None
    usd: float | None = None
    finish: bool = False
    again: bool = False
    executor: Executor | None = None
    engine: AnswersBy | None = None


class Quiet:
    """A listener that hears nothing."""

    def say(self, text: str) -> None: ...
    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None: ...
    def progress(self, what: str, share: float, left_s: float | None) -> None: ...
    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None: ...
    def skipped(self, name: str, why: str) -> None: ...
