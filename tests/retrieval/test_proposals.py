from __future__ import annotations

from collections.abc import Iterator

import pytest

from rung.errors import TaskError
from rung.retrieval import INDEXES, proposals, register_index
from rung.retrieval.proposals import fusions, rerankings, specs_to_try
from rung.types import Document, RetrieverSpec, SearchKeys

ENGLISH = [Document(str(i), "The card is replaced if it was lost by the owner, and that is free.") for i in range(9)]
SPANISH_CODES = [Document(str(i), "WS-3000 X1 42") for i in range(9)]


@pytest.fixture
def minilm_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ("minilm",))
    monkeypatch.setattr(proposals, "why_not", lambda name: "it is not here" if name == "absent" else None)


@pytest.fixture(params=[True, False])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether packages of indexes for large corpora are."""
    monkeypatch.setattr(proposals, "find_spec", lambda name: object() if request.param else None)
    return bool(request.param)


def tried(keys: SearchKeys, passages: list[Document] = ENGLISH) -> list[tuple[str, str, str]]:
    return [(s.kind, s.stem, s.embedder) for s in specs_to_try(passages, keys, 4, 300).specs]


@pytest.mark.usefixtures("minilm_here")
def test_every_kind_is_tried_with_and_without_stems_and_by_every_embedder() -> None:
    assert tried(SearchKeys()) == [("bm25", "", ""), ("bm25", "english", ""), ("dense", "", "minilm")]
    assert all((s.k, s.token_budget) == (4, 300) for s in specs_to_try(ENGLISH, SearchKeys(), 4, 300).specs)


@pytest.mark.usefixtures("minilm_here")
def test_no_stems_are_tried_where_the_language_is_not_known() -> None:
    assert tried(SearchKeys(), SPANISH_CODES) == [("bm25", "", ""), ("dense", "", "minilm")]


@pytest.mark.usefixtures("minilm_here")
def test_keys_of_the_task_decide_what_they_name() -> None:
    assert tried(SearchKeys(kinds=("bm25",), stem="german")) == [("bm25", "german", "")]
    assert tried(SearchKeys(kinds=("bm25",), stem="")) == [("bm25", "", "")]
    assert tried(SearchKeys(kinds=("dense",), embedders=("a/b", "minilm"))) == [
        ("dense", "", "a/b"),
        ("dense", "", "minilm"),
    ]


@pytest.mark.usefixtures("minilm_here")
def test_what_is_not_here_is_left_out_and_said() -> None:
    proposed = specs_to_try(ENGLISH, SearchKeys(embedders=("absent", "minilm")), 4, 300)
    assert [s.embedder for s in proposed.specs if s.kind == "dense"] == ["minilm"]
    assert proposed.not_tried == (('dense search with "absent"', "it is not here"),)


@pytest.mark.usefixtures("minilm_here", "installed")
@pytest.mark.parametrize("kinds", [("dense", "lancedb", "fused"), ("lancedb", "fused")])
def test_an_embedder_that_is_not_here_is_said_once(kinds: tuple[str, ...]) -> None:
    keys = SearchKeys(kinds=kinds, embedders=("absent",))
    said = [what for what, _ in specs_to_try(ENGLISH, keys, 4, 300).not_tried if what != "lancedb"]
    assert said == ['dense search with "absent"']


def test_without_an_embedder_the_search_is_lexical_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ())
    proposed = specs_to_try(ENGLISH, SearchKeys(), 4, 300)
    assert {s.kind for s in proposed.specs} == {"bm25"}
    assert [what for what, _ in proposed.not_tried] == ["dense search"]
    assert fusions(proposed.specs[0], SearchKeys()) == ()


@pytest.mark.usefixtures("minilm_here")
def test_the_better_lexical_form_is_fused_with_each_embedder() -> None:
    best = RetrieverSpec("bm25", 4, 300, stem="english")
    assert fusions(best, SearchKeys()) == (RetrieverSpec("fused", 4, 300, stem="english", embedder="minilm"),)
    assert fusions(best, SearchKeys(kinds=("bm25", "dense"))) == ()


def test_a_reranker_is_tried_where_the_task_names_one() -> None:
    spec = RetrieverSpec("bm25", 4, 300)
    assert rerankings(spec, SearchKeys()) == ()
    assert [s.reranker for s in rerankings(spec, SearchKeys(rerankers=("model", "cross-encoder/x")))] == [
        "model",
        "cross-encoder/x",
    ]


def test_a_kind_that_nobody_registered_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(TaskError, match=r'no index of the kind "tarot". The kinds are bm25'):
        specs_to_try(ENGLISH, SearchKeys(kinds=("bm25", "tarot")), 4, 300)


@pytest.mark.usefixtures("minilm_here")
def test_an_index_for_large_corpora_is_tried_where_it_is_named_and_installed(installed: bool) -> None:
    proposed = specs_to_try(ENGLISH, SearchKeys(kinds=("lancedb",)), 4, 300)
    found = [(s.stem, s.embedder) for s in proposed.specs]
    assert found == ([("", ""), ("english", ""), ("english", "minilm")] if installed else [])
    assert [what for what, _ in proposed.not_tried] == ([] if installed else ["lancedb"])
    assert "lancedb" not in {s.kind for s in specs_to_try(ENGLISH, SearchKeys(), 4, 300).specs}


@pytest.mark.usefixtures("minilm_here")
def test_of_very_many_passages_the_index_on_disk_is_tried_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(proposals, "MANY", len(ENGLISH))
    in_memory = [("bm25", "", ""), ("bm25", "english", ""), ("dense", "", "minilm")]
    on_disk = [("lancedb", "", ""), ("lancedb", "english", ""), ("lancedb", "english", "minilm")]
    assert tried(SearchKeys()) == (on_disk if installed else in_memory)
    assert tried(SearchKeys(kinds=("bm25",), stem="")) == [("bm25", "", "")], "what is named is tried"
    assert fusions(RetrieverSpec("lancedb", 4, 300), SearchKeys()) == ()


@pytest.mark.usefixtures("minilm_here")
def test_a_fused_search_alone_is_tried_with_and_without_stems() -> None:
    assert tried(SearchKeys(kinds=("fused",))) == [("fused", "", "minilm"), ("fused", "english", "minilm")]
    assert tried(SearchKeys(kinds=("dense", "fused"), stem="")) == [("dense", "", "minilm"), ("fused", "", "minilm")]


@pytest.fixture
def mine() -> Iterator[None]:
    register_index("mine", "nowhere:nothing")
    yield
    del INDEXES["mine"]


@pytest.mark.usefixtures("mine", "minilm_here")
def test_a_kind_of_the_user_is_tried() -> None:
    assert ("mine", "", "") in tried(SearchKeys())
