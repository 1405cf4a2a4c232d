"""A picked subset: clean, diverse, every answer in its proportion, the same each time."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from rung.data.picking import doubtful, facility_location, pick, shared_out
from rung.types import Example, Finding

TOPICS = {
    "boats": "boat harbour pier captain deck",
    "hens": "hen egg coop nest grain",
    "keys": "key lock door hinge bolt",
}


def example(i: int, text: str, output: str) -> Example:
    return Example(id=f"r{i}", input=text, output=output, references=(output,), row=f"line {i + 1}")


def rows(n: int = 90) -> list[Example]:
    rng = random.Random(0)
    topics = list(TOPICS)
    return [
        example(i, " ".join(rng.sample(TOPICS[topics[i % 3]].split(), 3)) + f" {i}", topics[i % 3]) for i in range(n)
    ]


def test_a_subset_has_its_size_and_the_order_of_train_and_is_the_same_each_time() -> None:
    train = rows()
    picked = pick(train, 20, seed=1)
    assert len(picked) == 20 and list(picked) == [e for e in train if e in picked]
    assert picked == pick(train, 20, seed=1)
    assert pick(train, 90, seed=1) == tuple(train) == pick(train, 1000, seed=1)


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="not at least 1"):
        pick(rows(), 0, seed=0)


def test_answers_keep_their_proportions_and_rare_ones_stay() -> None:
    train = [*rows(), *(example(200 + i, f"odd thing {i}", "rare") for i in range(4))]
    counts = Counter(e.output for e in pick(train, 24, seed=0))
    assert counts["rare"] >= 1 and max(counts.values()) <= 9


def test_doubted_rows_are_picked_last() -> None:
    train = rows(30)
    bad = [Finding("likely_wrong_label", "note", e.row, "…", (e.id,)) for e in train[:12]]
    assert not {e.id for e in pick(train, 18, seed=0, doubted=doubtful(bad))} & {e.id for e in train[:12]}
    assert len(pick(train, 25, seed=0, doubted=doubtful(bad))) == 25


def test_a_finding_about_the_whole_or_about_a_rare_label_doubts_no_row() -> None:
    found = [
        Finding("imbalance", "warning", "", "…", ("a",)),
        Finding("rare_label", "warning", "line 1", "…", ("b",)),
        Finding("near_duplicate", "note", "line 1", "…", ("c", "d")),
        Finding("refusal", "warning", "line 1", "…", ("e",)),
        Finding("long_output", "note", "line 1", "…", ("f",)),
    ]
    assert doubtful(found) == {"e"}


def test_rows_that_a_model_cannot_read_whole_are_doubted() -> None:
    assert doubtful([Finding("too_long", severity, "", "…", ("a", "b")) for severity in ("warning", "note")]) == {
        "a",
        "b",
    }


def test_repeated_rows_are_picked_once_before_new_ones_run_out() -> None:
    train = [example(i, "the same words again", f"answer {i % 2}") for i in range(40)]
    train += [
        example(100 + i, text, f"answer of {text}") for i, text in enumerate(("red fox", "blue whale", "green frog"))
    ]
    assert {"r100", "r101", "r102"} <= {e.id for e in pick(train, 6, seed=0)}


def test_facility_location_finds_the_best_pair_that_greedy_search_can() -> None:
    rng = np.random.default_rng(0)
    vectors = np.abs(rng.normal(size=(40, 6)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = vectors @ vectors.T
    nearest, plain = np.zeros(40), []
    for _ in range(8):  # greedy search without bounds
        place = int(np.maximum(alike - nearest, 0).sum(axis=1).argmax())
        plain.append(place)
        nearest = np.maximum(nearest, alike[place])
    assert facility_location(vectors, 8) == plain


def test_places_are_shared_out_in_proportion() -> None:
    assert shared_out({"a": 60, "b": 30, "c": 10}, 10) == {"a": 6, "b": 3, "c": 1}
    assert shared_out({"a": 97, "b": 2, "c": 1}, 10) == {"a": 8, "b": 1, "c": 1}
    assert shared_out({"a": 3, "b": 2, "c": 1}, 2) == {"a": 1, "b": 1}
    assert shared_out({"a": 1, "b": 1}, 5) == {"a": 1, "b": 1}


def test_another_embedding_can_take_the_place_of_words() -> None:
    seen: list[int] = []

    def by_length(texts: object) -> np.ndarray:
        lengths = np.array([[len(t), 1.0] for t in texts], dtype=np.float32)  # type: ignore[attr-defined]
        seen.append(len(lengths))
        return lengths / np.linalg.norm(lengths, axis=1, keepdims=True)

    assert len(pick(rows(), 10, seed=0, embed=by_length)) == 10 and seen == [90]


def test_many_rows_are_compared_in_parts() -> None:
    rng = random.Random(0)
    train = [
        example(i, f"{rng.choice('abcdefgh')}{rng.randrange(50)} {rng.randrange(99)}", f"answer {i}")
        for i in range(4500)
    ]
    assert len(pick(train, 100, seed=0)) == 100
