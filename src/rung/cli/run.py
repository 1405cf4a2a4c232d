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
@click.option("--exhaustive", is_flag=True, help="Build every strategy in full, whatever it can be expected to bring.")
def run(task: Path, out: Path | None, only: str | None, strict: bool, exhaustive: bool) -> None:
    """Find out, on your own TASK (a task.yaml), whether to prompt, retrieve or fine-tune.

    Prompts first, then finds out by experiment why they fail, then tries what can be expected to mend
    that. Opens the sealed test once, and leaves a folder with the verdict, a report and the winner ready
    to use. Interrupted at any moment, the same
    command continues where it stopped.
    """
    from rung.cli.climb import climb

    names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
    climb(task, out=out, only=names, strict=strict, exhaustive=exhaustive)
