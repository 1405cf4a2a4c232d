"""`rung demo`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.cli.as_json import json_option, print_json


@click.command()
@click.argument("name", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="The run folder. Default: runs/NAME.")
@click.option("--list", "list_", is_flag=True, help="List the demos and stop.")
@json_option
def demo(name: str | None, out: Path | None, list_: bool, as_json: bool) -> int:
    """Run a ready-made task about an invented business. NAME is one of the demos; --list names them.

    The task's files are copied to demo-NAME/ here, to be read and changed.
    """
    from rung.demos import DEMOS, copy_demo

    if list_ and as_json:
        return print_json({"demos": [{"name": key, "what": what} for key, what in DEMOS.items()]})
    if list_:
        for key, what in DEMOS.items():
            click.echo(f"{key:<10} {what}")
        return 0
    from rung.cli.climb import climb
    from rung.ladder.options import RunOptions

    name = name or next(iter(DEMOS))
    return climb(copy_demo(name, Path(f"demo-{name}")), RunOptions(out=out), as_json=as_json)
