"""Sentences about why a solution that retrieves is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from evidence_cases import CLEAR, LORA, RIGHT_OR_WRONG, ZERO, candidate, evidence

from rung.decision import decide, decision_from_record, decision_record, unfinished
from rung.decision.search_causes import _STEPS, SEARCH_CAUSE_WORDS
from rung.diagnosis.search_failures import CAUSES
from rung.types import SearchFailure

RAG, RAG_LORA = candidate("rag", "rag", 0.5), candidate("rag_lora", "rag+fine-tune", 0.8)
SHARP = {("rag", "rag_lora"): 1e-9}
MISSED = SearchFailure(
    "rag_lora", "missed", 0.6, 0.43, 0.74, 18, 30, "the right passages", 18, 12, 1, 0.61, 0.4, 0.8, 12, 2, 0
)
UNUSED = replace(MISSED, cause="unused", share=0.3, low=0.17, high=0.48, n=9)
ABSENT = SearchFailure("rag_lora", "absent", 0.1, 0.03, 0.26, 3, 30)


def test_the_causes_stand_with_their_shares_and_with_what_was_mended_of_the_first() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, search_failures=(MISSED, UNUSED, ABSENT), has_corpus=True))
    assert (
        "Why rag_lora, which reads passages, is wrong on dev (30 answers): the search does not find the passage that "
        "holds the answer, 60 % (43–74 %); the prompt shows it, and the answer does not rest on it, 30 % (17–48 %); no "
        "passage of the corpus holds the answer, 10 % (3–26 %). Of the first, 18 were answered again with the right "
        "passages, and 12 came out right (by the placebo 1); of 12 right answers 2 came out wrong (0)."
    ) in found.reasons
    assert [s for s in found.next if s.startswith("Search in another way")] == [
        "Search in another way: name kinds, embedders or rerankers that were not tried (`retrieval:` in task.yaml), or "
        "put the words of the questions into titles and headings. The cause of 18 of the 30 wrong answers of rag_lora "
        "on dev is that the search does not find the passage that holds the answer. search_failures.json in its folder "
        "names the rows."
    ]


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_words_and_its_next_step(cause: str) -> None:
    row = replace(ABSENT, cause=cause, share=1.0, n=30)
    found = decide(evidence([RAG, RAG_LORA], SHARP, search_failures=(row,), has_corpus=True))
    assert sum(SEARCH_CAUSE_WORDS[cause] in r for r in found.reasons) == 1
    assert sum(step.startswith(_STEPS[cause]) for step in found.next) == 1


def steps_of(*rows: SearchFailure, name: str = "label_accuracy") -> list[str]:
    metric = replace(RIGHT_OR_WRONG, name=name)
    known = evidence([RAG, RAG_LORA], SHARP, search_failures=rows, has_corpus=True, metric=metric)
    return [s for s in decide(known).next if s.endswith("search_failures.json in its folder names the rows.")]


def test_each_cause_of_a_fifth_or_more_has_a_step_at_most_two_and_the_largest_always() -> None:
    form = replace(ABSENT, cause="form", share=0.29, n=9)
    assert [s.split()[0] for s in steps_of(MISSED, UNUSED, form, ABSENT)] == ["Search", "Show"]
    assert [s.split()[0] for s in steps_of(MISSED, ABSENT)] == ["Search"]
    assert [s.split()[0] for s in steps_of(ABSENT)] == ["Add"], "the largest, however small"


def test_the_step_for_a_wrong_form_names_the_metric_where_that_is_exact_match() -> None:
    form = replace(ABSENT, cause="form", share=0.31, n=16)
    (step,) = steps_of(form, name="exact_match")
    assert step.startswith(_STEPS["form"]) and "`metric: token_f1`" in step and "answer with the name only" in step
    assert "exact_match" not in steps_of(form)[0] and "exact_match" not in steps_of(MISSED, name="exact_match")[0]


def test_an_unfinished_verdict_has_the_steps_too() -> None:
    found = unfinished(evidence([RAG, RAG_LORA], on="dev", search_failures=(MISSED, UNUSED), has_corpus=True), "rung")
    assert sum("search_failures.json" in s for s in found.next) == 2


def test_what_is_read_rightly_alone_wants_fewer_passages_and_what_is_not_a_model_that_reads() -> None:
    for row, step in (
        (UNUSED, "Show fewer passages"),
        (replace(UNUSED, net=0.1, net_low=-0.1), "Fine-tune with passages"),
    ):
        found = decide(evidence([RAG, RAG_LORA], SHARP, search_failures=(row,), has_corpus=True))
        assert any(s.startswith(step) for s in found.next)


def test_of_several_solutions_the_shipped_one_is_spoken_of_else_the_best_that_retrieves() -> None:
    other = replace(ABSENT, solution="rag")
    found = decide(evidence([RAG, RAG_LORA], SHARP, search_failures=(other, MISSED), has_corpus=True))
    assert any("Why rag_lora," in r for r in found.reasons) and not any("Why rag," in r for r in found.reasons)
    rag = candidate("rag", "rag", 0.4)
    found = decide(evidence([ZERO, rag, LORA], {**CLEAR, ("rag", "lora"): 1e-9}, search_failures=(other,)))
    assert any("Why rag," in r for r in found.reasons)


def test_the_record_of_a_decision_holds_them_and_one_without_is_read() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, search_failures=(MISSED, ABSENT)))
    record = json.loads(json.dumps(decision_record(found)))
    assert decision_from_record(record).search_failures == (MISSED, ABSENT)
    del record["search_failures"]
    assert decision_from_record(record).search_failures == ()
