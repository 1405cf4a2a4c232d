"""A run folder that has its verdict, read once for all pages. Knows where each record lies, not how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision import Scale, decision_from_record
from rung.errors import RunError
from rung.records import read_json, read_lines
from rung.types import Candidate, Decision

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """How an adapter, or weights of a solution's own, came about.

    sweep: learning rate -> dev loss. epochs: (epoch, dev score). kept: the epoch. rates: learning rate -> best dev
    score, where every rate was trained to its end. left_out: {"count", "rows"} of rows that were too long to train on.
    cut: why the training was stopped before its end. full: whether all weights were trained. bytes: of what was
    learnt, on disk; 0 where an older version wrote the record. probed: whether the rate rests on probes. rate_from: in
    words, what it was taken over from.
    """

    learning_rate: float
    sweep: Mapping[str, float]
    epochs: tuple[tuple[float, float], ...]
    kept: float
    rates: Mapping[str, float] = field(default_factory=dict)
    left_out: Record = field(default_factory=dict)
    cut: str | None = None
    full: bool = False
    bytes: int = 0
    probed: bool = True
    rate_from: str = ""


@dataclass(frozen=True)
class RunRecords:
    """The records of a run that has its verdict; parts that a run did not write are empty.

    curve: the learning curve, where there is one. built: name -> solution.json. predictions: (name, "dev" or "test") ->
    lines of the file.
    """

    folder: Path
    task: Record
    decision: Decision
    plan: Record
    findings: tuple[Record, ...]
    events: tuple[Record, ...]
    test_reads: tuple[Record, ...]
    curve: Record
    built: Mapping[str, Record]
    trained: Mapping[str, Trained]
    predictions: Mapping[tuple[str, str], tuple[Record, ...]]

    @property
    def scale(self) -> Scale:
        return scale_of(self.task)

    @property
    def floor(self) -> str:
        """The floor in words, as the scores beside it are written: of the test, or of dev where the test is sealed."""
        return self.scale.value(self.decision.floor, self.decision.n_dev if self.unfinished else self.decision.n_test)

    @property
    def unfinished(self) -> bool:
        return self.decision.choice == "unfinished"

    @property
    def chosen(self) -> Candidate | None:
        return next((c for c in self.decision.candidates if c.name == self.decision.solution), None)

    @property
    def shown(self) -> Candidate | None:
        """The chosen candidate; with none, the best on the test (on dev where the test is sealed)."""
        models = [c for c in self.decision.candidates if c.family != "baseline"]
        tested = [c for c in models if c.test is not None] or (models if self.unfinished else [])
        return self.chosen or max(tested, key=lambda c: (c.test or c.dev).mean, default=None)

    @property
    def asking(self) -> list[str]:
        """The arguments of `rung ask` that ask the shown candidate; empty where there is none."""
        if self.shown is None:
            return []
        ready = self.chosen is not None and not self.unfinished
        return [str(self.folder), *([] if ready else ["--solution", self.shown.name])]

    @property
    def baselines(self) -> frozenset[str]:
        return frozenset(c.name for c in self.decision.candidates if c.family == "baseline")


def scale_of(task: Record) -> Scale:
    """How this task's scores are written; task.json says whether its metric is right or wrong."""
    return Scale(bool(task.get("right_or_wrong")))


def read_run(folder: Path) -> RunRecords:
    """Raises RunError when there is no verdict yet, or a record is damaged or of another format."""
    try:
        record = read_json(folder / "decision.json")
        if record is None:
            raise RunError(
                f"{folder}: there is no verdict yet (no decision.json). Give the same rung run command again."
            )
        decision = decision_from_record(record)
        names = [c.name for c in decision.candidates]
        return RunRecords(
            folder=folder,
            task=read_json(folder / "task.json") or {},
            decision=decision,
            plan=read_json(folder / "plan.json") or {},
            findings=tuple((read_json(folder / "checks.json") or {}).get("findings", ())),
            events=tuple(runs.events(folder)),
            test_reads=tuple(read_lines(folder / "test_reads.jsonl")),
            curve=read_json(folder / "curve.json") or {},
            built={n: read_json(folder / "solutions" / n / "solution.json") or {} for n in names},
            trained={n: t for n in names if (t := _trained(folder / "solutions" / n / "training"))},
            predictions={
                (n, which): tuple(read_lines(folder / "solutions" / n / f"predictions.{which}.jsonl"))
                for n in names
                for which in ("dev", "test")
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: a record is damaged ({error}). Run the task again in a new folder.") from error


def _trained(folder: Path) -> Trained | None:
    history = read_json(folder / "history.json")
    if history is None:
        return None
    sweep = read_json(folder / "sweep.json") or {"dev_loss": {}}
    return Trained(
        learning_rate=float(history["learning_rate"]),
        sweep={rate: float(loss) for rate, loss in sweep["dev_loss"].items() if loss is not None},
        epochs=tuple((float(e["epoch"]), float(e["dev"])) for e in history["epochs"]),
        kept=float(history["kept"]),
        rates={rate: float(score) for rate, score in history.get("rates", {}).items()},
        left_out=history.get("left_out") or {},
        cut=history.get("cut"),
        full=bool(history.get("all_weights", False)),
        bytes=int(history.get("bytes", 0)),
        probed=bool(history.get("probed", True)),
        rate_from=str(history.get("rate_from", "")),
    )
