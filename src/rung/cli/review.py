"""`rung review`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json
from rung.errors import DataError, TaskError

if TYPE_CHECKING:
    from rung.data.beside.review import ReviewFile
    from rung.types import Task

_MOST_LABELS = 60  # that are shown where an answer is edited
_KEYS = "a accept   r reject   e edit the answer   s skip   b back   q quit"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to-csv", "out", type=click.Path(path_type=Path), metavar="OUT", help="Write the rows for a spreadsheet."
)
@click.option(
    "--from-csv", "back", type=click.Path(path_type=Path), metavar="IN", help="Take the reviews of a CSV over."
)
@click.option(
    "--task",
    "task_path",
    type=click.Path(path_type=Path),
    metavar="TASK",
    help="The task that the rows are for. Default: task.yaml beside FILE.",
)
@click.option("--force", is_flag=True, help="With --to-csv: replace OUT if it is there.")
@json_option
def review(file: Path, out: Path | None, back: Path | None, task_path: Path | None, force: bool, as_json: bool) -> int:
    """Look at the rows of FILE, which rung synth wrote: accept, reject, or correct their answers.

    Row by row in the terminal, saved after each key; or in a spreadsheet, by --to-csv and --from-csv: write accepted,
    edited or rejected into the column review, and correct the column output. Rejected rows do not train. An answer that
    the task does not allow is refused. With --json no row is shown, and none is asked about: reviews are counted.
    """
    from rung.data.beside.review import ReviewFile

    if out is not None and back is not None:
        raise click.UsageError("--to-csv writes and --from-csv reads. Give one of them.")
    rows = ReviewFile(file, _task(file, task_path))
    if out is not None:
        if out.resolve() == file.resolve():
            raise DataError(f"{out}: holds the rows themselves. Give the CSV another name.")
        if out.exists() and not force:
            raise DataError(f"{out}: is there already. Use --force to replace it.")
        rows.to_csv(out)
        if as_json:
            return print_json({**_record(rows), "csv": str(out)})
        click.echo(f"Rows written to {out}: {len(rows.rows):,}. Fill in the column review, correct the column output.")
        click.echo(f"Then: rung review {shlex.quote(str(file))} --from-csv {shlex.quote(str(out))}")
        return 0
    if back is not None:
        returned = rows.from_csv(back)
        if as_json:
            return print_json({**_record(rows), "changed": returned.changed, "missing": returned.missing})
        click.echo(f"Changed by {back}: {returned.changed:,} of {len(rows.rows):,} rows.")
        if returned.missing:
            click.echo(f"Not in it, and as they were: {returned.missing:,}.")
    elif as_json:
        return print_json(_record(rows))
    else:
        _one_by_one(rows)
    click.echo(_counted(rows))
    return 0


def _record(rows: ReviewFile) -> dict[str, Any]:
    return {"file": str(rows.path), "rows": len(rows.rows), "counts": dict(rows.counts())}


def _task(file: Path, named: Path | None) -> Task | None:
    """The task that was named, or lies beside the file; None where there is none, or that one cannot be read."""
    from rung.data.task_file import read_task

    if named is not None:
        return read_task(named)
    beside = file.absolute().parent / "task.yaml"
    if not beside.is_file():
        return None
    try:
        return read_task(beside)
    except TaskError as fault:
        click.echo(f"Answers are not held against the task, which cannot be read: {fault}", err=True)
        return None


def _one_by_one(rows: ReviewFile) -> None:
    """The open rows in turn, until a q or the end."""
    places = rows.open
    if not places:
        click.echo("Every row has been reviewed.")
        return
    click.echo(_KEYS)
    at = 0
    while at < len(places):
        _show(rows.rows[places[at]], at + 1, len(places))
        key = _key(rows.path)
        if key in ("q", "\x03", "\x04", "\x1b", ""):
            return
        if key == "b" and at == 0:
            click.echo("This is the first row.")
        at += _done(rows, places[at], key) if key != "b" else -min(1, at)


def _key(file: Path) -> str:
    """The key that is pressed. Raises DataError where there is no terminal to press one in."""
    try:
        return click.getchar().lower()
    except OSError as fault:
        to_csv = f"rung review {shlex.quote(str(file))} --to-csv review.csv"
        raise DataError(f"{file}: here is no terminal that takes keys. Review in a spreadsheet: {to_csv}") from fault


def _done(rows: ReviewFile, place: int, key: str) -> int:
    """Does what a key says. 1: the row is dealt with; 0: it is shown again."""
    answer = str(rows.rows[place]["output"])
    if key == "a":
        if (fault := rows.fault(answer)) is not None:
            click.echo(f"Not accepted: {fault}.")
            return 0
        rows.decide(place, "accepted")
    elif key == "r":
        rows.decide(place, "rejected")
    elif key == "e":
        if rows.task is not None and rows.task.labels:
            click.echo(f"labels: {', '.join(rows.task.labels[:_MOST_LABELS])}{_more(len(rows.task.labels))}")
        text = _edited(answer)
        if text is None:
            return 0
        if (fault := rows.fault(text)) is not None:
            click.echo(f"Not saved: {fault}.")
            return 0
        rows.decide(place, "edited", text)
    elif key != "s":
        click.echo(_KEYS)
        return 0
    return 1


def _more(labels: int) -> str:
    return f" and {labels - _MOST_LABELS:,} more" if labels > _MOST_LABELS else ""


def _edited(answer: str) -> str | None:
    """The answer as it is typed, or as the editor leaves it where it has several lines; None where it is the same or
    empty."""
    if "\n" in answer:
        text = click.edit(answer)
        text = None if text is None else text.removesuffix("\n")
    else:
        text = click.prompt("Answer (Enter keeps it)", default=answer, show_default=False)
    if text is None or not text.strip() or text == answer:
        click.echo("The answer stays as it is.")
        return None
    return text


def _show(row: dict[str, Any], number: int, total: int) -> None:
    origin = row.get("origin") or {}
    votes = ", ".join(f"{answer} ({n})" for answer, n in (origin.get("votes") or {}).items())
    click.echo(_plainly(f"\n{number} of {total}   {row['id']}   {origin.get('kind', '')}"))
    for name in ("context", "instruction"):
        if row.get(name):
            click.echo(f"{name}: {_plainly(str(row[name]))}")
    for turn in row.get("turns") or ():
        click.echo(_plainly(f"{turn.get('role')}: {turn.get('content')}" if isinstance(turn, dict) else str(turn)))
    click.echo(f"input: {_plainly(str(row['input']))}")
    click.echo(f"answer: {_plainly(str(row['output']))}" + (f"   votes: {_plainly(votes)}" if votes else ""))


def _plainly(text: str) -> str:
    """Without characters that would steer the terminal."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def _counted(rows: ReviewFile) -> str:
    found = rows.counts()
    return ", ".join(f"{n:,} {name}" for name, n in found.items()) + "."
