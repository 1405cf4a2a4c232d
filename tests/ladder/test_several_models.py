"""Several models on one task: one split, one sealed test, one verdict over all pairs of model and strategy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import LARGE, SMALL, append_rows, decision
from rung.errors import DataError, RunError, TaskError
from rung.ladder import RunOptions, run
from rung.serving.bundle import open_bundle
from rung.testing import Silent
from small_task import write_task


def test_one_verdict_covers_every_model_on_the_same_rows(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96)
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    found = decision(folder)
    assert found["models"] == ["small", "large"]
    tested = {c["name"]: c for c in found["candidates"] if c["test"] and c["family"] != "baseline"}
    assert {c["model"] for c in tested.values()} == {"small", "large"}
    assert "lora@small" in tested and not any(name.startswith("lora@large") for name in tested)
    answered = {}
    for name in tested:
        lines = (folder / "solutions" / name / "predictions.test.jsonl").read_text().splitlines()
        answered[name] = [json.loads(line)["id"] for line in lines]
    assert len({tuple(ids) for ids in answered.values()}) == 1, "all answer the same rows"
    assert found["test_reads"] == 1
    plan = json.loads((folder / "plan.json").read_text())
    assert {step["model"] for step in plan["steps"]} == {"small", "large"}
    assert plan["usd"] > 0 and set(plan["models"]) == {"small", "large"}


def test_a_continued_run_of_two_models_builds_nothing_twice_and_ends_alike(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL, LARGE])
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    first = decision(folder)
    (folder / "finished.json").unlink()
    (folder / "decision.json").unlink()
    (folder / "finalists.json").unlink()
    listener = Silent()
    run(task, RunOptions(out=tmp_path / "run"), listener)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    built = [e["solution"] for e in events if e["event"] == "built"]
    assert len(built) == len(set(built))
    assert decision(folder)["solution"] == first["solution"] and decision(folder)["test_reads"] == 1


def test_the_winner_of_two_models_answers_with_its_own_model(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96)
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    note = json.loads((folder / "winner" / "bundle.json").read_text())
    shipped = decision(folder)["solution"]
    assert note["model"].startswith(shipped.partition("@")[2])
    assert open_bundle(folder).answer(["The old rope number 3 please"])[0].text
    other = open_bundle(folder, solution="zero_shot@large")
    assert other.model.name == "large:expert"


def test_a_model_added_with_again_reuses_what_was_built_and_tells_of_the_earlier_opening(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_task(tmp_path / "task", Path("small:clerk"), examples=96)
    first = run(task, RunOptions(), Silent())
    assert "lora" in {c["name"] for c in decision(first)["candidates"]}
    write_task(tmp_path / "task", Path(), models=[{"name": "small:clerk"}, LARGE], examples=96)
    listener = Silent()
    assert run(task, RunOptions(out=tmp_path / "other"), listener) != first
    again = run(task, RunOptions(again=True), listener)
    assert again == first, "the run is found by its task, though its models differ"
    found = decision(again)
    names = {c["name"] for c in found["candidates"]}
    assert {"lora", "zero_shot", "zero_shot@large"} <= names
    events = [json.loads(line) for line in (again / "events.jsonl").read_text().splitlines()]
    assert [e["solution"] for e in events if e["event"] == "built"].count("lora") == 1
    assert found["test_reads"] == 2
    warned = " ".join(found["warnings"])
    assert "opened 2 times" in warned and "lora" in warned and "large was added" in warned


def test_rows_added_to_train_build_what_learns_again_and_leave_dev_and_test_alone(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out), Silent())
    split = json.loads((out / "split.json").read_text())
    append_rows(
        task, [{"id": f"new-{i}", "input": f"Please name pencil {i} {'x' * i}", "output": "red"} for i in range(9)]
    )
    with pytest.raises(RunError, match="another run"):
        run(task, RunOptions(out=out), Silent())
    listener = Silent()
    run(task, RunOptions(out=out, again=True), listener)
    after = json.loads((out / "split.json").read_text())
    assert after["sets"]["dev"] == split["sets"]["dev"] and after["sets"]["test"] == split["sets"]["test"]
    assert set(after["sets"]["train"]) > set(split["sets"]["train"])
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    built = [e["solution"] for e in events if e["event"] == "built"]
    assert built.count("lora") == 2 and built.count("zero_shot") == 1
    found = decision(out)
    assert found["test_reads"] == 2, "a solution that was built again is another one, although its name is the same"
    assert any("9 added" in text for text in (*found["warnings"], *listener.said))
    assert (out / "earlier" / "1" / "solutions" / "lora").is_dir()


def test_a_new_row_that_nearly_repeats_one_of_the_test_is_in_no_set(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    split = json.loads((out / "split.json").read_text())
    rows = {str(row["id"]): row for row in map(json.loads, (tmp_path / "examples.jsonl").read_text().splitlines())}
    tested = rows[split["sets"]["test"][0]]
    append_rows(task, [{**tested, "id": "copy"}, {"id": "new", "input": "An umbrella of no kind", "output": "red"}])
    run(task, RunOptions(out=out, again=True, only=("zero_shot",)), Silent())
    after = json.loads((out / "split.json").read_text())
    assert "copy" in after["unused"] and "new" in after["sets"]["train"]


def test_a_changed_test_row_is_refused_with_what_to_do(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk")), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    split = json.loads((out / "split.json").read_text())
    examples = tmp_path / "examples.jsonl"
    rows = [json.loads(line) for line in examples.read_text().splitlines()]
    for row in rows:
        if row["id"] == split["sets"]["test"][0]:
            row["output"] = "blue" if row["output"] != "blue" else "red"
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (out / "decision.json").read_text()
    with pytest.raises(DataError, match="restore them, or start a new run"):
        run(task, RunOptions(out=out, again=True), Silent())
    assert (out / "decision.json").read_text() == before, "nothing is lost"


def test_a_budget_in_dollars_is_kept_over_all_commands(tmp_path: Path, models: None) -> None:
    limit = 0.03
    priced = {**LARGE, "price": {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}}
    task = write_task(tmp_path, Path(), models=[SMALL, priced], examples=96, budget={"usd": limit})
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    spent = json.loads((folder / "purse.json").read_text())["usd"]
    assert 0 < spent <= limit
    found = decision(folder)
    if found["choice"] == "unfinished":
        assert "--usd" in found["headline"] + " ".join(found["next"])
        run(task, RunOptions(out=tmp_path / "run", usd=1.0), Silent())
        assert decision(folder)["choice"] != "unfinished"


def test_a_budget_in_dollars_without_a_price_is_refused_before_anything_is_spent(
    tmp_path: Path, fake_model: Path
) -> None:
    task = write_task(tmp_path, fake_model)
    with pytest.raises(TaskError, match="no model has a price"):
        run(task, RunOptions(out=tmp_path / "run", usd=1.0), Silent())
    assert not (tmp_path / "run" / "task.json").exists()


def test_the_same_model_twice_is_refused(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL, {**SMALL, "label": "twin"}])
    with pytest.raises(TaskError, match="the same model"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())
