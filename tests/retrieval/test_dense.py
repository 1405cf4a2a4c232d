from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashed_embedder import Hashed
from rung.retrieval import dense, embedders, open_index
from rung.retrieval.dense import Dense
from rung.retrieval.embedders import register_embedder
from rung.retrieval.passages import PassageFile, write_passages
from rung.types import Document, Query, RetrieverSpec

TEXTS = ("red cards", "blue boats at sea", "red boats", "cards", "nothing of that kind", "red cards")
PASSAGES = tuple(Document(f"d{i}", text) for i, text in enumerate(TEXTS))


def ids(index: Any, text: str, k: int = 10) -> list[str]:
    return [d.id for d in index.search([Query("q", text)], k)[0]]


def by_hand(embedder: Hashed, text: str, k: int) -> list[str]:
    vectors = embedder.embed([f"{p.title}\n{p.text}" if p.title else p.text for p in PASSAGES])
    cosines = np.round(vectors.astype("<f2").astype(float) @ embedder.embed([text])[0], 5)
    return [PASSAGES[i].id for i in np.argsort(-cosines, kind="stable")[:k]]


@pytest.mark.parametrize("k", [1, 3, 6, 50])
@pytest.mark.parametrize("text", ["red boats", "cards", "sea of cards"])
def test_ranks_are_those_of_the_cosines_and_equal_ones_keep_their_position(text: str, k: int) -> None:
    assert ids(Dense(Hashed(), PASSAGES), text, k) == by_hand(Hashed(), text, k)


def test_vectors_read_from_the_disk_in_blocks_give_the_same_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(dense, "_ROWS_AT_ONCE", 2)
    monkeypatch.setattr(dense, "_QUERIES_AT_ONCE", 2)
    first = Dense(Hashed(), PASSAGES[:3], tmp_path)
    assert ids(first, "boats", 1) == ["d2"]
    both = Dense(Hashed(), PASSAGES, tmp_path)
    queries = [Query(t, t) for t in ("red boats", "cards", "sea of cards", "red", "red boats")]
    found = [[d.id for d in row] for row in both.search(queries, 4)]
    assert found == [by_hand(Hashed(), q.input, 4) for q in queries]


def test_many_queries_are_compared_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_SCORES_AT_ONCE", 2 * len(PASSAGES))
    index, real = Dense(Hashed(), PASSAGES), Dense._scores
    sizes: list[int] = []

    def noted(self: Dense, asked: Any) -> Any:
        sizes.append(len(asked))
        return real(self, asked)

    monkeypatch.setattr(Dense, "_scores", noted)
    found = index.search([Query(f"q{i}", t) for i, t in enumerate(TEXTS)], 3)
    assert sizes == [2, 2, 2]
    assert [[d.id for d in row] for row in found] == [by_hand(Hashed(), t, 3) for t in TEXTS]


def test_passages_in_a_file_are_searched_from_it(tmp_path: Path) -> None:
    write_passages(tmp_path / "p.jsonl", PASSAGES)
    index = Dense(Hashed(), PassageFile(tmp_path / "p.jsonl"), tmp_path)
    assert ids(index, "red boats") == by_hand(Hashed(), "red boats", 10)
    assert isinstance(index.passages, PassageFile)


def test_the_title_is_embedded_too() -> None:
    index = Dense(Hashed(), [Document("a", "It is red."), Document("b", "It is blue.", title="Sky")])
    assert ids(index, "sky", 1) == ["b"]


@pytest.mark.parametrize("query", ["", "  ", "\n"])
def test_an_empty_query_finds_nothing(query: str) -> None:
    assert ids(Dense(Hashed(), PASSAGES), query) == []


def test_no_passages_and_no_room_find_nothing() -> None:
    assert ids(Dense(Hashed(), []), "red") == []
    assert ids(Dense(Hashed(), PASSAGES), "red", 0) == []
    assert Dense(Hashed(), PASSAGES).search([], 3) == []


def test_a_query_that_was_asked_before_is_not_embedded_again() -> None:
    embedder = Hashed()
    index = Dense(embedder, PASSAGES)
    assert index.search([Query("1", "red"), Query("2", "red")], 1) == index.search([Query("3", "red")], 1) * 2
    assert embedder.texts.count("red") == 1


def test_a_query_is_embedded_by_itself_so_that_many_are_found_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, sizes = Hashed(), []
    embed = embedder.embed

    def noted(texts: Sequence[str], query: bool = False) -> Any:
        if query:
            sizes.append(len(texts))
        return embed(texts, query)

    monkeypatch.setattr(embedder, "embed", noted)
    Dense(embedder, PASSAGES).search([Query(t, t) for t in ("red", "sea", "cards")], 2)
    assert sizes == [1, 1, 1]


def test_passages_are_embedded_once_for_all_indexes_in_a_folder(tmp_path: Path) -> None:
    embedder = Hashed()
    Dense(embedder, PASSAGES[:4], tmp_path).prepare(lambda what, share: None)
    Dense(embedder, PASSAGES, tmp_path).prepare(lambda what, share: None)
    assert sorted(embedder.texts) == sorted(set(TEXTS))


def test_a_spec_names_the_embedder_and_the_folder_is_its_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "EMBEDDERS", dict(embedders.EMBEDDERS))
    asked = []

    def opened(name: str, folder: Path | None) -> Hashed:
        asked.append((name, folder))
        return Hashed()

    register_embedder("hashed", opened)
    for name in ("hashed", "hashed:large"):
        index = open_index(RetrieverSpec("dense", 1, 100, embedder=name), PASSAGES, tmp_path)
        assert ids(index, "sea", 1) == ["d1"]
    assert asked == [("hashed", tmp_path), ("large", tmp_path)]
