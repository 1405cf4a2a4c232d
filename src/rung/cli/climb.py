"""What `run` and `demo` share: climb with a live line, write the report, print the verdict."""

from __future__ import annotations

import sys
from pathlib import Path


def climb(
    task: Path, *, out: Path | None, only: tuple[str, ...] = (), strict: bool = False, exhaustive: bool = False
) -> Path:
    """Runs the task and prints the verdict. Returns the run folder."""
    from rich.console import Console

    from rung.ladder import RunOptions, run, test_examples
    from rung.report.html import write_report
    from rung.report.terminal import TerminalListener, final_screen

    with TerminalListener(Console(stderr=True)) as listener:
        folder = run(task, RunOptions(out, only, strict, exhaustive), listener)
    write_report(folder, test_examples(folder))
    Console(file=sys.stdout).print(final_screen(folder))
    return folder
