"""Why finalists that retrieve are wrong on dev, before the test is opened: the stage, its record and its budget.

Each leaves search_failures.json in its folder, made once. Where the answers stand is looked up without the model; the
experiments are left out, and the record says why, where the budget has no room for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rung import runs
from rung.errors import RungError, SealedTestError
from rung.ladder.climbed import Climbed
from rung.ladder.ledger import Meter, stage_of
from rung.ladder.state import RunState, WholeRun
from rung.records import write_json
from rung.resume import recorded
from rung.strategies import long_form
from rung.types import SearchFailure

LEAST_WRONG = 5
"""Wrong answers on dev; of fewer, shares say next to nothing."""


def check_search(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> None:
    """Leaves search_failures.json in the folder of each finalist that retrieves; not of one with a shorter prompt."""
    for name in names:
        built = climbed.built[name]
        if built.solution.retriever is None or long_form(name) is not None:
            continue
        state = run.of(built.solution.model)
        path = state.files.solution(name) / "search_failures.json"
        if (recorded(path) or {"why": ""}).get("why") is not None:
            found = _record(state, climbed, name)
            if found is not None:
                write_json(path, found)


def search_failures(run: WholeRun, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows as `SearchFailure` reads them, of each solution that was checked; whole sentences about what was not)."""
    rows: list[dict[str, Any]] = []
    said: list[str] = []
    for name in names:
        record = recorded(run.files.solution(name) / "search_failures.json")
        if record is None:
            continue
        rows += record["causes"] if record["wrong"] >= LEAST_WRONG else []
        if record["why"] is not None:
            said.append(f"What would mend the wrong answers of {name} was not tried: {record['why'].rstrip('.')}.")
    return [asdict(SearchFailure(**row)) for row in rows], said


def _record(run: RunState, climbed: Climbed, name: str) -> dict[str, Any] | None:
    """What the file holds; None where a fault kept it from being made."""
    from rung.diagnosis.search_experiments import search_record, set_up_check

    built, step = climbed.built[name], run.plan.search_failures
    folder = run.files.solution(name) / "search_failures"
    meter = Meter(run.asked, folder)
    try:
        workshop = run.workshop(folder, climbed, meter)
        check = set_up_check(workshop, built.solution, built.predictions, folder)
        judged = run.plan.judging.calls if run.plan.judging is not None else 0
        calls = check.calls * (1 + judged)
        share = calls / max(1, step.calls)
        why = run.over_budget(climbed, share * step.seconds, calls, usd=share * step.usd) if calls else None
        try:
            found = search_record(check, why=why)
        except SealedTestError:
            raise
        except RungError as fault:
            runs.log(run.folder, "not checked", solution=name, what="search", why=str(fault))
            found = search_record(check, why=str(fault))
    except SealedTestError:
        raise
    except Exception as fault:  # an experiment that fails explains nothing, and ends nothing
        runs.log(run.folder, "not checked", solution=name, what="search", why=f"{type(fault).__name__}: {fault}")
        return None
    runs.log(run.folder, "checked", stage=stage_of(run.folder, folder), solution=name, **meter.record())
    meter.done()
    return found
