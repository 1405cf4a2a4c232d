"""What the checks read: the examples, by set and all together, with their near-duplicates, and the documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rung.data.examples import Sets
from rung.data.near_duplicates import Pairs
from rung.types import Constraint, Document, Example, Finding, Task


@dataclass(frozen=True)
class Material:
    """Everything a check may look at.

    sets: as the files name them ({None: …} where rung makes the split). examples: all of them, in file order. pairs:
    near-duplicates among `examples`, by position. groups: example id -> the group that it is kept with. test: ids of
    the examples in the test; None: as `sets` say, and where they do not say, every example may come to be tested.
    """

    task: Task
    sets: Sets
    examples: tuple[Example, ...]
    pairs: Pairs = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()
    constraint: Constraint | None = None
    test: frozenset[str] | None = None

    @property
    def tested(self) -> frozenset[str]:
        """Ids of the examples that are known to be in the test."""
        return frozenset(e.id for e in self.sets.get("test", ())) if self.test is None else self.test

    @property
    def readable(self) -> tuple[Example, ...]:
        """The examples whose words may be shown: those of train and dev."""
        if self.test is not None:
            return tuple(e for e in self.examples if e.id not in self.test)
        return tuple(e for name, part in self.sets.items() if name in ("train", "dev") for e in part)


Detector = Callable[[Material], Iterable[Finding]]
"""A check. It yields its findings in the order of the rows, and never raises."""
