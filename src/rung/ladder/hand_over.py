"""The winner as a bundle: the folder to ship."""

from __future__ import annotations

import shutil
from pathlib import Path

from rung.ladder.state import WholeRun
from rung.records import read_json, write_json
from rung.resume import folder_once
from rung.types import Decision


def hand_over(run: WholeRun, decision: Decision) -> None:
    """Copies the solution to ship to winner/, in the place of what an earlier verdict left there."""
    from rung.solutions.store import load_solution, save_solution

    note = read_json(run.files.winner / "bundle.json") or {}
    if (note.get("solution"), note.get("headline")) != (decision.solution, decision.headline):
        shutil.rmtree(run.files.winner, ignore_errors=True)
    if decision.solution is None:
        return
    solution = load_solution(run.files.solution(decision.solution))
    state = run.of_candidate(decision.solution)

    def fill(folder: Path) -> None:
        save_solution(solution, folder, passages=run.inputs.library.passages(solution.retriever))
        note = {
            "task": run.inputs.task.name,
            "model": state.spec.spec,
            "model_version": state.model.version,
            "solution": solution.name,
            "instruction": run.inputs.task.instruction,
            "abstain": run.inputs.task.abstain,
            "choice": decision.choice,
            "headline": decision.headline,
        }
        write_json(folder / "bundle.json", note)

    folder_once(run.files.winner, fill)
