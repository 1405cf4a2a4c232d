"""What keeps new rows away from dev and the sealed test: no row that a model wrote, or that it is to answer, may nearly
repeat one of these.

Tells only whether a text is too near. The texts of the test are inside and never come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.data.near_duplicates import near_duplicate_groups
from rung.types import Example, Query, SetName, Split

_LEAST_PART = 5
"""Texts compared at once, at least: fewer than may quote one text and still count as quoting it."""
_PART_OF = 40
"""One new text at most for so many rows, so that new texts alone make no wording common."""


@dataclass(frozen=True, repr=False)
class Fence:
    """The examples of a task, train and dev by set, and whether other texts are near-duplicates of them."""

    _examples: tuple[Example, ...]
    _sets: dict[str, SetName]

    def near(self, queries: Sequence[Query]) -> list[SetName | None]:
        """For each query, the set that it is a near-duplicate of a row of; test before dev before train.

        None: it is near no row. Queries are compared in parts: what so many texts share that it says nothing of any of
        them is then what the rows share, and not what a model wrote again and again.
        """
        size = max(_LEAST_PART, len(self._examples) // _PART_OF)
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        return [found for part in parts for found in self._near(part)]

    def _near(self, queries: Sequence[Query]) -> list[SetName | None]:
        new = [_as_example(query, place) for place, query in enumerate(queries)]
        groups = near_duplicate_groups([*self._examples, *new])
        touched: dict[str, SetName] = {}
        order: tuple[SetName, ...] = ("train", "dev", "test")
        for name in order:  # the last one stays
            touched |= {groups[e.id]: name for e in self._examples if self._sets.get(e.id, "test") == name}
        return [touched.get(groups[e.id]) for e in new]

    def __repr__(self) -> str:
        return f"Fence({len(self._examples)} examples)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a fence holds the sealed test and is not copied out")


def fence_of(examples: Sequence[Example], split: Split) -> Fence:
    """The fence around all examples of a task. What the split has in no set counts as a row of the test."""
    sets: dict[str, SetName] = {e.id: "dev" for e in split.dev}
    sets.update({e.id: "train" for e in split.train})
    return Fence(tuple(examples), sets)


def _as_example(query: Query, place: int) -> Example:
    """The ids of new rows may be those of examples; these may not."""
    return Example(
        f"\x00new {place}", query.input, "", (), context=query.context, instruction=query.instruction, turns=query.turns
    )
