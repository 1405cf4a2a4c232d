"""Lexical search: BM25 over passages, by the bm25s library.

Where JAX is installed, bm25s would start it while it is imported, and JAX takes three quarters of a GPU's memory. So
bm25s is imported as if there were no JAX; the best passages are chosen with numpy here in any case.
Source: Robertson & Zaragoza, The Probabilistic Relevance Framework (2009); Lù, BM25S (2024).
"""

from __future__ import annotations

import builtins
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rung import text
from rung.resume import folder_once
from rung.retrieval import stemming
from rung.retrieval.passages import PassageFile, searched
from rung.retrieval.shared import best_places, shared
from rung.text import words
from rung.types import Document, Query, RetrieverSpec

KEPT_FROM = 20_000
"""Passages from which on an index is kept on disk: to read it is then quicker than to build it."""


def open_bm25(spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None = None) -> BM25:
    """The index over the passages, by the stems of spec.stem. A large one is kept in the folder."""
    return shared(passages, ("bm25", spec.stem, folder), lambda: BM25(passages, stem=spec.stem, folder=folder))


class BM25:
    """An index over passages, built at once (about 0.1 s a thousand) or read from the folder."""

    def __init__(self, passages: Sequence[Document], *, stem: str = "", folder: Path | None = None) -> None:
        """stem: the language whose endings are left out; empty: none. folder: where a large index is kept by its
        content, for all runs. Raises TaskError for a language without a stemmer."""
        self.passages = passages if isinstance(passages, PassageFile) else tuple(passages)
        self._stemmed = stemming.stemmer(stem)
        self._stemming = threading.Lock()
        kept = folder is not None and len(self.passages) >= KEPT_FROM
        self._index = self._read_or_built(folder / "bm25", stem) if kept and folder is not None else self._built()

    def _built(self) -> Any:
        """None for a corpus without words."""
        bm25s = _bm25s()
        vocabulary: dict[str, int] = {}
        number: dict[str, int] = {}  # word -> number of its stem
        ids: list[list[int]] = []
        for passage in self.passages:
            row: list[int] = []
            for word in words(searched(passage)):
                known = number.get(word)
                if known is None:
                    known = number[word] = vocabulary.setdefault(self._stemmed(word), len(vocabulary))
                row.append(known)
            ids.append(row)
        if not vocabulary:
            return None
        index = bm25s.BM25()
        index.index((ids, vocabulary), show_progress=False)
        return index

    def _read_or_built(self, folder: Path, stem: str) -> Any:
        """The index from the folder, where one process at a time builds it. A folder that fails is done without."""
        from filelock import FileLock

        bm25s = _bm25s()
        version = stemming.version() if stem else ""
        content = hashlib.sha256(f"{bm25s.__version__} {text.NORMAL_FORM} {stem} {version}".encode())
        for passage in self.passages:
            encoded = searched(passage).encode("utf-8", "surrogatepass")
            content.update(len(encoded).to_bytes(8, "little") + encoded)
        path = folder / content.hexdigest()[:24]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.is_dir():
                    built = self._built()
                    if built is None:
                        return None
                    folder_once(path, lambda scratch: built.save(scratch, show_progress=False))
                return bm25s.BM25.load(path, mmap=True)
        except (OSError, ValueError):  # a full disk, a torn file
            return self._built()

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        """The k best passages for the input of each query, best first; those that share no word with it are left out.

        Of equal passages the earlier one comes first, also where k cuts between them.
        """
        if self._index is None:
            return [[] for _ in queries]
        return [self._ranked(self._asked(query.input), k) for query in queries]

    def _asked(self, query: str) -> list[str]:
        with self._stemming:
            return [self._stemmed(word) for word in words(query)]

    def _ranked(self, asked: list[str], k: int) -> list[Document]:
        assert self._index is not None
        known = [word for word in asked if word in self._index.vocab_dict]
        if not known or k <= 0:
            return []
        scores = self._index.get_scores(known)  # (passages,)
        return [self.passages[place] for place in best_places(scores, k, above=0.0)]


def _bm25s() -> Any:
    with _no_jax():
        import bm25s

    return bm25s


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
