"""Examples written as rows of a shape, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rung.data.shapes.recognising import SHAPES
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
                        left_out[name] = None
                    else:
                        row[name] = value
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as e:
        raise DataError(f"{path}: cannot be written ({e.strerror}). Choose a folder of yours.") from e
    return tuple(left_out)
