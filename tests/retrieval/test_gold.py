from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rung.retrieval.gold import GoldIndex, GoldRetriever, WithGold, WithoutGold, contains_answer
from rung.types import Document, Example, Query

PASSAGES = (
    Document("fees#1", "The fee is 17 pounds."),
    Document("fees#2", "Refunds take a week."),
    Document("cards", "A lost card costs 7 pounds.", title="Cards"),
    Document("boats", "Boats leave at noon."),
)


def example(id_: str, answer: str, *gold: str, text: str = "How much?") -> Example:
    return Example(id_, text, answer, (answer,), gold_ids=gold)


class Fixed:
    """Finds the same passages for every query."""

    def __init__(self, *found: Document) -> None:
        self.found = list(found)

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [self.found[:k] for _ in queries]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("a week", ("fees",), "fees#2"),  # of a marked document, the part with the answer
        ("nothing", ("fees",), "fees#1"),  # or its first part
        ("7 pounds", ("cards",), "cards"),
        ("a week", ("fees#1",), "fees#1"),  # a marked passage is the one
        ("at noon", (), "boats"),  # without marks, what was found
        ("7", (), "cards"),  # not the 7 in 17
        ("nothing", (), None),
        ("at noon", ("lost",), "boats"),  # a mark that names nothing marks nothing
    ],
)
def test_the_gold_passage_is_marked_or_contains_the_answer(answer: str, gold: tuple[str, ...], expected: str) -> None:
    found = GoldIndex(PASSAGES).passage(example("e", answer, *gold), PASSAGES)
    assert (found and found.id) == expected


def test_gold_passages_are_the_marked_ones_the_one_with_the_answer_first() -> None:
    index = GoldIndex(PASSAGES)
    assert [p.id for p in index.passages(example("e", "a week", "fees"), [])] == ["fees#2"]
    assert [p.id for p in index.passages(example("e", "7 pounds", "boats", "cards"), [])] == ["cards", "boats"]
    assert [p.id for p in index.passages(example("e", "at noon"), PASSAGES)] == ["boats"]
    assert index.passages(example("e", "at noon"), []) == ()


@pytest.mark.parametrize(
    ("text", "answer", "held"),
    [
        ("He lives in Tokyo.", "tokyo", True),
        ("He lives in the Nile delta", "Nile delta", True),
        ("seventeen", "seven", False),
        ("他住在东京的郊区", "东京", True),
        ("他住在京东的郊区", "东京", False),
        ("anything", "?!", False),
    ],
)
def test_an_answer_is_contained_as_whole_words(text: str, answer: str, held: bool) -> None:
    assert contains_answer(Document("d", text), example("e", answer)) is held


def test_two_examples_with_one_input_keep_their_own_passages() -> None:
    gold = {"a": PASSAGES[:1], "b": PASSAGES[2:]}
    queries = [Query("a", "How much?"), Query("b", "How much?"), Query("c", "How much?")]
    assert GoldRetriever(gold).search(queries, 1) == [[PASSAGES[0]], [PASSAGES[2]], []]
    examples = [example("a", "17 pounds", "fees#1"), example("b", "7 pounds", "cards")]
    search = WithGold(Fixed(PASSAGES[3]), examples, GoldIndex(PASSAGES), lambda row: row)
    assert [row[0].id for row in search.search(queries, 1)] == ["fees#1", "cards", "boats"]


def test_the_gold_passage_takes_the_place_of_the_last_hits_where_the_prompt_would_miss_it() -> None:
    fee, refund, card, boat = PASSAGES
    one = example("a", "7 pounds", "cards")
    query = [one.query]

    def searched(*found: Document, fits: int = 9, k: int = 3) -> list[Document]:
        index = GoldIndex(PASSAGES)
        return WithGold(Fixed(*found), [one], index, lambda row: row[:fits]).search(query, k)[0]

    assert searched(fee, card, boat) == [fee, card, boat]
    assert searched(fee, refund, boat) == [fee, refund, card]
    assert searched(fee, refund, boat, card, k=3) == [fee, refund, card]
    assert searched(fee, refund, card, fits=2) == [fee, card]
    assert searched(fee, refund, boat, fits=1) == [card]
    assert searched() == [card]


def test_what_the_search_returned_is_not_changed() -> None:
    search = Fixed(PASSAGES[3], PASSAGES[1])
    WithGold(search, [example("a", "7", "cards")], GoldIndex(PASSAGES), lambda r: r).search([Query("a", "q")], 2)
    assert search.found == [PASSAGES[3], PASSAGES[1]]


def test_marked_passages_are_looked_up_and_not_searched_for() -> None:
    passages = [Document(f"d{i // 4}#{i % 4 + 1}", f"text {i}") for i in range(40_000)]
    index = GoldIndex(passages)
    examples = [replace(example(str(i), f"text {i * 4}"), gold_ids=(f"d{i}",)) for i in range(5_000)]
    started = time.process_time()
    assert [index.passages(e)[0].id for e in examples] == [f"d{i}#1" for i in range(5_000)]
    assert time.process_time() - started < 3  # a scan of all passages for each example takes minutes


def test_what_holds_the_answer_can_be_left_out_and_later_passages_come_in_its_place() -> None:
    fee, refund, card, boat = PASSAGES

    def left(*gold: str, answer: str, k: int = 2, of: str = "a") -> list[Document]:
        search = WithoutGold(Fixed(fee, refund, card, boat), [example("a", answer, *gold)], GoldIndex(PASSAGES))
        return search.search([Query(of, "How much?")], k)[0]

    assert left(answer="7 pounds") == [fee, refund], "17 pounds is another answer"
    assert left(answer="pounds") == [refund, boat], "wherever it stands"
    assert left("fees#1", answer="a lot") == [refund, card], "the marked passage"
    assert left("fees", answer="a lot") == [card, boat], "every part of a marked document"
    assert left("fees", answer="a lot", of="b") == [fee, refund], "of the example with the query's id"


def test_a_mark_of_a_part_means_what_holds_its_text_however_documents_are_cut() -> None:
    sentences = [
        " ".join(f"{word}{i}" for i in range(9)) for word in ("ash", "bay", "cob", "dew", "elm", "fig", "gum", "hay")
    ]
    usual = [Document(f"d#{i + 1}", " ".join(sentences[4 * i : 4 * i + 4])) for i in range(2)]
    small = [Document(f"d#{i + 1}", " ".join(sentences[2 * i : 2 * i + 2])) for i in range(4)]
    index = GoldIndex([*small, PASSAGES[2]], [*usual, PASSAGES[2]])
    second = example("e", "fig3 fig4", "d#2")
    assert index.marked(second) == {"d#3"}, "d#2 of the usual cutting, of it the part with the answer"
    assert index.passage(second) == small[2] and index.named(second) == []
    assert index.marked(example("e", "elsewhere", "d#2")) == {"d#3", "d#4"}
    assert index.marked(example("e", "ash3 ash4", "d#1", "cards")) == {"d#1", "cards"}
    assert index.marked(example("e", "fig3 fig4", "d")) == {"d#3"}
    assert index.marked(example("e", "fig3 fig4", "d#4")) == set(), "the usual cutting has no such part"
    whole = GoldIndex([Document("d", " ".join(sentences))], usual)
    assert whole.marked(second) == {"d"}
    left = WithoutGold(Fixed(*small), [example("e", "elsewhere", "d#2")], index)
    assert left.search([Query("e", "?")], 4) == [[small[0], small[1]]]
