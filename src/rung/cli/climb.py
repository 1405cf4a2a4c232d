"""What `run` and `demo` share: climb with a live line, write the report, print the verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rung.ladder.options import RunOptions


def climb(task: Path, options: RunOptions) -> Path:
    """Runs the task and prints the verdict. Returns the run folder."""
    from rich.console import Console

    from rung import api
    from rung.report.terminal import TerminalListener, final_screen

    with TerminalListener(Console(stderr=True)) as listener:
        run = api.run(task, options, listener=listener)
    run.report()
    Console(file=sys.stdout).print(final_screen(run.folder))
    return run.folder
