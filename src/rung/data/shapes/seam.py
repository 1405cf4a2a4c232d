"""The seam where shapes plug in: what a shape looks at, what it claims, and how it writes rows.

Which columns hold what differs from shape to shape. How a value becomes text, turns or several answers does not:
`reading` does that for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rung.data.shapes.values import listed, missing, nothing
from rung.text import normal_form
from rung.types import Example

Fields = Mapping[str, str | tuple[str, ...]]
"""What an example needs -> the column that holds it, or several: `input`, `output`, `instruction`, `context`, …"""
Values = Mapping[str, object]
"""One row: column -> value."""

OPTIONAL = ("id", "group", "context", "gold_ids", "gold_by", "references", "turns")
"""Fields that a column of the same name holds, whatever the shape."""

LOOKED_AT = 200
"""Rows that decide about a shape."""
BY_GUESS, BY_NAME, BY_STANDARD_NAMES, BY_STRUCTURE = 1, 2, 3, 4
"""How sure a claim is. Of the claims of a file the surest count; claims that are equally sure are alternatives."""


@dataclass(frozen=True)
class Claim:
    """One way to read rows. fields: without the optional ones. why: a clause, for a comment."""

    sure: int
    fields: Fields
    why: str


def key_of(name: str) -> str:
    """A column's name by which it is found: case, spaces, hyphens and underscores aside."""
    return normal_form(name).replace(" ", "_").replace("-", "_")


def by_key(columns: Sequence[str]) -> dict[str, str]:
    """Key of a column -> the column; of several with one key the first."""
    return {key_of(c): c for c in reversed(columns)}


@dataclass(frozen=True)
class Sample:
    """What a shape may look at. chosen: the fields that the user named, as columns of the file."""

    columns: tuple[str, ...]
    rows: Sequence[Values]
    chosen: Fields = field(default_factory=dict)

    @cached_property
    def by_key(self) -> dict[str, str]:
        """Key -> the first column that has it, of those that the user did not name for something."""
        return by_key(self.free)

    @cached_property
    def free(self) -> tuple[str, ...]:
        """Columns with a name that the user did not name for anything."""
        taken = {c for several in self.chosen.values() for c in listed(several)}
        return tuple(c for c in self.columns if c.strip() and c not in taken)

    def column(self, *keys: str) -> str | None:
        """The first free column that has one of the keys, in the order of the keys."""
        return next((self.by_key[key] for key in keys if key in self.by_key), None)

    def values(self, column: str) -> list[object]:
        """What the first rows hold there, empty cells left out."""
        return [value for row in self.rows[:LOOKED_AT] if not _empty(value := row.get(column))]

    def empty(self, column: str) -> bool:
        """Whether no row at all holds anything there."""
        cells = (row.get(column) for row in self.rows)
        return all(_empty(value) or (isinstance(value, str) and missing(value)) for value in cells)

    def mostly(self, column: str, holds: Callable[[object], bool]) -> bool:
        """Whether at least nine of ten values, and one at least, are of a kind."""
        values = self.values(column)
        return bool(values) and sum(map(holds, values)) >= 0.9 * len(values)


def system_column(sample: Sample) -> str | None:
    """The column of what the system says, where one is free and some row holds something."""
    column = sample.column("system", "system_prompt", "system_message", "system_instruction", "systeminstruction")
    return None if column is None or sample.empty(column) else column


def _empty(value: object) -> bool:
    return nothing(value) or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True)
class RowShape:
    """A way in which rows hold examples. Adding one is a module and a line in SHAPES.

    recognise: claims about a file, the best first; none where the rows do not have this shape.
    rows: examples as rows of this shape; None where rows can be read only.
    flatten: a row that holds several rows -> these, and None for one that does not.
    """

    recognise: Callable[[Sample], Sequence[Claim]]
    rows: Callable[[Sequence[Example]], Iterable[dict[str, object]]] | None = None
    flatten: Callable[[Values], Iterable[Values] | None] | None = None
