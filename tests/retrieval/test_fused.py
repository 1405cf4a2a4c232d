from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hashed_embedder import Hashed
from rung.retrieval import INDEXES, embedders, open_index
from rung.retrieval.fused import DEPTH, Fused
from rung.types import Document, Query, RetrieverSpec

PASSAGES = tuple(Document(f"d{i}", f"text {i}") for i in range(8))


class Ranks:
    """Always the same ranking."""

    def __init__(self, *places: int) -> None:
        self.places, self.asked, self.told = places, 0, 0

    def prepare(self, tell: Callable[[str, float], None]) -> None:
        self.told += 1

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        self.asked = k
        return [[PASSAGES[i] for i in self.places[:k]] for _ in queries]


def ids(index: Fused, k: int) -> list[str]:
    return [d.id for d in index.search([Query("q", "x")], k)[0]]


def test_ranks_are_those_of_the_formula() -> None:
    index = Fused([Ranks(0, 1, 2), Ranks(2, 3, 0, 1)], PASSAGES)
    scores = {0: 1 / 61 + 1 / 63, 1: 1 / 62 + 1 / 64, 2: 1 / 63 + 1 / 61, 3: 1 / 62}
    assert ids(index, 8) == [f"d{i}" for i in sorted(scores, key=lambda i: (-scores[i], i))]
    assert ids(index, 2) == ["d0", "d2"]  # which are equal: the earlier comes first
    assert ids(index, 0) == []


def test_each_ranking_is_asked_for_deep_enough_and_prepared() -> None:
    one, other = Ranks(0), Ranks(1)
    index = Fused([one, other], PASSAGES)
    index.prepare(lambda what, share: None)
    index.search([Query("q", "x")], 3)
    assert (one.asked, other.asked, one.told, other.told) == (DEPTH, DEPTH, 1, 1)
    index.search([Query("q", "x")], 300)
    assert one.asked == 600


def test_a_spec_fuses_a_lexical_and_a_dense_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedders.EMBEDDERS, "hashed", lambda name, folder: Hashed())
    passages = (Document("a", "replacing cards"), Document("b", "boats"), Document("c", "cards"))
    index = open_index(RetrieverSpec("fused", 2, 100, stem="english", embedder="hashed"), passages)
    assert [d.id for d in index.search([Query("q", "cards")], 3)[0]] == ["c", "a", "b"]
    assert isinstance(index, Fused)
    lexical = open_index(RetrieverSpec("bm25", 5, 300, stem="english"), passages)
    assert index.searches[0] is lexical  # one index serves both
    assert open_index(RetrieverSpec("bm25", 5, 300), passages) is not lexical
    assert set(INDEXES) >= {"bm25", "dense", "fused"}
