"""`rung review`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.errors import DataError

if TYPE_CHECKING:
    from rung.data.beside.review import ReviewFile

_KEYS = "a accept   r reject   e edit the answer   s skip   b back   q quit"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--to-csv", "out", type=click.Path(path_type=Path), metavar="OUT", help="Write the rows for a spreadsheet."
)
@click.option(
    "--from-csv", "back", type=click.Path(path_type=Path), metavar="IN", help="Take the reviews of a CSV over."
)
@click.option("--force", is_flag=True, help="With --to-csv: replace OUT if it is there.")
def review(file: Path, out: Path | None, back: Path | None, force: bool) -> None:
    """Look at the rows of FILE, which rung synth wrote: accept, reject, or correct their answers.

    Row by row in the terminal, saved after each key; or in a spreadsheet, by --to-csv and --from-csv: write accepted,
    edited or rejected into the column review, and correct the column output. Rejected rows do not train.
    """
    from rung.data.beside.review import ReviewFile

    if out is not None and back is not None:
        raise click.UsageError("--to-csv writes and --from-csv reads. Give one of them.")
    rows = ReviewFile(file)
    if out is not None:
        if out.resolve() == file.resolve():
            raise DataError(f"{out}: holds the rows themselves. Give the CSV another name.")
        if out.exists() and not force:
            raise DataError(f"{out}: is there already. Use --force to replace it.")
        rows.to_csv(out)
        click.echo(f"Rows written to {out}: {len(rows.rows):,}. Fill in the column review, correct the column output.")
        click.echo(f"Then: rung review {shlex.quote(str(file))} --from-csv {shlex.quote(str(out))}")
        return
    if back is not None:
        returned = rows.from_csv(back)
        click.echo(f"Changed by {back}: {returned.changed:,} of {len(rows.rows):,} rows.")
        if returned.missing:
            click.echo(f"Not in it, and as they were: {returned.missing:,}.")
    else:
        _one_by_one(rows)
    click.echo(_counted(rows))


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
        key = click.getchar().lower()
        if key in ("q", "\x03", "\x04", "\x1b", ""):
            return
        at += _done(rows, places[at], key) if key != "b" else -min(1, at)


def _done(rows: ReviewFile, place: int, key: str) -> int:
    """Does what a key says. 1: the row is dealt with; 0: it is shown again."""
    if key == "a":
        rows.decide(place, "accepted")
    elif key == "r":
        rows.decide(place, "rejected")
    elif key == "e":
        text = _edited(str(rows.rows[place]["output"]))
        if text is None:
            return 0
        rows.decide(place, "edited", text)
    elif key != "s":
        click.echo(_KEYS)
        return 0
    return 1


def _edited(answer: str) -> str | None:
    """The answer as it is typed, or as the editor leaves it where it has several lines; None where it is the same or
    empty."""
    if "\n" in answer:
        text = click.edit(answer)
        text = None if text is None else text.removesuffix("\n")
    else:
        text = click.prompt("Answer", default=answer, show_default=False)
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
