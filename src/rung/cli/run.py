"""`rung run`."""

from __future__ import annotations

from pathlib import Path

import click

from rung.cli.as_json import json_option
from rung.cli.engine import engine_option
from rung.types import AnswersBy


def _strategies() -> str:
    from rung.strategies import STRATEGIES

    return ", ".join(STRATEGIES)


@click.command()
@click.argument("task", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run folder. Default: runs/NAME.")
@click.option("--only", metavar="NAMES", help=f"Strategies to try, separated by commas: {_strategies()}.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Budget of the run, all commands together."
)
@click.option("--calls", type=click.IntRange(min=1), help="Budget in answers of the model.")
@click.option("--usd", type=click.FloatRange(min=0, min_open=True), help="Budget in dollars; the task needs a price.")
@engine_option(None, "What computes answers, in the place of the task's: rung's own engine, or vLLM. rung trains.")
@click.option("--finish", is_flag=True, help="Try nothing more: open the sealed test for what there is, and decide.")
@click.option(
    "--again", is_flag=True, help="Try more in a finished run. For new finalists its test is opened once more."
)
@click.option("--strict", is_flag=True, help="Stop when the data checks warn, before anything is spent.")
@click.option("--exhaustive", is_flag=True, help="Build every strategy in full, whatever it can be expected to bring.")
@json_option
def run(
    task: Path,
    out: Path | None,
    only: str | None,
    minutes: float | None,
    calls: int | None,
    usd: float | None,
    engine: AnswersBy | None,
    finish: bool,
    again: bool,
    strict: bool,
    exhaustive: bool,
    as_json: bool,
) -> int:
    """Find out, on your own TASK (a task.yaml), whether to prompt, retrieve or fine-tune.

    Prompts come first. Then experiments show why they fail, and what can be expected to fix that is tried. The sealed
    test is opened once. The run leaves a folder with the verdict, a report and the winner ready to use.

    The same command continues a run that was interrupted, and a run whose budget kept it from trying something that
    matters, with a larger budget.
    """
    from rung.cli.climb import climb
    from rung.ladder.options import RunOptions

    names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
    if only is not None and not names:
        raise click.UsageError(f"--only names no strategy. The strategies are {_strategies()}.")
    return climb(
        task,
        RunOptions(
            out=out,
            only=names,
            strict=strict,
            exhaustive=exhaustive,
            minutes=minutes,
            calls=calls,
            usd=usd,
            engine=engine,
            finish=finish,
            again=again,
        ),
        as_json=as_json,
    )
