"""What keeps new rows away from dev and the sealed test: no row that a model wrote, or that it is to answer, may nearly
repeat one of these.

Tells only whether a text is too near. The texts of the test are inside and never come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.data.near_duplicates import near_duplicate_groups
from rung.types import Example, Query, SetName


@dataclass(frozen=True, repr=False)
class Fence:
    """The examples of a task by set, and whether other texts are near-duplicates of them."""

    _examples: tuple[Example, ...]
    _sets: dict[str, SetName]

    def near(self, queries: Sequence[Query]) -> list[SetName | None]:
        """For each query, the set that it is a near-duplicate of a row of; test before dev before train.

        Two queries that are near-duplicates of each other, and one of which is near a row, are both near it: groups of
        near-duplicates count whole, as they do in the split. None: it is near no row.
        """
        new = [_as_example(query, place) for place, query in enumerate(queries)]
        if not new:
            return []
        groups = near_duplicate_groups([*self._examples, *new])
        touched: dict[str, SetName] = {}
        order: tuple[SetName, ...] = ("train", "dev", "test")
        for name in order:  # the last one stays
            touched |= {groups[e.id]: name for e in self._examples if self._sets.get(e.id) == name}
        return [touched.get(groups[e.id]) for e in new]

    def __repr__(self) -> str:
        return f"Fence({len(self._examples)} examples)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a fence holds the sealed test and is not copied out")


def fence_of(examples: Sequence[Example], sets: dict[str, SetName]) -> Fence:
    """The fence around all examples of a task. sets: example id -> set; an example in none is kept away from, too."""
    return Fence(tuple(examples), sets)


def _as_example(query: Query, place: int) -> Example:
    """The ids of new rows may be those of examples; these may not."""
    return Example(
        f"\x00new {place}", query.input, "", (), context=query.context, instruction=query.instruction, turns=query.turns
    )
