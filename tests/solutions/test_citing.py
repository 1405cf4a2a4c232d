"""Marks of sources in answers: read out where the answer cites, left where they are part of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rung.solutions.answer import answer
from rung.solutions.citing import CITE_NOTE, Cited, cited, with_marks
from rung.solutions.prompt_rendering import render
from rung.testing import FakeModel
from rung.types import Decoding, Document, Query, Request, RetrieverSpec, Solution

RAG = RetrieverSpec("bm25", 2, 90)
SHOWN = {1: "a", 2: "b", 3: "c"}


@pytest.mark.parametrize(
    ("said", "text", "ids", "bad"),
    [
        ("Paris [2]", "Paris", "b", 0),
        ("Paris [2].", "Paris.", "b", 0),
        ("Paris. [2]", "Paris.", "b", 0),
        ("Paris. [2].", "Paris.", "b", 0),
        ("Paris[2]", "Paris", "b", 0),
        ("Paris.[1][2]", "Paris.", "ab", 0),
        ("Paris [1] [3]", "Paris", "ac", 0),
        ("Paris [1, 2]", "Paris", "ab", 0),
        ("Paris [1-3]", "Paris", "abc", 0),
        ("Paris [1], [3] and [2]", "Paris", "acb", 0),
        ("Paris [2][2]", "Paris", "b", 0),
        ("Paris [passage 2]", "Paris", "b", 0),
        ("Paris (passage 2)", "Paris", "b", 0),
        ("Paris (see passages 1 and 2).", "Paris.", "ab", 0),
        ("Paris [Passage 1, Passage 2]", "Paris", "ab", 0),
        ("Paris 【2】", "Paris", "b", 0),
        ("Paris (see [2]).", "Paris.", "b", 0),
        ("Paris, see [2]", "Paris", "b", 0),
        ("Paris\n\nSources: [1], [2]", "Paris", "ab", 0),
        ("Paris. Source: [3]", "Paris.", "c", 0),
        ("Paris. Sources: [1, 2]", "Paris.", "ab", 0),
        ("Paris. Sources: [8, 9]", "Paris.", "", 2),
        ("Paris, according to [1].", "Paris.", "a", 0),
        ("It is Paris [1]. It lies on the Seine [2].", "It is Paris. It lies on the Seine.", "ab", 0),
        ("The cat [1] sat [2] down.", "The cat sat down.", "ab", 0),
        ("(It is Paris. [2])", "(It is Paris.)", "b", 0),
        ("[2] Paris", "Paris", "b", 0),
        ("According to [1], it is Paris.", "According to [1], it is Paris.", "a", 0),
        ("Paris [7]", "Paris", "", 1),
        ("Paris [2][9]", "Paris", "b", 1),
        ("Rome [1]. Paris [8]. Bonn.", "Rome. Paris. Bonn.", "a", 1),
        ('{"city": "Paris"} [2]', '{"city": "Paris"}', "b", 0),
        ('["Paris", "Rome"] [1]', '["Paris", "Rome"]', "a", 0),
        ("[4, 5] [1]", "[4, 5]", "a", 0),
        ("x = a[1] + 2\n[3]", "x = a[1] + 2", "c", 0),
        ("3 [2]", "3", "b", 0),
        ("95% CI [12, 45] [2]", "95% CI [12, 45]", "b", 0),
        ("a vector [1, 2] [3]", "a vector [1, 2]", "c", 0),
        ("x in [0, 1] [2]", "x in [0, 1]", "b", 0),
        ("the array `a[1]` [2]", "the array `a[1]`", "b", 0),
        ("Paris **[2]**", "Paris", "b", 0),
        ("Paris [source: 2]", "Paris", "b", 0),
        ("Paris (from passage 2).", "Paris.", "b", 0),
        ("Paris, see passage [2]", "Paris", "b", 0),
        ("The answer is [2].", "The answer is [2].", "b", 0),
        ("東京。[2]", "東京。", "b", 0),
    ],
)
def test_marks_are_taken_out_and_name_what_was_shown(said: str, text: str, ids: str, bad: int) -> None:
    assert cited(said, SHOWN) == Cited(text, tuple(ids), bad)


@pytest.mark.parametrize(
    "said",
    [
        "", "Paris", "[2]", "[1, 2]", "[1][2]", '{"ids": [1, 2]}', '["a", 1]', '[{"a": [1]}]', "x = [1]", "y = a[1]",
        "f(a[1])", "use `a[1]`", "```\na[1]\n```", "the list `[1]`", "Written in [1994]", "see [2](http://x.y)",
        "The interval is [1, 3]", "95% CI [12, 45]", "CI: [1, 3]", "The range [0, 10]", "values: [1, 2, 3]",
        "Range [1-3]", "between [1, 2]", "It is [0]", "a [9] in the middle of it", "[1] first\n[2] second",
        "matrix[1]x", "I [sic] know", "  \n", "a = 1; b[2]",
    ],
)  # fmt: skip
def test_what_is_part_of_an_answer_stays(said: str) -> None:
    assert cited(said, SHOWN) == Cited(said)


def test_without_passages_a_number_alone_is_an_answer_and_one_behind_words_names_nothing() -> None:
    assert cited("[3]", {}) == Cited("[3]")
    assert cited("Paris [3]", {}) == Cited("Paris", (), 1)


@pytest.mark.parametrize(
    "answer", ["Paris", "It is 5.", '{"a": [1]}', "[1, 2]", "a (b)", "x\ny", "In Rome?", "5 %", "`a[1]`", "3 to [4, 9]"]
)
def test_an_answer_that_is_learnt_with_its_marks_is_read_as_it_was(answer: str) -> None:
    assert cited(with_marks(answer, [2, 3]), SHOWN) == Cited(answer, ("b", "c"))
    assert with_marks(answer, []) == answer


@pytest.mark.parametrize("piece", ["\n", " ", ",\n", "[1, ", "see ", "[1] ", "(passage "])
def test_an_answer_that_repeats_itself_without_end_is_read_at_once(piece: str) -> None:
    started = time.process_time()
    cited(f"a{piece * 2_000}b", SHOWN)
    assert time.process_time() - started < 2.0


def test_a_solution_that_cites_shows_numbers_and_is_scored_without_its_marks() -> None:
    asked: list[Request] = []

    def says(request: Request) -> str:
        asked.append(request)
        return " Paris [1].\n"

    passages = [Document("far", "Rome is old."), Document("near", "Paris is big.", title="City")]
    plain = Solution("rag", "Answer.", Decoding(9), retriever=RAG)
    query, search = Query("q", "How big is Paris, is Rome old?"), _Ranked(passages)
    for solution in (plain, replace(plain, cite=True), replace(plain, cite=True, retriever=replace(RAG, fenced=True))):
        (found,) = answer(solution, FakeModel(says), [query], retriever=search)
        said, shown = asked[-1].messages[0].content, asked[-1].messages[-1].content
        if not solution.cite:
            assert found.text == "Paris [1]." and not found.citations and CITE_NOTE not in said
            continue
        assert found.text == "Paris." and found.citations == ("near",) and found.bad_citations == 0
        assert said.endswith(CITE_NOTE), "it is part of what all requests share"
        assert ("<passage 1>\nCity: Paris" if solution.retriever.fenced else "[1] City: Paris is big.\n[2]") in shown  # type: ignore[union-attr]


def test_a_solution_without_passages_never_cites() -> None:
    plain = Solution("zero_shot", "Answer.", Decoding(9), cite=True)
    (found,) = answer(plain, FakeModel(lambda request: "Paris [1]"), [Query("q", "?")])
    assert found.text == "Paris [1]" and render(plain, Query("q", "?"))[0].content == "Answer."


class _Ranked:
    def __init__(self, passages: Sequence[Document]) -> None:
        self._passages = passages

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [list(self._passages[:k]) for _ in queries]
