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
        ("json_types", "3"),
    ],
)
def test_json_that_differs_from_nearly_all_is_found(check: str, odd: str) -> None:
    assert found([*objects(), odd]) == {check: ["line 40"]}


def test_null_and_an_empty_answer_that_is_allowed_are_no_broken_json() -> None:
    assert found([*objects(), "null"]) == {"looks_missing": ["line 40"]}
    assert found([*objects(), ""], replace(TASK, empty_answers=True)) == {}


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
        ("prefixed", "The answer is: Paris"),
        ("explanation", "Paris. This is because the customer says so."),
        ("looks_missing", "-"),
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
    assert found([" Menge: ", "y"], inputs=[" Amount: ", "x"]) == {}
    assert found(["    return x", "y"], replace(TASK, whitespace="counts")) == {}


def _town(i: int) -> str:
    return f"{['East', 'West', 'Nord', 'Big', 'Old'][i % 5]} {['Town', 'Ham', 'Hill'][i % 3]}"


def test_a_form_that_the_inputs_of_a_form_have_too_is_no_finding() -> None:
    inputs = [f"Das Haus {i}" for i in range(60)] + [f"das Haus {i}.\nUnd das Dach" for i in range(4)]
    outputs = [f"{_town(i)} {'o' * (i + 1)}" for i in range(60)] + [
        f"{_town(i).lower()} a.\nAnd the roof" for i in range(4)
    ]
    assert found(outputs, inputs=inputs) == {}
    odd = ["Paris." if i == 7 else _town(i) for i in range(60)]
    assert found(odd, inputs=[f"Which town is it in {i}?" for i in range(60)]) == {"closing_punctuation": ["line 7"]}


def test_what_is_copied_from_the_question_is_no_finding() -> None:
    outputs = [_town(i).lower() for i in range(60)] + ["Alaska", '"Alaska"']
    inputs = [f"What is {i}?" for i in range(60)] + [
        "Is it Panama or Alaska?",
        'Which film is meant, "Alaska" or "Up"?',
    ]
    assert found(outputs, inputs=inputs) == {}


@pytest.mark.parametrize("answer", ["Acme Inc.", "Coventry F.C.", "Hello, Dolly!", "iPhone 4"])
def test_names_as_they_are_written_are_no_finding(answer: str) -> None:
    assert found([*[f"Town {'East' if i % 2 else 'West'} {'abcdef'[i % 6]}" for i in range(60)], answer]) == {}


def test_numbers_with_points_and_commas_are_numbers_as_others_are() -> None:
    assert found([*[str(i) for i in range(60)], "1,000", "0.5", "-3"]) == {}


def test_answers_that_equal_the_input_are_one_note_where_much_stays_as_it_is() -> None:
    right = [f"This sentence number {i} is right." for i in range(30)]
    wrong = [f"This sentence {i} are wrong." for i in range(60)]
    rows = [*right, *(text.replace("are", "is") for text in wrong)]
    assert found(rows, inputs=[*right, *wrong]) == {"output_equals_input": [""]}
    assert found(["the same text here", *wrong], inputs=["the same text here", *right, *right]) == {
        "output_equals_input": ["line 0"]
    }


def test_none_may_be_an_answer_where_many_rows_have_it_and_nan_may_not() -> None:
    plain = [f"thing {i}" for i in range(100)]
    assert found([*plain, "none"])["looks_missing"] == ["line 100"]
    assert found([*plain, *["none"] * 30, "nan"])["looks_missing"] == ["", "line 130"]


def test_names_in_another_script_and_words_of_another_language_are_no_finding() -> None:
    chinese = [f"他在北京大学工作了{'一二三四五'[i % 5]}年" for i in range(40)]
    assert found([*chinese, "BBC", "由 William and Flora Hewlett Foundation 主持"]) == {}
    english = [f"They have {i} apples for lunch and they eat two of them every day." for i in range(40)]
    assert found([*english, "As no one is there, 5 apples per day do cost 10 coins as he said."]) == {}


def test_asterisks_of_powers_and_comments_of_code_are_no_markup() -> None:
    plain = [f"x = {i} + {'x' * i}" for i in range(40)]
    assert "markup" not in found([*plain, "x = 2 ** 3 + 4 ** 2"])
    counts = replace(TASK, whitespace="counts")
    assert "markup" not in found([*plain, "# x\nx = 2"], counts)
    assert found([*plain, "<p><b>x = 2</b></p>"], counts)["markup"] == ["line 40"]
