"""Synthetic rows as files: which of them train, and what people say of them comes back whole."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.data.beside.review import ReviewFile, plain_cell, safe_cell
from rung.data.beside.synthetic import fault_of_answer, read_synthetic
from rung.data.fence import fence_of
from rung.errors import DataError
from rung.types import Example, ModelSpec, SealedTest, Split, Task

SEALED = Example("t1", "the blue bicycle of my neighbour was stolen on Monday", "theft", ("theft",))
FENCE = fence_of([SEALED], Split((), (), SealedTest([SEALED]), {}))


def row(number: int, text: str, output: str = "theft", **more: Any) -> dict[str, Any]:
    origin = {
        "kind": "new",
        "teacher": "t",
        "prompt": "p",
        "from": ["e1"],
        "votes": {output: 3},
        "asked": 3,
        "usd": 0.1,
    }
    return {"id": f"syn-{number}", "input": text, "output": output, "origin": origin, "review": None, **more}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def task_of(*files: Path, labels: tuple[str, ...] | None = ("theft", "loss")) -> Task:
    model = ModelSpec("m", "m")
    return Task("t", Path("task.yaml"), "Say it.", (), "label_accuracy", (model,), labels=labels, synthetic=files)


# ---- what trains ----------------------------------------------------------------------------


def test_rejected_rows_and_neighbours_of_sealed_rows_do_not_train_and_all_is_counted(tmp_path: Path) -> None:
    file = write(
        tmp_path / "s.jsonl",
        row(1, "somebody took the car from my drive", review="accepted"),
        row(2, "i cannot find my keys any more", "loss"),
        row(3, "nothing of this is true", review="rejected"),
        row(4, "The blue bicycle of my neighbour was stolen, on Monday!"),
        row(5, "Somebody took the car from my drive"),
    )
    said: list[str] = []
    found = read_synthetic(task_of(file), FENCE, said.append)
    assert [e.id for e in found] == ["syn-1", "syn-2"] and found[1].output == "loss"
    assert said == [
        "Synthetic rows: 2 of 5 train. Left out: 1 rejected in review, 1 near a row of dev or the test, 1 repeated.",
        f"Not reviewed yet: 1 of these 2 synthetic rows. See them with rung review {os.path.relpath(file)}.",
    ]


def test_contexts_gold_passages_turns_and_references_are_read_back(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"}]
    more = {
        "context": "a text",
        "gold_ids": ["p1"],
        "turns": turns,
        "references": ["theft", "loss"],
        "instruction": "Do.",
    }
    file = write(tmp_path / "s.jsonl", row(1, "what was taken", **more))
    (found,) = read_synthetic(task_of(file), FENCE, lambda line: None)
    assert (found.context, found.gold_ids, found.instruction) == ("a text", ("p1",), "Do.")
    assert [t.content for t in found.turns] == ["hello", "yes?"] and found.references == ("theft", "loss")


def test_files_of_other_programs_are_read_and_equal_ids_are_told_apart(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"id": 1, "question": "who took it", "answer": "theft"})
    two = write(tmp_path / "b.jsonl", {"id": 1, "input": "where is it", "output": "loss"})
    found = read_synthetic(task_of(one, two), FENCE, lambda line: None)
    assert [e.output for e in found] == ["theft", "loss"] and len({e.id for e in found}) == 2


def test_rows_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    files = []
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "s.jsonl", {"input": f"the {folder} one", "output": "fire"}))
    with pytest.raises(DataError) as refused:
        read_synthetic(task_of(*files), FENCE, lambda line: None)
    assert "old/s.jsonl, line 1: " in str(refused.value) and "new/s.jsonl, line 1: " in str(refused.value)


def test_a_system_turn_that_says_what_the_task_says_is_not_said_twice(tmp_path: Path) -> None:
    talks = [
        [("system", said), ("user", text), ("assistant", "loss")]
        for said, text in (("Say it.", "i cannot find my keys"), ("Be rude.", "my purse is gone"))
    ]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in talks]
    found = read_synthetic(task_of(write(tmp_path / "s.jsonl", *rows)), FENCE, lambda said: None)
    assert [(e.input, e.instruction) for e in found] == [
        ("i cannot find my keys", None),
        ("my purse is gone", "Be rude."),
    ]


def test_an_answer_outside_the_labels_and_an_unknown_review_name_their_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "a b c", "thief"), row(2, "d e f", review="perhaps"))
    with pytest.raises(DataError) as raised:
        read_synthetic(task_of(file), FENCE, lambda line: None)
    text = str(raised.value)
    assert 's.jsonl, line 1: the answer "thief"' in text and 'did you mean "theft"?' in text
    assert 'line 2: the review is "perhaps"; write accepted, edited or rejected' in text


def test_a_rejected_row_whose_answer_is_no_label_stops_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "a b c", "thief", review="rejected"), row(2, "d e f"))
    said: list[str] = []
    assert [e.id for e in read_synthetic(task_of(file), FENCE, said.append)] == ["syn-2"]
    assert "1 of 2 train. Left out: 1 rejected in review." in said[0]


def test_an_answer_is_held_against_labels_schema_and_pattern() -> None:
    task = task_of()
    assert fault_of_answer(task, "Theft") is None and 'did you mean "theft"?' in str(fault_of_answer(task, "thief"))
    several = replace(task, multi_label=True)
    assert fault_of_answer(several, '["theft", "loss"]') is None and fault_of_answer(several, '["thief"]') is not None
    digits = replace(task, labels=None, pattern="[0-9]+", abstain="unknown")
    assert fault_of_answer(digits, "12") is None and fault_of_answer(digits, "unknown") is None
    assert "does not match [0-9]+" in str(fault_of_answer(digits, "twelve"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    whole = replace(task, labels=None, schema=schema)
    assert fault_of_answer(whole, '{"a": 1}') is None and fault_of_answer(whole, '{"a": "x"}') is not None
    assert fault_of_answer(replace(task, labels=None), "anything") is None


# ---- review ---------------------------------------------------------------------------------

NASTY = (
    "=1+2",
    "+49 30",
    "-5",
    "@SUM(A1)",
    "'quoted'",
    "'=1",
    "''",
    "'",
    "a,b;c",
    'he said "no"',
    "two\nlines",
    " x ",
    "\t",
    "007",
    "3.10",
    "$5",
    "true",
    "March 3",
    "'90s",
    "1/2",
    "é 日本",
)


@pytest.mark.parametrize("text", [*NASTY, "", "plain", "＝1"])
def test_a_cell_comes_back_as_it_was_and_is_no_formula(text: str) -> None:
    safe = safe_cell(text)
    assert plain_cell(safe) == text and safe[:1] not in tuple("=+-@\t\r\n＝0123456789$")
    assert safe.lower() != "true"


def test_a_csv_that_comes_back_untouched_changes_nothing(tmp_path: Path) -> None:
    rows = [row(i, text or "x", text or "x", context=text) for i, text in enumerate(NASTY)]
    file = write(tmp_path / "s.jsonl", *rows)
    before = file.read_bytes()
    ReviewFile(file).to_csv(tmp_path / "s.csv")
    returned = ReviewFile(file).from_csv(tmp_path / "s.csv")
    assert (returned.changed, returned.missing) == (0, 0) and file.read_bytes() == before
    with (tmp_path / "s.csv").open(encoding="utf-8-sig", newline="") as opened:
        cells = [cell for line in csv.reader(opened) for cell in line]
    assert not any(cell.startswith(tuple("=+-@\t")) for cell in cells)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_was_decided_in_a_spreadsheet_comes_back(tmp_path: Path, separator: str) -> None:
    file = write(tmp_path / "s.jsonl", *(row(i, f"some text {i}", extra={"kept": i}) for i in range(5)))
    with (tmp_path / "back.csv").open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, delimiter=separator)
        writer.writerow(["review", "id", "output", "notes"])
        writer.writerow(["Accepted", "syn-0", "theft", "fine"])
        writer.writerow(["", "syn-1", "'=loss", "changed"])
        writer.writerow(["rejected", "syn-2", "", "wrong"])
        writer.writerow(["", "syn-3", "theft", ""])
    returned = ReviewFile(file).from_csv(tmp_path / "back.csv")
    assert (returned.changed, returned.missing) == (3, 1)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [r["review"] for r in rows] == ["accepted", "edited", "rejected", None, None]
    assert rows[1]["output"] == "=loss" and rows[1]["taught"] == "theft"
    assert [r["extra"]["kept"] for r in rows] == list(range(5)) and rows[0]["origin"]["votes"] == {"theft": 3}


def test_a_file_that_somebody_else_changed_is_not_written_over(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text"), row(2, "other text"))
    mine, theirs = ReviewFile(file), ReviewFile(file)
    mine.decide(0, "accepted")
    mine.decide(0, "rejected")
    with pytest.raises(DataError, match="was changed meanwhile"):
        theirs.decide(1, "accepted")
    assert [r["review"] for r in ReviewFile(file).rows] == ["rejected", None]


def test_a_csv_from_before_rows_were_decided_takes_no_decision_back(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", *(row(i, f"some text {i}") for i in range(4)))
    rows = ReviewFile(file)
    rows.to_csv(tmp_path / "b.csv")
    rows.decide(0, "rejected")
    rows.decide(1, "edited", "loss")
    rows.decide(2, "accepted")
    text = (tmp_path / "b.csv").read_text("utf-8-sig")
    (tmp_path / "b.csv").write_text(text.replace("syn-2,,", "syn-2,open,").replace("syn-3,,", "syn-3,accepted,"))
    rows.from_csv(tmp_path / "b.csv")
    found = ReviewFile(file).rows
    assert [r["review"] for r in found] == ["rejected", "edited", None, "accepted"]
    assert found[1]["output"] == "loss"


def test_rows_that_were_sorted_emptied_or_deleted_in_a_spreadsheet_do_no_harm(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", *(row(i, f"some text {i}") for i in range(4)))
    (tmp_path / "b.csv").write_text("id,review,output\n,,\nsyn-3,rejected,theft\n , ,\nsyn-1,accepted,theft\n,,\n")
    returned = ReviewFile(file).from_csv(tmp_path / "b.csv")
    assert (returned.changed, returned.missing) == (2, 2)
    assert [r["review"] for r in ReviewFile(file).rows] == [None, "accepted", None, "rejected"]


def test_an_answer_that_is_edited_in_a_spreadsheet_keeps_its_line_ends_and_no_reference_that_was_wrong(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text", "one\ntwo", references=["one\ntwo", "1\n2"]))
    (tmp_path / "b.csv").write_bytes(b'id,review,output\r\nsyn-1,,"one\r\nthree"\r\n')
    ReviewFile(file).from_csv(tmp_path / "b.csv")
    (found,) = ReviewFile(file).rows
    assert found["output"] == "one\nthree" and found["review"] == "edited" and "references" not in found


def test_letters_that_a_spreadsheet_lost_are_no_edit(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text", "日本 is where?"), row(2, "other text", "naïve"))
    before = file.read_bytes()
    (tmp_path / "b.csv").write_bytes("id,review,output\nsyn-1,accepted,?? is where?\nsyn-2,,naïve\n".encode("cp1252"))
    with pytest.raises(DataError, match='letters of the answer are question marks now; save the sheet as "CSV UTF-8"'):
        ReviewFile(file).from_csv(tmp_path / "b.csv")
    assert file.read_bytes() == before


def test_no_cell_is_longer_than_a_spreadsheet_holds(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text", context="long " * 10_000))
    ReviewFile(file).to_csv(tmp_path / "b.csv")
    with (tmp_path / "b.csv").open(encoding="utf-8-sig", newline="") as opened:
        assert max(len(cell) for line in csv.reader(opened) for cell in line) < 32_767
    assert ReviewFile(file).from_csv(tmp_path / "b.csv").changed == 0


def test_line_ends_of_a_spreadsheet_are_no_edit(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text", "two\nlines"))
    (tmp_path / "b.csv").write_bytes(b'id,review,output\r\nsyn-1,accepted,"two\r\nlines"\r\n')
    ReviewFile(file).from_csv(tmp_path / "b.csv")
    (found,) = ReviewFile(file).rows
    assert found["output"] == "two\nlines" and found["review"] == "accepted"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("syn-9,accepted,theft", 'the id "syn-9" is none of s.jsonl'),
        ("syn-1,maybe,theft", 'the review is "maybe"'),
        ("syn-1,accepted,", "the answer is empty; write rejected"),
        ("syn-1,accepted,theft\r\nsyn-1,accepted,theft", "stands twice"),
    ],
)
def test_a_csv_that_cannot_be_meant_so_changes_nothing(tmp_path: Path, line: str, fault: str) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text"), row(2, "other text"))
    before = file.read_bytes()
    (tmp_path / "b.csv").write_text(f"id,review,output\r\nsyn-2,rejected,theft\r\n{line}\r\n")
    with pytest.raises(DataError, match=fault):
        ReviewFile(file).from_csv(tmp_path / "b.csv")
    assert file.read_bytes() == before


def test_a_csv_without_the_columns_says_what_it_needs(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", row(1, "some text"))
    (tmp_path / "b.csv").write_text("id,output\nsyn-1,theft\n")
    with pytest.raises(DataError, match="needs the columns id, review and output; its columns are id, output"):
        ReviewFile(file).from_csv(tmp_path / "b.csv")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", {"id": "a", "messages": []})
    with pytest.raises(DataError, match="has no input and output as texts; name a file that rung synth wrote"):
        ReviewFile(file)
    with pytest.raises(DataError, match="no file of JSON lines"):
        ReviewFile(tmp_path / "s.csv")
    twice = write(tmp_path / "t.jsonl", row(1, "a"), row(1, "b"))
    with pytest.raises(DataError, match='the id "syn-1" stands twice'):
        ReviewFile(twice)
