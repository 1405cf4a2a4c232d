from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.errors import ModelError
from rung.retrieval import open_index
from rung.retrieval.rerank import DEPTH, CrossEncoder, Reranked
from rung.types import Document, Query, RetrieverSpec
from small_berts import save_cross_encoder

PASSAGES = tuple(Document(f"d{i}", "x" * (i % 5), title="T" if i == 3 else None) for i in range(DEPTH + 20))


class First:
    """The passages in order."""

    asked = 0

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        self.asked = k
        return [list(PASSAGES[:k]) for _ in queries]


class Longest:
    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [len(text) for text in texts]


def test_the_first_hits_are_ordered_by_their_scores_and_equal_ones_keep_their_order() -> None:
    first = First()
    found = Reranked(first, Longest()).search([Query("q", "?")], 4)[0]
    assert first.asked == DEPTH
    assert [d.id for d in found] == ["d3", "d4", "d9", "d14"]  # the title of d3 counts
    assert Reranked(first, Longest()).search([Query("q", "?")], 0) == [[]]
    assert len(Reranked(first, Longest()).search([Query("q", "?")], DEPTH + 10)[0]) == DEPTH + 10


def test_hits_that_were_ordered_before_for_a_query_are_ordered_once_until_it_is_to_forget() -> None:
    asked: list[str] = []

    class Counted(Longest):
        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            asked.append(query)
            return super().scores(query, texts)

    search, queries = Reranked(First(), Counted()), [Query("q", "one"), Query("r", "two"), Query("s", "one")]
    first = search.search(queries, 4)
    assert search.search(queries[:1], 2) == [first[0][:2]] and asked == ["one", "two"]
    search.search(queries[:1], DEPTH + 10)
    assert asked == ["one", "two", "one"], "it has other hits to order"
    search.forget_queries()
    assert search.search(queries, 4) == first and asked[3:] == ["one", "two"]


class Dropped(dict[Any, Any]):
    """Another thread lets go of all of it as soon as something was looked up."""

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def get(self, key: Any, default: Any = None) -> Any:
        found = super().get(key, default)
        self.clear()
        return found


def test_an_order_that_another_thread_lets_go_of_is_not_missed() -> None:
    search, query = Reranked(First(), Longest()), Query("q", "?")
    search._orders = Dropped()
    assert search.search([query], 4) == search.search([query], 4)


def test_scores_are_those_of_the_model_whatever_stands_beside_a_text(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    model = save_cross_encoder(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["red cards", "blue", "boats at sea " * 20, ""]
    expected = []
    for text in texts:
        tokens = tokenizer(["cards"], [text], truncation="longest_first", max_length=32, return_tensors="pt")
        with torch.no_grad():
            expected.append(float(model(**tokens).logits[0, 0]))
    assert CrossEncoder(str(tmp_path)).scores("cards", texts) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["bm25"])
def test_a_spec_names_a_cross_encoder(tmp_path: Path, kind: str) -> None:
    save_cross_encoder(tmp_path)
    passages = (Document("a", "red cards"), Document("b", "cards at sea"), Document("c", "cards"))
    spec = RetrieverSpec(kind, 2, 100, reranker=str(tmp_path))
    scores = CrossEncoder(str(tmp_path)).scores("cards", [p.text for p in passages])
    found = open_index(spec, passages).search([Query("q", "cards")], 3)[0]
    assert [d.id for d in found] == [passages[i].id for i in sorted(range(3), key=lambda i: -scores[i])]


def test_the_model_as_reranker_is_no_part_of_the_index() -> None:
    index: Any = open_index(RetrieverSpec("bm25", 2, 100, reranker="model"), PASSAGES[:3])
    assert not isinstance(index, Reranked)


def test_a_model_with_several_labels_is_no_cross_encoder(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path, labels=3)
    with pytest.raises(ModelError, match=r"it has 3 labels where a cross-encoder has one score"):
        CrossEncoder(str(tmp_path))


def test_a_folder_without_a_model_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read as a cross-encoder"):
        CrossEncoder(str(tmp_path))
