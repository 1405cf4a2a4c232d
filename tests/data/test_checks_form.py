from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.checks import form
from rung.data.checks.material import Material
from rung.types import Example, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))


def found(outputs: list[str], task: Task = TASK, inputs: list[str] | None = None) -> dict[str, list[str]]:
    texts = inputs or [f"question {i}" for i in range(len(outputs))]
    rows = tuple(Example(str(i), texts[i], o, (o,), row=f"line {i}") for i, o in enumerate(outputs))
    by_check: dict[str, list[str]] = {}
    for finding in form.form(Material(task, {None: rows}, rows)):
        by_check.setdefault(finding.check, []).append(finding.row)
    return by_check


def objects(n: int = 40) -> list[str]:
    return [json.dumps({"name": f"thing {i}", "price": i}) for i in range(n)]


@pytest.mark.parametrize(
    ("check", "odd"),
    [
        ("broken_json", '{"name": "thing", "price": 3'),
        ("broken_json", "no idea"),
        ("fenced", '```json\n{"name": "thing", "price": 3}\n```'),
        ("json_keys", '{"name": "thing"}'),
        ("json_keys", '{"name": "thing", "price": 3, "colour": "red"}'),
        ("json_types", '{"name": "thing", "price": "3"}'),
        ("json_types", "[1, 2]"),
    ],
)
def test_json_that_differs_from_nearly_all_is_found(check: str, odd: str) -> None:
    assert found([*objects(), odd]) == {check: ["line 40"]}


def test_keys_that_are_often_left_out_and_null_in_place_of_a_value_are_no_finding() -> None:
    some = [
        json.dumps({"name": "a", "price": None if i % 7 else i, **({"note": "x"} if i % 3 else {})}) for i in range(40)
    ]
    assert found(some) == {}


def test_keys_are_left_to_the_schema_where_there_is_one() -> None:
    assert found([*objects(), '{"name": "thing"}'], replace(TASK, schema={"type": "object"})) == {}


@pytest.mark.parametrize(
    ("check", "odd"),
    [
        ("fenced", "```\nParis\n```"),
        ("prefixed", "Answer: Paris"),
        ("quoted", '"Paris"'),
        ("closing_punctuation", "Paris."),
        ("casing", "paris"),
        ("casing", "PARIS REGION"),
        ("explanation", "Paris\nIt is the capital of France."),
        ("markup", "**Paris**"),
        ("language", "Парижский регион"),
    ],
)
def test_an_answer_of_another_form_than_nearly_all_is_found(check: str, odd: str) -> None:
    plain = [
        f"{['Berlin', 'Vienna', 'Rome', 'Oslo', 'Lima'][i % 5]} {['East', 'West', 'Town'][i % 3]}" for i in range(40)
    ]
    assert found([*plain, odd])[check] == ["line 40"]
    assert found(plain) == {}


def test_a_habit_that_a_quarter_of_the_answers_have_is_no_finding() -> None:
    assert found([f"Town {'East' if i % 4 else 'west.'}" for i in range(80)]) == {}


def test_an_answer_that_goes_on_after_what_others_answer_in_full_is_found() -> None:
    plain = ["refund", "card arrival", "lost card"] * 12
    odd = ["refund, because the customer wants money", "card arrival - it has not come"]
    assert found([*plain, *odd])["explanation"] == ["line 36", "line 37"]
    assert "explanation" in found([*plain, odd[0]], replace(TASK, metric="label_accuracy"))


@pytest.mark.parametrize(
    ("plain", "odd", "check"),
    [
        ("{} kg", "7 lb", "unit"),
        ("{} kg", "7", "unit"),
        ("{}", "about 7 I think", "unit"),
        ("2024-01-{:02d}", "01/07/2024", "answer_shape"),
        ("AB-{:04d}", "AB 0007", "answer_shape"),
    ],
)
def test_numbers_and_codes_that_are_written_otherwise_are_found(plain: str, odd: str, check: str) -> None:
    rows = [plain.format(i) for i in range(10, 50)]
    assert found([*rows, odd]) == {check: ["line 40"]}
    assert found(rows) == {}


def test_an_answer_in_another_language_is_found_unless_its_input_is_in_it_too() -> None:
    english = [f"You can return the item {i} within thirty days, and we will pay for that." for i in range(40)]
    german = "Sie können den Artikel in dreißig Tagen zurückgeben und wir zahlen das für Sie."
    asked = ["How can I return an item that is not what I want?"] * 40
    assert found([*english, german], inputs=[*asked, asked[0]])["language"] == ["line 40"]
    question = "Wie kann ich einen Artikel zurückgeben, der nicht das ist, was ich will, und wer zahlt?"
    assert "language" not in found([*english, german], inputs=[*asked, question])


def test_text_that_was_read_in_a_wrong_encoding_is_found_and_accents_are_not() -> None:
    assert found(["cafÃ© au lait", "it doesnâ€™t", "caf\ufffd"])["wrong_encoding"] == ["line 0", "line 1", "line 2"]
    assert found(["café", "Ärger", "São Paulo", "ÂGE", "naïve â propos"]) == {}


def test_answers_that_are_one_of_the_labels_are_not_compared_with_each_other() -> None:
    labels = replace(TASK, labels=("yes", "No."), metric="label_accuracy")
    assert found(["yes"] * 60 + ["No."], labels) == {}


def test_space_around_an_answer_is_no_finding_where_white_space_counts() -> None:
    assert found(["    return x", "y"])["whitespace"] == ["line 0"]
    assert found(["    return x", "y"], replace(TASK, whitespace="counts")) == {}
