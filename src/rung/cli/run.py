"""`rung run`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run folder. Default: runs/NAME.")
@click.option(
    "--only", metavar="NAMES", help="Strategies to try, by commas: zero_shot,constrained,few_shot,rag,lora,rag_lora."
)
@click.option("--strict", is_flag=True, help="Stop when the data checks warn, before anything is spent.")
def run(task: Path, out: Path | None, only: str | None, strict: bool) -> None:
    """Find out, on your own TASK (a task.yaml), whether to prompt, retrieve or fine-tune.

    Tries the strategies that apply, cheapest first, opens the sealed test once, and leaves a folder
    with the verdict, a report and the winner ready to use. Interrupted at any moment, the same
    command continues where it stopped.
    """
    from rung.cli.climb import climb

    climb(task, out=out, only=tuple(name.strip() for name in (only or "").split(",") if name.strip()), strict=strict)
