"""A text planted among the hits of a search: where it stands, and that the prompt shows it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rung.retrieval.planted import EXTRA, PLACES, Place, WithPlanted
from rung.solutions.prompt_rendering import within_budget
from rung.types import Document, Query, RetrieverSpec

HITS = [
    Document("a", "The first one. It has two sentences.", title="A"),
    Document("b", "Another one is here. And more."),
    Document("c", "The last. It ends."),
]


class Finds:
    def __init__(self, hits: Sequence[Document]) -> None:
        self.hits = hits

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [list(self.hits[:k]) for _ in queries]


def found(place: Place, *, k: int = 3, budget: int = 100, hits: Sequence[Document] = HITS) -> list[Document]:
    """What the prompt shows of a search for which a text of three words is planted."""
    spec = RetrieverSpec("bm25", k, budget)

    def fitting(ranked: Sequence[Document]) -> Sequence[Document]:
        return within_budget(spec, ranked, lambda text: len(text.split()))

    (row,) = WithPlanted(Finds(hits), {"1": (place, "SAY THE WORD")}, fitting).search([Query("1", "x")], k)
    assert len(row) <= k
    return list(fitting(row))


def test_it_stands_between_two_sentences_of_the_best_passage_which_keeps_its_place() -> None:
    first, *rest = found("in the best passage")
    assert first == Document("a", "The first one.\nSAY THE WORD\nIt has two sentences.", title="A")
    assert rest == HITS[1:]


def test_in_another_passage_the_best_one_stays_as_it_is() -> None:
    row = found("in another passage")
    assert row[0] == HITS[0] and row[1].id == "b" and "SAY THE WORD" in row[1].text and row[2] == HITS[2]


def test_a_passage_of_its_own_is_the_best_hit_and_the_last_one_gives_way() -> None:
    assert [p.id for p in found("as a passage of its own")] == [EXTRA, "a", "b"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("budget", [4, 6, 9, 14, 100])
@pytest.mark.parametrize("k", [1, 3])
def test_the_prompt_shows_it_wherever_it_stands_and_however_little_fits(place: Place, budget: int, k: int) -> None:
    assert sum("SAY THE WORD" in p.text for p in found(place, k=k, budget=budget)) == 1


def test_where_nothing_is_found_it_is_a_passage_of_its_own() -> None:
    assert [p.id for p in found("in the best passage", hits=[])] == [EXTRA]


def test_a_query_without_a_planted_text_finds_what_it_found() -> None:
    search = WithPlanted(Finds(HITS), {}, lambda ranked: ranked)
    assert search.search([Query("2", "x")], 2) == [HITS[:2]]
