"""Which ways to find passages are best on train: by indexes that find what the test says, and questions with marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, ModelError
from rung.retrieval import INDEXES, proposals, register_index
from rung.retrieval.library import Library
from rung.testing import FakeModel
from rung.trials import search_choice
from rung.trials.search_choice import LEAST_QUESTIONS, measured_search
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Message, Query, RetrieverSpec, SearchKeys
from workshops import workshop_of

N = 40
DOCUMENTS = tuple(Document(f"d{i}", f"Thing number{i} is kept in place{i}.") for i in range(N))
BM25, DENSE = RetrieverSpec("bm25", 3, 600), RetrieverSpec("dense", 3, 600, embedder="minilm")
STEMMED = replace(BM25, stem="english")
ALL_KINDS = SearchKeys()
Ranks = Callable[[RetrieverSpec, int], int | None]
"""(spec, number of a question) -> place of its passage among the hits, from 0; None: it is not found."""


def question(i: int, *, marked: bool = True, **more: Any) -> Example:
    gold = (f"d{i}",) if marked else ()
    return Example(f"e{i}", f"Where is thing number{i}?", f"place{i}", (f"place{i}",), gold_ids=gold, **more)


class Scripted:
    """Finds the passage of a question at the rank that `ranks` says, among passages of others."""

    def __init__(self, spec: RetrieverSpec, passages: Sequence[Document], ranks: Ranks) -> None:
        self.spec, self.passages, self.ranks = spec, tuple(passages), ranks
        self.searched: list[Query] = []

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        self.searched += queries
        return [self._row(int(q.id[1:]))[:k] for q in queries]

    def _row(self, i: int) -> list[Document]:
        own = [p for p in self.passages if p.id.split("#")[0] == f"d{i}"]
        others = [p for p in self.passages if p not in own]
        at = self.ranks(self.spec, i)
        return others if at is None else [*others[:at], *own, *others[at:]]


class Kinds:
    """bm25, dense and fused replaced by scripted ones. opened: all of them."""

    def __init__(self) -> None:
        self.ranks: Ranks = lambda spec, i: 0
        self.opened: list[Scripted] = []
        self.failing: dict[str, Exception] = {}

    def open(self, spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None) -> Scripted:
        if spec.kind in self.failing:
            raise self.failing[spec.kind]
        self.opened.append(Scripted(spec, passages, self.ranks))
        return self.opened[-1]


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Kinds:
    found = Kinds()
    for kind in ("bm25", "dense", "fused"):
        monkeypatch.setitem(INDEXES, kind, found.open)
    monkeypatch.setattr(proposals, "embedders_here", lambda: ("minilm",))
    monkeypatch.setattr(proposals, "why_not", lambda name: None)
    return found


def shop(
    folder: Path, train: Sequence[Example], documents: Sequence[Document] = DOCUMENTS, keys: SearchKeys = ALL_KINDS
) -> Workshop:
    made = workshop_of(FakeModel(lambda request: "no"), folder, retrieval=keys)
    library = Library(documents, count_tokens=lambda text: len(text.split()))
    return replace(made, inputs=replace(made.inputs, train=tuple(train), library=library))


def measured(
    folder: Path, specs: Sequence[RetrieverSpec] = (BM25, STEMMED, DENSE), train: Any = None, **more: Any
) -> dict[str, Any]:
    sizes = {name: more.pop(name) for name in ("sizes", "asking") if name in more}
    rows = [question(i) for i in range(N)] if train is None else train
    return measured_search(shop(folder, rows, **more), specs, folder / "search", **sizes)


def ways(record: Mapping[str, Any]) -> list[str]:
    return [row["way"] for row in record["tried"]]


def best(record: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(s["kind"], s["stem"], s["query"], s["tokens"]) for s in record["best"]]


def of_kind(table: Mapping[str, Callable[[int], int | None]]) -> Ranks:
    return lambda spec, i: table[spec.kind](i)


def test_all_ways_are_measured_and_the_best_goes_to_dev(tmp_path: Path, kinds: Kinds) -> None:
    kinds.ranks = of_kind({"bm25": lambda i: 0 if i % 2 else None, "dense": lambda i: 0, "fused": lambda i: 9})
    record = measured(tmp_path)
    assert ways(record) == ["bm25", "bm25-english", "dense-minilm", "fused-minilm"]
    recall = {row["way"]: row["recall"]["5"]["mean"] for row in record["tried"]}
    assert recall == {"bm25": 0.5, "bm25-english": 0.5, "dense-minilm": 1, "fused-minilm": 0}
    assert record["questions"] == N and best(record) == [("dense", "", "input", 0)]
    assert record["not_tried"] == [] and record["gold"]["counts"]["marked"] == N


def test_of_equal_ways_the_cheaper_is_first_and_at_most_three_go_to_dev(tmp_path: Path, kinds: Kinds) -> None:
    record = measured(tmp_path)
    assert [s["kind"] for s in record["best"]] == ["bm25", "bm25", "dense"]


@pytest.mark.parametrize(("missed", "near"), [(1, True), (2, False)])
def test_a_way_that_is_one_question_below_the_best_is_near_to_it(
    tmp_path: Path, kinds: Kinds, missed: int, near: bool
) -> None:
    kinds.ranks = lambda spec, i: None if spec.kind == "bm25" and i < missed else 0
    record = measured(tmp_path, [BM25, DENSE], keys=SearchKeys(kinds=("bm25", "dense")))
    assert [s["kind"] for s in record["best"]] == (["dense", "bm25"] if near else ["dense"])


def test_the_fused_search_is_of_the_better_lexical_one_and_not_of_another_kind(tmp_path: Path, kinds: Kinds) -> None:
    register_index("mine", kinds.open)
    try:
        kinds.ranks = lambda spec, i: 0 if spec.kind == "mine" or spec.stem else 9
        record = measured(tmp_path, [BM25, STEMMED, RetrieverSpec("mine", 3, 600), DENSE])
    finally:
        del INDEXES["mine"]
    assert ways(record)[-1] == "fused-english-minilm"


def test_a_way_that_fails_is_left_out_and_said_and_the_others_are_measured(tmp_path: Path, kinds: Kinds) -> None:
    kinds.failing = {"dense": ModelError('embedder "minilm": it is torn.'), "fused": ValueError("7")}
    record = measured(tmp_path)
    assert ways(record) == ["bm25", "bm25-english"] and record["questions"] == N
    assert record["not_tried"] == [
        {"what": "dense-minilm", "why": 'embedder "minilm": it is torn.'},
        {"what": "fused-minilm", "why": "ValueError: 7"},
    ]


def test_a_budget_that_is_spent_ends_the_measuring(tmp_path: Path, kinds: Kinds) -> None:
    kinds.failing = {"dense": BudgetSpent("over")}
    with pytest.raises(BudgetSpent):
        measured(tmp_path)


# ---- too few questions ----------------------------------------------------------------------


def test_with_too_few_known_passages_one_way_of_each_kind_goes_to_dev(tmp_path: Path, kinds: Kinds) -> None:
    few = [question(i, marked=i < LEAST_QUESTIONS - 1) for i in range(N)]
    made = shop(tmp_path, few)
    labelled = replace(made.inputs.task, labels=("x", "y"))
    made = replace(made, inputs=replace(made.inputs, task=labelled))
    record = measured_search(made, [BM25, STEMMED, DENSE], tmp_path / "search")
    assert record["tried"] == [] and record["questions"] == 0
    assert [(s["kind"], s["stem"]) for s in record["best"]] == [
        ("bm25", "english"),
        ("dense", ""),
        ("fused", "english"),
    ]
    assert "only marked passages count" in record["gold"]["why"]


def test_with_too_few_known_passages_what_fails_does_not_go_to_dev_and_what_is_named_does(
    tmp_path: Path, kinds: Kinds
) -> None:
    kinds.failing = {"dense": ValueError("7")}
    few = [question(i) for i in range(5)]
    record = measured(tmp_path, train=few, keys=SearchKeys(kinds=("bm25", "dense"), tokens=(64,), rerankers=("a/b",)))
    found = [(s["kind"], s["stem"], s["reranker"], s["tokens"]) for s in record["best"]]
    assert found == [("bm25", "english", "", 64), ("bm25", "english", "a/b", 64), ("bm25", "", "", 64)]


def test_of_unmarked_questions_the_hits_of_all_ways_are_looked_through(tmp_path: Path, kinds: Kinds) -> None:
    kinds.ranks = of_kind({"bm25": lambda i: 0 if i % 2 else None, "dense": lambda i: 0, "fused": lambda i: 0})
    record = measured(tmp_path, train=[question(i, marked=False) for i in range(N)], asking=False)
    assert record["gold"]["counts"] == {"marked": 0, "contained": N, "model": 0}
    assert "no room for asking" in record["gold"]["why"]
    recall = {row["way"]: row["recall"]["5"]["mean"] for row in record["tried"]}
    assert recall["bm25"] == 0.5 and recall["dense-minilm"] == 1


# ---- conversations --------------------------------------------------------------------------


def test_conversations_are_searched_with_on_train_too(tmp_path: Path, kinds: Kinds) -> None:
    turns = (Message("user", "I look for a thing."), Message("assistant", "Which one?"))
    rows = [replace(question(i), turns=turns) for i in range(N)]
    record = measured(tmp_path, [BM25], train=rows, keys=SearchKeys(kinds=("bm25",)))
    assert ways(record) == ["bm25", "bm25-conversation"]
    (index,) = kinds.opened  # it is the same index
    asked = ["I look for a thing." in query.input for query in index.searched]
    assert asked == [False] * N + [True] * N
    assert best(record)[0] == ("bm25", "", "input", 0), "what is longer has to find more"


# ---- sizes ----------------------------------------------------------------------------------

LONG = tuple(
    Document(f"d{i}", " ".join([f"Filler {j} says nothing of it." for j in range(60)] + [f"It is in place{i}."]))
    for i in range(N)
)


@pytest.fixture
def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_choice, "SIZES", (128,))


WORDS_ALONE = SearchKeys(kinds=("bm25",))


@pytest.mark.usefixtures("one_size")
def test_another_size_is_taken_where_prompts_show_the_answer_more_often(tmp_path: Path, kinds: Kinds) -> None:
    kinds.ranks = lambda spec, i: 0 if spec.tokens else None
    record = measured(tmp_path, [BM25], documents=LONG, keys=WORDS_ALONE)
    assert [(row["way"], row["shown"]["mean"]) for row in record["sizes"]] == [("bm25", 0), ("bm25-128-tokens", 1)]
    assert best(record) == [("bm25", "", "input", 128)] and record["best"][0]["overlap"] == 16
    assert [index.spec.tokens for index in kinds.opened] == [0, 128], "no way is measured twice"


@pytest.mark.usefixtures("one_size")
def test_a_size_that_shows_no_more_leaves_the_default(tmp_path: Path, kinds: Kinds) -> None:
    record = measured(tmp_path, [BM25], documents=LONG, keys=WORDS_ALONE)
    assert [(row["way"], row["shown"]["mean"]) for row in record["sizes"]] == [("bm25", 1), ("bm25-128-tokens", 1)]
    assert best(record) == [("bm25", "", "input", 0)]


@pytest.mark.usefixtures("one_size")
def test_a_size_that_is_better_for_words_alone_leaves_the_default_to_a_way_that_shows_less_with_it(
    tmp_path: Path, kinds: Kinds
) -> None:
    table = {("bm25", 0): None, ("bm25", 128): 0, ("dense", 0): 0, ("dense", 128): None}
    kinds.ranks = lambda spec, i: table[spec.kind, spec.tokens]
    record = measured(tmp_path, [BM25, DENSE], documents=LONG, keys=SearchKeys(kinds=("bm25", "dense")))
    assert best(record) == [("dense", "", "input", 0)]
    assert ways(record) == ["bm25", "dense-minilm", "dense-minilm-128-tokens"]


def test_the_task_names_the_sizes(tmp_path: Path, kinds: Kinds) -> None:
    record = measured(tmp_path, [BM25], keys=SearchKeys(kinds=("bm25",), tokens=(32, 64)))
    assert [row["way"] for row in record["sizes"]] == ["bm25", "bm25-32-tokens", "bm25-64-tokens"]
    assert best(record) == [("bm25", "", "input", 32)], "of equals the first, and never the default"


def test_another_size_stays_untried_where_the_plan_says_so_or_hardly_anything_would_be_cut(
    tmp_path: Path, kinds: Kinds
) -> None:
    assert measured(tmp_path / "a", [BM25], documents=LONG, sizes=False)["sizes"] == []
    assert measured(tmp_path / "b", [BM25])["sizes"] == []


def test_text_without_spaces_is_long_by_its_characters(tmp_path: Path, kinds: Kinds) -> None:
    chinese = tuple(Document(f"d{i}", "东西在那里。" * 300 + f"place{i}") for i in range(N))
    assert measured(tmp_path, [BM25], documents=chinese, keys=SearchKeys(kinds=("bm25",)))["sizes"] != []


def test_a_passage_that_a_prompt_cuts_off_before_the_answer_is_not_shown(tmp_path: Path, kinds: Kinds) -> None:
    late = tuple(Document(f"d{i}", "much " * 700 + f"place{i}.") for i in range(N))
    record = measured(tmp_path, [BM25], documents=late, keys=SearchKeys(kinds=("bm25",), tokens=(1024,)))
    (shown,) = [row["shown"]["mean"] for row in record["sizes"] if row["way"] == "bm25-1024-tokens"]
    assert shown == 0


# ---- rerankers ------------------------------------------------------------------------------


def test_a_reranker_that_is_named_orders_the_hits_of_the_best_way(
    tmp_path: Path, kinds: Kinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    class First:
        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            return [float(query.split()[-1].rstrip("?") in text.split()) for text in texts]

    monkeypatch.setattr("rung.retrieval.rerank.open_reranker", lambda name: First())
    kinds.ranks = lambda spec, i: 9
    record = measured(tmp_path, [BM25], keys=SearchKeys(kinds=("bm25",), rerankers=("a/b", "model")))
    assert ways(record) == ["bm25", "bm25-reranked-by-a_b"]
    assert [s["reranker"] for s in record["best"]] == ["a/b"]


# ---- small corpora --------------------------------------------------------------------------


def test_in_a_corpus_of_one_document_words_alone_come_first(tmp_path: Path, kinds: Kinds) -> None:
    rows = [replace(question(i), gold_ids=("d0",)) for i in range(N)]
    record = measured(tmp_path, documents=(Document("d0", "All is in place."),), train=rows)
    assert record["tried"][0]["recall"]["1"]["mean"] == 1 and record["best"][0]["kind"] == "bm25"


def test_without_a_word_in_any_document_nothing_is_told_apart(tmp_path: Path) -> None:
    record = measured(tmp_path, [BM25], documents=(Document("d0", "?"),), train=[question(1, marked=False)] * 30)
    assert record["tried"] == [] and best(record) == [("bm25", "", "input", 0)]
