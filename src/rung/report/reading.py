"""A finished run folder, read once for all pages. Knows where each record lies, nothing of how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision import decision_from_record
from rung.errors import RunError
from rung.records import read_json, read_lines
from rung.report.words import Scale, scale_of
from rung.types import Candidate, Decision

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """How an adapter came about. sweep: learning rate -> dev loss. epochs: (epoch, dev score).

    rates: learning rate -> best dev score, where every one was trained to its end.
    """

    learning_rate: float
    sweep: Mapping[str, float]
    epochs: tuple[tuple[float, float], ...]
    kept: float
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The records of a run that has its verdict; parts that a run did not write are empty.

    floor: the score that needs no model, where it was recorded. curve: the learning curve, where there is one.
    built: name -> solution.json. predictions: (name, "dev" or "test") -> lines of the file.
    """

    folder: Path
    task: Record
    decision: Decision
    plan: Record
    findings: tuple[Record, ...]
    events: tuple[Record, ...]
    test_reads: tuple[Record, ...]
    floor: float | None
    curve: Record
    built: Mapping[str, Record]
    trained: Mapping[str, Trained]
    predictions: Mapping[tuple[str, str], tuple[Record, ...]]

    @property
    def scale(self) -> Scale:
        return scale_of(str(self.task.get("metric", "")))

    @property
    def chosen(self) -> Candidate | None:
        return next((c for c in self.decision.candidates if c.name == self.decision.solution), None)

    @property
    def shown(self) -> Candidate | None:
        """The chosen candidate, or with no winner the best one on the test."""
        tested = [c for c in self.decision.candidates if c.test is not None]
        return self.chosen or max(tested, key=lambda c: c.test.mean if c.test else 0.0, default=None)

    def why_not_tried(self, name: str) -> str:
        """Why a step of the plan has no candidate, as the verdict or the plan says it."""
        start = f"{name} was not tried: "
        for reason in self.decision.reasons:
            if reason.startswith(start):
                return reason.removeprefix(start).rstrip(".")
        return next(
            (str(s["why"]) for s in self.plan.get("steps", ()) if s["name"] == name and s["why"]), "not recorded"
        )


def read_run(folder: Path) -> Run:
    """Raises RunError when there is no verdict yet, or a record is damaged."""
    try:
        record = read_json(folder / "decision.json")
        if record is None:
            raise RunError(
                f"{folder}: there is no verdict yet (no decision.json). Give the same rung run command again."
            )
        decision = decision_from_record(record)
        names = [c.name for c in decision.candidates]
        events = runs.events(folder)
        floors = [e["floor"] for e in events if e.get("event") == "decided" and e.get("floor") is not None]
        return Run(
            folder=folder,
            task=read_json(folder / "task.json") or {},
            decision=decision,
            plan=read_json(folder / "plan.json") or {},
            findings=tuple((read_json(folder / "checks.json") or {}).get("findings", ())),
            events=tuple(events),
            test_reads=tuple(read_lines(folder / "test_reads.jsonl")),
            floor=float(floors[-1]) if floors else None,
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
    losses = {rate: float(loss) for rate, loss in sweep["dev_loss"].items() if loss is not None}
    epochs = tuple((float(e["epoch"]), float(e["dev"])) for e in history["epochs"])
    rates = {rate: float(score) for rate, score in history.get("rates", {}).items()}
    return Trained(float(history["learning_rate"]), losses, epochs, float(history["kept"]), rates)
