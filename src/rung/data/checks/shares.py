"""Rows in which something was seen -> findings: one for each row, or one note where too many rows have it.

What half of the data hold is what the data are like, and no fault of single rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rung.types import Example, Finding


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row that holds what a check looks for. place: where in it."""

    check: str
    example: Example
    place: str


LEAST_FOR_SHARE = 20
"""Rows that must hold something before it counts as what the data are like."""


def told(
    seen: Iterable[SeenRow],
    rows: int,
    what: Mapping[str, tuple[str, str]],
    many: float,
    notes: frozenset[str] = frozenset(),
) -> Iterator[Finding]:
    """The findings about rows in which something was seen.

    rows: number of all. what: check -> (what is held, what to do). many: share of rows from which one note tells it.
    notes: checks of which a single row is a note, too.
    """
    by_check: dict[str, list[SeenRow]] = defaultdict(list)
    for one in seen:
        by_check[one.check].append(one)
    for check, ones in by_check.items():
        severity: Literal["warning", "note"] = "note" if check in notes else "warning"
        held, todo = what[check]
        ids = tuple(dict.fromkeys(one.example.id for one in ones))
        if len(ids) >= LEAST_FOR_SHARE and len(ids) >= many * rows:
            share = f"{len(ids):,} of {rows:,} rows hold {held}. That is too many to be an accident"
            yield Finding(check, "note", "", f"{share}; if it is not meant: {todo[0].lower()}{todo[1:]}", ids)
            continue
        places: dict[str, list[SeenRow]] = defaultdict(list)
        for one in ones:
            places[one.example.id].append(one)
        for own in places.values():
            named = list(dict.fromkeys(one.place for one in own))
            where, holds = " and the ".join(named), "holds" if len(named) == 1 else "hold"
            example = own[0].example
            yield Finding(check, severity, example.row, f"The {where} {holds} {held}. {todo}", (example.id,))
