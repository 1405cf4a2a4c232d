"""What is rare, one-sided or missing, without showing anything of the test."""

from __future__ import annotations

import random
from pathlib import Path

from rung.data.checks.coverage import answers, coverage, kinds
from rung.data.checks.material import Material
from rung.types import Example, Task

BOATS = ("boat", "harbour", "ticket", "pier", "captain", "lake", "crossing", "deck")
HENS = ("hen", "feather", "egg", "coop", "grain", "nest", "rooster", "barn")


def example(i: int, text: str, output: str) -> Example:
    return Example(id=f"r{i}", input=text, output=output, references=(output,), row=f"x.jsonl, line {i + 1}")


def task(labels: tuple[str, ...] | None = None, *, multi_label: bool = False) -> Task:
    return Task("t", Path("task.yaml"), "do", (), "label_accuracy", (), labels=labels, multi_label=multi_label)


def rows_of(outputs: list[str], start: int = 0) -> tuple[Example, ...]:
    return tuple(example(start + i, f"text {start + i}", output) for i, output in enumerate(outputs))


def test_one_answer_for_all_is_an_error_that_says_no_model_is_needed() -> None:
    rows = rows_of(["ok", "OK", "ok "] * 10)
    (finding,) = answers(Material(task(), {None: rows}, rows))
    assert (finding.check, finding.severity) == ("one_answer", "error")
    assert "no model is needed" in finding.message


def test_imbalance_says_the_floor() -> None:
    rows = rows_of(["ok"] * 68 + ["fraud"] * 4)
    (finding,) = answers(Material(task(("ok", "fraud")), {None: rows}, rows))
    assert (finding.check, finding.severity) == ("imbalance", "warning")
    assert "68 of 72" in finding.message and "0.94" in finding.message and '"fraud" (4)' in finding.message


def test_balanced_labels_and_free_answers_are_no_imbalance() -> None:
    rows = rows_of(["a", "b", "c"] * 20)
    assert list(answers(Material(task(("a", "b", "c")), {None: rows}, rows))) == []
    free = rows_of([f"answer {i}" for i in range(50)])
    assert list(answers(Material(task(), {None: free}, free))) == []


def test_a_label_that_stands_in_test_alone_is_told_and_one_that_is_not_tested_too() -> None:
    train, test = rows_of(["a", "b", "c"] * 10), rows_of(["a", "B", "d", "d"] * 3, 100)
    found = list(answers(Material(task(), {"train": train, "test": test}, train + test)))
    assert [(f.check, f.severity) for f in found] == [("label_only_in_test", "warning"), ("label_not_in_test", "note")]
    assert '"d"' in found[0].message and len(found[0].ids) == 6
    assert '"c"' in found[1].message and '"b"' not in found[1].message


def test_the_split_that_rung_made_counts_like_a_split_of_the_user() -> None:
    rows = rows_of(["a", "b"] * 10 + ["once"])
    found = list(answers(Material(task(("a", "b", "once")), {None: rows}, rows, test=frozenset({"r0", "r1", "r20"}))))
    assert [f.check for f in found] == ["label_only_in_test"]
    assert list(answers(Material(task(("a", "b", "once")), {None: rows}, rows))) == []


def test_labels_of_a_multi_label_answer_count_one_by_one() -> None:
    train, test = rows_of(['["a", "b"]', '["a"]'] * 6), rows_of(['["b"]', '["a", "new"]'], 50)
    found = list(answers(Material(task(multi_label=True), {"train": train, "test": test}, train + test)))
    assert [f.check for f in found] == ["label_only_in_test"] and '"new"' in found[0].message


def boats_and_hens(hens: int = 4) -> tuple[Example, ...]:
    rng = random.Random(0)
    rows = [example(i, " ".join(rng.sample(BOATS, 5)), f"answer {i}") for i in range(116)]
    rows += [example(200 + i, " ".join(rng.sample(HENS, 6)), f"answer {i}") for i in range(hens)]
    return tuple(rows)


def test_a_kind_of_input_with_few_examples_is_named_by_its_words() -> None:
    rows = boats_and_hens()
    found = [f for f in kinds(Material(task(), {None: rows}, rows, test=frozenset({"r0"}))) if "r200" in f.ids]
    assert len(found) == 1 and found[0].severity == "note"
    assert found[0].message.startswith("4 of 119 inputs of train and dev are about")
    assert any(word in found[0].message for word in HENS)


def test_words_of_the_test_are_never_shown() -> None:
    rows = boats_and_hens()
    hens = frozenset(e.id for e in rows[116:])
    material = Material(task(), {None: rows}, rows, test=hens)
    assert not any(word in f.message for f in coverage(material) for word in HENS)
    assert list(kinds(Material(task(), {None: rows}, rows))) == []  # nobody knows what will be tested


def test_a_few_inputs_have_no_kinds() -> None:
    rows = boats_and_hens()[100:]
    assert list(kinds(Material(task(), {"train": rows}, rows))) == []


def test_the_words_of_a_kind_are_no_numbers_and_nothing_of_personal_data() -> None:
    rows = list(boats_and_hens(0))
    held = "DE89 3704 0044 0532 0130 00 wingard@feathermail.org https://eggs.example/coop"
    rows += [example(200 + i, f"{held} refund account {i}", f"answer {i}") for i in range(4)]
    found = [f for f in kinds(Material(task(), {None: tuple(rows)}, tuple(rows), test=frozenset({"r0"})))]
    told = " ".join(f.message for f in found if "r200" in f.ids)
    assert "refund" in told or "account" in told
    assert not any(part in told for part in ("3704", "0044", "0532", "de89", "wingard", "feathermail", "eggs", "coop"))


def test_stray_answers_are_no_labels_that_the_test_lacks() -> None:
    train, test = rows_of(["a", "b"] * 20 + ["As an AI, I cannot."]), rows_of(["a", "b", "Sorry."] * 4, 100)
    found = list(answers(Material(task(), {"train": train, "test": test[:7]}, train + test[:7])))
    assert [f.check for f in found] == []


def test_a_label_that_the_split_kept_from_the_test_is_not_asked_for_again() -> None:
    declared, test = task(("a", "b", "c")), frozenset(f"r{i}" for i in range(16))

    def said(rows: tuple[Example, ...]) -> str:
        (found,) = answers(Material(declared, {None: rows}, rows, test=test))
        return found.message

    two = ["a", "b"] * 20
    assert "With 12 rows, that is how the split fell: another seed" in said(rows_of([*two, *["c"] * 12]))
    assert "Bring more examples of them" in said(rows_of([*two, "c"]))
    train, own = rows_of([*two, *["c"] * 12]), rows_of(two, 100)
    (found,) = answers(Material(declared, {"train": train, "test": own}, train + own))
    assert "Put some examples of them into the test." in found.message
