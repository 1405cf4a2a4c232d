"""Dense search: the passages whose embeddings are nearest to that of the query, by an exact search.

Every passage is compared: nothing is approximated, and nothing has to be built beyond the embeddings, which are kept
by content for all runs. Knows nothing of models; an embedder says what is near.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rung.retrieval.embedders import Embedder, embedders_here, open_embedder
from rung.retrieval.embeddings import Embeddings
from rung.retrieval.passages import PassageFile, searched
from rung.retrieval.shared import best_places, shared
from rung.types import Document, Query, RetrieverSpec, Tell

_IN_MEMORY_BYTES = 512 * 2**20
"""Vectors up to so many bytes, as float32, are held in memory; more are read from the disk for each search."""
_ROWS_AT_ONCE = 65_536
_SCORES_AT_ONCE = 2**26
"""Cosines in memory at once, as float32: of so many fewer queries, the more vectors there are."""
_QUERIES_AT_ONCE = 256
_KNOWN_QUERIES = 20_000
_DECIMALS = 6  # differences beyond are of rounding; equal scores are ranked by position


def open_dense(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> Dense:
    """The index over the passages by spec.embedder; an empty name is the first one that is here."""
    name = spec.embedder or next(iter(embedders_here()), "minilm")
    return shared(passages, ("dense", name, folder), lambda: Dense(open_embedder(name, folder), passages, folder))


class Dense:
    """An index over passages. `prepare` embeds them; without it, the first search does."""

    def __init__(self, embedder: Embedder, passages: Sequence[Document], folder: Path | None = None) -> None:
        self.passages = passages if isinstance(passages, PassageFile) else tuple(passages)
        self._embedder = embedder
        self._folder = folder
        self._parts: list[tuple[Any, Any]] | None = None  # (vectors (rows, d), their rows or None for all)
        self._vector_of: Any = None  # passage -> place of its vector among those of all parts, (passages,)
        self._queries: dict[str, Any] = {}
        self._working = threading.Lock()

    def prepare(self, tell: Tell) -> None:
        """Embeds the passages that no run has embedded yet, in steps. What `tell` raises goes through."""
        import numpy as np

        with self._working:
            if self._parts is not None or not self.passages:
                return
            texts = [searched(passage) for passage in self.passages]
            kept = Embeddings(self._embedder, self._folder)  # knows all texts that any run embedded: not held
            kept.add(texts, tell)
            places = sorted(set(rows := kept.rows(texts)))  # one for each text: of equal texts, scores are equal
            order = {place: i for i, place in enumerate(places)}
            self._vector_of = np.array([order[place] for place in rows])
            of_block: dict[int, list[int]] = {}
            for block, row in places:
                of_block.setdefault(block, []).append(row)
            self._parts = [(kept.block(block), np.array(found)) for block, found in of_block.items()]
            if len(places) * self._embedder.dimensions * 4 <= _IN_MEMORY_BYTES:
                held = np.concatenate([vectors[of].astype(np.float32) for vectors, of in self._parts])
                self._parts = [(held, None)]

    def forget_queries(self) -> None:
        with self._working:
            self._queries = {}

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k nearest passages to the input of each query, nearest first; of equal ones, the earlier first."""
        return self.search_texts([query.input for query in queries], k)

    def search_texts(self, texts: Sequence[str], k: int) -> list[list[Document]]:
        if not self.passages or k <= 0:
            return [[] for _ in texts]
        self.prepare(lambda what, share: None)
        found: list[list[Document]] = []
        at_once = max(1, min(_QUERIES_AT_ONCE, _SCORES_AT_ONCE // len(self.passages)))
        for start in range(0, len(texts), at_once):
            some = texts[start : start + at_once]
            for text, row in zip(some, self._scores(self._embedded(some)), strict=True):
                places = best_places(row[self._vector_of], k) if text.strip() else []
                found.append([self.passages[place] for place in places])
        return found

    def _embedded(self, texts: Sequence[str]) -> Any:
        """Vectors of queries, float32, (n, d); those asked before are known. Each is embedded by itself, since a batch
        changes the last digits: what was measured on many is what one alone gets."""
        import numpy as np

        with self._working:
            new = [text for text in dict.fromkeys(texts) if text not in self._queries]
            if len(self._queries) + len(new) > _KNOWN_QUERIES:
                self._queries, new = {}, list(dict.fromkeys(texts))
            self._queries.update((text, self._embedder.embed([text], query=True)[0]) for text in new)
            return np.stack([self._queries[text] for text in texts])

    def _scores(self, asked: Any) -> Any:
        """Cosines, (queries, vectors)."""
        import numpy as np

        assert self._parts is not None
        scores = []
        for vectors, of in self._parts:
            rows = len(vectors) if of is None else len(of)
            for start in range(0, rows, _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                block = vectors[part] if of is None else vectors[of[part]].astype(np.float32)
                scores.append(asked @ block.T)
        return np.round(np.concatenate(scores, axis=1), _DECIMALS)
