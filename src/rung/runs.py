"""The run folder: which one a command means, who holds it, its files, and its log.

Knows names, locks and lines; nothing of what a run does.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rung.errors import RunError
from rung.records import SCRATCH, append_lines, read_json, read_lines, write_json

BASE = Path("runs")
"""Where runs lie that were not given a folder, beneath the working directory."""


@dataclass(frozen=True)
class Files:
    """Where each record of a run lies. `docs/run-folder.md` says what is in it.

    model: of a run with several models, the name of one whose own records are meant; empty: of the run as a whole, or
    of the model that it began with.
    """

    folder: Path
    model: str = ""

    def __getattr__(self, name: str) -> Path:
        if name not in _RECORDS:
            raise AttributeError(name)
        own = self.folder / "models" / self.model if self.model and name in _OF_A_MODEL else self.folder
        return own / _RECORDS[name]

    def solution(self, name: str) -> Path:
        return self.folder / "solutions" / name

    @property
    def built(self) -> list[str]:
        """Names of the solutions that are whole."""
        return sorted(path.parent.name for path in (self.folder / "solutions").glob("*/solution.json"))


_RECORDS = {
    "task": "task.json",
    "split": "split.json",
    "checks": "checks.json",
    "plan": "plan.json",
    "events": "events.jsonl",
    "diagnosis": "diagnosis.json",
    "diagnosed": "diagnosis",
    "pilot": "pilot.json",
    "piloted": "pilot",
    "curve": "curve.json",
    "finalists": "finalists.json",
    "test_reads": "test_reads.jsonl",
    "baselines": "baselines",
    "consistency": "consistency.json",
    "decision": "decision.json",
    "winner": "winner",
    "finished": "finished.json",
    "earlier": "earlier",
    "report": "report.html",
    "models": "models.json",
    "purse": "purse.json",
    "judge": "judge.json",
    "judged": "judge",
    "teacher": "teacher",
    "search": "search.json",
}
_OF_A_MODEL = ("diagnosis", "diagnosed", "pilot", "piloted")


def identity(record: Mapping[str, Any]) -> str:
    """A hash of everything that decides what a run measures; two runs with the same one continue each other."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def choose_folder(
    name: str,
    wanted: str,
    *,
    out: Path | None,
    base: Path = BASE,
    basis: str | None = None,
    engine: str | None = None,
) -> Path:
    """The folder to run in: that of a run with the same identity, else a new one (<name>, <name>-2, …).

    Of several runs with this identity, one that is not finished is preferred. out: the folder the user named; it must
    be new, empty, or hold this very run. basis: a run with this basis may be continued with other models or examples.
    One with the identity that was reopened and not brought to its end comes first then, next a finished one with the
    identity, next the newest finished one with the basis. engine: as in `check_identity`. Raises RunError when `out`
    holds something else.
    """
    if out is not None:
        if out.exists() and not (out.is_dir() and ((out / "task.json").is_file() or _empty(out))):
            raise RunError(f"{out}: exists and is not a run folder. Name another one with --out.")
        check_identity(out, wanted, basis, engine)
        return out
    taken = _taken(name, base)
    same = [p for p in taken if (read_json(p / "task.json") or {}).get("identity") == wanted]
    first: list[Path] = []
    if basis is not None:
        alike = list(reversed(of_basis(name, basis, base=base)))
        first = [p for p in same if not is_finished(p) and (p / _RECORDS["earlier"]).is_dir()]
        first += [p for p in (*same, *alike) if is_finished(p)] or ([] if same else alike)
    begun = [p for p in same if not is_finished(p)]
    for folder in (*first, *begun, *same, *(p for p in taken if _empty(p))):
        return folder
    names = {p.name for p in taken}
    return base / next(n for n in (name, *(f"{name}-{i}" for i in range(2, 1_000_000))) if n not in names)


def of_basis(name: str, basis: str, *, base: Path = BASE) -> list[Path]:
    """The runs of that name that differ in models and examples at most, the newest last."""
    return [p for p in of_name(name, base=base) if (read_json(p / "task.json") or {}).get("basis") == basis]


def of_name(name: str, *, base: Path = BASE) -> list[Path]:
    """The runs of that name, whatever they are of, the newest last."""
    found = [p for p in _taken(name, base) if (p / "task.json").is_file()]
    return sorted(found, key=lambda p: (p / "task.json").stat().st_mtime)


def _taken(name: str, base: Path) -> list[Path]:
    number = re.compile(re.escape(name) + r"(-\d+)?")
    return [p for p in sorted(base.glob(f"{glob.escape(name)}*")) if p.is_dir() and number.fullmatch(p.name)]


def check_run(folder: Path) -> None:
    """Raises RunError unless the folder is that of a run."""
    if not (folder / _RECORDS["task"]).is_file():
        fact = "not a run folder (no task.json)" if folder.is_dir() else "there is no such folder"
        raise RunError(f"{folder}: {fact}. Name a folder that rung run wrote, as runs/NAME.")


def verdict_of(folder: Path) -> dict[str, Any]:
    """decision.json of a run, also of one whose budget ended. Raises RunError where there is no run, or no verdict."""
    record = read_json(folder / _RECORDS["decision"])
    if record is None:
        check_run(folder)
        read_json(folder / _RECORDS["task"])  # where it is damaged, the same command cannot go on
        raise RunError(f"{folder}: not finished, there is no verdict yet. Give the same rung run command again.")
    return record


def run_of(solution: str, *places: Path) -> Path | None:
    """The run folder that one of these places is, or lies in at whatever depth, and that has the solution of that name.

    places: a run, one of its solutions, its winner, or a bundle that was put into it. None where there is no such run.
    """
    for place in dict.fromkeys(p for given in places for p in (given, given.resolve(), *given.resolve().parents)):
        files = Files(place)
        if all(p.is_file() for p in (files.task, files.split, files.solution(solution) / "solution.json")):
            return place
    return None


def check_identity(folder: Path, wanted: str, basis: str | None = None, engine: str | None = None) -> None:
    """Raises RunError when the folder holds a run of another task, data or model, or its task.json is damaged.

    basis: as in `choose_folder`. engine: that is asked for now; None: it is not compared.
    """
    task = read_json(folder / "task.json")
    if task is not None and "model_version" in task:
        raise RunError(
            f"{folder}: holds a run of an older version of rung, which this version shows but cannot go on with. Name "
            "another folder with --out."
        )
    if task is not None and task["identity"] != wanted and (basis is None or task.get("basis") != basis):
        if engine is not None and (begun := engine_of(task)) != engine:
            raise RunError(
                f"{folder}: holds a run that was begun with engine {begun}, and this command asks for engine {engine}. "
                f"Answers of two engines are not mixed. Go on with --engine {begun}, or name another folder with --out."
            )
        raise RunError(
            f"{folder}: holds another run (task, data, model or options differ). Name another folder with --out."
        )


def engine_of(task: Mapping[str, Any]) -> str:
    """The engine that a task.json names; older versions of rung knew one alone."""
    return str(task.get("engine") or "local")


def _empty(folder: Path) -> bool:
    """Whether nothing was begun here, or it was killed before it had said what it is."""
    return all(p.name == ".lock" or p.suffix == SCRATCH for p in folder.iterdir())


def is_finished(folder: Path) -> bool:
    """Whether the run reached its verdict: the note that says so is the last thing a run writes."""
    return (folder / "finished.json").is_file() and (folder / "decision.json").is_file()


def mark_finished(folder: Path) -> None:
    write_json(folder / "finished.json", {"time": _now()})


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within: no other process works in the folder. The lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder / ".lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder}: another rung is working here. Wait for it, or name another folder with --out."
        ) from None
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}). Name another folder with --out.") from None
    try:
        yield
    finally:
        if folder.is_dir() and _empty(folder):  # what kept the work from beginning leaves no folder
            with contextlib.suppress(OSError):
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


def log(folder: Path, event: str, **facts: Any) -> None:
    """One line in events.jsonl, on disk when it returns."""
    append_lines(folder / "events.jsonl", [{"time": _now(), "event": event, **facts}])


def standing_events(folder: Path) -> list[dict[str, Any]]:
    """As `events`, without what a later reopening made void: solutions that are to be built again, and all skips.

    Where train changed, what was learnt by experiments is void too; where the teacher did, what it answered to dev.
    """
    found: list[dict[str, Any]] = []
    for event in events(folder):
        if event["event"] == "reopened":
            void, grown = set(event["void"]), any(event.get("rows", {}).values())
            gone = {"skipped", *(("diagnosed", "piloted") if grown else ())}
            gone |= {"taught"} if "teacher" in event.get("taught", ()) else set()
            found = [e for e in found if e["event"] not in gone and e.get("solution") not in void]
        found.append(event)
    return found


def events(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / "events.jsonl")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
