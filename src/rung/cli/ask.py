"""`rung ask`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rung.errors import RunError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--solution", help="Another solution of the run than its winner.")
@click.option("--verbose", is_flag=True, help="Also show passages, tokens and time.")
def ask(run: Path, text: str | None, solution: str | None, verbose: bool) -> None:
    """Answer TEXT with the winner of RUN, a run folder or its winner/ folder.

    Without TEXT, one input a line is read from standard input.
    """
    from rung.serving.bundle import open_bundle

    try:
        lines = [text] if text is not None else [line.rstrip("\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        fact = f"standard input is not {error.encoding} ({error.reason})"
        raise RunError(f"{fact}. Convert it; one input a line.") from None
    questions = [line for line in lines if line.strip()]
    if not questions:
        raise RunError('nothing to answer: give the input, as in rung ask RUN "text", or one a line on standard input.')
    bundle = open_bundle(run, solution=solution, say=lambda line: click.echo(line, err=True))
    failed = 0
    for number, prediction in enumerate(bundle.answer(questions), 1):
        if prediction.error:
            failed += 1
            click.echo(f"rung: input {number}: {prediction.error}.", err=True)
        click.echo(prediction.text)
        if verbose:
            seen = f", passages {', '.join(prediction.passages)}" if prediction.passages else ""
            click.echo(
                f"  [{bundle.solution.name}: {prediction.tokens_in} tokens in, {prediction.tokens_out} out, "
                f"{prediction.latency_s:.2f} s{seen}]",
                err=True,
            )
    if failed:
        raise RunError(
            f"{failed} of {len(questions)} inputs could not be answered; their lines are empty. Shorten those."
        )
