"""Candidates that need no language model."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rung.evaluation import baselines as module
from rung.evaluation.baselines import baselines, label_like
from rung.evaluation.metrics import METRICS, metric_of
from rung.evaluation.scorer import Scorer
from rung.types import Example, Prediction

LABELS = ("refund", "delivery", "login")
WORDS = {
    "refund": ["money back", "refund", "charged twice", "return the shoes"],
    "delivery": ["parcel", "late courier", "tracking number", "where is my order"],
    "login": ["password", "cannot sign in", "locked account", "reset code"],
}
LABEL_SCORER = Scorer(METRICS["label_accuracy"])
F1 = Scorer(METRICS["token_f1"])


def example(number: int, text: str, output: str) -> Example:
    return Example(f"e{number}", text, output, (output,))


def tickets(n: int, seed: int, labels: Sequence[str] = LABELS) -> list[Example]:
    random_ = random.Random(seed)
    rows = []
    for i in range(n):
        label = labels[i % len(labels)]
        text = f"Hello, {random_.choice(WORDS[label])} number {random_.randrange(1000)}, thanks"
        rows.append(example(i, text, label))
    return rows


def mean(predictions: Sequence[Prediction]) -> float:
    return sum(p.score or 0.0 for p in predictions) / len(predictions)


def test_a_label_task_is_compared_with_the_frequent_answer_chance_and_a_linear_classifier() -> None:
    asked = tickets(30, seed=2)
    found = baselines(tickets(61, seed=1), asked, LABEL_SCORER, labels=LABELS)
    assert list(found) == ["most_frequent", "chance", "tfidf_linear"]
    assert all([p.id for p in predictions] == [e.id for e in asked] for predictions in found.values())
    assert {p.text for p in found["most_frequent"]} == {"refund"}
    assert mean(found["most_frequent"]) == pytest.approx(1 / 3)
    assert [p.score for p in found["chance"]] == pytest.approx([1 / 3] * 30)
    assert mean(found["tfidf_linear"]) > 0.9
    assert all(p.error is None and p.tokens_in == 0 for p in found["tfidf_linear"])


def test_repeated_answers_are_labels_though_task_yaml_names_none() -> None:
    assert label_like(tickets(30, seed=1))
    assert not label_like([example(i, "question", f"answer {i}") for i in range(30)])
    assert not label_like([example(i, "question", "always the same") for i in range(30)])
    assert list(baselines(tickets(30, 1), tickets(9, 2), LABEL_SCORER)) == ["most_frequent", "tfidf_linear"]


def test_other_tasks_are_compared_with_the_answer_of_the_nearest_input() -> None:
    train = [
        example(i, f"Which treat is {place} known for?", f"treat {i}")
        for i, place in enumerate(["Ely", "York", "Bath"])
    ]
    asked = [example(7, "What is York known for?", "treat 1"), example(8, "Снег?", "treat 0")]
    found = baselines(train, asked, F1)
    assert list(found) == ["most_frequent", "nearest_neighbour"]
    assert [p.text for p in found["nearest_neighbour"]] == ["treat 1", "treat 0"]  # the second has nothing in common
    assert [p.score for p in found["nearest_neighbour"]] == [1.0, 1.0]


def test_context_belongs_to_the_input_and_chinese_has_features() -> None:
    train = [
        replace(example(i, "问题", f"答{i}"), context=c)
        for i, c in enumerate(["今天下雪了", "他买了苹果", "火车晚点了"])
    ]
    found = baselines(train, [replace(example(9, "问题", "答1"), context="她买了两个苹果")], F1)
    assert found["nearest_neighbour"][0].text == "答1"


def test_the_same_seed_gives_the_same_answers() -> None:
    train, asked = tickets(60, 1), tickets(40, 2)
    assert baselines(train, asked, LABEL_SCORER, seed=3) == baselines(train, asked, LABEL_SCORER, seed=3)


@pytest.mark.parametrize("text", ["", "?", " "])
def test_inputs_without_a_word_leave_only_what_looks_at_no_input(text: str) -> None:
    rows = [example(i, text, "ab"[i % 2]) for i in range(8)]
    found = baselines(rows, rows, LABEL_SCORER, labels=("a", "b"))
    assert {"most_frequent", "chance"} <= set(found)


def test_one_training_answer_is_the_answer_of_the_classifier_too() -> None:
    rows = tickets(5, 1, labels=("login",))
    found = baselines(rows, rows, LABEL_SCORER, labels=LABELS)
    assert {p.text for p in found["tfidf_linear"]} == {"login"}


def test_a_large_training_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tickets(90, 1)
    monkeypatch.setattr(module, "_MOST_ROWS", 30)
    assert len(module._sample(rows, 3, seed=0)) == 30
    monkeypatch.setattr(module, "_MOST_ROWS", 1000)
    monkeypatch.setattr(module, "_MOST_CHARACTERS", 400)
    some = module._sample(rows, 3, seed=0)
    assert 5 < len(some) < 20 and some == module._sample(rows, 3, seed=0) != module._sample(rows, 3, seed=1)
    monkeypatch.setattr(module, "_MOST_CHARACTERS_TIMES_ANSWERS", 400)
    assert len(module._sample(rows, 4, seed=0)) < len(some)
    monkeypatch.setattr(module, "_MOST_CHARACTERS", 1)
    assert len(module._sample(rows, 1, seed=0)) == 1


def test_an_answer_that_the_metric_cannot_score_counts_as_zero_with_the_reason() -> None:
    def broken(prediction: str, references: Sequence[str]) -> float:
        raise ValueError("no")

    rows = tickets(6, 1)
    found = baselines(rows, rows, Scorer(metric_of("broken", broken)))
    assert {(p.score, p.metric_error) for p in found["most_frequent"]} == {(0.0, "ValueError: no")}


def test_a_judge_is_not_asked_for_chance() -> None:
    judge = Scorer(replace(METRICS["exact_match"], needs_judge=True))
    rows = tickets(6, 1)
    assert "chance" not in baselines(rows, rows, judge, labels=LABELS)


def test_what_looks_at_no_input_gives_the_frequent_answer_or_a_blind_guess() -> None:
    asked = [example(i, "x", output) for i, output in enumerate("abbc")]
    exact = Scorer(METRICS["exact_match"])

    def train(*outputs: str) -> list[Example]:
        return [example(i, "x", output) for i, output in enumerate(outputs)]

    assert mean(baselines(train("b", "b ", "a"), asked, exact)["most_frequent"]) == 0.5
    assert mean(baselines(train("x", "a", "a", "x"), asked, exact)["most_frequent"]) == 0.0  # the first of equals
    guess = baselines(train("z"), asked, LABEL_SCORER, labels=["a", "b", "c", "d"])["chance"]
    assert mean(guess) == pytest.approx(0.25)
    assert baselines([], asked, exact) == {}
    with pytest.raises(ValueError):
        baselines(train("a"), [], exact)


def test_importing_the_baselines_loads_no_numbers_library() -> None:
    code = "import sys, rung.evaluation.baselines; print({'numpy', 'scipy', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_sets_of_labels_are_answered_by_the_nearest_input_and_not_guessed_blindly() -> None:
    labels = ("refund", "delivery", "login")
    sets = ['["refund"]', '["delivery"]', '["refund", "login"]', "[]", '["login"]', '["delivery", "login"]']
    train = [example(i, f"word{i} text", sets[i]) for i in range(6)]
    found = baselines(train, train[:3], Scorer(METRICS["label_set_f1"]), labels=labels)
    assert list(found) == ["most_frequent", "nearest_neighbour"]
    assert [p.score for p in found["nearest_neighbour"]] == [1.0, 1.0, 1.0]


def test_answers_that_look_the_same_are_one_answer_and_indentation_is_kept() -> None:
    rows = [example(i, "question", o) for i, o in enumerate(["  x", "  x\u200b", "  x ", "y", "y", "X", "X"])]
    assert label_like(rows)
    found = baselines(rows, rows[:1], Scorer(METRICS["exact_match"]))
    assert found["most_frequent"][0].text == "  x"
