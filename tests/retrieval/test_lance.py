from __future__ import annotations

import functools
import gc
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lancedb", reason="needs the extra lancedb")

from rung.errors import BudgetSpent
from rung.retrieval import lance, lance_tables, open_index
from rung.retrieval.bm25 import BM25
from rung.retrieval.lance import LanceIndex
from rung.types import Document, Query, RetrieverSpec

SPEC = RetrieverSpec("lancedb", 5, 500)
VOCABULARY = [f"w{i}" for i in range(200)]


def made(n: int, seed: int = 0) -> list[Document]:
    draw = random.Random(seed)
    return [Document(f"d{i}", " ".join(draw.choices(VOCABULARY, k=draw.randint(5, 30)))) for i in range(n)]


def ids(index: Any, query: str, k: int = 5) -> list[str]:
    return [d.id for d in index.search([Query("q", query)], k)[0]]


class ByWord:
    """Vectors of words: each word has a random one, a text the sum of its words'."""

    name, version, dimensions = "by-word", "1", 32

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], query: bool = False) -> Any:
        self.embedded += [] if query else texts
        rows = [sum((word_vector(word) for word in text.split()), np.zeros(32)) for text in texts]
        return np.array([row / max(float(np.linalg.norm(row)), 1e-9) for row in rows], np.float32)


@functools.cache
def word_vector(word: str) -> Any:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=32)


def whole_tables(folder: Path) -> list[Path]:
    return sorted(folder.glob("lancedb/*/*/state.json"))


def test_it_finds_what_bm25_finds(tmp_path: Path) -> None:
    """The two differ in k1, so that ranks may; what is best seldom does."""
    documents, draw = made(400), random.Random(1)
    index, other = open_index(SPEC, documents, tmp_path), BM25(documents)
    asked = [Query(str(i), " ".join(draw.sample(VOCABULARY, 4))) for i in range(40)]
    pairs = list(zip(index.search(asked, 5), other.search(asked, 5), strict=True))
    assert sum(a[0] == b[0] for a, b in pairs) >= 36
    assert sum(len({d.id for d in a} & {d.id for d in b}) for a, b in pairs) >= 0.9 * 5 * 40


@pytest.mark.parametrize(
    ("query", "right"),
    [
        ("银行卡丢失", "zh"),
        ("カードを紛失", "ja"),
        ("บัตรหาย", "th"),
        ("카드를 분실", "ko"),
        ("C", "c"),
        ("GRÖSSE", "de"),
        ("a" * 70, "a"),
    ],
)
def test_words_are_those_of_every_other_search(tmp_path: Path, query: str, right: str) -> None:
    texts = {
        "zh": "银行卡丢失后请立即挂失",
        "ja": "紛失したカードは無料で再発行します",
        "th": "ถ้าทำบัตรหายให้แจ้งอายัดทันที",
        "ko": "분실 카드는 무료로 재발급됩니다",
        "c": "Vitamin C",
        "de": "Die Größe der Karte",
        "a": "a" * 70,
    }
    index = LanceIndex([Document(i, text) for i, text in texts.items()], tmp_path)
    assert ids(index, query)[0] == right


def test_endings_are_left_out_where_a_language_is_named(tmp_path: Path) -> None:
    pytest.importorskip("Stemmer")
    documents = [Document("a", "the cards were lost"), Document("b", "a boat")]
    assert ids(LanceIndex(documents, tmp_path, stem="english"), "losing card") == ["a"]
    assert ids(LanceIndex(documents, tmp_path), "card") == []


def test_equal_passages_are_ranked_by_their_position(tmp_path: Path) -> None:
    texts = [word for _ in range(10) for word in ("same words here", "something else")]
    index = LanceIndex([Document(f"d{i}", text) for i, text in enumerate(texts)], tmp_path)
    assert ids(index, "same words", 4) == ["d0", "d2", "d4", "d6"]


@pytest.mark.parametrize("query", ["", " ", "?!", "zebra"])
def test_a_query_that_shares_no_word_finds_nothing(tmp_path: Path, query: str) -> None:
    assert ids(LanceIndex(made(5), tmp_path), query) == []


def test_no_passages_and_no_queries_find_nothing(tmp_path: Path) -> None:
    assert LanceIndex([], tmp_path).search([Query("q", "w1")], 3) == [[]]
    assert LanceIndex(made(5), tmp_path).search([], 3) == []
    assert ids(LanceIndex(made(5), tmp_path), "w1 w2 w3", 0) == []


def test_without_a_folder_it_works_in_a_scratch_folder_that_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index = LanceIndex(made(5))
    assert ids(index, made(5)[2].text)[0] == "d2" and len(list(tmp_path.iterdir())) == 1
    del index
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ids(LanceIndex(made(5), tmp_path / "file"), made(5)[2].text)[0] == "d2"


def test_a_second_opening_writes_nothing(tmp_path: Path) -> None:
    first = LanceIndex(made(50), tmp_path)
    first.prepare()
    told: list[str] = []
    again = LanceIndex([Document(f"other-{d.id}", d.text) for d in made(50)], tmp_path)
    again.prepare(lambda what, share: told.append(what))
    assert told == [] and len(whole_tables(tmp_path)) == 1
    assert ids(again, made(50)[7].text)[0] == "other-d7"


def test_only_what_changed_is_written_and_the_older_index_stays_as_it_is(tmp_path: Path) -> None:
    embedder, documents = ByWord(), made(60)
    older = LanceIndex(documents, tmp_path, embedder=embedder)
    assert ids(older, documents[3].text)[0] == "d3"
    changed = [Document("new", "unheard of thing"), *documents[:3], *documents[4:]]
    embedder.embedded.clear()
    index = LanceIndex(changed, tmp_path, embedder=embedder)
    assert ids(index, "unheard thing")[0] == "new"
    assert embedder.embedded == ["unheard of thing"]
    assert "d3" not in ids(index, documents[3].text) and ids(index, documents[30].text)[0] == "d30"
    assert ids(older, documents[3].text)[0] == "d3"
    assert ids(LanceIndex(documents, tmp_path, embedder=embedder), documents[3].text)[0] == "d3"
    assert embedder.embedded == ["unheard of thing"] and len(whole_tables(tmp_path)) == 2


def test_after_many_changes_words_weigh_as_in_a_new_index(tmp_path: Path) -> None:
    LanceIndex(made(100), tmp_path).prepare()
    grown = [*made(100)[30:], *made(60, seed=9)]
    updated, new = LanceIndex(grown, tmp_path), LanceIndex(grown, tmp_path / "new")
    draw = random.Random(2)
    asked = [Query(str(i), " ".join(draw.sample(VOCABULARY, 4))) for i in range(20)]
    assert updated.search(asked, 5) == new.search(asked, 5)


def test_searches_of_the_same_passages_stand_on_one_index(tmp_path: Path) -> None:
    documents = tuple(made(10))
    index = open_index(SPEC, documents, tmp_path)
    assert open_index(replace(SPEC, k=9, query="conversation"), documents, tmp_path) is index
    assert open_index(replace(SPEC, stem="english"), documents, tmp_path) is not index


def test_other_passages_have_a_table_of_their_own(tmp_path: Path) -> None:
    one, other = LanceIndex(made(40), tmp_path), LanceIndex(made(40, seed=5), tmp_path)
    assert ids(one, made(40)[2].text)[0] == ids(other, made(40, seed=5)[2].text)[0] == "d2"
    assert len(whole_tables(tmp_path)) == 2


def test_what_was_written_before_the_budget_ended_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance, "_EMBEDDED", 10)
    embedder = ByWord()

    def tell(what: str, share: float) -> None:
        if share >= 0.5:
            raise BudgetSpent("enough")

    index = LanceIndex(made(40), tmp_path, embedder=embedder)
    with pytest.raises(BudgetSpent):
        index.prepare(tell)
    assert len(embedder.embedded) == 20 and whole_tables(tmp_path) == []
    assert ids(LanceIndex(made(40), tmp_path, embedder=embedder), made(40)[39].text)[0] == "d39"
    assert len(embedder.embedded) == 40
    index.prepare()
    assert len(embedder.embedded) == 40


KILLED = """
import os, sys
from pathlib import Path
from rung.retrieval import lance
from rung.types import Document
lance._WRITTEN = 100
def tell(what, share):
    if share >= {share} or what.startswith({what!r}):
        os._exit(9)
documents = [Document(str(i), f"common number{{i}}") for i in range(500)]
lance.LanceIndex(documents, Path(sys.argv[1])).prepare(tell)
"""


@pytest.mark.parametrize(("share", "what"), [(0.5, "none"), (2.0, "the index over words")])
def test_a_killed_build_is_never_searched_and_is_finished_by_the_next(tmp_path: Path, share: float, what: str) -> None:
    code = KILLED.format(share=share, what=what)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert whole_tables(tmp_path) == []
    documents = [Document(str(i), f"common number{i}") for i in range(500)]
    written: list[float] = []
    index = LanceIndex(documents, tmp_path)
    index.prepare(lambda what, share: written.append(share) if "written" in what else None)
    assert len(index.search([Query("q", "common")], 500)[0]) == 500
    assert ids(index, "number499") == ["499"]
    assert len(list(tmp_path.glob("lancedb/*/*/passages.lance"))) == 1  # it went on with what was there


@pytest.mark.parametrize("torn", ["data", "_versions", "_indices"])
def test_a_damaged_table_is_built_again(tmp_path: Path, torn: str) -> None:
    documents = made(30)
    LanceIndex(documents, tmp_path).prepare()
    (state,) = whole_tables(tmp_path)
    shutil.rmtree(state.parent / "passages.lance" / torn)
    assert ids(LanceIndex(documents, tmp_path), documents[4].text)[0] == "d4"
    assert not state.exists() and len(whole_tables(tmp_path)) == 1


def test_two_at_once_build_it_once(tmp_path: Path) -> None:
    """Two indexes of one process hold two locks, as two processes do."""
    embedders = ByWord(), ByWord()
    documents = made(200)
    indexes = [LanceIndex(documents, tmp_path, embedder=embedder) for embedder in embedders]
    threads = [threading.Thread(target=index.prepare) for index in indexes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(e.embedded) for e in embedders) == [0, 200] and len(whole_tables(tmp_path)) == 1
    assert [ids(index, documents[9].text)[0] for index in indexes] == ["d9", "d9"]


def test_an_index_of_vectors_finds_nearly_what_comparing_all_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = made(600)
    exact = LanceIndex(documents, tmp_path / "exact", embedder=ByWord())
    monkeypatch.setattr(lance, "EXACT_UP_TO", 100)
    index = LanceIndex(documents, tmp_path, embedder=ByWord())
    asked = [Query(d.id, d.text) for d in documents[:20]]
    pairs = list(zip(index.search(asked, 5), exact.search(asked, 5), strict=True))
    assert index._approximate and not exact._approximate
    assert sum(len({d.id for d in a} & {d.id for d in b}) for a, b in pairs) >= 0.8 * 100
    assert all(row[0].id == query.id for row, query in zip(index.search(asked, 1), asked, strict=True))


def test_tables_that_nobody_opened_for_long_make_room(tmp_path: Path) -> None:
    LanceIndex(made(10), tmp_path).prepare()
    (state,) = whole_tables(tmp_path)
    long_ago = time.time() - lance_tables.UNUSED_S - 10
    os.utime(state, (long_ago, long_ago))
    LanceIndex(made(10, seed=3), tmp_path).prepare()
    assert not state.parent.exists() and len(whole_tables(tmp_path)) == 1
