"""Sources that answers name: whether they hold the accepted answer, and the one that was given."""

from __future__ import annotations

import pytest

from rung.evaluation.citations import CitedAnswer, checked_citations, citing, supports
from rung.retrieval.gold import GoldIndex
from rung.types import Document, Example, Prediction

PASSAGES = (
    Document("a", "Paris is the capital.", title="France"),
    Document("b", "Rome is old."),
    Document("c#1", "It lies on the Seine."),
    Document("c#2", "Its name is Lutetia."),
)


def said(i: str, text: str, *citations: str, bad: int = 0, error: str | None = None) -> Prediction:
    return Prediction(i, text, 1, 1, 0.1, error=error, citations=citations, bad_citations=bad)


def example(i: str, answer: str, *gold: str) -> Example:
    return Example(i, "?", answer, (answer,), gold_ids=gold)


def checked(prediction: Prediction, asked: Example) -> CitedAnswer | None:
    by_id = {p.id: p for p in PASSAGES}
    return checked_citations([prediction], {asked.id: asked}, by_id, GoldIndex(PASSAGES), "not said").get(asked.id)


def test_a_named_passage_holds_the_answer_by_its_words_or_its_mark_and_supports_what_was_said() -> None:
    assert checked(said("q", "Paris", "a", "b"), example("q", "Paris")) == CitedAnswer((True, False), (True, False))
    assert checked(said("q", "Rome", "b"), example("q", "Paris")) == CitedAnswer((False,), (True,)), "a wrong answer"
    assert checked(said("q", "big", "b"), example("q", "huge", "b")) == CitedAnswer((True,), (False,)), "marked"
    assert checked(said("q", "Lutetia", "c#2", "c#1"), example("q", "Lutetia", "c")) == CitedAnswer(
        (True, False), (True, False)
    ), "of a marked document, the part that contains it"
    assert checked(said("q", "x y", "c#1"), example("q", "in other words", "c")) == CitedAnswer((True,), (False,))
    assert checked(said("q", "Paris", bad=2), example("q", "Paris")) == CitedAnswer(bad=2)


def test_whether_a_passage_holds_a_yes_or_a_no_is_said_by_marks_alone() -> None:
    assert checked(said("q", "no", "a", bad=1), example("q", "No")) == CitedAnswer((None,), (None,), 1)
    assert checked(said("q", "no", "a", "b"), example("q", "No", "a")) == CitedAnswer((True, False), (None, None))
    found = citing("rag", "dev", {"1": CitedAnswer((None,), (None,)), "2": CitedAnswer((True,), (None,))}, {}, 0)
    assert found is not None and found.holds is not None and (found.holds.mean, found.holds.n) == (1.0, 1)
    assert found.cites.mean == 1.0 and found.supports is None


@pytest.mark.parametrize("text", ["not said", "", "I do not know"])
def test_an_answer_that_there_is_none_needs_no_source(text: str) -> None:
    assert checked(said("q", text), example("q", "Paris")) is None
    assert checked(said("q", "Paris", error="broke"), example("q", "Paris")) is None


@pytest.mark.parametrize(
    ("answer", "stands"),
    [
        ("capital Paris", False),
        ("the capital", True),
        ("FRANCE", True),
        ("France's capital is Paris", False),
        ("So the capital is France Paris", True),  # 5 of 6 words
        ("So then the capital is big Paris", False),
    ],
)
def test_short_answers_stand_word_for_word_and_long_ones_by_most_of_their_words(answer: str, stands: bool) -> None:
    assert supports(PASSAGES[0], answer) == stands


def test_shares_are_of_answers_and_of_all_that_is_named() -> None:
    rows = {
        "1": CitedAnswer((True, False), (True, True)),
        "2": CitedAnswer((True,), (False,), bad=1),
        "3": CitedAnswer(),
        "4": CitedAnswer((True,), (True,)),
    }
    found = citing("rag", "dev", rows, {}, 0)
    assert found is not None and found.holds is not None and found.supports is not None
    assert (found.cites.mean, found.cites.n, found.bad) == (0.75, 4, 1)
    assert (found.holds.mean, found.holds.n) == (0.6, 5) and found.supports.mean == 0.6
    assert found.holds.low < 0.6 < found.holds.high
    none = citing("rag", "dev", {"1": CitedAnswer()}, {}, 0)
    assert none is not None and none.cites.mean == 0 and none.holds is None and none.supports is None
    assert citing("rag", "dev", {}, {}, 0) is None


def test_rows_of_one_group_are_one_unit() -> None:
    rows = {str(i): CitedAnswer((i % 8 < 4,), (True,)) for i in range(80)}
    alone = citing("rag", "dev", rows, {}, 0)
    grouped = citing("rag", "dev", rows, {str(i): f"g{i // 8 * 2 + i % 8 // 4}" for i in range(80)}, 0)
    assert alone is not None and grouped is not None and alone.holds is not None and grouped.holds is not None
    assert grouped.holds.high - grouped.holds.low > alone.holds.high - alone.holds.low
