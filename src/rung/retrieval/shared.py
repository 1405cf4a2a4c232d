"""What indexes have in common: one that several searches stand on, long work that others wait for and hear of, and the
best of all scores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from rung.types import Document, Retriever, Tell

_WAIT_S = 1.0  # between two looks at the lock of another process


class _Index(Protocol):
    @property
    def passages(self) -> Sequence[Document]: ...


Index = TypeVar("Index", bound=_Index)

_alive: WeakValueDictionary[tuple[Hashable, ...], Any] = WeakValueDictionary()
_opening = threading.RLock()


def shared(passages: Sequence[Document], how: tuple[Hashable, ...], make: Callable[[], Index]) -> Index:
    """The index over these very passages that was made in the same way and is still in use; else what `make` returns.

    how: all that decides what is made. The index holds the passages, so that no others can take their place.
    """
    if not isinstance(passages, tuple):  # a list may change
        return make()
    with _opening:
        key = (id(passages), *how)
        found: Index | None = _alive.get(key)
        if found is None:
            found = make()
            assert found.passages is passages
            _alive[key] = found
        return found


def prepare(search: Retriever, tell: Tell) -> None:
    """Does the long work of opening a search, where it has some: it then has a method of this name."""
    if (work := getattr(search, "prepare", None)) is not None:
        work(tell)


def forget_queries(search: Retriever) -> None:
    """Lets go of what an index keeps of queries, so that each is searched for afresh: where time is taken."""
    if (forget := getattr(search, "forget_queries", None)) is not None:
        forget()


@contextmanager
def alone(lock: Path, told: Callable[[], None]) -> Iterator[None]:
    """Within: no other process holds the lock. told: called about once a second while one does; may raise."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    while True:
        try:
            held.acquire(timeout=_WAIT_S)
            break
        except Timeout:
            told()
    try:
        yield
    finally:
        held.release()


def best_places(scores: Any, k: int, above: float = -math.inf) -> list[int]:
    """Places of the k best scores that lie above a bound, the best first; of equal ones, the earlier first.

    scores: (n,). k: from 1.
    """
    import numpy as np

    # Only the scores that can be among the k best are sorted.
    least = np.partition(scores, -k)[-k] if k < len(scores) else -math.inf
    places = np.flatnonzero((scores >= least) & (scores > above))
    return [int(place) for place in places[np.argsort(-scores[places], kind="stable")[:k]]]
