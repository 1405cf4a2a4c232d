"""What `run`, `demo` and `report` share: climb with a live line, write the report, print the verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rung.ladder.options import RunOptions


def climb(task: Path, options: RunOptions, *, as_json: bool = False) -> int:
    """Runs the task and prints the verdict. Returns the exit code."""
    from rich.console import Console

    from rung import api
    from rung.report.terminal import TerminalListener

    with TerminalListener(Console(stderr=True)) as listener:
        run = api.run(task, options, listener=listener)
    return print_verdict(run.folder, as_json=as_json)


def print_verdict(folder: Path, *, as_json: bool) -> int:
    """Writes the report of a run with a verdict, and prints the verdict. Returns the exit code."""
    from rung.api import Run

    report = Run(folder).report()
    for line in _damage(folder):
        print(f"rung: {line}", file=sys.stderr)
    if as_json:
        from rung.cli.as_json import print_json

        return print_json(verdict_record(folder, report))
    from rich.console import Console

    from rung.report.terminal import final_screen

    Console(file=sys.stdout).print(final_screen(folder))
    return 0


def _damage(folder: Path) -> list[str]:
    """A line on each damaged record that stops no report, and one on a winner that cannot be asked."""
    from rung.errors import RunError
    from rung.report.reading import damage_beside
    from rung.serving.bundle import checked_note

    said = damage_beside(folder)
    try:
        checked_note(folder / "winner")
    except RunError as error:
        said.append(str(error))
    return said


def verdict_record(folder: Path, report: Path) -> dict[str, Any]:
    """A run with a verdict, for programs. decision: as in decision.json."""
    from rung.runs import verdict_of

    winner = folder / "winner"
    return {
        "run": str(folder),
        "report": str(report),
        "winner": str(winner) if (winner / "bundle.json").is_file() else None,
        "decision": verdict_of(folder),
    }
