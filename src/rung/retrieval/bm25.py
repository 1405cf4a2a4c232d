"""Lexical search: BM25 over passages, by the bm25s library.

Where JAX is installed, bm25s would start it while it is imported, and JAX takes three quarters of a GPU's memory. So
bm25s is imported as if there were no JAX; the best passages are chosen with numpy here in any case.
Source: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009); Lù, BM25S (2024).
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rung.text import words
from rung.types import Document, Query, RetrieverSpec


def open_bm25(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> BM25:
    """The index over the passages; it is quick to build, so nothing is kept in the folder."""
    return BM25(passages)


class BM25:
    """An index over passages, built at once (about 0.1 s a thousand)."""

    def __init__(self, passages: Sequence[Document]) -> None:
        with _no_jax():
            import bm25s

        self.passages = tuple(passages)
        tokens = [words(f"{p.title}\n{p.text}" if p.title else p.text) for p in self.passages]
        self._index = bm25s.BM25() if any(tokens) else None  # a corpus without words has no index
        if self._index is not None:
            self._index.index(tokens, show_progress=False)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k best passages for the input of each query, best first; those that share no word with it are left out.

        Of equal passages the earlier one comes first, also where k cuts between them.
        """
        if self._index is None:
            return [[] for _ in queries]
        return [self._ranked(words(query.input), k) for query in queries]

    def _ranked(self, asked: list[str], k: int) -> list[Document]:
        import numpy as np

        assert self._index is not None
        known = [word for word in asked if word in self._index.vocab_dict]
        if not known or k <= 0:
            return []
        scores = self._index.get_scores(known)  # (passages,)
        # Only the scores that can be among the k best are sorted; equal ones stay in the order of the corpus.
        least = np.partition(scores, -k)[-k] if k < len(scores) else 0.0
        places = np.flatnonzero((scores >= least) & (scores > 0))
        best = places[np.argsort(-scores[places], kind="stable")[:k]]
        return [self.passages[int(place)] for place in best]


_importing = threading.Lock()


@contextmanager
def _no_jax() -> Iterator[None]:
    """Within: this thread cannot import JAX, also where it is imported already. Other threads can."""
    with _importing:
        real, here = builtins.__import__, threading.get_ident()

        def without_jax(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == "jax" and threading.get_ident() == here:
                raise ImportError("JAX is kept off the GPU")
            return real(name, *args, **kwargs)

        builtins.__import__ = without_jax
        try:
            yield
        finally:
            builtins.__import__ = real
