"""What is asked in a file beside the examples: in which columns it stands, and under which ids."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rung.data.fence import Fence
from rung.data.formats import read_table
from rung.data.rows import Row, Table
from rung.data.sampling import sample_of
from rung.data.shapes import recognise
from rung.data.shapes.seam import Fields, by_key, key_of
from rung.data.shapes.values import listed
from rung.types import Query, Task

T = TypeVar("T")

_ASKS = ("input", "instruction", "context", "turns", "tools", "id")


@dataclass(frozen=True)
class AskedColumns:
    """How the first file of examples is read.

    fields: the columns of what is asked. same: its rows have one instruction in common, which the task's may hold.
    talks: its rows are whole conversations, without a column of answers.
    """

    fields: Fields
    same: bool
    talks: bool


def asked_in_examples(task: Task) -> AskedColumns:
    """Raises DataError as reading the examples does."""
    reading = recognise(read_table(task.example_files[0]), task.fields, task.shape)
    talks = not {"output", "references"} & set(reading.fields)
    return AskedColumns(asks(reading.fields), reading.instruction is not None, talks)


def asks(fields: Fields) -> Fields:
    """Of some fields those that say what is asked."""
    return {name: columns for name, columns in fields.items() if name in _ASKS}


def there(fields: Fields, columns: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """The fields whose columns a file has, with the names that it gives them."""
    known = by_key(columns)
    found: dict[str, str | tuple[str, ...]] = {}
    for name, several in fields.items():
        own = tuple(known[key_of(column)] for column in listed(several) if key_of(column) in known)
        if own and len(own) == len(listed(several)):
            found[name] = own[0] if isinstance(several, str) else own
    return found


def own_ids(prefix: str, ids: Iterable[str]) -> Iterator[str]:
    """The ids behind a prefix that examples do not have; of several that are alike, later ones get a number."""
    given: set[str] = set()
    for i in ids:
        own, number = i, 1
        while own in given:
            number += 1
            own = f"{i}#{number}"
        given.add(own)
        yield f"{prefix}{own}"


def columns_of(table: Table, rows: Sequence[Row]) -> list[str]:
    """The columns of a table and those of its rows that were taken apart."""
    return list(dict.fromkeys([*table.columns, *(column for row in rows[:1] for column in row.values)]))


@dataclass(frozen=True)
class Kept(Generic[T]):
    """The rows that may be used, in order, and how many of the others were left out.

    twice: they stand there twice. more: a training would not see them. near: what they ask nearly repeats a row of dev
    or of the test.
    """

    rows: list[T]
    twice: int
    more: int
    near: int

    def left_out(self, near: str) -> str:
        """What was left out, behind a semicolon; empty for nothing. near: "that nearly repeat", said of the rows."""
        left = [f"{self.twice:,} that stand there twice"] if self.twice else []
        left += [f"{self.more:,} that a training would not see"] if self.more else []
        left += [f"{self.near:,} {near} a row of dev or the test"] if self.near else []
        return f"; left out: {' and '.join(left)}" if left else ""


def kept_away(
    found: Sequence[T], same: Callable[[T], Hashable], asked: Callable[[T], Query], most: int, seed: int, fence: Fence
) -> Kept[T]:
    """Each row once, a fixed sample where they are more than `most`, and none of these that the fence is near to.

    same: equal for rows that are one. asked: what a row asks.
    """
    once = list({same(row): row for row in reversed(found)}.values())[::-1]
    some = sample_of(once, most, seed)
    queries = {asked(row).text: asked(row) for row in some}
    near = dict(zip(queries, fence.near(list(queries.values())), strict=True))
    rows = [row for row in some if near[asked(row).text] not in ("dev", "test")]
    return Kept(rows, len(found) - len(once), len(once) - len(some), len(some) - len(rows))
