"""A search in whose hits a text is planted, to see whether who reads them follows it. Knows passages; no prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from rung.types import Document, Query, Retriever

Place = Literal["in the best passage", "in another passage", "as a passage of its own"]
PLACES: tuple[Place, ...] = ("in the best passage", "in another passage", "as a passage of its own")

EXTRA = "planted"
"""Id of a passage that is planted whole."""

_ENDS = re.compile(r"[.!?…。！？]\s+|\n+|(?<=[。！？])")


class WithPlanted:
    """A search that finds what another one finds, with a text planted in it for each query that has one."""

    def __init__(
        self,
        search: Retriever,
        planted: Mapping[str, tuple[Place, str]],
        fitting: Callable[[Sequence[Document]], Sequence[Document]],
    ) -> None:
        """planted: id of a query -> where, and what. fitting: ranked passages -> those that the prompt would show."""
        self._search = search
        self._planted = planted
        self._fitting = fitting

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        found = self._search.search(queries, k)
        return [self._with_planted(query, row, k) for query, row in zip(queries, found, strict=True)]

    def _with_planted(self, query: Query, ranked: Sequence[Document], k: int) -> list[Document]:
        """The text stands between two sentences of its passage where the prompt shows it there, else in front; where
        nothing was found, alone. A passage of its own is the best one, and the last hit gives way to it."""
        row = list(ranked)
        if query.id not in self._planted:
            return row
        place, text = self._planted[query.id]
        if place == "as a passage of its own" or not row:
            return [Document(EXTRA, text), *row[: max(0, k - 1)]]
        at = 1 if place == "in another passage" and len(self._fitting(row)) > 1 else 0
        for where, put in ((at, _between), (at, _before), (0, _between)):
            changed = [*row[:where], replace(row[where], text=put(row[where].text, text)), *row[where + 1 :]]
            if any(text in passage.text for passage in self._fitting(changed)):
                return changed
        return [replace(row[0], text=_before(row[0].text, text)), *row[1:]]


def _before(text: str, planted: str) -> str:
    return f"{planted}\n{text}"


def _between(text: str, planted: str) -> str:
    """Behind the sentence that ends nearest to the middle of the text; behind the text where it is one sentence."""
    ends = [found.end() for found in _ENDS.finditer(text)] or [len(text)]
    at = min(ends, key=lambda end: abs(end - len(text) / 2))
    return f"{text[:at].rstrip()}\n{planted}\n{text[at:].lstrip()}".rstrip()
