"""How a solution comes to stand in its folder: it is built once and then read back, and its costs are noted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung import runs
from rung.ladder.ledger import COSTS, Meter, stage_of
from rung.ladder.state import RunState, tidy
from rung.resume import is_done, once
from rung.types import Solution


def solution_once(run: RunState, folder: Path, name: str, build: Callable[[], Solution]) -> Solution:
    """The solution that stands in the folder; where there is none, what `build` returns, under that name."""
    from rung.solutions.store import load_solution, save_solution

    if is_done(folder / "solution.json"):
        return replace(load_solution(folder), model=run.name)
    built = replace(build(), name=name, model=run.name)
    return save_solution(built, folder, passages=run.inputs.library.passages(built.retriever))


def noted_once(
    run: RunState, folder: Path, meter: Meter, event: str, record: Callable[[], Mapping[str, Any]], **facts: Any
) -> dict[str, Any]:
    """built.json of a solution whose answers to dev stand; its costs are in one event, wherever a kill comes.

    record: what built.json holds beside the costs. facts: of the event.
    """
    found = once(folder / "built.json", lambda: {**meter.record(), **record()})
    stage = stage_of(run.folder, folder)
    if stage not in {e.get("stage") for e in runs.standing_events(run.folder)}:
        runs.log(run.folder, event, stage=stage, **facts, **{k: found[k] for k in COSTS})
    meter.done()
    tidy(folder)
    return found
