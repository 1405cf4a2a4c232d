"""Lexical search: BM25 over passages, by the bm25s library.

Source: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009); Lù, BM25S (2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rung.types import Document

# bm25s' own pattern drops one-character words, which are often the whole point ("class B", "7").
_WORDS = r"(?u)\b\w+\b"


class BM25:
    """An index over passages, built at once (about 0.1 s a thousand)."""

    def __init__(self, passages: Sequence[Document]) -> None:
        import bm25s

        self.passages = tuple(passages)
        texts = [f"{p.title}\n{p.text}" if p.title else p.text for p in self.passages]
        self._index = bm25s.BM25()
        self._index.index(self._tokens(texts), show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[list[Document]]:
        """The k best passages of each query, best first; passages that share no word with it are left out."""
        if not queries:
            return []
        k = min(k, len(self.passages))
        found, scores = self._index.retrieve(self._tokens(list(queries)), k=k, show_progress=False)
        return [self._ranked(places, points) for places, points in zip(found, scores, strict=True)]

    def _ranked(self, places: Iterable[int], scores: Iterable[float]) -> list[Document]:
        ranked = sorted(zip(places, scores, strict=True), key=lambda hit: (-hit[1], hit[0]))
        return [self.passages[int(place)] for place, score in ranked if score > 0]

    @staticmethod
    def _tokens(texts: list[str]) -> list[list[str]]:
        import bm25s

        tokens: list[list[str]] = bm25s.tokenize(
            texts, token_pattern=_WORDS, stopwords=None, return_ids=False, show_progress=False
        )
        return tokens
