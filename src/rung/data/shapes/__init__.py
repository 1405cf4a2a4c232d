"""Rows to examples, and back: which shape a file's rows have, and which columns hold what.

A shape is one module and one line in SHAPES. Knows columns and the values of rows; knows nothing of files' formats
(`rung.data.formats`) nor whether examples are good (`rung.data.checks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rung.data.rows import Row
from rung.types import Example

Fields = Mapping[str, str | tuple[str, ...]]
"""What an example needs -> the column that holds it, or several: `input`, `output`, `instruction`, `context`, …"""


@dataclass(frozen=True)
class Recognised:
    """How rows are read. `shape` and `fields` are what `shape:` and `fields:` of task.yaml may say.

    fields: complete, names of columns as the file writes them. why: one sentence for a comment. instruction: one that
    is the same in all rows, which is then the task's; None where there is none or rows differ. alternatives: other
    sensible readings, equally sure; `rung run` refuses to choose among them, `rung init` may ask.
    """

    shape: str
    fields: Fields
    why: str
    instruction: str | None = None
    alternatives: tuple[Recognised, ...] = field(default=())


def recognised(
    columns: Sequence[str], rows: Sequence[Row], fields: Fields | None = None, shape: str | None = None
) -> Recognised:
    """The shape of rows and the columns that hold what. fields, shape: those that the user chose; they win.

    Raises DataError when no shape fits, or a column that the user names is absent; it says the columns and what to
    write. Deterministic; looks at the first 200 rows (at all of them for `instruction`).
    """
    raise NotImplementedError


def answers_of(rows: Iterable[Row], reading: Recognised) -> list[str]:
    """The answer of each row as an example would hold it, "" where there is none: what init guesses labels from."""
    raise NotImplementedError


def write_rows(examples: Iterable[Example], shape: str, path: Path) -> tuple[str, ...]:
    """Write examples as JSONL rows of a shape (a name in SHAPES). Returns what the shape could not hold, in words."""
    raise NotImplementedError
