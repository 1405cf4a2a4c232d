from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.checks import check_examples, found_in
from rung.data.checks.material import Material
from rung.data.examples import START_EXAMPLES
from rung.data.findings import KEPT, bounded, without_ignored
from rung.data.near_duplicates import near_duplicates
from rung.types import Example, Finding, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))


def example(i: int | str, text: str, output: str = "a", **more: str) -> Example:
    return Example(str(i), text, output, (output,), row=f"e.jsonl, line {i}", **more)


def found(examples: list[Example], task: Task = TASK) -> dict[str, list[str]]:
    by_check: dict[str, list[str]] = {}
    for f in check_examples(examples, task):
        by_check.setdefault(f.check, []).append(f.row)
    return by_check


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


def test_an_answer_far_longer_than_the_others_is_found_and_long_answers_among_long_ones_are_not() -> None:
    short = [example(i, f"text {i}", f"answer {i}") for i in range(30)]
    assert found([*short, example(30, "text", "word " * 100 + "end")])["long_output"] == ["e.jsonl, line 30"]
    long = [example(i, f"text {i}", f"word {i} " * (50 + i)) for i in range(30)]
    assert "long_output" not in found([*long, example(30, "text", "word " * 150 + "end")])


def test_few_examples_are_a_warning_about_the_whole() -> None:
    examples = [example(i, f"text {i}") for i in range(60)]
    assert found(examples[:59])["few_examples"] == [""]
    assert f"{START_EXAMPLES} examples are a start" in Path(__file__).parents[2].joinpath("README.md").read_text()
    assert "few_examples" not in found(examples)


def test_findings_never_show_what_a_row_says() -> None:
    secret = "zebra quagga"
    examples = [example(i, f"{secret} {i % 2}", secret if i % 3 else f"{secret} {i % 2}") for i in range(9)]
    findings = check_examples(examples, replace(TASK, pattern="x", metric="numeric_match"))
    assert len(findings) > 9
    assert not any("zebra" in f.message for f in findings)


def test_findings_are_bounded_and_their_number_is_said() -> None:
    task = replace(TASK, pattern="A", labels=("a", "A"))
    findings = check_examples([example(i, f"text {i} {i * 7}", "aA"[i % 2]) for i in range(2000)], task)
    assert len(findings) < 3 * KEPT
    assert sum(f.check == "pattern_mismatch" for f in findings) == KEPT + 1
    assert [f.message for f in findings if f.row == "" and f.check == "pattern_mismatch"] == [
        "800 more findings of this kind (pattern_mismatch) are not listed, 1,000 in all."
    ]
    assert all(len(f.ids) <= KEPT for f in findings)


def test_findings_that_are_not_listed_keep_their_severity() -> None:
    some = [Finding("a", severity, "", "") for severity in ("note", "warning", "note") for _ in range(KEPT)]
    assert [(f.severity, f.count) for f in bounded(some)[KEPT:]] == [("warning", KEPT), ("note", KEPT)]


def test_near_duplicates_that_are_known_are_not_computed_again() -> None:
    examples = [example(i, f"Where is my card{'?' * i}" if i % 2 else f"other {i}") for i in range(8)]
    pairs = near_duplicates(examples)
    assert check_examples(examples, TASK, pairs) == check_examples(examples, TASK)
    assert "near_duplicate" in found(examples)
    assert "near_duplicate" not in {f.check for f in check_examples(examples, TASK, [])}


def test_ignored_checks_are_counted_in_one_note_and_errors_stay() -> None:
    findings = [
        Finding("casing", "note", "line 1", "m"),
        Finding("casing", "note", "", "40 more", count=40),
        Finding("label_spelling", "error", "", "m"),
        Finding("email", "warning", "line 2", "m"),
    ]
    kept = without_ignored(findings, ("casing", "label_spelling"))
    assert [f.check for f in kept] == ["label_spelling", "email", "ignored"]
    assert "casing (41)" in kept[-1].message and kept[-1].count == 0
    assert without_ignored(findings, ()) == tuple(findings)


def test_labels_that_hold_personal_data_are_not_printed_unless_they_are_declared() -> None:
    examples = [example(i, f"text {i}", "jane@corp.org" if i else "other") for i in range(60)]
    told = " ".join(f.message for f in found_in(Material(TASK, {None: tuple(examples)}, tuple(examples))))
    assert "is the answer of 59 of 60" in told and "jane" not in told
    declared = replace(TASK, labels=("jane@corp.org", "other"))
    assert "jane@" in " ".join(
        f.message for f in found_in(Material(declared, {None: tuple(examples)}, tuple(examples)))
    )


def test_a_copy_of_a_row_that_is_a_near_copy_is_an_exact_one_as_fix_counts_it() -> None:
    base = [example(i, f"text number {i} about {i * 7}", "a") for i in range(20)]
    hi = [
        example(20, "Hi, I need this today."),
        example(21, "Hello! I need this today."),
        example(22, "Hello! I need this today."),
    ]
    got = found([*base, *hi])
    assert got["exact_duplicate"] == ["e.jsonl, line 22"] and got["near_duplicate"] == ["e.jsonl, line 21"]


def test_how_alike_two_inputs_are_is_said_as_it_is() -> None:
    texts = ["Where is my black suitcase now?", "where is my black suitcase now", "Hi, where is my black suitcase now?"]
    other = [f"text number {i} about {i * 7}" for i in range(20)]
    rows = [example(i, text) for i, text in enumerate([*texts, *other])]
    told = {f.row: f.message for f in check_examples(rows, TASK) if f.check == "near_duplicate"}
    assert "(the same words)" in told["e.jsonl, line 1"]
    assert "(the same but for greetings, markup or spelling)" in told["e.jsonl, line 2"]


def test_two_answers_to_the_same_input_are_a_warning_and_to_nearly_the_same_a_note() -> None:
    rows = [
        example(1, "What does floor sanding cost in 2 rooms?", "100"),
        example(2, "what does floor sanding cost in 2 rooms?", "120"),
        example(3, "What does floor sanding cost in 2 rooms, old building?", "150"),
    ]
    told = {f.row: f for f in check_examples(rows, TASK) if f.check == "conflicting_answers"}
    assert told["e.jsonl, line 2"].severity == "warning" and "Decide which is right" in told["e.jsonl, line 2"].message
    near = told.get("e.jsonl, line 3")
    assert near is None or (near.severity == "note" and "Decide whether both are right." in near.message)
