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
@click.option("--lines", is_flag=True, help="Take every line of standard input as an input of its own.")
@click.option("--verbose", is_flag=True, help="Also show passages, tokens and time.")
def ask(run: Path, text: str | None, solution: str | None, lines: bool, verbose: bool) -> None:
    """Answer TEXT with the winner of RUN, a run folder or its winner/ folder.

    Without TEXT, standard input is read to its end and is one input. With --lines, every line is one, and has one line
    of output: an empty line stays empty, and line breaks within an answer become blanks.
    """
    from rung.serving.bundle import open_bundle

    if text is not None and lines:
        raise click.UsageError("--lines reads standard input, and TEXT is given too. Leave one of them out.")
    try:
        given = text if text is not None else sys.stdin.read()
    except UnicodeDecodeError as error:
        fact = f"standard input is not {error.encoding} ({error.reason})"
        raise RunError(f"{fact}. Convert it to {error.encoding}.") from None
    questions = given.removesuffix("\n").split("\n") if lines else [given.rstrip("\n")]
    asked = [question for question in questions if question.strip()]
    if not asked:
        raise RunError('there is nothing to answer. Give the input, as in rung ask RUN "text", or on standard input.')
    bundle = open_bundle(run, solution=solution, say=lambda line: click.echo(line, err=True))
    failed, answers = 0, iter(bundle.answer(asked))
    for number, question in enumerate(questions, 1):
        if not question.strip():
            click.echo()
            continue
        prediction = next(answers)
        if prediction.error:
            failed += 1
            click.echo(f"rung: input {number}: {prediction.error}.", err=True)
        click.echo(" ".join(prediction.text.splitlines()) if lines else prediction.text)
        if verbose:
            seen = f", passages {', '.join(prediction.passages)}" if prediction.passages else ""
            click.echo(
                f"  [{bundle.solution.name}: {prediction.tokens_in} tokens in, {prediction.tokens_out} out, "
                f"{prediction.latency_s:.2f} s{seen}]",
                err=True,
            )
    if failed:
        raise RunError(
            f"{failed} of {len(asked)} inputs could not be answered; their answers are empty. Shorten these inputs."
        )
