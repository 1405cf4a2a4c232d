"""Why finalists that retrieve are wrong on dev, before the test is opened: the stage, its record and its budget.

Each leaves search_failures.json in its folder. Where the answers stand is looked up without the model, of each of them.
The experiments are made on the best of each model; they are left out, and the record says why, where the budget has no
room for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rung import runs
from rung.errors import RungError, SealedTestError
from rung.ladder.climbed import Climbed
from rung.ladder.finalist_checks import as_stage, is_due, no_room
from rung.ladder.state import RunState, WholeRun
from rung.records import from_record, write_json
from rung.resume import record_of, recorded
from rung.strategies import long_form
from rung.trials.workshop import Workshop
from rung.types import SearchFailure

RECORD = "search_failures.json"


def check_search(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> None:
    """Leaves search_failures.json in the folder of each finalist that retrieves; not of one with a shorter prompt."""
    built = {name: climbed.built[name] for name in names if long_form(name) is None}
    reading = {name: b for name, b in built.items() if b.solution.retriever is not None}
    best: dict[str, str] = {}
    for name in sorted(reading, key=lambda name: reading[name].dev.mean):  # stable: of equals, the dearest
        best[reading[name].solution.model] = name
    for name in reading:
        state, again = run.of(reading[name].solution.model), name in best.values()
        path = state.files.solution(name) / RECORD
        if is_due(path) or (again and not record_of(path).get("asked_again", True)):
            write_json(path, _record(state, climbed, name, again=again))


def search_failures(run: WholeRun, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows as `SearchFailure` reads them, of each solution that was checked; whole sentences about what was not)."""
    from rung.diagnosis.search_experiments import LEAST_WRONG

    rows: list[dict[str, Any]] = []
    said: list[str] = []
    for name in dict.fromkeys(names):
        record = recorded(run.files.solution(name) / RECORD)
        if record is None:
            continue
        rows += record["causes"] if record["wrong"] >= LEAST_WRONG else []
        if record["why"] is not None:
            what = f"What would mend the wrong answers of {name} was not tried"
            if not record["answered"]:
                what = f"Why {name} gives wrong answers was not looked into"
            said.append(f"{what}: {record['why'].rstrip('.')}.")
    return [asdict(from_record(SearchFailure, row)) for row in rows], said


def _record(run: RunState, climbed: Climbed, name: str, *, again: bool) -> dict[str, Any]:
    """What the file holds. again: whether answers are given again. A fault in looking up or asking ends nothing."""

    def work(workshop: Workshop) -> dict[str, Any]:
        return _found(run, climbed, name, workshop, again=again)

    found = as_stage(run, climbed, name, "search_failures", work)
    if isinstance(found, str):
        return {"answered": 0, "wrong": 0, "causes": [], "why": found, "asked_again": False}
    return found


def _found(run: RunState, climbed: Climbed, name: str, workshop: Workshop, *, again: bool) -> dict[str, Any]:
    """The causes, with what mends them where the budget and the model allow it."""
    from rung.diagnosis.search_experiments import MOST, search_record, set_up_check

    built = climbed.built[name]
    check = set_up_check(workshop, built.solution, built.predictions, workshop.folder, most=MOST if again else 0)
    calls = check.calls * (1 + (run.plan.judging.calls if run.plan.judging is not None else 0))
    why = no_room(run, climbed, run.plan.search_failures, calls)
    try:
        return {**search_record(check, why=why), "asked_again": again}
    except SealedTestError:
        raise
    except RungError as fault:
        runs.log(run.folder, "not checked", solution=name, what="search_failures", why=str(fault))
        return {**search_record(check, why=str(fault)), "asked_again": again}
