"""`rung init`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.errors import TaskError


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace a task.yaml that is there.")
def init(data: Path, force: bool) -> None:
    """Write a commented task.yaml beside DATA (a .jsonl or .csv file, or a folder that holds one).

    Columns, labels and metric are guessed from the data; every guess says why, and is yours to change.
    """
    from rung.data.guess import guess_task

    text = guess_task(data)
    path = (data if data.is_dir() else data.parent) / "task.yaml"
    if path.exists() and not force:
        raise TaskError(f"{path}: is there already. Use --force to replace it.")
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise TaskError(f"{path}: cannot be written ({error.strerror}). Copy the data to a folder of yours.") from None
    click.echo(text.rstrip())
    click.echo(f"\nWritten to {path}. Read it, put your own instruction in, then: rung run {path}", err=True)
