"""What is said of a wrong answer to whoever writes a better instruction."""

from __future__ import annotations

import pytest

from rung.evaluation.metrics import METRICS
from rung.teaching.feedback import causes_in_words, feedback, shortened
from rung.types import Example, Prediction

EXACT, F1, JSON = METRICS["exact_match"], METRICS["token_f1"], METRICS["json_match"]


def of(text: str, right: str = "red", *, metric: object = EXACT, labels: object = None, **more: object) -> str:
    example = Example("e", "which colour", right, (right,))
    answer = Prediction("e", text, 1, 1, 0.1, score=more.pop("score", 0.0), **more)  # type: ignore[arg-type]
    return feedback(example, answer, metric, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (of("Red "), "Only case or space differs"),
        (of("The colour is red."), "among other words"),
        (of("blue"), "This is wrong. Right is: red"),
        (of(""), "is empty"),
        (of("purple", labels=("red", "blue")), "none of the labels."),
        (of("It is red", labels=("red", "blue")), "none of the labels, though it holds the right one"),
        (of("blue", labels=("red", "blue")), "This is wrong."),
        (of("a very long", finish="length"), "cut off"),
        (of("", error="no reply within 60 s"), "gave no answer (no reply within 60 s)"),
        (of("rde", error="the answer breaks the pattern"), "breaks its form the pattern"),
        (of("red car", metric=F1, score=0.5), "0.50 of 1 by token_f1"),
        (of("x", metric=JSON, right='{"a": 1}'), "not JSON alone"),
        (of('{"b": 2}', metric=JSON, right='{"a": 1}'), "missing: a. Keys that do not belong there: b."),
        (of('{"a": 2}', metric=JSON, right='{"a": 1}'), "Wrong values of: a."),
        (of("[1]", metric=JSON, right='{"a": 1}'), "no JSON object"),
        (of("x", metric_error="it has no number"), "could not be scored: it has no number."),
    ],
)
def test_feedback_says_what_differs_and_what_is_right(said: str, what: str) -> None:
    assert what in said and "Right is: " in said


def test_a_right_answer_needs_no_more_words() -> None:
    assert of("red", score=1.0) == "This is right."


def test_a_word_inside_another_is_not_the_right_answer() -> None:
    assert "among other words" not in of("reduced")


def test_of_a_diagnosis_causes_and_shares_are_said_and_no_example() -> None:
    record = {
        "poor": False,
        "causes": [
            {"cause": "convention", "share": 0.42, "ids": ["dev-7"]},
            {"cause": "format", "share": 0.04, "ids": []},
        ],
        "examples": [{"id": "dev-7", "answer": "secret"}],
    }
    said = causes_in_words(record)
    assert "42 %" in said and "convention" in said and "form" not in said.replace("Experiments", "")
    assert "dev-7" not in said and "secret" not in said
    assert causes_in_words({}) == "" == causes_in_words({**record, "poor": True})


def test_a_long_text_keeps_both_ends() -> None:
    said = shortened("a" * 500 + "b" * 500, 100)
    assert said.startswith("aaa") and said.endswith("bbb") and len(said) < 120
