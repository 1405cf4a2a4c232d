from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rung.errors import RungError
from rung.retrieval import INDEXES, open_index, register_index
from rung.retrieval.bm25 import BM25
from rung.retrieval.library import Library
from rung.types import Document, Query, RetrieverSpec

PASSAGES = (Document("a", "red cards"), Document("b", "blue boats"))


class First:
    """The first passages, whatever is asked."""

    def __init__(self, spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None) -> None:
        self.passages, self.folder = passages, folder

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [list(self.passages[:k]) for _ in queries]


@pytest.fixture
def registered() -> Iterator[None]:
    register_index("first", First)
    yield
    del INDEXES["first"]


def test_a_spec_names_the_index_that_is_opened() -> None:
    index = open_index(RetrieverSpec("bm25", 1, 100), PASSAGES)
    assert isinstance(index, BM25)
    assert index.search([Query("q", "boats")], 1) == [[PASSAGES[1]]]


@pytest.mark.usefixtures("registered")
def test_an_index_of_the_user_is_opened_by_its_kind_and_gets_its_folder(tmp_path: Path) -> None:
    index = open_index(RetrieverSpec("first", 1, 100), PASSAGES, tmp_path)
    assert isinstance(index, First) and index.folder == tmp_path
    assert index.search([Query("q", "boats")], 1) == [[PASSAGES[0]]]


@pytest.mark.usefixtures("registered")
def test_each_kind_of_index_is_opened_once_and_gets_the_folder_of_its_library(tmp_path: Path) -> None:
    library = Library(PASSAGES, folder=tmp_path)
    index = library.search(RetrieverSpec("first", 1, 100))
    assert isinstance(index, First) and index.folder == tmp_path
    assert library.search(RetrieverSpec("first", 2, 50)) is index
    nowhere = Library(PASSAGES).search(RetrieverSpec("first", 1, 100))
    assert isinstance(nowhere, First) and nowhere.folder is None


@pytest.mark.usefixtures("registered")
def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'first' already"):
        register_index("first", First)


def test_an_unknown_kind_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(RungError, match=r'no index of the kind "tarot". The kinds are bm25'):
        open_index(RetrieverSpec("tarot", 1, 100), PASSAGES)
