"""Sources of answers: as a reader sees them in `rung ask`, and from Python."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import rung
from rung.api import Sourced
from rung.cli.main import rung as command
from rung.serving.bundle import Bundle
from rung.serving.sources import ShownPassage
from rung.testing import FakeModel
from rung.types import Constraint, Decoding, Document, Query, RetrieverSpec, Solution

PASSAGES = (
    Document("leave.pdf#2", "Paris is the seat.", title="Handbook › Seat", page=3),
    Document("d7", "Rome was the seat.", source="https://example.org/rome"),
)
RAG = Solution("rag", "Answer.", Decoding(9), retriever=RetrieverSpec("bm25", 2, 90, fenced=True), cite=True)


class Both:
    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [list(PASSAGES) for _ in queries]


def bundle_of(answers: Any, solution: Solution = RAG, abstain: str | None = None) -> Bundle:
    search = Both() if solution.retriever is not None else None
    return Bundle(solution, FakeModel(answers), search, passages=PASSAGES if search else (), abstain=abstain)


def asked(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, *args: str, lines: str | None = None) -> Any:
    monkeypatch.setattr("rung.serving.bundle.open_bundle", lambda *_, **__: bundle)
    return CliRunner().invoke(command, ["ask", "run", *args], input=lines)


def test_a_source_is_told_with_its_headings_its_page_and_its_place() -> None:
    found = bundle_of(lambda request: "Paris [2]")
    (prediction,) = found.answer(["Where?"])
    first, second = found.sources(prediction)
    assert (first.number, first.id, first.cited) == (1, "d7", False) and (second.number, second.cited) == (2, True)
    assert second.line == "[2] Handbook › Seat, page 3 (leave.pdf#2)" and second.text == "Paris is the seat."
    assert first.line == "[1] d7 (https://example.org/rome)"
    assert ShownPassage(1, "notes.md", "x").line == "[1] notes.md"
    assert ShownPassage(1, "six.pdf", "x", page=1, last_page=6).line == "[1] six.pdf, pages 1–6"


def test_a_cited_passage_without_the_words_of_the_answer_is_marked() -> None:
    said = iter(["Paris [1][2]", "no [1]", "Rome was it for many years [1]"])
    found = bundle_of(lambda request: next(said))
    first, second = found.sources(found.answer(["Where?"])[0])
    assert (first.supports, second.supports) == (False, True) and "contain" not in second.line
    assert first.line == "[1] d7 (https://example.org/rome) – does not contain this answer"
    first, second = found.sources(found.answer(["Is it?"])[0])
    assert (first.supports, second.supports) == (None, None), "any passage may hold a no; the second is not cited"
    assert "contain" not in first.line
    first, _ = found.sources(found.answer(["Which?"])[0])
    assert first.supports is False, "a third of the words is not enough"


@pytest.mark.parametrize("abstain", ["Not in these documents.", None])
def test_a_passage_that_a_refusal_names_is_not_said_to_lack_it(abstain: str | None) -> None:
    found = bundle_of(lambda request: f"{abstain or 'I do not know.'} [1]", abstain=abstain)
    first, _ = found.sources(found.answer(["Where?"])[0])
    assert first.cited and first.supports is None and "contain" not in first.line


def test_ask_shows_the_sources_that_an_answer_names_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done = asked(monkeypatch, bundle_of(lambda request: "Paris [2]"), "Where?")
    assert done.stdout == "Paris\n  [2] Handbook › Seat, page 3 (leave.pdf#2)\n" and done.stderr == ""
    done = asked(monkeypatch, bundle_of(lambda request: "Paris [2]"), "--lines", lines="a\nb\n")
    assert done.stdout == "Paris\nParis\n" and done.stderr.count("[2] Handbook") == 2


def test_ask_says_what_is_wrong_with_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    done = asked(monkeypatch, bundle_of(lambda request: "Paris [1][7]"), "Where?")
    assert done.stdout == "Paris\n  [1] d7 (https://example.org/rome) – does not contain this answer\n"
    assert done.stderr == "rung: input 1: the answer names 1 number that is of no passage.\n"
    done = asked(monkeypatch, bundle_of(lambda request: "Paris"), "Where?")
    assert done.stdout == "Paris\n" and done.stderr == "rung: input 1: the answer names no source.\n"


def test_ask_lists_all_passages_of_a_solution_that_does_not_cite_with_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = replace(RAG, cite=False)
    done = asked(monkeypatch, bundle_of(lambda request: "Paris", silent), "Where?")
    assert done.stdout == "Paris\n" and done.stderr == ""
    done = asked(monkeypatch, bundle_of(lambda request: "Paris", silent), "Where?", "--verbose")
    assert done.stdout == "Paris\n" and "[1] d7" in done.stderr and "[2] Handbook › Seat, page 3" in done.stderr


@pytest.mark.parametrize(
    ("answer", "abstain", "changes", "refused"),
    [
        ("Not said.", "not said", {}, True),
        ("I do not know.", None, {}, True),
        ("Paris [1]", "not said", {}, False),
        ("not said", "not said", {"retriever": None}, True),
        ("unknown", None, {"retriever": None}, False),
        ("unknown", None, {"constraint": Constraint("labels", ("known", "unknown"))}, False),
        ("unknown", "none", {"constraint": Constraint("labels", ("none", "unknown"))}, False),
        ("none", "None", {"constraint": Constraint("labels", ("none", "unknown"))}, True),
    ],
)
def test_a_refusal_is_marked(
    monkeypatch: pytest.MonkeyPatch, answer: str, abstain: str | None, changes: dict[str, Any], refused: bool
) -> None:
    done = asked(monkeypatch, bundle_of(lambda request: answer, replace(RAG, **changes), abstain), "Where?")
    assert ("it says that there is no answer" in done.stderr) == refused
    assert not (refused and "source" in done.stderr), "a refusal needs none"


def test_a_loaded_winner_returns_a_text_that_knows_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["Paris [2]", "not said"])
    bundle = bundle_of(lambda request: next(said), abstain="not said")
    monkeypatch.setattr("rung.serving.bundle.open_bundle", lambda *_, **__: bundle)
    answer = rung.load("run")
    reply, refusal = answer("Where?"), answer("When?")
    assert reply == "Paris" and isinstance(reply, str) and not reply.refused
    assert [s.title for s in reply.sources if s.cited] == ["Handbook › Seat"]
    assert refusal == "not said" and refusal.refused and not any(s.cited for s in refusal.sources)
    for same in (copy.deepcopy(reply), pickle.loads(pickle.dumps(reply))):
        assert isinstance(same, Sourced) and same == reply and same.sources == reply.sources
