"""The training data of a run as files of others, without a row of dev or the test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.data.examples import read_examples
from rung.data.split import split_as, split_record
from rung.data.task_file import read_task
from rung.errors import ExportError
from rung.models import model_version
from rung.records import write_json, write_lines
from rung.serving.exports import export_named
from rung.serving.exports.export import ExportOptions, ExportSource
from rung.serving.exports.exporting import ExportReport, export
from rung.serving.exports.source import SourceOptions, read_source
from rung.solutions.store import save_solution
from rung.types import Decoding, Demo, DemoSelection, SetName, Solution

SHAPES = ("openai-jsonl", "messages", "alpaca", "sharegpt")
SETS: dict[SetName, range] = {"train": range(12), "dev": range(12, 18), "test": range(18, 24)}


@pytest.fixture
def run(tmp_path: Path, tiny_folder: Path) -> Path:
    """A run of 12, 6 and 6 rows, whose solution shows two demos. Row 3 has the input of a test row."""
    rows: list[dict[str, Any]] = [
        {"id": f"r{i}", "input": f"  What is card {i}?\nSay so. ", "output": f'card "{i}"\t✓'} for i in range(24)
    ]
    rows[3]["input"] = rows[20]["input"]
    rows[5]["context"] = "A text."
    rows[6]["turns"] = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"}]
    write_lines(tmp_path / "rows.jsonl", rows)
    task = "name: cards\ninstruction: Answer.\nexamples: rows.jsonl\nmetric: exact_match\n"
    (tmp_path / "task.yaml").write_text(task + f"models: [{tiny_folder}]\n")
    folder, version = tmp_path / "run", model_version(str(tiny_folder))
    examples = read_examples(read_task(tmp_path / "task.yaml"))
    assigned = {f"r{i}": name for name, places in SETS.items() for i in places}
    write_json(folder / "split.json", split_record(split_as(examples, assigned, {}, {})))
    model = {"name": "tiny", "spec": str(tiny_folder), "price": None}
    record = {"path": str(tmp_path / "task.yaml"), "models": [model], "model_versions": {"tiny": version}}
    write_json(folder / "task.json", {**record, "home": version, "name": "cards", "metric": "exact_match"})
    demos = (Demo("What is card 0?", "card 0"), Demo("What is card 1?", "card 1"))
    save_solution(
        Solution("shown", "Answer.\nNow.", Decoding(8), demos, DemoSelection("fixed", 2), model="tiny"),
        folder / "solutions" / "shown",
    )
    return folder


def source_of(run: Path) -> ExportSource:
    return read_source(run, SourceOptions(solution="shown", rows=0))


def exported(run: Path, name: str, out: Path) -> tuple[ExportReport, list[Any]]:
    report = export(source_of(run), export_named(name), out, ExportOptions())
    return report, [json.loads(line) for line in (report.folder / "train.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rows_are_those_of_train_and_read_back_as_they_were(run: Path, tmp_path: Path, shape: str) -> None:
    report, rows = exported(run, shape, tmp_path / "out")
    assert not report.faults and all(check.ok for check in report.checks)
    assert len(rows) == 11  # one of 12 stands in the test as well
    told = " ".join(report.notes)
    assert "1 train rows are left out" in told and "0 above 512" in told
    text = (tmp_path / "out" / "train.jsonl").read_text("utf-8")
    assert not any(f"card {i}?" in text for i in (*SETS["dev"], *SETS["test"]))


def test_openais_rows_are_turns_and_nothing_else(run: Path, tmp_path: Path) -> None:
    _, rows = exported(run, "openai-jsonl", tmp_path / "out")
    assert all(set(row) == {"messages"} for row in rows)
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]  # without demos
    assert rows[0]["messages"][0]["content"] == "Answer.\nNow." and rows[0]["messages"][2]["content"] == 'card "0"\t✓'
    assert [m["content"] for m in rows[5]["messages"][1:3]] == ["hello", "yes?"]
    assert rows[4]["messages"][1]["content"].startswith("A text.\n\n")


def test_a_row_that_openai_would_refuse_fails_its_check() -> None:
    from rung.serving.exports.training_data import _is_chat

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert _is_chat({"messages": turns})
    assert not _is_chat({"messages": turns, "id": "1"})
    assert not _is_chat({"messages": turns[:1]})
    assert not _is_chat({"messages": [{"role": "human", "content": "a"}, turns[1]]})
    assert not _is_chat({"messages": [turns[0], {"role": "assistant", "content": None}]})


def test_what_a_teacher_wrote_is_exported_with_train_for_the_solution_that_learnt_it(run: Path, tmp_path: Path) -> None:
    written = {"id": "s1", "input": "What is a mill?", "output": "a mill", "origin": {"kind": "new"}, "review": None}
    write_lines(run / "solutions" / "shown" / "synthetic.jsonl", [written])
    report, rows = exported(run, "messages", tmp_path / "out")
    assert len(rows) == 12 and rows[-1]["messages"][-1]["content"] == "a mill"
    assert any(note.startswith("1 of them were written") for note in report.notes)


def test_the_file_that_says_how_long_the_training_was_is_named_by_its_path(run: Path, tmp_path: Path) -> None:
    source = source_of(run)
    source.packed = replace(source.packed, solution=replace(source.packed.solution, adapter="adapter"))
    report = export(source, export_named("messages"), tmp_path / "out", ExportOptions())
    assert any("solutions/shown/training/course.json in the run folder" in note for note in report.notes)


def test_a_bundle_by_itself_says_that_the_run_has_the_rows(run: Path, tiny_folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / "bundle"
    save_solution(Solution("shown", "Answer.", Decoding(8)), alone)
    write_json(alone / "bundle.json", {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder))})
    with pytest.raises(ExportError, match="Name the run"):
        export(read_source(alone, SourceOptions(rows=0)), export_named("messages"), tmp_path / "out", ExportOptions())


def test_rows_that_changed_since_the_run_are_an_error(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text("utf-8").replace("card 2?", "card two?"), "utf-8")
    with pytest.raises(ExportError, match="1 train examples have changed"):
        exported(run, "alpaca", tmp_path / "out")
