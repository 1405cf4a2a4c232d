from __future__ import annotations

from pathlib import Path

import pytest

from rung.errors import TaskError
from rung.retrieval import bm25, open_index
from rung.retrieval.bm25 import BM25
from rung.retrieval.stemming import stemmer
from rung.text import words
from rung.types import Document, Query, RetrieverSpec

TEXTS = (
    "Lost cards are replaced.",
    "A card was replacing another one.",
    "Karten werden ersetzt.",
    "Order WS-3000s by Monday.",
    "银行卡丢失后请立即挂失",
)
PASSAGES = tuple(Document(f"d{i}", text) for i, text in enumerate(TEXTS))


def ids(index: BM25, text: str, k: int = 10) -> list[str]:
    return [d.id for d in index.search([Query("q", text)], k)[0]]


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("english", "cards", "card"),
        ("german", "größen", "größe"),
        ("french", "chevaux", "cheval"),
        ("russian", "карты", "картой"),
        ("finnish", "taloissa", "talossa"),
        ("arabic", "البطاقات", "البطاقة"),
    ],
)
def test_forms_of_a_word_have_one_stem(language: str, one: str, other: str) -> None:
    stem = stemmer(language)
    assert {stem(w) for w in words(one)} == {stem(w) for w in words(other)}


@pytest.mark.parametrize("word", ["ws3000s", "карты", "卡", "银行", "co2s"])
def test_codes_and_words_of_other_scripts_keep_their_form(word: str) -> None:
    assert stemmer("english")(word) == word


def test_a_search_with_stems_finds_other_forms_of_a_word() -> None:
    assert ids(BM25(PASSAGES), "replacement of cards") == ["d0"]
    assert set(ids(BM25(PASSAGES, stem="english"), "replaced cards")) == {"d0", "d1"}


def test_a_search_with_stems_still_finds_codes_and_other_scripts() -> None:
    index = BM25(PASSAGES, stem="english")
    assert ids(index, "3000s") == ["d3"]
    assert ids(index, "银行卡")[0] == "d4"


def test_a_spec_names_the_language() -> None:
    index = open_index(RetrieverSpec("bm25", 3, 100, stem="german"), PASSAGES)
    assert [d.id for d in index.search([Query("q", "karte")], 3)[0]] == ["d2"]


def test_a_language_without_a_stemmer_is_an_error_that_names_those_with_one() -> None:
    with pytest.raises(TaskError, match=r'no stemmer for "klingon". Write one of arabic, .*english'):
        BM25(PASSAGES, stem="klingon")


@pytest.fixture
def kept_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "KEPT_FROM", 1)


@pytest.mark.usefixtures("kept_from_the_first")
def test_a_large_index_is_read_from_the_folder_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = BM25(PASSAGES, stem="english", folder=tmp_path)
    monkeypatch.setattr(BM25, "_built", lambda self: pytest.fail("it is built again"))
    read = BM25(PASSAGES, stem="english", folder=tmp_path)
    for query in ("replaced cards", "3000s", "卡", "zebra", ""):
        assert ids(read, query) == ids(built, query)


@pytest.mark.usefixtures("kept_from_the_first")
def test_an_index_that_is_kept_is_of_these_passages_and_stems_alone(tmp_path: Path) -> None:
    BM25(PASSAGES, folder=tmp_path)
    assert ids(BM25(PASSAGES, stem="english", folder=tmp_path), "replaces") == ["d0", "d1"]
    assert ids(BM25(PASSAGES[1:], folder=tmp_path), "lost") == []
    titled = (Document("t", "Lost cards", "are replaced."), *PASSAGES[1:])
    assert ids(BM25(titled, folder=tmp_path), "lost") == ["t"]


@pytest.mark.usefixtures("kept_from_the_first")
def test_a_torn_file_of_an_index_spoils_nothing(tmp_path: Path) -> None:
    BM25(PASSAGES, folder=tmp_path)
    for path in (tmp_path / "bm25").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:20])
    assert ids(BM25(PASSAGES, folder=tmp_path), "lost") == ["d0"]


@pytest.mark.usefixtures("kept_from_the_first")
def test_a_folder_that_cannot_be_written_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert ids(BM25(PASSAGES, folder=tmp_path / "file"), "lost") == ["d0"]


@pytest.mark.usefixtures("kept_from_the_first")
def test_a_corpus_without_words_is_kept_as_none(tmp_path: Path) -> None:
    assert ids(BM25([Document("a", "?")], folder=tmp_path), "lost") == []
