from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.checks import behaviour
from rung.data.checks.material import Material
from rung.types import Example, Finding, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))
PLAIN = [f"Your order {i} left our shop on Monday, and it will be with you on Friday." for i in range(40)]


def findings(outputs: list[str], task: Task = TASK) -> list[Finding]:
    rows = tuple(Example(str(i), f"question {i}", o, (o,), row=f"line {i}") for i, o in enumerate(outputs))
    return list(behaviour.behaviour(Material(task, {None: rows}, rows)))


def found(outputs: list[str], task: Task = TASK) -> set[tuple[str, str]]:
    return {(f.check, f.row) for f in findings(outputs, task)}


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        ("refusal", "I'm sorry, but I can't assist with that request."),
        ("refusal", "Unfortunately, I am unable to help with this."),
        ("refusal", "Es tut mir leid, aber dabei kann ich nicht helfen."),
        ("refusal", "Je suis désolé, mais je ne peux pas répondre à cela."),
        ("refusal", "Lo siento, pero no puedo ayudar con eso."),
        ("refusal", "很抱歉，我无法回答这个问题。"),
        ("as_an_ai", "As an AI language model, I have no opinion of it."),
        ("as_an_ai", "Als KI-Sprachmodell habe ich dazu keine Meinung."),
        ("as_an_ai", "En tant qu'IA, je pense que la réponse est oui."),
        ("placeholder", "Dear [NAME], your order has left our shop."),
        ("placeholder", "Hello {{customer_name}}, your order has left."),
        ("placeholder", "TODO"),
        ("placeholder", "Lorem ipsum dolor sit amet."),
        ("boilerplate", "Sure! The order left our shop on Monday."),
        ("boilerplate", "The order left on Monday. I hope this helps!"),
        ("loop", "The order has left the shop. " * 9),
        ("loop", "ha" + "a" * 60 + ", funny question about an order that you have there."),
        ("truncated_answer", "Your order left our shop on Monday, and it will be with you on"),
        ("empty_answer", "\u200b"),
    ],
)
def test_unwanted_behaviour_is_found_in_the_row_that_has_it(check: str, answer: str) -> None:
    assert (check, "line 40") in found([*PLAIN, answer])


@pytest.mark.parametrize(
    "answer",
    [
        "I can't find your order. Please send its number, and I will look again.",
        "I'm sorry that the parcel is late, and we will pay the postage.",
        "As an AI company we sell chips for phones.",
        "Surely the order has left our shop by now, since it is Monday.",
        "Use x[0] and y[NAME_OF_COLUMN] for it, as the manual says.",
        "It is in rows[name] and in [Your account](https://shop.test/account).",
        "Unfortunately, I can't offer a refund after thirty days, and you may exchange it.",
        "Here is the label for your lamp: it stands in the app.",
    ],
)
def test_plain_answers_are_no_finding(answer: str) -> None:
    assert found([*PLAIN, answer]) == set()


def test_what_many_answers_do_is_one_note_about_all() -> None:
    refusals = [f"I'm sorry, but I can't help with question {i}." for i in range(30)]
    (note,) = [f for f in findings([*PLAIN, *refusals]) if f.check == "refusal"]
    assert note.severity == "note" and note.row == "" and len(note.ids) == 30
    assert "30 of 70 rows hold a refusal" in note.message


def test_one_long_answer_to_many_inputs_is_found() -> None:
    letter = "Thank you for your message. We have read it, and we will write to you within two days."
    (one,) = [f for f in findings([*PLAIN, *[letter] * 6]) if f.check == "repeated_answer"]
    assert "6 different inputs have the same long answer (first line 40)" in one.message


def test_answers_of_label_tasks_are_names_and_not_read() -> None:
    assert found(["TODO", "DONE"] * 20, replace(TASK, labels=("TODO", "DONE"), metric="label_accuracy")) == set()


def test_an_answer_without_a_closing_mark_is_a_note_and_one_that_stops_in_a_sentence_a_warning() -> None:
    by_row = {f.row: f.severity for f in findings([*PLAIN, f"{PLAIN[0][:-1]} and", PLAIN[1][:-1]])}
    assert by_row == {"line 40": "warning", "line 41": "note"}
