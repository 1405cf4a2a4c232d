"""`rung ask`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json
from rung.cli.engine import engine_option
from rung.errors import RunError, came
from rung.types import AnswersBy, Message, Query

if TYPE_CHECKING:
    from rung.serving.bundle import Bundle
    from rung.types import Prediction


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--solution", help="Another solution of the run than its winner.")
@click.option("--base", metavar="MODEL", help="Where the base model lies, where that is not known here.")
@engine_option("local", "What computes the answer: rung's own engine, or vLLM.")
@click.option("--lines", is_flag=True, help="Take every line of standard input as an input of its own.")
@click.option("--context", metavar="TEXT", help="The context of the input, where the examples have one.")
@click.option("--instruction", metavar="TEXT", help="What this input asks for, where each example has its own.")
@click.option(
    "--messages",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A conversation instead of TEXT: a JSON list of {role, content} that ends with a user turn.",
)
@click.option("--verbose", is_flag=True, help="Also show passages, tokens and time.")
@json_option
def ask(
    run: Path,
    text: str | None,
    solution: str | None,
    base: str | None,
    engine: AnswersBy,
    lines: bool,
    context: str | None,
    instruction: str | None,
    messages: Path | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Answer TEXT with the winner of RUN, a run folder or its winner/ folder.

    Without TEXT, standard input is read to its end and is one input. With --lines, every line is one, and has one line
    of output: an empty line stays empty, and line breaks within an answer become blanks. Where the examples have a
    context or an instruction of their own, give them with --context and --instruction; they go with every input.
    A solution that cites has its sources below the answer, with --lines on standard error.
    """
    from rung.serving.bundle import open_bundle
    from rung.serving.conversation import query_of

    if messages is not None:
        if text is not None or lines or context is not None or instruction is not None:
            raise click.UsageError("--messages holds the whole input. Leave out TEXT and the options about it.")
        conversation = _conversation(messages)
        questions = [conversation[-1].content]
        asked = [Query("0", questions[0])] if questions[0].strip() else []
    else:
        questions = _questions(text, lines)
        asked = [Query(str(i), q, context, instruction) for i, q in enumerate(questions) if q.strip()]
    if not asked:
        raise RunError('there is nothing to answer. Give the input, as in rung ask RUN "text", or on standard input.')
    bundle = open_bundle(run, solution=solution, base=base, engine=engine, say=lambda line: click.echo(line, err=True))
    if messages is not None:
        query = query_of(conversation, (bundle.instruction, bundle.solution.instruction))
        assert query is not None  # it ends with a user turn
        asked = [query]
    notes = bundle.notes(asked) if messages is None else []
    for note in notes:
        click.echo(f"rung: --{note}", err=True)
    answered = bundle.answer(asked)
    if as_json:
        record = {**_record(bundle, asked, answered), "notes": notes}
        return print_json(record, 2 if any(p.error for p in answered) else 0)
    return _print_answers(bundle, questions, answered, lines=lines, verbose=verbose)


def _record(bundle: Bundle, asked: Sequence[Query], answered: Sequence[Prediction]) -> dict[str, Any]:
    """The answers, for programs, with all passages that their prompts showed."""
    return {
        "solution": bundle.solution.name,
        "model": bundle.model.name,
        "answers": [
            {
                "input": query.input,
                "text": prediction.text,
                "error": prediction.error,
                "finish": prediction.finish,
                "refused": bundle.refuses(prediction),
                "sources": [asdict(source) for source in bundle.sources(prediction)],
                "bad_citations": prediction.bad_citations,
                "tokens_in": prediction.tokens_in,
                "tokens_out": prediction.tokens_out,
                "latency_s": prediction.latency_s,
            }
            for query, prediction in zip(asked, answered, strict=True)
        ],
    }


def _print_answers(
    bundle: Bundle, questions: Sequence[str], answered: Sequence[Prediction], *, lines: bool, verbose: bool
) -> int:
    """Answers on standard output, what there is to say of them on standard error. answered: of the questions that are
    not empty. Raises RunError where one has no answer, or a broken one."""
    failed, broken, answers = 0, 0, iter(answered)
    for number, question in enumerate(questions, 1):
        if not question.strip():
            click.echo()
            continue
        prediction = next(answers)
        if prediction.error:
            broken += came(prediction.error)
            failed += not came(prediction.error)
            click.echo(f"rung: input {number}: {prediction.error}.", err=True)
        elif prediction.finish == "length":
            fact = f"the answer was cut at {prediction.tokens_out:,} tokens"
            room = "there is room for a quarter more than the longest usual answer, or for what the context leaves"
            click.echo(f"rung: input {number}: {fact}; {room}.", err=True)
        click.echo(" ".join(prediction.text.splitlines()) if lines else prediction.text)
        _tell_sources(bundle, prediction, number, lines=lines, verbose=verbose)
        if verbose:
            click.echo(_what_it_took(bundle.solution.name, prediction), err=True)
    if broken and not failed:
        raise RunError(f"{broken} of {len(answered)} answers break what the task says of answers, as said above.")
    if failed:
        raise RunError(
            f"{failed} of {len(answered)} inputs could not be answered; their answers are empty. Shorten these inputs."
        )
    return 0


def _what_it_took(solution: str, prediction: Prediction) -> str:
    seen = f", passages {', '.join(prediction.passages)}" if prediction.passages else ""
    tokens = f"{prediction.tokens_in} tokens in, {prediction.tokens_out} out"
    return f"  [{solution}: {tokens}, {prediction.latency_s:.2f} s{seen}]"


def _tell_sources(bundle: Bundle, prediction: Prediction, number: int, *, lines: bool, verbose: bool) -> None:
    """That it refuses, or what it names: below the answer, and with --lines on standard error, where each answer is one
    line. verbose: of a solution that does not cite, all passages that it read."""
    refuses, cites = bundle.refuses(prediction), bundle.solution.cite
    if refuses:
        click.echo(f"rung: input {number}: it says that there is no answer.", err=True)
    shown = bundle.sources(prediction) if cites or verbose else ()
    named = [s for s in shown if s.cited] if cites else []
    for source in named:
        click.echo(f"  {source.line}", err=lines)
    if cites and not refuses and not prediction.error and not named:
        click.echo(f"rung: input {number}: the answer names no source.", err=True)
    if prediction.bad_citations:
        what = "1 number that is" if prediction.bad_citations == 1 else f"{prediction.bad_citations} numbers that are"
        click.echo(f"rung: input {number}: the answer names {what} of no passage.", err=True)
    if verbose and not cites:
        for source in shown:
            click.echo(f"  {source.line}", err=True)


def _questions(text: str | None, lines: bool) -> list[str]:
    if text is not None and lines:
        raise click.UsageError("--lines reads standard input, and TEXT is given too. Leave one of them out.")
    try:
        given = text if text is not None else sys.stdin.read()
    except UnicodeDecodeError as error:
        fact = f"standard input is not {error.encoding} ({error.reason})"
        raise RunError(f"{fact}. Convert it to {error.encoding}.") from None
    return given.removesuffix("\n").split("\n") if lines else [given.rstrip("\n")]


def _conversation(path: Path) -> list[Message]:
    """The turns; the last one that is no system turn is a user's."""
    import json

    form = 'It must be a JSON list such as [{"role": "user", "content": "…"}] that ends with a user turn.'
    try:
        turns = json.loads(path.read_text("utf-8-sig"))
        found = [Message(turn["role"], turn["content"]) for turn in turns]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: no conversation can be read ({error}). {form}") from None
    roles = ("system", "user", "assistant")  # what is no text can be looked for in a tuple alone
    if (
        not found
        or found[-1].role != "user"
        or any(m.role not in roles or not isinstance(m.content, str) for m in found)
    ):
        raise RunError(f"{path}: no conversation that can be answered. {form}")
    return found
