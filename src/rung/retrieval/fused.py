"""Fused search: a lexical and a dense ranking of the same passages, made one by reciprocal rank.

Source: Cormack, Clarke & Büttcher, Reciprocal rank fusion outperforms Condorcet (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rung.retrieval.shared import forget_queries, prepare
from rung.types import Document, Query, Retriever, RetrieverSpec, Tell

RANK_CONSTANT = 60
"""k of the formula, as in the source."""
DEPTH = 100
"""Passages at least that each ranking is asked for."""


def open_fused(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> Fused:
    """BM25 with spec.stem and the dense search with spec.embedder, fused."""
    from rung.retrieval import open_index

    kinds = ("bm25", "dense")
    return Fused([open_index(replace(spec, kind=kind, reranker=""), passages, folder) for kind in kinds], passages)


class Fused:
    """Several searches as one, by `by_reciprocal_rank`."""

    def __init__(self, searches: Sequence[Retriever], passages: Sequence[Document]) -> None:
        self.searches = tuple(searches)
        self._passages = passages
        self._place_of = {passage.id: place for place, passage in enumerate(passages)}

    def prepare(self, tell: Tell) -> None:
        for search in self.searches:
            prepare(search, tell)

    def forget_queries(self) -> None:
        for search in self.searches:
            forget_queries(search)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k best passages of each query; of equal ones, the earlier in the corpus first."""
        if k <= 0:
            return [[] for _ in queries]
        rankings = [search.search(queries, max(DEPTH, 2 * k)) for search in self.searches]
        return [self._fused(rows, k) for rows in zip(*rankings, strict=True)]

    def _fused(self, rankings: Sequence[Sequence[Document]], k: int) -> list[Document]:
        places = by_reciprocal_rank([[self._place_of[passage.id] for passage in ranking] for ranking in rankings])
        return [self._passages[place] for place in places[:k]]


def by_reciprocal_rank(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Places in the corpus as one ranking: each scores the sum of 1 / (60 + its rank) over the rankings that hold it;
    of equal ones, the earlier comes first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] = scores.get(place, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores, key=lambda place: (-scores[place], place))
