"""`rung mcp`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("."),
    help="The folder that all paths lie in. Default: the current one.",
)
def mcp(root: Path) -> None:
    """Offer rung to coding agents, by the Model Context Protocol on standard input and output.

    The tools are check, run, status, report and ask. A run that an agent begins goes on when this server ends. Paths
    outside of the folder are refused, data that a task names included; a task with a metric in Python runs that code.
    Needs the extra mcp: pip install 'rung[mcp]'.
    """
    from rung.serving.mcp_server import serve_mcp

    serve_mcp(root)
