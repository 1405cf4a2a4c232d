"""Sentences about the ways to find passages, and what decision.json holds of them."""

from __future__ import annotations

import json
from dataclasses import replace

from evidence_cases import CLEAR, LORA, ZERO, candidate, evidence

from rung.decision import decide, decision_from_record, decision_record
from rung.types import Score, SearchWay

RAG, BARE = candidate("rag", "rag", 0.8), candidate("zero_shot", "prompt", 0.4)
SHARP = {("rag", "zero_shot"): 1e-9}
NOT_TRIED = ("Dense search was not tried: no embedder is installed.",)


def way(name: str, recall: float, *, stage: str = "way", chosen: bool = False) -> SearchWay:
    score = Score(recall, max(0.0, recall - 0.1), min(1.0, recall + 0.1), 120)
    return SearchWay(name, stage, 120, score, score, score, score, score, 0.2, 1.5, chosen)  # type: ignore[arg-type]


WAYS = (way("bm25", 0.7), way("dense-minilm", 0.8, chosen=True), way("bm25-256-tokens", 0.95, stage="size"))


def test_the_chosen_way_is_told_beside_the_others_with_its_interval() -> None:
    found = decide(evidence([RAG, BARE], SHARP, searches=WAYS, has_corpus=True))
    assert (
        "Passages are found by dense-minilm: one that holds the answer is among the first 5 for 80 % (70–90) of 120 "
        "train questions (bm25 70 %)."
    ) in found.reasons


def test_how_the_passages_are_known_that_ways_are_measured_by_is_told() -> None:
    known = "found by containing the answer for 120; 80 of 200 questions are left out"
    ways = tuple(replace(w, known=known) for w in WAYS)
    found = decide(evidence([RAG, BARE], SHARP, searches=ways, has_corpus=True))
    assert any(said.endswith(f"(bm25 70 %). These passages are {known}.") for said in found.reasons)
    assert decision_from_record(json.loads(json.dumps(decision_record(found)))) == found


def test_where_nothing_was_measured_or_nothing_retrieves_no_way_is_told() -> None:
    for ways in ((), (way("bm25", 0.7),), (way("bm25", 0.7, stage="size", chosen=True),)):
        found = decide(evidence([RAG, BARE], SHARP, searches=ways, has_corpus=True))
        assert not any(said.startswith("Passages are found by") for said in found.reasons)


def test_what_was_not_tried_is_a_warning_where_retrieval_is_not_chosen_and_is_told_once() -> None:
    lost = decide(evidence([ZERO, LORA], CLEAR, searches_not_tried=NOT_TRIED, has_corpus=True))
    assert set(NOT_TRIED) <= set(lost.warnings) and not set(NOT_TRIED) & set(lost.reasons)
    won = decide(evidence([RAG, BARE], SHARP, searches_not_tried=NOT_TRIED, has_corpus=True))
    assert won.choice == "rag" and set(NOT_TRIED) <= set(won.reasons) and not set(NOT_TRIED) & set(won.warnings)


def test_the_ways_stand_in_the_record_and_are_read_back() -> None:
    found = decide(evidence([RAG, BARE], SHARP, searches=WAYS, searches_not_tried=NOT_TRIED, has_corpus=True))
    assert found.searches == WAYS and found.searches_not_tried == NOT_TRIED
    assert decision_from_record(json.loads(json.dumps(decision_record(found)))) == found
