"""`rung report`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.cli.as_json import json_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def report(run: Path, as_json: bool) -> int:
    """Show the verdict of RUN and write its report.html afresh."""
    from rung.cli.climb import print_verdict
    from rung.runs import verdict_of

    verdict_of(run)
    return print_verdict(run, as_json=as_json)
