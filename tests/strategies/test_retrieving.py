"""The ways to find passages that rag tries on dev, what the model may add to them, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.retrieval import proposals
from rung.retrieval.library import Library
from rung.strategies.registry import Texts
from rung.strategies.retrieving import cost_of_rag, helped_by_model, rag, ways_to_try
from rung.testing import FakeModel
from rung.trials.workshop import Workshop
from rung.types import Document, Message, Query, Request, RetrieverSpec, SearchKeys
from workshops import PASSAGES, workshop_of

BM25 = RetrieverSpec("bm25", 5, 300)
DENSE, FUSED = replace(BM25, kind="dense", embedder="minilm"), replace(BM25, kind="fused", embedder="minilm")
TURNS = (Message("user", "I look for a thing."), Message("assistant", "Which one?"))


class Alike(Library):
    """One library whose searches all find the passage of the question, by any spec; dense ones one passage fewer."""

    def search(self, spec: RetrieverSpec) -> Any:
        class Search:
            def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
                rest = PASSAGES[: 0 if spec.embedder else 2]
                return [[PASSAGES[int(q.input.split()[-1])], *rest][:k] for q in queries]

        return Search()


def shop_of(folder: Path, *, turns: bool = False, search: tuple[RetrieverSpec, ...] = (), **keys: Any) -> Workshop:
    made = workshop_of(FakeModel(reader), folder, retrieval=SearchKeys(**keys))
    dev = tuple(replace(e, turns=TURNS) for e in made.inputs.dev) if turns else made.inputs.dev
    return replace(made, inputs=replace(made.inputs, dev=dev, library=Alike(PASSAGES)), search=search)


def reader(request: Request) -> str:
    text = request.messages[-1].content
    asked = text.split()[-1]
    return text.split(f"Thing {asked} is ")[-1].split(".")[0] if f"Thing {asked} is " in text else "none"


def test_ways_that_were_measured_go_to_dev_the_cheapest_first_with_one_length(tmp_path: Path) -> None:
    reranked = replace(BM25, reranker="a/b")
    found = ways_to_try(shop_of(tmp_path, search=(reranked, FUSED, DENSE, BM25)))
    assert [s.kind for s in found] == ["bm25", "dense", "fused", "bm25"] and found[3].reranker == "a/b"
    assert {(s.k, s.token_budget, s.fenced) for s in found} == {(3, 600, True)}


@pytest.mark.parametrize(("kinds", "tried"), [((), ["bm25"]), (("dense",), ["dense"])])
def test_where_nothing_was_measured_words_alone_are_tried_unless_the_task_names_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], tried: list[str]
) -> None:
    monkeypatch.setattr(proposals, "embedders_here", lambda: ("minilm",))
    found = ways_to_try(shop_of(tmp_path, kinds=kinds, stem=""))
    assert [s.kind for s in found] == tried and all(s.fenced for s in found)


def test_of_ways_that_answer_alike_the_cheaper_one_is_taken_though_another_has_shorter_prompts(tmp_path: Path) -> None:
    chosen = rag(shop_of(tmp_path, search=(DENSE, BM25))).retriever
    assert chosen is not None and chosen.kind == "bm25"


def test_the_model_helps_where_the_task_names_it_or_inputs_are_conversations(tmp_path: Path) -> None:
    def added(spec: RetrieverSpec = BM25, **more: Any) -> list[tuple[str, str]]:
        return [(s.query, s.reranker) for s in helped_by_model(shop_of(tmp_path, **more), spec)]

    assert added() == []
    assert added(rewrite=True, rerankers=("a/b", "model")) == [("rewritten", ""), ("input", "model")]
    assert added(turns=True) == [("conversation", ""), ("rewritten", "")]
    assert added(turns=True, rewrite=False) == [("conversation", "")]
    measured = replace(BM25, query="conversation")
    assert added(turns=True, search=(BM25, measured)) == [("rewritten", "")], "it was measured on train"
    assert added(measured, turns=True) == [("rewritten", "")]


def test_the_cost_counts_what_the_model_writes_and_judges() -> None:
    texts = Texts(50, 8, 12, 40, 0, 200, train=200, dev=100, screen=48, training_tokens=10**6)
    plain, writing = cost_of_rag(texts), cost_of_rag(replace(texts, rewrites=True))
    judging = cost_of_rag(replace(texts, judges=True))
    assert plain.calls < writing.calls < judging.calls
    later = (4 * 48 + 100) // 2
    assert writing.calls - plain.calls == 48 + (48 + later) and judging.calls - plain.calls == 48 + 10 * (48 + later)
    assert judging.sent - plain.sent > 10 * (48 + later) * (50 + 200)
