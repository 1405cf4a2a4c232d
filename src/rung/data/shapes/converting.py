"""Examples written as rows of a shape, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rung.data.formats import read_table
from rung.data.rows import Problem, raise_problems
from rung.data.shapes.reading import EmptyAnswer, RowReader
from rung.data.shapes.recognising import SHAPES, Recognised, flat, recognised
from rung.data.shapes.seam import Fields
from rung.data.shapes.values import nothing
from rung.errors import DataError
from rung.types import Example

WRITABLE = tuple(name for name, shape in SHAPES.items() if shape.rows is not None)
"""Shapes that can be written."""


def rows_of(examples: Sequence[Example], shape: str) -> Iterable[dict[str, object]]:
    """Examples as rows of a shape, which hold all that an example says. Raises DataError for a shape only read."""
    rows = SHAPES[shape].rows if shape in SHAPES else None
    if rows is None:
        raise DataError(f'rows cannot be written in the shape "{shape}". Use one of {", ".join(WRITABLE)}.')
    return rows(examples)


def write_rows(
    examples: Sequence[Example], shape: str, path: Path, beside: Sequence[Mapping[str, object]] | None = None
) -> tuple[str, ...]:
    """Write examples as JSONL rows of a shape (one of WRITABLE); reading the file gives the same examples.

    beside: further columns of each example's row, kept where the shape has no column of that name. Returns the columns
    that were left out. Raises DataError where the file cannot be written.
    """
    left_out: dict[str, None] = {}
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for i, row in enumerate(rows_of(examples, shape)):
                for name, value in beside[i].items() if beside else ():
                    if name in row:
                        if not (nothing(value) or value == ""):
                            left_out[name] = None
                    else:
                        row[name] = value
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as e:
        raise DataError(f"{path}: cannot be written ({e.strerror}). Choose a folder of yours.") from e
    return tuple(left_out)


@dataclass(frozen=True)
class Converted:
    """What became of a file. kept: columns beside the shape's own. left_out: those with a name that the shape uses.

    cut: rows with turns after the answer, which are left out.
    """

    rows: int
    reading: Recognised
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    cut: int


def convert(
    data: Path, shape: str, out: Path, fields: Fields | None = None, own: str | None = None, empty: bool = False
) -> Converted:
    """Write the rows of a file in another shape; every column that the reading does not use is kept beside it.

    Answers that are several labels each are written as JSON lists. fields, own: how the file is to be read, where its
    rows do not say it. empty: an answer may be empty. Raises DataError, also for every row that cannot be read, before
    anything is written.
    """
    table = read_table(data)
    reading = recognised(table.columns, table.rows, fields, own)
    if reading.alternatives:
        ways = "\n".join(f"  {r.as_options} ({r.why})" for r in (reading, *reading.alternatives))
        raise DataError(
            f"{data.name}: can be read in {len(reading.alternatives) + 1} ways. Say which is meant:\n{ways}"
        )
    read = RowReader(reading.fields, reading.answers(empty=empty))
    examples, beside, problems, hinted = [], [], list(table.problems), False
    for row in flat(table.rows):
        try:
            examples.append(read(row))
        except EmptyAnswer as e:
            hint = "" if hinted else "; where nothing is the right answer, write --empty"
            problems.append(Problem(row.where, f"{e}{hint}"))
            hinted = True
        except ValueError as e:
            problems.append(Problem(row.where, str(e)))
        else:
            beside.append({name: value for name, value in row.values.items() if name not in reading.used})
    raise_problems(problems)
    left_out = write_rows(examples, shape, out, beside)
    kept = dict.fromkeys(name for more in beside for name in more if name not in left_out)
    return Converted(len(examples), reading, tuple(kept), left_out, read.left_out)
