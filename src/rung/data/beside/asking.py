"""What is asked in a file beside the examples: in which columns it stands, and under which ids."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rung.data.formats import read_table
from rung.data.shapes import recognise
from rung.data.shapes.seam import Fields, key_of
from rung.data.shapes.values import listed
from rung.types import Task

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
    by_key = {key_of(column): column for column in reversed(columns)}
    found: dict[str, str | tuple[str, ...]] = {}
    for name, several in fields.items():
        own = tuple(by_key[key_of(column)] for column in listed(several) if key_of(column) in by_key)
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


def sample_of(rows: Sequence[T], most: int, seed: int) -> list[T]:
    """A fixed sample in the order of the rows; all of them where they are no more than that."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), most))]
