from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from rung.data import checks
from rung.data.checks import check_examples, near_duplicate_groups
from rung.types import Example, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", "m")
LONG = "I ordered a new debit card for my account last Monday and it has still not arrived at my home address"


def example(i: int | str, text: str, output: str = "a", **more: str) -> Example:
    return Example(str(i), text, output, (output,), row=f"e.jsonl, line {i}", **more)


def grouped(*texts: str, outputs: tuple[str, ...] = ()) -> bool:
    pairs = zip(texts, outputs or ("a",) * len(texts), strict=True)
    return len(set(near_duplicate_groups([example(i, t, o) for i, (t, o) in enumerate(pairs)]).values())) == 1


def found(examples: list[Example], task: Task = TASK) -> dict[str, list[str]]:
    by_check: dict[str, list[str]] = {}
    for f in check_examples(examples, task):
        by_check.setdefault(f.check, []).append(f.row)
    return by_check


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Where is my card?", "where is  my card"),
        (LONG, LONG + " yet"),
        (f"{LONG}, what can I do to get it soon?", f"{LONG}, waht can I do to get it soon?"),
        (LONG + " please help", "Please: " + LONG),
        ("卡在哪里?", "卡在哪里"),
        ("???", "???"),
    ],
)
def test_near_duplicates_are_one_group(a: str, b: str) -> None:
    assert grouped(a, b, outputs=("x", "y"))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("2 + 2", "2 - 2"),
        ("Is a < b?", "Is a > b?"),
        ("卡在哪里", "卡坏了"),
        ("???", "!!!"),
        (f"{LONG} in Paris", f"{LONG} in Rome"),
        (f"{LONG} 12345", f"{LONG} 12346"),
    ],
)
def test_filled_in_templates_are_not_one_group(a: str, b: str) -> None:
    assert not grouped(a, b, outputs=("x", "y"))


def test_a_long_template_with_one_answer_for_many_does_not_chain_everything() -> None:
    examples = [example(i, f"{LONG} {LONG} said customer number {i} of branch {i * 7}", "same") for i in range(60)]
    assert len(set(near_duplicate_groups(examples).values())) == 60


def test_the_same_question_about_another_context_is_another_example() -> None:
    a, b = example(1, "Who won?", context="Ann beat Bob in the final"), example(2, "Who won?", context="Cy won it")
    assert len(set(near_duplicate_groups([a, b]).values())) == 2
    assert "conflicting_answers" not in found([a, replace(b, output="b", references=("b",))])


def test_groups_of_the_user_join_with_near_duplicates() -> None:
    examples = [
        example("c", "Where is my card?", group="u1"),
        example("b", "where is my card", group="u2"),
        example("d", "something quite different", group="u2"),
        example("a", "nothing like the others"),
    ]
    assert near_duplicate_groups(examples) == {"a": "a", "b": "b", "c": "b", "d": "b"}


def test_groups_do_not_depend_on_the_order_of_examples() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(40)]
    examples = [example(i, " ".join(rng.choices(words, k=rng.randint(1, 12)))) for i in range(150)]
    examples += [example(f"{e.id}x", e.input + " too") for e in examples[:50]]
    groups = near_duplicate_groups(examples)
    for _ in range(3):
        rng.shuffle(examples)
        assert near_duplicate_groups(examples) == groups


def test_minhash_finds_the_groups_that_comparing_all_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    examples = [example(i, " ".join(f"w{rng.randrange(500)}" for _ in range(20))) for i in range(120)]
    examples += [example(f"{e.id}x", e.input + " extra") for e in examples[:60]]
    exact = near_duplicate_groups(examples)
    assert len(set(exact.values())) == 120
    monkeypatch.setattr(checks, "EXACT_UP_TO", 0)
    assert near_duplicate_groups(examples) == exact


def test_exact_near_and_conflicting_duplicates_are_told_apart() -> None:
    examples = [
        example(1, "Where is my card?"),
        example(2, "Where is my card?"),
        example(3, "where is my card"),
        example(4, "Where is my card", "b"),
        example(5, "Where is my card?", "c"),
    ]
    got = found(examples)
    assert got["exact_duplicate"] == ["e.jsonl, line 2"]
    assert got["near_duplicate"] == ["e.jsonl, line 3"]
    assert got["conflicting_answers"] == ["e.jsonl, line 4", "e.jsonl, line 5"]


def test_an_answer_among_the_references_is_no_conflict() -> None:
    a, b = example(1, "Where?", "here"), replace(example(2, "Where?", "there"), references=("there", "Here"))
    assert "conflicting_answers" not in found([a, b])


def test_rare_unused_and_twice_spelt_labels_are_found() -> None:
    outputs = ["card"] * 4 + ["Card"] * 3
    examples = [example(i, f"text {i} {o}", o) for i, o in enumerate(outputs)]
    task = replace(TASK, labels=("card", "Card", "loan"), metric="label_accuracy")
    checks_found = {f.check: f for f in check_examples(examples, task)}
    assert '"Card" has 3 examples' in checks_found["rare_label"].message
    assert checks_found["rare_label"].ids == ("4", "5", "6")
    assert '"loan" is declared' in checks_found["unused_label"].message
    assert "label_spelling" in checks_found
    assert not {"rare_label", "unused_label"} & set(found(examples))


@pytest.mark.parametrize(
    ("check", "output", "task"),
    [
        ("long_output", "word " * 301 + "end", TASK),
        ("output_equals_input", "the text", TASK),
        ("whitespace", "a ", TASK),
        ("looks_missing", "NaN", TASK),
        ("no_number", "twelve", replace(TASK, metric="numeric_match")),
        ("pattern_mismatch", "ab", replace(TASK, pattern="a")),
    ],
)
def test_a_suspicious_row_is_found_and_a_plain_one_is_not(check: str, output: str, task: Task) -> None:
    plain = "a" if task.metric != "numeric_match" else "12"
    assert found([example(1, "the text", output), example(2, "more of it", plain)], task)[check] == ["e.jsonl, line 1"]


def test_few_examples_are_a_warning_about_the_whole() -> None:
    examples = [example(i, f"text {i}") for i in range(60)]
    assert found(examples[:59])["few_examples"] == [""]
    assert "few_examples" not in found(examples)


def test_findings_never_show_what_a_row_says() -> None:
    secret = "zebra quagga"
    examples = [example(i, f"{secret} {i % 2}", secret if i % 3 else f"{secret} {i % 2}") for i in range(9)]
    findings = check_examples(examples, replace(TASK, pattern="x", metric="numeric_match"))
    assert len(findings) > 9
    assert not any("zebra" in f.message for f in findings)
