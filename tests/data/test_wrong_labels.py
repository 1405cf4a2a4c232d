"""Likely wrong labels: flipped ones are found, clean ones left alone, and nothing is learnt from a row about itself."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rung.data.checks.material import Material
from rung.data.checks.wrong_labels import labelled, out_of_sample, suspects, wrong_labels
from rung.types import Example, Finding, Task

SUBJECTS = {
    "refund": ("refund", "money back", "return the shoes", "wrong amount charged"),
    "delivery": ("parcel", "courier", "late delivery", "tracking number"),
    "login": ("password", "two factor code", "locked account", "sign in page"),
    "hours": ("opening hours", "open on sunday", "holiday closing", "closing time"),
}
FRAMES = ("please help with {}", "question about {} today", "{} again", "i do not understand {}", "who knows about {}")
FILLERS = ("thanks", "urgent", "since monday", "for my sister", "from london", "in the app", "by mail", "as agreed")


def example(i: int, text: str, output: str) -> Example:
    return Example(id=f"r{i}", input=text, output=output, references=(output,), row=f"x.jsonl, line {i + 1}")


def labelled_rows(n: int = 240) -> list[Example]:
    rng = random.Random(0)
    rows = []
    for i in range(n):
        label = list(SUBJECTS)[i % len(SUBJECTS)]
        text = rng.choice(FRAMES).format(rng.choice(SUBJECTS[label])) + f" {rng.choice(FILLERS)} {rng.choice(FILLERS)}"
        rows.append(example(i, text, label))
    return rows


def task(metric: str = "label_accuracy", labels: tuple[str, ...] | None = tuple(SUBJECTS)) -> Task:
    return Task("t", Path("task.yaml"), "do", (), metric, (), labels=labels)


def found(rows: list[Example], of: Task | None = None) -> list[Finding]:
    return list(wrong_labels(Material(of or task(), {None: tuple(rows)}, tuple(rows))))


def test_flipped_labels_stand_first() -> None:
    rows = labelled_rows()
    flipped = set(random.Random(1).sample(range(len(rows)), 12))
    for i in flipped:
        other = next(label for label in SUBJECTS if label != rows[i].output)
        rows[i] = replace(rows[i], output=other, references=(other,))
    listed = found(rows)
    assert {f.ids[0] for f in listed[:14]} >= {f"r{i}" for i in flipped}
    assert all(f.check == "likely_wrong_label" and f.row.startswith("x.jsonl") for f in listed)
    assert listed[0].severity == "warning" and "classifier" in listed[0].message


def test_clean_labels_are_left_alone() -> None:
    assert found(labelled_rows()) == []


def test_labels_without_any_relation_to_their_inputs_accuse_nobody() -> None:
    rng = random.Random(2)
    rows = [replace(e, output=(o := rng.choice(list(SUBJECTS))), references=(o,)) for e in labelled_rows()]
    assert len(found(rows)) <= 3


def test_nothing_is_printed_and_a_few_rows_are_not_judged(capfd: pytest.CaptureFixture[str]) -> None:
    found(labelled_rows())
    assert found(labelled_rows(20)) == []
    assert capfd.readouterr() == ("", "")


def test_a_text_without_words_and_a_label_of_one_row_do_no_harm() -> None:
    rows = [*labelled_rows(), example(900, "…", "refund"), example(901, "only one", "unheard of")]
    found(rows, task(labels=(*SUBJECTS, "unheard of")))


def test_probabilities_come_from_other_folds_alone() -> None:
    rng = np.random.default_rng(0)
    vectors, folds = rng.normal(size=(60, 8)), np.arange(60) % 3
    given = rng.integers(0, 2, 60)
    before = out_of_sample(vectors, given, folds)
    changed = np.where(folds == 0, 1 - given, given)
    after = out_of_sample(vectors, changed, folds)
    assert np.array_equal(before[folds == 0], after[folds == 0])
    assert not np.array_equal(before[folds == 1], after[folds == 1])


def test_suspects_are_the_surplus_over_what_the_probabilities_expect() -> None:
    rng = np.random.default_rng(0)
    n, p = 2000, 0.9
    probabilities = np.full((n, 2), 1 - p)
    predicted = rng.integers(0, 2, n)
    probabilities[np.arange(n), predicted] = p
    right = np.where(rng.random(n) < p, predicted, 1 - predicted)  # calibrated: a tenth is improbable and right
    assert list(suspects(probabilities, right)) == []
    sure = np.full((n, 2), 0.001)
    sure[np.arange(n), predicted] = 0.999
    wrong = predicted.copy()
    wrong[:50] = 1 - wrong[:50]
    listed = list(suspects(sure, wrong))
    assert sorted(place for place, _ in listed) == list(range(50)) and all(sure for _, sure in listed)


def test_labels_that_are_written_otherwise_are_one_label() -> None:
    rows = [e if i % 3 else replace(e, output=e.output.upper()) for i, e in enumerate(labelled_rows())]
    assert found(rows) == []


def test_answers_are_labels_where_nearly_all_are_repeated() -> None:
    assert labelled(labelled_rows(), closed=False)
    assert not labelled([example(i, "x", f"answer {i}") for i in range(50)], closed=False)
    assert not labelled([example(i, "x", "same") for i in range(50)], closed=False)


CITIES = ("oslo", "lima", "cairo", "quito", "dublin", "hanoi", "accra", "sofia")


def cities() -> list[Example]:
    rng = random.Random(3)
    rows = []
    for i in range(160):
        a, b, price = rng.choice(CITIES), rng.choice(CITIES), rng.randrange(100, 999)
        text = f"a ticket from {a} to {b} for {price} euros, seat {i}"
        rows.append(example(i, text, f"from={a} to={b} price={price} seat={i}"))
    return rows


def test_an_answer_of_another_row_is_found_where_answers_repeat_their_inputs() -> None:
    rows = cities()
    assert found(rows, task("exact_match", None)) == []
    prose = "the weather is mild and nobody knows why it rains"
    rows[7] = replace(rows[7], output=prose, references=(prose,))
    (finding, *others) = [f for f in found(rows, task("exact_match", None)) if f.check == "answer_of_another"]
    assert finding.ids == ("r7",) and "no better" in finding.message and not others
    rows[7] = replace(rows[7], output=rows[20].output, references=rows[20].references)
    (finding, *others) = [f for f in found(rows, task("exact_match", None)) if f.check == "answer_of_another"]
    assert finding.ids == ("r7",) and "another row better" in finding.message and not others


def test_rows_of_a_label_that_stands_in_one_group_and_a_poor_classifier_accuse_nobody() -> None:
    rows = labelled_rows()
    odd = [replace(example(i, f"the parcel number {i} of Monday", "parcel"), id=f"p{i}") for i in range(20)]
    material = Material(
        task("label_accuracy", None), {None: (*rows, *odd)}, (*rows, *odd), groups={e.id: "parcels" for e in odd}
    )
    assert not [f for f in wrong_labels(material) if f.ids[0].startswith("p")]
    rng = random.Random(0)
    labels = [f"l{i}" for i in range(8)]
    chance = [example(i, f"{rng.choice(CITIES)} {rng.choice(CITIES)} {i}", rng.choice(labels)) for i in range(200)]
    assert found(chance) == []


def test_an_answer_unlike_those_of_its_neighbours_is_found_where_they_agree() -> None:
    rows = []
    for i in range(80):
        kind, reply = [
            ("reset the router", "unplug it and wait one minute, case"),
            ("pay a bill", "use the pay form, case"),
        ][i % 2]
        rows.append(example(i, f"how do i {kind} number {i}", f"{reply} {i}"))
    assert found(rows, task("token_f1", None)) == []
    rows[10] = replace(rows[10], output="bananas are yellow", references=("bananas are yellow",))
    assert [f.ids for f in found(rows, task("token_f1", None)) if f.check == "unlike_neighbours"] == [("r10",)]


def test_numbers_are_not_judged_by_their_neighbours() -> None:
    rows = [example(i, f"what is {i} plus {i}", str(2 * i)) for i in range(100)]
    assert found(rows, task("numeric_match", None)) == []
