"""The bundle that a run hands over, and those that are made of it later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rung
from rung.cli.main import rung as command
from rung.errors import RunError
from rung.serving.bundle import read_bundle
from rung.serving.bundle_check import check_answers
from small_task import write_task


def call(*words: object) -> Result:
    return CliRunner().invoke(command, ["bundle", *map(str, words)])


def run_in(place: Path, model: Path, **how: object) -> Path:
    task = write_task(place, model, corpus=True, license="CC-BY-4.0")
    return rung.run(task, out=place / "run", **how).folder


def all_text(folder: Path) -> str:
    return "".join(path.read_text("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


def test_the_winner_is_a_bundle_that_answers_anywhere_as_it_was_recorded(tmp_path: Path, fake_model: Path) -> None:
    run = run_in(tmp_path / "here", fake_model)
    there = Path(shutil.copytree(run / "winner", tmp_path / "there"))
    shutil.rmtree(tmp_path / "here")
    assert str(tmp_path) not in all_text(there)
    packed = read_bundle(there)
    assert packed.note["licenses"]["data"] == "cc-by-4.0"
    assert {a.score for a in packed.recorded} <= {0.0, 1.0} and packed.recorded[0].text
    found = check_answers(there)
    assert found.passed and found.equal == 1


def test_no_example_of_the_test_stands_in_a_bundle(tmp_path: Path, fake_model: Path) -> None:
    run = run_in(tmp_path / "here", fake_model)
    sets = json.loads((run / "split.json").read_text())["sets"]
    held = {a.example.id for a in read_bundle(run).recorded}
    assert held and held <= set(sets["dev"])


def test_any_solution_of_a_run_is_made_into_a_bundle(tmp_path: Path, fake_model: Path) -> None:
    run = run_in(tmp_path, fake_model)
    done = call(run, "zero_shot", "--out", tmp_path / "shipped")
    assert done.exit_code == 0, done.output
    assert " kB. Its card" in done.output, "a bundle of a prompt is small, and never 0.0 MB"
    packed = read_bundle(tmp_path / "shipped")
    assert packed.solution.name == "zero_shot" and packed.recorded
    again = rung.bundle(run, out=tmp_path / "again")
    assert (again / "bundle.json").read_text() == (run / "winner" / "bundle.json").read_text()
    assert "is there already" in str(call(run, "--out", tmp_path / "again").exception)
    bare = rung.bundle(run, out=tmp_path / "bare", examples=False)
    assert not (bare / "parity.jsonl").exists()


def test_where_the_data_changed_the_examples_are_those_that_the_winner_holds(tmp_path: Path, fake_model: Path) -> None:
    run = run_in(tmp_path, fake_model)
    (tmp_path / "examples.jsonl").unlink()
    other = rung.bundle(run, "zero_shot", out=tmp_path / "other")
    assert {a.example for a in read_bundle(other).recorded} == {a.example for a in read_bundle(run).recorded}
    shutil.rmtree(run / "winner")
    done = call(run, "zero_shot", "--out", tmp_path / "none")
    assert done.exit_code == 0 and "cannot be read as it was" in done.stderr
    assert read_bundle(tmp_path / "none").recorded == []


def test_a_run_without_a_winner_asks_for_a_solution_by_name(tmp_path: Path, fake_model: Path) -> None:
    run = run_in(tmp_path, fake_model, only=("zero_shot",), minutes=0.0001)
    (run / "finished.json").unlink(missing_ok=True)
    (run / "decision.json").unlink()
    with pytest.raises(RunError, match=r"not finished.*there are zero_shot"):
        rung.bundle(run, out=tmp_path / "out")
    with pytest.raises(RunError, match="no solution 'lora' here"):
        rung.bundle(run, "lora", out=tmp_path / "out")
    assert read_bundle(rung.bundle(run, "zero_shot", out=tmp_path / "out")).note["figures"]["test"] is None
    with pytest.raises(RunError, match="not a run folder"):
        rung.bundle(tmp_path, out=tmp_path / "out2")
    with pytest.raises(RunError, match="no solution"):
        rung.bundle(run, "../solutions/zero_shot", out=tmp_path / "out3")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        rung.bundle(run, "zero_shot", out=tmp_path / "file" / "out")


def test_a_winner_of_an_older_format_is_made_anew_when_the_run_is_handed_over_again(
    tmp_path: Path, fake_model: Path
) -> None:
    run = run_in(tmp_path, fake_model)
    note = json.loads((run / "winner" / "bundle.json").read_text())
    old = {key: note[key] for key in ("task", "model", "model_version", "solution", "headline")}
    (run / "winner" / "bundle.json").write_text(json.dumps(old))
    assert rung.load(run / "winner")("The small door please"), "it still loads"
    (run / "finished.json").unlink()
    rung.run(tmp_path / "task.yaml", out=run)
    assert json.loads((run / "winner" / "bundle.json").read_text()) == note
