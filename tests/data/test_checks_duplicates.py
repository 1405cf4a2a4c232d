from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.checks.duplicates import duplicates
from rung.data.checks.kinds import KINDS
from rung.data.checks.leakage import corpus_holds_test, groups, leakage
from rung.data.checks.material import Material
from rung.data.examples import Sets
from rung.data.findings import KEPT, bounded
from rung.data.near_duplicates import near_duplicate_groups, near_duplicates
from rung.types import Document, Example, Finding, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))
LONG = "I ordered a new debit card for my account last Monday and it has still not arrived at my home address"
FEW = ["lamp", "kettle", "piano", "tent", "keyboard", "notebook", "blanket", "bicycle", "teapot", "hammock"]


def example(i: int | str, text: str, output: str = "a", **more: str) -> Example:
    return Example(str(i), text, output, (output,), row=f"line {i}", **more)


def material(sets: Sets, test: frozenset[str] | None = None, documents: tuple[Document, ...] = ()) -> Material:
    rows = tuple(e for part in sets.values() for e in part)
    pairs = near_duplicates(rows)
    return Material(TASK, sets, rows, pairs, near_duplicate_groups(rows, pairs), documents, test=test)


def found(rows: list[Example]) -> list[Finding]:
    return list(duplicates(material({None: tuple(rows)})))


def test_pairs_are_told_least_alike_first_and_how_alike_they_are() -> None:
    rows = [
        example(1, LONG),
        example(2, LONG.upper() + "!"),
        example(3, f"{LONG} and I do need it now", "a"),
        example(4, f"{LONG} yet", "a"),
    ]
    said = [f for f in found(rows) if f.check == "near_duplicate"]
    shares = [f.message.partition("(")[2].partition(")")[0] for f in said]
    numbers = [int(share.removesuffix(" % alike")) for share in shares if share != "the same words"]
    assert numbers == sorted(numbers) and 50 < numbers[0] < 100
    assert shares[-1] == "the same words" and said[-1].row == "line 2"
    assert all("They are kept in one set." in f.message and f.severity == "note" for f in said)


def test_a_contradiction_is_told_of_the_same_and_of_nearly_the_same_input() -> None:
    rows = [example(1, LONG, "x"), example(2, LONG.upper(), "y"), example(3, LONG + " yet", "z")]
    said = [f for f in found(rows) if f.check == "conflicting_answers"]
    assert [f.row for f in said] == ["line 2", "line 3"]
    assert said[0].message.startswith("The same input as line 1, but another answer")
    assert said[1].message.startswith("Nearly the same input as line 1 (")
    assert said[0].ids == ("1", "2")


def test_answers_that_differ_in_case_and_spaces_contradict_nothing() -> None:
    rows = [example(1, LONG, "Yes"), example(2, LONG, " y\u200bes "), example(3, LONG, "yes")]
    assert {f.check for f in found(rows)} == {"near_duplicate"}


def test_what_stands_in_two_files_of_the_user_is_never_said_to_be_kept_in_one_set() -> None:
    train, test = (example(1, LONG), example(2, LONG)), (example(3, LONG),)
    both = material({"train": train, "test": test})
    said = [*duplicates(both), *leakage(both)]
    assert not any("kept in one set" in f.message for f in said)
    assert [f.row for f in said if f.check == "exact_duplicate"] == ["line 2"]


def test_test_rows_that_stand_in_train_are_counted_and_named() -> None:
    train = tuple(example(i, f"Where can I buy the {thing} today", "x") for i, thing in enumerate(FEW))
    test = (
        example("t1", "WHERE can I buy the lamp today", "x"),
        example("t2", "Hello, where can I buy the kettle today??", "y"),
        example("t3", "Who repairs clocks in this street", "x"),
    )
    whole, *rows = leakage(material({"train": train, "test": test}))
    assert whole.check == "leakage" and whole.severity == "warning" and whole.row == "" and whole.count == 0
    assert "2 of 3 test rows stand in train too (1 exactly and 1 nearly)" in whole.message
    assert "--fix" in whole.message and whole.ids == ("t1", "t2")
    assert [(f.row, f.ids) for f in rows] == [("line t1", ("t1", "0")), ("line t2", ("t2", "1"))]
    assert rows[0].message == "The same input as line 0 in train."


def test_dev_rows_in_train_and_test_rows_in_dev_are_leaks_too() -> None:
    first, second = example("a", LONG), example("b", "Who repairs clocks in this street")
    train, dev = (first, example("c", "Where is it?")), (replace(first, id="a2"), second)
    test = (replace(second, id="b2"), example("d", "Nothing like the others"))
    checks = {f.check: f.message for f in leakage(material({"train": train, "dev": dev, "test": test})) if not f.row}
    assert "1 of 2 test rows stand in dev too" in checks["leakage"]
    assert "1 of 2 dev rows stand in train too" in checks["dev_leakage"]


def test_a_clean_split_and_a_split_that_rung_makes_have_no_leak() -> None:
    rows = tuple(example(i, f"Where can I buy the {thing} today", "x") for i, thing in enumerate(FEW))
    assert list(leakage(material({"train": rows[:6], "test": rows[6:]}))) == []
    assert list(leakage(material({None: (*rows, *(replace(e, id=f"{e.id}x") for e in rows))}))) == []


def test_a_group_of_the_user_in_two_files_is_a_warning() -> None:
    rows = tuple(example(i, f"Where can I buy the {thing} today", group=f"g{i}") for i, thing in enumerate(FEW))
    part = (*rows[6:], replace(rows[3], id="z", input="Quite another matter"))
    (finding,) = leakage(material({"train": rows[:6], "test": part}))
    assert (finding.check, finding.ids) == ("straddling_group", ("3", "z"))
    assert "train and test" in finding.message


def test_leaks_are_bounded_and_their_number_is_said() -> None:
    words = [
        f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("st", "rt", "nd", "lk", "mp", "sk", "pt", "ng")
    ]
    train = tuple(example(i, f"The {w} is red", w) for i, w in enumerate(words))
    test = tuple(replace(e, id=f"{e.id}x") for e in train)
    said = bounded(leakage(material({"train": train, "test": test})))
    assert len(words) > KEPT and len(said) == KEPT + 2
    assert f"{len(words)} of {len(words)} test rows stand in train" in said[0].message
    assert sum(f.count for f in said) == len(words)


def test_one_group_with_most_rows_is_told() -> None:
    rows = tuple(example(i, f"text {i} {i * 7}", group="big" if i < 48 else f"g{i}") for i in range(60))
    (finding,) = groups(material({None: rows}, frozenset(str(i) for i in range(55, 60))))
    assert finding.check == "large_group"
    assert "48 of 60 rows (80 %)" in finding.message and "the test has 5" in finding.message
    even = tuple(replace(e, group=f"g{i % 20}") for i, e in enumerate(rows))
    assert list(groups(material({None: even}, frozenset(["1", "2", "3"])))) == []


@pytest.mark.parametrize(("number", "said"), [(1, "belong to one group"), (2, "belong to 2 groups")])
def test_a_test_of_one_or_two_groups_shows_nothing(number: int, said: str) -> None:
    rows = tuple(example(i, f"text {i} {i * 7}", group=f"g{i % 3}") for i in range(60))
    test = frozenset(e.id for e in rows if e.group in [f"g{k}" for k in range(number)])
    (finding,) = (f for f in groups(material({None: rows}, test)) if f.check == "few_groups")
    assert said in finding.message and f"n is {number}" in finding.message
    part = {"train": tuple(e for e in rows if e.id not in test), "test": tuple(e for e in rows if e.id in test)}
    assert [f.check for f in groups(material(part))] == ["few_groups"]


def test_documents_that_hold_question_and_answer_of_the_test_are_told() -> None:
    rows = tuple(example(i, f"Where can I buy the {thing} today?", f"in shop {i}") for i, thing in enumerate(FEW))
    documents = (
        Document(
            "faq", "Q: Where can I buy the LAMP today?\nA: In shop 0.\n\nQ: Where can I buy the tent today? Nowhere."
        ),
        Document("other", "You can buy the piano in shop 2."),
    )
    whole, row = corpus_holds_test(material({None: rows}, frozenset({"0", "3", "4"}), documents))
    assert "Of 1 of 3 test rows" in whole.message and whole.ids == ("0",)
    assert row.row == "line 0" and '"faq"' in row.message
    assert list(corpus_holds_test(material({None: rows}, frozenset({"3", "4"}), documents))) == []
    assert list(corpus_holds_test(material({None: rows}, None, documents[1:]))) == []


def test_a_copy_of_the_rows_as_chats_is_found_among_the_documents_whatever_their_line_breaks() -> None:
    rows = tuple(example(i, f"Please compute\n\\nabla {i} of\tit", f"one\ntwo {i}") for i in range(3))
    chats = [[{"role": "user", "content": e.input}, {"role": "assistant", "content": e.output}] for e in rows]
    documents = tuple(Document(f"chats/{i}", json.dumps(chat)) for i, chat in enumerate(chats))
    whole, *_ = corpus_holds_test(material({None: rows}, None, documents))
    assert whole.ids == ("0", "1", "2")


def test_findings_of_duplicates_and_leaks_never_show_what_a_row_says() -> None:
    rows = tuple(example(i, f"zebra {LONG} {'yet' if i % 2 else ''}", f"quagga {i % 3}") for i in range(12))
    own = material({"train": rows[:6], "test": rows[6:]}, documents=(Document("d", f"{rows[7].input} quagga 1"),))
    for check in (duplicates, leakage, groups, corpus_holds_test):
        said = list(check(own))
        assert said or check is groups
        assert not any("zebra" in f.message or "quagga" in f.message for f in said)


def test_each_of_these_findings_is_a_kind() -> None:
    names = {"exact_duplicate", "near_duplicate", "conflicting_answers", "leakage", "dev_leakage", "straddling_group"}
    assert names | {"large_group", "few_groups", "corpus_holds_test"} <= set(KINDS)
