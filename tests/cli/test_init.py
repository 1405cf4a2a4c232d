from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rung.cli.main import rung
from rung.data.examples import read_sets
from rung.data.task_file import read_task
from rung.errors import DataError, TaskError


def call(*args: object) -> Result:
    return CliRunner().invoke(rung, ["init", *map(str, args)])


def labelled(path: Path, n: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": f"the text of row {i}", "label": ("refund", "card")[i % 2]} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_init_shows_three_examples_as_the_model_will_see_them_and_what_to_do_next(tmp_path: Path) -> None:
    done = call(labelled(tmp_path / "d.jsonl"))
    assert done.exit_code == 0
    assert done.output.count("as the model will see it:") == 3
    assert "  system    Classify the input. Answer with one of these labels only: card, refund." in done.output
    assert "  user      the text of row 0\n  answer    refund" in done.output
    assert done.output.endswith(f"  rung check {tmp_path}/task.yaml\n  rung run {tmp_path}/task.yaml\n")
    assert "the text of row" not in (tmp_path / "task.yaml").read_text()
    read_sets(read_task(tmp_path))


def test_the_next_commands_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mes données (1)"
    labelled(folder / "-exemples 例.jsonl")
    monkeypatch.chdir(tmp_path)
    done = call("mes données (1)/-exemples 例.jsonl")
    assert done.output.endswith("  rung run 'mes données (1)/task.yaml'\n")
    monkeypatch.chdir(folder)
    assert call("./-exemples 例.jsonl", "--force").output.endswith("  rung run task.yaml\n")


def test_rows_to_correct_are_named_and_the_task_is_written(tmp_path: Path) -> None:
    path = labelled(tmp_path / "d.jsonl")
    path.write_text(path.read_text() + '{"text": "x", "label": ""}\n')
    done = call(path)
    assert isinstance(done.exception, DataError)
    assert "is written, but it cannot run on its data yet:\nd.jsonl, line 41" in str(done.exception)
    assert (tmp_path / "task.yaml").exists()


def test_a_column_may_be_named_and_several(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n" + "".join(f"the first {i},the second {i},x{i}\n" for i in range(20)))
    assert call(tmp_path / "d.csv", "--field", "input=a,b", "--field", "output=c").exit_code == 0
    task = read_task(tmp_path)
    assert dict(task.fields) == {"input": ("a", "b"), "output": "c"}
    assert call(tmp_path / "d.csv", "--field", "input").exit_code == 2


def test_several_files_are_one_task_and_documents_are_named(tmp_path: Path) -> None:
    files = [labelled(tmp_path / "data" / name) for name in ("train.jsonl", "test.jsonl")]
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "a.md").write_text("# Cards\nA card.")
    assert call(*files, "--docs", tmp_path / "manual", "--yes").exit_code == 0
    task = read_task(tmp_path / "data")
    assert task.examples == {"train": (files[0],), "test": (files[1],)}
    assert task.corpus == tmp_path / "manual"


def test_without_data_or_with_a_task_that_is_there_nothing_is_written(tmp_path: Path) -> None:
    assert call().exit_code == 2
    done = call(tmp_path / "absent.csv")
    assert isinstance(done.exception, DataError) and str(done.exception) == (
        f"{tmp_path}/absent.csv: no such file or folder. Check the path."
    )
    assert str(call(tmp_path / "absent*").exception).count("absent*") == 2  # as it was written, and where that is
    path = labelled(tmp_path / "d.jsonl")
    assert call(path).exit_code == 0
    again = call(path)
    assert isinstance(again.exception, TaskError) and "--force" in str(again.exception)


def test_of_a_long_text_the_end_is_shown_too_and_of_many_labels_the_first_ones(tmp_path: Path) -> None:
    rows = [{"text": f"{'a word ' * 200} and at the end {i}?", "label": f"label {i % 20}"} for i in range(100)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call(tmp_path / "d.jsonl")
    assert "and at the end 0?\n  answer    label 0" in done.output
    assert "  # … 8 more labels in the file\n" in done.output
    assert len(read_task(tmp_path).labels or ()) == 20


def test_a_long_conversation_is_shown_from_near_its_end(tmp_path: Path) -> None:
    said = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(20)]
    end = [
        [{"role": "user", "content": f"and {i}?"}, {"role": "assistant", "content": f"it is {i}"}] for i in range(20)
    ]
    rows = [{"messages": [*said, *last]} for last in end]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call(tmp_path / "d.jsonl")
    assert done.output.count("(16 earlier turns)") == 3 and done.output.count("(as above)") == 2
    assert "  assistant turn 19\n  user      and 0?\n  answer    it is 0\n" in done.output


def test_a_wrong_shape_or_field_is_refused_with_the_names(tmp_path: Path) -> None:
    path = labelled(tmp_path / "d.jsonl")
    assert "The shapes are messages" in str(call(path, "--shape", "mesages").exception)
    assert "the names are input" in call(path, "--field", "question=text").output


def test_what_the_user_should_know_is_printed_once(tmp_path: Path) -> None:
    labelled(tmp_path / "d.jsonl")
    (tmp_path / "d.jsonl").write_text((tmp_path / "d.jsonl").read_text() + '{"text": "x", "label": "odd"}\n')
    done = call(tmp_path / "d.jsonl")
    assert done.output.count("Rare labels") == 1 and "\n- Rare labels" in done.output
    assert "\n# Rare labels" in (tmp_path / "task.yaml").read_text()
