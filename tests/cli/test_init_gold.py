from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rung.cli.init_gold import mark_gold
from rung.cli.main import rung
from rung.data import corpus
from rung.data.examples import read_sets
from rung.data.init import draft_task, try_draft
from rung.data.task_file import read_task
from rung.types import Example

N = 30


def call(*args: object) -> Result:
    done = CliRunner().invoke(rung, ["init", *map(str, args)])
    assert done.exit_code == 0, done.output
    return done


def data(folder: Path, rows: Sequence[dict[str, object]] | None = None, name: str = "examples.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    asked = (
        [{"question": f"Who is mayor of Town{i}?", "answer": f"Name{i}"} for i in range(N)] if rows is None else rows
    )
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in asked))
    documents = [{"id": f"d{i}", "text": f"The mayor of Town{i} is called Name{i}."} for i in range(N)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    return folder / name


def examples_of(folder: Path) -> list[Example]:
    return [e for rows in read_sets(read_task(folder)).values() for e in rows]


def test_documents_that_hold_the_answers_are_marked_in_a_copy_that_the_task_reads(tmp_path: Path) -> None:
    before = data(tmp_path).read_bytes()
    done = call(tmp_path / "examples.jsonl", "--docs", tmp_path / "docs.jsonl", "--yes")
    assert "was found for 30 of 30 rows; one that holds the answer of another row, for 0 of " in done.output
    assert (tmp_path / "examples.jsonl").read_bytes() == before, "the user's file is never changed"
    assert read_task(tmp_path).examples == (tmp_path / "examples.gold.jsonl",)
    assert [e.gold_ids for e in examples_of(tmp_path)] == [(f"d{i}",) for i in range(N)]
    assert all(e.gold_found for e in examples_of(tmp_path)), "nobody marked them, so no search is measured by them"
    assert "\nexamples: examples.gold.jsonl  # 30 rows" in (tmp_path / "task.yaml").read_text()
    assert done.output.count("in examples.gold.jsonl, which the task reads; look at some.") == 1


def test_documents_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path)
    read, asked = corpus.read_documents, list[Path]()

    def counted(path: Path, *more: object, **named: object) -> corpus.Corpus:
        asked.append(path)
        return read(path, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus, "read_documents", counted)
    call(tmp_path / "examples.jsonl", "--yes")
    assert (tmp_path / "examples.gold.jsonl").exists() and asked == [tmp_path / "docs.jsonl"]


def test_a_second_init_reads_the_rows_of_the_user_and_not_the_copy(tmp_path: Path) -> None:
    data(tmp_path, name="qa-1.jsonl")
    call(tmp_path, "--yes")
    rows = [{"question": f"Who is mayor of Town{i}?", "answer": f"Name{i}"} for i in range(20)]
    data(tmp_path, rows, name="qa-1.jsonl")
    call(tmp_path, "--yes", "--force")
    assert len(examples_of(tmp_path)) == 20
    call(f"{tmp_path}/qa*.jsonl", "--force")
    assert len(examples_of(tmp_path)) == 20


def test_sets_stay_apart_and_rows_of_a_csv_keep_their_cells(tmp_path: Path) -> None:
    data(tmp_path, name="unused.jsonl")
    (tmp_path / "unused.jsonl").unlink()
    for name, start in (("train", 0), ("test", 20)):
        lines = "".join(
            f'"Who is mayor of Town{i}?",Name{i},00{i}\n' for i in range(start, start + (20 if not start else 10))
        )
        (tmp_path / f"{name}.csv").write_text(f"question,answer,number\n{lines}")
    call(tmp_path / "train.csv", tmp_path / "test.csv", "--docs", tmp_path / "docs.jsonl", "--yes")
    task = read_task(tmp_path)
    assert task.examples == {"train": (tmp_path / "train.gold.jsonl",), "test": (tmp_path / "test.gold.jsonl",)}
    assert [e.gold_ids for e in read_sets(task)["test"]] == [(f"d{i}",) for i in range(20, 30)]
    row = json.loads((tmp_path / "test.gold.jsonl").read_text().splitlines()[0])
    asked = {"question": "Who is mayor of Town20?", "answer": "Name20", "number": "0020"}
    assert row == {**asked, "gold_ids": ["d20"], "gold_by": "rung init"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (lambda i: {"question": f"Is Town{i} old?", "answer": ("yes", "no")[i % 2]}, "answers are labels"),
        (
            lambda i: {"question": f"Who is mayor of Town{i}?", "answer": f"Somebody{i} else"},
            "was found for 0 of 30 rows",
        ),
    ],
)
def test_where_nothing_can_be_marked_that_is_said_and_nothing_is_written(tmp_path: Path, row, why: str) -> None:  # type: ignore[no-untyped-def]
    data(tmp_path, [row(i) for i in range(N)])
    done = call(tmp_path / "examples.jsonl", "--yes")
    assert "Gold passages are not marked: " in done.output and why in done.output
    assert not (tmp_path / "examples.gold.jsonl").exists()
    assert read_task(tmp_path).examples == (tmp_path / "examples.jsonl",)


def test_rows_that_mark_passages_are_left_as_they_are(tmp_path: Path) -> None:
    rows = [{"question": f"Who is mayor of Town{i}?", "answer": f"Name{i}", "gold_ids": ["d1"]} for i in range(N)]
    data(tmp_path, rows)
    assert "old passages" not in call(tmp_path / "examples.jsonl", "--yes").output
    assert read_task(tmp_path).examples == (tmp_path / "examples.jsonl",)


@pytest.mark.parametrize(("reply", "marked"), [(0, True), (1, False)])
def test_on_a_terminal_it_is_asked_first(tmp_path: Path, reply: int, marked: bool) -> None:
    path, asked = data(tmp_path), list[str]()

    def ask(question: str, replies: Sequence[str]) -> int:
        asked.append(question)
        assert replies[0].startswith("yes: write examples.gold.jsonl")
        return reply

    trial = mark_gold(try_draft(draft_task([str(path)])), ask, force=False)
    assert len(asked) == 1 and asked[0].endswith("Mark these documents as gold passages?")
    assert (tmp_path / "examples.gold.jsonl").exists() is marked
    assert trial.task is not None and trial.task.examples[0].name.endswith(".gold.jsonl") is marked  # type: ignore[index]


def test_a_copy_that_is_there_is_not_replaced_without_force(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "examples.gold.jsonl").write_text("mine\n")
    done = call(tmp_path / "examples.jsonl")
    assert "examples.gold.jsonl is there already; use --force to replace it" in done.output
    assert (tmp_path / "examples.gold.jsonl").read_text() == "mine\n"


def test_a_copy_that_would_be_read_otherwise_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path)
    monkeypatch.setattr("rung.data.init.gold_copies.COLUMN", "answer")
    done = call(tmp_path / "examples.jsonl", "--yes")
    assert "Gold passages are not marked, as copies of the rows cannot be used" in done.output
    assert not (tmp_path / "examples.gold.jsonl").exists()
    assert read_task(tmp_path).examples == (tmp_path / "examples.jsonl",)


def test_rows_among_the_documents_are_neither_marked_as_such_nor_copied(tmp_path: Path) -> None:
    data(tmp_path)
    done = call(tmp_path / "examples.jsonl", "--docs", tmp_path, "--yes")
    assert "Gold passages are not marked: rows lie in the folder of the documents" in done.output
    assert not (tmp_path / "examples.gold.jsonl").exists()


def test_a_mark_that_a_person_checked_and_one_that_init_made_stay_apart_when_rows_are_written_again(
    tmp_path: Path,
) -> None:
    data(tmp_path)
    call(tmp_path / "examples.jsonl", "--docs", tmp_path / "docs.jsonl", "--yes")
    copy = tmp_path / "examples.gold.jsonl"
    rows = [json.loads(line) for line in copy.read_text().splitlines()]
    del rows[0]["gold_by"]
    copy.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [e.gold_found for e in examples_of(tmp_path)] == [False, *[True] * (N - 1)]
    done = CliRunner().invoke(rung, ["convert", str(copy), str(tmp_path / "out.jsonl"), "--to", "messages"])
    assert done.exit_code == 0, done.output
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("gold_by") for row in written] == [None, *["rung init"] * (N - 1)]
    assert all(row["gold_ids"] for row in written)
