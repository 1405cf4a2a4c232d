"""`rung init`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json
from rung.errors import DataError
from rung.types import Example

if TYPE_CHECKING:
    from rung.data.init import TriedDraft

_LONGEST = 600  # characters of one turn on the screen
_LINES = 14  # and lines of it
_TURNS = 5  # of an example
_LABELS = 12  # in a column
MOST_QUESTIONS = 2


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--docs", metavar="PATH", help="Documents to search: a folder, or a file of rows with a text.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--force", is_flag=True, help="Replace a task.yaml that is there.")
@click.option("--field", "fields", multiple=True, metavar="NAME=COLUMN", help="Which column is input, output, … .")
@click.option("--shape", metavar="NAME", help="How rows are read, where that is not recognised.")
@json_option
def init(
    data: tuple[str, ...],
    docs: str | None,
    yes: bool,
    force: bool,
    fields: tuple[str, ...],
    shape: str | None,
    as_json: bool,
) -> int:
    """Write a commented task.yaml beside DATA: files of rows, folders, globs or hf:NAME.

    Columns, labels, schema and metric are guessed from the data; every guess says why, and is yours to change. The
    task is read back with all its rows, so that it runs as it is, or says which rows to correct. Files named train,
    dev and test stay apart. Where there are documents, those that hold the answers are marked in a copy of the rows. A
    name that begins with - is written ./-name. With --json nothing is asked.
    """
    from rung.cli.convert import field_pairs
    from rung.cli.init_gold import mark_gold
    from rung.data.init import draft_task, try_draft

    ask = None if yes or as_json or not sys.stdin.isatty() else _Questions()
    draft = draft_task(
        data, docs=docs, fields=field_pairs(fields), shape=shape, ask=ask, say=lambda line: click.echo(line, err=True)
    )
    trial = mark_gold(try_draft(draft, force=force), ask, force)
    if as_json:
        return print_json(_record(trial), 0 if trial.problem is None else 2)
    notes = {f"# {note}" for note in trial.draft.notes}  # printed below
    lines = [line for line in trial.draft.text.rstrip().split("\n") if line not in notes]
    click.echo("\n".join(_without_many_labels(lines)))
    for note in (*trial.draft.notes, trial.note):
        if note:
            click.echo(f"- {note}", err=True)
    path = shlex.quote(_short(trial.path))
    if trial.problem is not None:
        raise DataError(
            f"{path} is written, but it cannot run on its data yet:\n{trial.problem}\nThen: rung check {path}"
        )
    assert trial.task is not None
    _show(trial.task.instruction, trial.examples)
    click.echo(f"\nWritten to {path}. Read it, and put your own instruction in. Then:", err=True)
    click.echo(f"  rung check {path}\n  rung run {path}", err=True)
    return 0


def _record(trial: TriedDraft) -> dict[str, Any]:
    """The task that is written, and what keeps it from running."""
    task = trial.task
    return {
        "task": str(trial.path),
        "yaml": trial.draft.text,
        "notes": [note for note in (*trial.draft.notes, trial.note) if note],
        "problem": trial.problem,
        "metric": task and task.metric,
        "labels": list(task.labels) if task is not None and task.labels else None,
        "rows": len(trial.every),
        "examples": [{"input": e.input, "output": e.output} for e in trial.examples],
    }


def _without_many_labels(lines: Sequence[str]) -> list[str]:
    """The lines of a task, of many labels the first ones: the file has all."""
    labels = [i for i, line in enumerate(lines) if line.startswith("  - ")]
    if len(labels) <= _LABELS + 1:
        return list(lines)
    first, last = labels[_LABELS], labels[-1]
    return [*lines[:first], f"  # … {last - first + 1} more labels in the file", *lines[last + 1 :]]


class _Questions:
    """Asks on the terminal, at most two questions; then the first reply is taken."""

    def __init__(self) -> None:
        self._asked = 0

    def __call__(self, question: str, replies: Sequence[str]) -> int:
        self._asked += 1
        if self._asked > MOST_QUESTIONS:
            return 0
        click.echo(question, err=True)
        for number, reply in enumerate(replies, 1):
            click.echo(f"  {number}  {reply}", err=True)
        chosen: int = click.prompt("Which", type=click.IntRange(1, len(replies)), default=1, err=True)
        return chosen - 1


def _show(instruction: str, examples: Sequence[Example]) -> None:
    """Some examples as the model will see them, without demos and passages."""
    from rung.solutions.prompt_rendering import render
    from rung.types import Decoding, Solution

    solution = Solution("init", instruction, Decoding(1))
    for number, example in enumerate(examples, 1):
        click.echo(f"\nExample {number} of {len(examples)}, as the model will see it:", err=True)
        system, *turns = render(solution, example.query)
        _say(system.role, "(as above)" if number > 1 else system.content)
        if len(turns) > _TURNS:
            _say("…", f"({len(turns) - _TURNS} earlier turns)")
        for turn in turns[-_TURNS:]:
            _say(turn.role, turn.content)
        _say("answer", example.output)


def _say(role: str, text: str) -> None:
    """A turn, with the middle of a long text left out: what is asked often stands at its end."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST * 2 // 3]} … ({len(text)} characters) … {text[-_LONGEST // 3 :]}"
    printed = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    first, *more = printed.split("\n")
    if len(more) > _LINES:
        more = [*more[: _LINES // 2], f"… ({len(more) - _LINES} lines) …", *more[-_LINES // 2 :]]
    for head, line in ((f"  {role:<9} ", first), *((" " * 12, line) for line in more)):
        click.echo((head + line).rstrip(), err=True)


def _short(path: Path) -> str:
    """A path for a command, relative where it is below the current folder."""
    here = Path.cwd()
    short = str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
    return f"./{short}" if short.startswith("-") else short
