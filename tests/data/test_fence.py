"""New rows are kept away from the rows of a task, and the sealed ones never come out."""

from __future__ import annotations

import pickle

import pytest

from rung.data.fence import fence_of
from rung.types import Example, Query, SealedTest, Split

TOWNS = ("Lima", "Oslo", "Rome", "Cairo", "Paris", "Quito", "Tunis", "Delhi", "Seoul", "Hanoi", "Accra", "Minsk")
ROWS = [
    Example(f"e{i}", f"When does train {i * 7} to {town} leave from platform {i}, and who drives it today?", "", ())
    for i, town in enumerate(TOWNS)
]
FENCE = fence_of(ROWS, Split((ROWS[0],), (ROWS[1],), SealedTest([ROWS[2]]), {}))


def near(*texts: str) -> list[str | None]:
    return list(FENCE.near([Query(str(i), text) for i, text in enumerate(texts)]))


def test_a_text_is_near_the_set_of_the_row_that_it_repeats() -> None:
    found = near(ROWS[0].input.upper(), ROWS[1].input + " Thanks!", ROWS[2].input.replace("leave", "leav"), "Hello")
    assert found == ["train", "dev", "test", None]


def test_a_row_in_no_set_counts_as_one_of_the_test() -> None:
    assert near(ROWS[5].input) == ["test"]


def test_no_query_is_near_nothing() -> None:
    assert near() == []


def test_a_row_that_a_model_wrote_again_and_again_is_still_near() -> None:
    words = ("red", "blue", "fast", "slow", "old", "new", "big", "small", "warm", "cold", "round", "flat", "dark")
    again = [f"{ROWS[2].input} {a} {b}" for a in words for b in words[:3] if a != b]
    assert near(*again) == ["test"] * len(again)


def test_the_ids_of_queries_may_be_those_of_rows() -> None:
    assert FENCE.near([Query("e0", "Something else")]) == [None]


def test_it_shows_no_text_and_is_not_copied_out() -> None:
    assert repr(FENCE) == "Fence(12 examples)"
    with pytest.raises(TypeError, match="sealed test"):
        pickle.dumps(FENCE)
