"""Documents are cut and indexed once for each way that asks for it, and let go of when no way does."""

from __future__ import annotations

import weakref
from dataclasses import replace

from rung.retrieval.library import Library
from rung.retrieval.ways import dearness
from rung.types import Document, RetrieverSpec

BM25 = RetrieverSpec("bm25", 3, 600)
SMALL = replace(BM25, tokens=32, overlap=4)
DOCUMENTS = [Document(f"d{i}", f"Thing {i} is here. " * 40) for i in range(3)]


def test_what_is_not_kept_is_let_go_and_made_again_when_it_is_asked_for() -> None:
    library = Library(DOCUMENTS, count_tokens=lambda text: len(text.split()))
    usual, small, gold, first = library.passages(), library.passages(SMALL), library.gold(SMALL), library.search(SMALL)
    second = weakref.ref(library.search(replace(BM25, stem="english")))
    assert library.search(replace(SMALL, k=9, query="rewritten", reranker="model", fenced=True)) is first
    library.keep_only([SMALL])
    assert library.search(SMALL) is first and library.gold(SMALL) is gold and library.passages(SMALL) is small
    assert second() is None, "its memory is free"
    library.keep_only([])
    assert library.passages() is usual, "as documents are cut where nothing is chosen"
    assert library.passages(SMALL) is not small and library.passages(SMALL) == small


def test_ways_that_take_less_come_first() -> None:
    dense = replace(BM25, kind="dense", embedder="minilm")
    ways = [replace(BM25, reranker="a/b"), replace(dense, kind="fused"), dense, replace(BM25, stem="english")]
    assert [w.kind for w in sorted(ways, key=dearness)] == ["bm25", "dense", "fused", "bm25"]
