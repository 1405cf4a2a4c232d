"""What `rung check` and the head of a run share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rung.data.task_file import read_task
from rung.data.vectors import _vectors
from rung.errors import DataError
from rung.evaluation.metrics import load_metric
from rung.ladder.checking import CheckedData, Read, check_task, refuse
from rung.types import Finding
from small_task import write_task


def test_the_vectors_of_the_checks_are_freed_whether_or_not_the_examples_can_be_split(tmp_path: Path) -> None:
    task = write_task(tmp_path, Path("smollm2-135m-instruct"))
    assert check_task(task).split is not None and not _vectors.cache_info().currsize
    examples = tmp_path / "examples.jsonl"
    rows = [{**json.loads(line), "group": "one"} for line in examples.read_text("utf-8").splitlines()]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    checked = check_task(task)
    assert checked.split is None and [f.check for f in checked.errors] == ["split"]
    assert not _vectors.cache_info().currsize


def test_rows_of_findings_that_are_not_listed_are_picked_last_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.data.findings.KEPT", 5)
    names = ["Lima", "Oslo", "Rome", "Cairo", "Paris", "Quito", "Tunis", "Delhi", "Seoul", "Hanoi", "Accra", "Minsk"]
    rows = [
        {"id": f"r{i}", "input": f"{names[i % 12]} or {names[i * 5 % 11]}, {i * 37}?", "output": f"{names[i % 7]} {i}"}
        for i in range(200)
    ]
    for row in rows[5:200:7]:
        row["output"] = "I'm sorry, but I can't help with that."
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    keys = "name: few\ninstruction: Answer.\nexamples: rows.jsonl\ntrain_size: 60\nmetric: exact_match\n"
    (tmp_path / "task.yaml").write_text(keys, "utf-8")
    checked = check_task(tmp_path / "task.yaml")
    assert sum(f.check == "refusal" and f.row != "" for f in checked.findings) == 5
    assert checked.split is not None and len(checked.split.train) == 60
    assert not {row["id"] for row in rows[5:200:7]} & {e.id for e in checked.split.train}


def test_one_error_is_said_by_itself_and_one_warning_with_what_stops_at_it(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, Path("smollm2-135m-instruct")))
    error, warning = Finding("split", "error", "", "No."), Finding("few_examples", "warning", "", "Few.")
    data = Read(task, {}, (), load_metric("exact_match", tmp_path))
    for findings, strict, said in (
        ((error, warning), False, "No."),
        ((error,), True, "No."),
        ((warning,), True, f"{task.path}: 1 warning, and --strict stops at warnings.\n  Few.\nAll of them: "),
        ((error, warning), True, f"{task.path}: 2 errors and warnings in the data.\n  No.\n  Few.\n"),
    ):
        with pytest.raises(DataError) as caught:
            refuse(CheckedData(data, None, findings), strict)
        assert str(caught.value).startswith(said)
    refuse(CheckedData(data, None, (warning,)), False)
