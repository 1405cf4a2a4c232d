"""`rung report`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.errors import RunError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Show the verdict of RUN and write its report.html afresh."""
    import sys

    from rich.console import Console

    from rung.api import Run
    from rung.report.terminal import final_screen

    if not (run / "task.json").is_file():
        raise RunError(f"{run}: not a run folder (no task.json). Name a folder that rung run wrote, as runs/NAME.")
    if not (run / "decision.json").is_file():
        raise RunError(f"{run}: not finished, there is no verdict yet. Give the same rung run command again.")
    Run(run).report()
    Console(file=sys.stdout).print(final_screen(run))
