"""`rung report`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.cli.as_json import json_option
from rung.errors import RunError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def report(run: Path, as_json: bool) -> int:
    """Show the verdict of RUN and write its report.html afresh."""
    from rung.cli.climb import print_verdict

    if not (run / "task.json").is_file():
        raise RunError(f"{run}: not a run folder (no task.json). Name a folder that rung run wrote, as runs/NAME.")
    if not (run / "decision.json").is_file():
        raise RunError(f"{run}: not finished, there is no verdict yet. Give the same rung run command again.")
    return print_verdict(run, as_json=as_json)
