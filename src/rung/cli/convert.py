"""`rung convert`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rung.cli.as_json import json_option, print_json
from rung.errors import DataError

if TYPE_CHECKING:
    from rung.data.shapes.converting import Converted

SHAPES = ("messages", "prompt_completion", "alpaca", "sharegpt", "columns")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "shape", type=click.Choice(SHAPES), required=True, help="The shape of the rows to write.")
@click.option("--field", "fields", multiple=True, metavar="NAME=COLUMN", help="Which column is input, output, … .")
@click.option("--shape", "own", metavar="SHAPE", help="The shape of the rows of DATA, where they do not say it.")
@click.option("--empty", is_flag=True, help="An answer may be empty: there is nothing to say.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@json_option
def convert(
    data: Path,
    out: Path,
    shape: str,
    fields: tuple[str, ...],
    own: str | None,
    empty: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Write the rows of DATA as JSONL rows of another shape to OUT.

    Ids, groups, contexts, references, earlier turns and instructions are kept, and so are other columns. Several
    labels of a row are written as a JSON list.
    """
    from rung.data.shapes import convert as convert_rows

    if out.exists() and not force:
        raise DataError(f"{out}: is there already. Use --force to replace it.")
    if out.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError(f"{out}: rows are written as JSONL. Give it a name that ends in .jsonl.")
    done = convert_rows(data, shape, out, field_pairs(fields), own, empty)
    if as_json:
        return print_json(_record(done, out, shape))
    click.echo(f"{done.rows:,} rows of {data.name} ({done.reading.shape}) written to {out} as {shape}.")
    if done.reading.why:
        click.echo(f"Read so: {done.reading.why}.")
    if done.reading.several:
        click.echo(f"Each answer is written as a JSON list of labels: {done.reading.several.why}.")
    if done.kept:
        click.echo(f"Kept beside: {', '.join(done.kept)}.")
    if done.cut:
        click.echo(f"Left out: the turns after the last answer, in {done.cut:,} rows.")
    if done.left_out:
        click.echo(f"Left out, as {shape} uses these names: {', '.join(done.left_out)}. Rename them to keep them.")
    return 0


def _record(done: Converted, out: Path, shape: str) -> dict[str, Any]:
    return {
        "out": str(out),
        "shape": shape,
        "rows": done.rows,
        "read_as": done.reading.shape,
        "fields": done.reading.fields,
        "why": done.reading.why,
        "several_labels": done.reading.several is not None,
        "kept": list(done.kept),
        "left_out": list(done.left_out),
        "cut": done.cut,
    }


def field_pairs(fields: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """--field input=a,b -> {"input": ("a", "b")}"""
    from rung.data.task_keys import FIELDS

    found: dict[str, str | tuple[str, ...]] = {}
    for text in fields:
        name, _, column = text.partition("=")
        if name not in FIELDS or not column:
            raise click.UsageError(f"--field {text}: write NAME=COLUMN; the names are {', '.join(FIELDS)}.")
        columns = tuple(c.strip() for c in column.split(","))
        found[name] = columns[0] if len(columns) == 1 else columns
    return found
