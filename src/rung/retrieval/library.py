"""The documents of a task as passages of each size, and the indexes over them; each is made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rung.retrieval import open_index
from rung.retrieval.chunk import chunk
from rung.retrieval.gold import GoldIndex
from rung.retrieval.shared import prepare
from rung.types import Document, Retriever, RetrieverSpec, Tell


class Library:
    """What is searched. A spec says how documents are cut and which index finds the passages."""

    def __init__(
        self,
        documents: Sequence[Document] = (),
        *,
        count_tokens: Callable[[str], int] | None = None,
        folder: Path | None = None,
    ) -> None:
        """count_tokens: of a text, by which passages are cut where the spec says their tokens. folder: where indexes
        may be kept, by their content, for any run; None: nowhere."""
        self._documents = tuple(documents)
        self._count_tokens = count_tokens
        self._folder = folder
        self._cut: dict[tuple[int, int], tuple[Document, ...]] = {}
        self._gold: dict[tuple[int, int], GoldIndex] = {}
        self._opened: dict[RetrieverSpec, Retriever] = {}

    @property
    def documents(self) -> tuple[Document, ...]:
        return self._documents

    def passages(self, spec: RetrieverSpec | None = None) -> tuple[Document, ...]:
        """The documents cut as the spec says; None: as they are cut where nothing is chosen."""
        size = _size(spec)
        if size not in self._cut:
            tokens, overlap = size
            assert not tokens or self._count_tokens is not None, "passages of so many tokens need a model that counts"
            self._cut[size] = chunk(
                self._documents, tokens=tokens, overlap=overlap, count_tokens=self._count_tokens if tokens else None
            )
        return self._cut[size]

    def search(self, spec: RetrieverSpec) -> Retriever:
        """The index that the spec names, over the passages that it says."""
        key = _key(spec)
        if key not in self._opened:
            self._opened[key] = open_index(spec, self.passages(spec), self._folder)
        return self._opened[key]

    def prepare(self, spec: RetrieverSpec, tell: Tell) -> None:
        """Does the long work of opening that index, where it has some, and tells how far it is; tell may raise, and
        what was done until then is kept."""
        prepare(self.search(spec), tell)

    def gold(self, spec: RetrieverSpec | None = None) -> GoldIndex:
        """The passages of that size by their marks."""
        size = _size(spec)
        if size not in self._gold:
            self._gold[size] = GoldIndex(self.passages(spec), self.passages())
        return self._gold[size]

    def keep_only(self, specs: Sequence[RetrieverSpec]) -> None:
        """Lets go of all other indexes, and of what was cut for them; what is asked for again is made again."""
        sizes = {_size(None), *map(_size, specs)}
        self._opened = {key: opened for spec in specs if (opened := self._opened.get(key := _key(spec))) is not None}
        self._cut = {size: passages for size, passages in self._cut.items() if size in sizes}
        self._gold = {size: gold for size, gold in self._gold.items() if size in sizes}


class SearchedBy(Library):
    """Passages as they are given, searched by one retriever whatever a spec names."""

    def __init__(self, passages: Sequence[Document], retriever: Retriever) -> None:
        super().__init__(passages)
        self._given = retriever

    def passages(self, spec: RetrieverSpec | None = None) -> tuple[Document, ...]:
        return self._documents

    def search(self, spec: RetrieverSpec) -> Retriever:
        return self._given


def _size(spec: RetrieverSpec | None) -> tuple[int, int]:
    return (0, 0) if spec is None else (spec.tokens, spec.overlap)


def _key(spec: RetrieverSpec) -> RetrieverSpec:
    """What decides which index it is: a model that answers orders passages elsewhere."""
    return replace(spec, k=0, token_budget=0, query="input", fenced=False, reranker=spec.cross_encoder)
