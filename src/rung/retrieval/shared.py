"""Indexes that several searches stand on: while one holds an index, the others get the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from rung.types import Document


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
