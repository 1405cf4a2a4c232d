"""--again in its corners: kills between its steps, models that are exchanged or renamed, rows that are changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import LARGE, SMALL, append_rows, decision, events
from rung.errors import DataError, RunError
from rung.ladder import RunOptions, again, run
from rung.records import read_json, write_json
from rung.runs import check_identity, log, standing_events
from rung.serving.bundle import open_bundle
from rung.testing import Silent
from small_task import write_task

NEW = [{"id": f"new-{i}", "input": f"Please name pencil {i} {'x' * i}", "output": "red"} for i in range(9)]
ONLY = ("zero_shot", "few_shot")


def test_a_kill_while_a_run_is_reopened_loses_no_check_and_notes_it_once(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    append_rows(task, NEW)

    def killed(path: Path, record: Any) -> None:
        if path.name == "split.json":
            raise KeyboardInterrupt
        write_json(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(again, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    with pytest.raises(RunError, match="another run"):
        run(task, RunOptions(out=out, only=ONLY), Silent())
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert {i["id"] for i in NEW} <= set((read_json(out / "split.json") or {})["sets"]["train"])
    assert [e["solution"] for e in events(out) if e["event"] == "built"].count("zero_shot") == 1
    notes = [text for text in decision(out)["warnings"] if "was continued" in text]
    assert len(notes) == 1, notes


def test_checks_are_written_before_the_split_that_they_belong_to(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    append_rows(task, [*NEW, {"id": "odd", "input": "n/a", "output": "red"}])
    written: list[str] = []

    def noted(path: Path, record: Any) -> None:
        written.append(path.name)
        write_json(path, record)

    monkeypatch.setattr(again, "write_json", noted)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert written == ["checks.json", "split.json"]


def test_a_new_row_that_cannot_be_used_is_refused_as_in_a_new_run(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    before = decision(out)
    append_rows(task, [*NEW, {"id": "bad", "input": "Please name the door", "output": ""}])
    with pytest.raises(DataError, match="is empty"):
        run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert decision(out) == before


def test_a_model_that_means_another_one_under_its_old_name_is_built_again(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    weak = {"name": "small:other", "label": "large"}
    write_task(tmp_path, Path(), models=[SMALL, weak], examples=96)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    built = [e["solution"] for e in events(out) if e["event"] == "built"]
    assert built.count("zero_shot@large") == 2 and built.count("zero_shot@small") == 1
    scores = {c["name"]: c["dev"]["mean"] for c in decision(out)["candidates"]}
    assert scores["zero_shot@large"] == scores["zero_shot@small"] < 1, "as the model answers that is named now"
    write_task(tmp_path, Path(), models=[SMALL, weak, {**LARGE, "label": "third"}], examples=96)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert [e["solution"] for e in events(out) if e["event"] == "built"].count("zero_shot@large") == 2


def test_a_model_that_comes_back_as_another_one_is_built_again(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96), tmp_path / "run"
    for named in ([SMALL, LARGE], [SMALL], [SMALL, {"name": "small:other", "label": "large"}]):
        write_task(tmp_path, Path(), models=named, examples=96)
        run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert [e["solution"] for e in events(out) if e["event"] == "built"].count("zero_shot@large") == 2
    assert decision(out)["models"] == ["small", "large"]


def test_the_model_that_a_run_began_with_may_change_its_name(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL], examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    write_task(tmp_path, Path(), models=[{**SMALL, "label": "tiny"}], examples=96)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert [e["solution"] for e in events(out) if e["event"] == "built"].count("zero_shot") == 1
    found = decision(out)
    assert {c["model"] for c in found["candidates"] if c["family"] != "baseline"} == {"tiny"}
    assert not any("was added" in text for text in found["warnings"])


def test_a_renamed_model_is_never_mistaken_for_another_in_a_test_that_was_cut(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    for name in ("finished.json", "decision.json"):
        (out / name).unlink()
    write_task(tmp_path, Path(), models=[SMALL, {**LARGE, "label": "huge"}], examples=96)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    tested = {c["name"]: c["test"]["mean"] for c in decision(out)["candidates"] if c["test"]}
    assert tested["zero_shot@huge"] == 1.0 and not any(name.endswith("@large") for name in tested)


def test_a_solution_of_a_model_that_is_named_no_more_is_not_opened_with_another(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    write_task(tmp_path, Path(), models=[SMALL], examples=96)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert open_bundle(out, solution="zero_shot@small").model.name == "small:clerk"
    with pytest.raises(RunError, match="no longer names the model of this solution, large"):
        open_bundle(out, solution="zero_shot@large")


def test_a_train_row_that_is_changed_into_one_of_the_test_is_in_no_set(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    sets = (read_json(out / "split.json") or {})["sets"]
    examples = tmp_path / "examples.jsonl"
    rows = {str(row["id"]): row for row in map(json.loads, examples.read_text().splitlines())}
    rows[sets["train"][0]]["input"] = rows[sets["test"][0]]["input"]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    after = read_json(out / "split.json") or {}
    assert sets["train"][0] in after["unused"] and sets["train"][0] not in after["sets"]["train"]


def test_what_was_spent_on_experiments_with_other_rows_hides_no_later_spending(tmp_path: Path) -> None:
    log(tmp_path, "diagnosed", stage="diagnosis/zero_shot", solution="zero_shot", seconds=1)
    log(tmp_path, "piloted", stage="pilot/pilot-48", seconds=1)
    log(tmp_path, "reopened", void=[], added=["x"], rows={"added": 0, "removed": 0, "changed": 0})
    assert len(standing_events(tmp_path)) == 3
    log(tmp_path, "reopened", void=["lora"], added=[], rows={"added": 4, "removed": 0, "changed": 0})
    assert [e["event"] for e in standing_events(tmp_path)] == ["reopened", "reopened"]


def test_another_command_that_finished_meanwhile_is_seen(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    append_rows(task, NEW)
    from rung.ladder import opening

    open_models = opening.open_models

    def slowly(*given: Any) -> Any:
        monkeypatch.setattr(opening, "open_models", open_models)
        run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
        return open_models(*given)

    monkeypatch.setattr(opening, "open_models", slowly)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    assert [e["solution"] for e in events(out) if e["event"] == "built"].count("few_shot") == 2, "and not three times"


def test_latency_is_timed_again_where_the_task_names_another_concurrency(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    write_task(tmp_path, Path("small:clerk"), examples=96, concurrency=4)
    run(task, RunOptions(out=out, again=True, only=ONLY), Silent())
    (finalist,) = (read_json(out / "finalists.json") or {})["finalists"]
    assert (read_json(out / "solutions" / finalist / "latency.json") or {})["concurrency"] == 4


def test_a_run_of_an_older_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_json(tmp_path / "task.json", {"identity": "x", "model": "small:clerk", "model_version": "1"})
    with pytest.raises(RunError, match="older version of rung"):
        check_identity(tmp_path, "y", "z")


def test_again_goes_on_with_the_finished_run_and_not_with_one_that_was_begun_by_mistake(tmp_path: Path) -> None:
    from rung import runs
    from rung.records import write_json

    def made(name: str, identity: str, *, finished: bool, reopened: bool = False) -> Path:
        folder = tmp_path / name
        write_json(folder / "task.json", {"identity": identity, "basis": "basis"})
        if finished:
            write_json(folder / "decision.json", {})
            write_json(folder / "finished.json", {})
        if reopened:
            (folder / "earlier" / "1").mkdir(parents=True)
        return folder

    def chosen(basis: str | None = "basis") -> Path:
        return runs.choose_folder("t", "new", out=None, base=tmp_path, basis=basis)

    first = made("t", "old", finished=True)
    mistake = made("t-2", "new", finished=False)
    assert chosen() == first
    assert chosen(None) == mistake, "without --again the begun run goes on"
    reopened = made("t-3", "new", finished=False, reopened=True)
    assert chosen() == reopened, "an interrupted --again goes on"


def test_a_run_beside_an_unfinished_one_says_how_to_go_on_with_that_one(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_task(tmp_path / "task", Path("small:clerk"), examples=96)
    first = run(task, RunOptions(only=ONLY), Silent())
    (first / "finished.json").unlink()
    write_task(tmp_path / "task", Path("large:expert"), examples=96)
    listener = Silent()
    second = run(task, RunOptions(only=ONLY), listener)
    (second / "finished.json").unlink()
    assert second != first and f"stop this and add --again --out {first}." in listener.said[0]
    assert run(task, RunOptions(only=ONLY, again=True, out=first), Silent()) == first


def test_whatever_rests_on_a_void_solution_is_void_after_a_kill_too(tmp_path: Path) -> None:
    from rung.ladder.again import _with_what_rests_on_them
    from rung.records import write_json
    from rung.runs import Files

    for name in ("distilled_lora", "dpo", "dpo_short", "lora", "lora_short"):
        write_json(tmp_path / "solutions" / name / "solution.json", {})
    write_json(tmp_path / "solutions" / "dpo" / "training" / "course.json", {"from": "distilled_lora"})
    found = _with_what_rests_on_them(Files(tmp_path), {"distilled_lora"})
    assert found == ["distilled_lora", "dpo", "dpo_short"]
    (tmp_path / "solutions" / "distilled_lora").rename(tmp_path / "set aside")
    assert _with_what_rests_on_them(Files(tmp_path), set()) == ["dpo", "dpo_short"]


def test_a_second_opening_for_the_same_finalists_and_a_budget_that_is_spent_are_said(
    tmp_path: Path, models: None
) -> None:
    task, out = write_task(tmp_path, Path("small:clerk"), examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=ONLY), Silent())
    assert not any("had been opened" in text for text in decision(out)["warnings"])
    listener = Silent()
    run(task, RunOptions(out=out, again=True, only=ONLY, calls=1), listener)
    assert any("is spent: " in text and "give a larger --calls." in text for text in listener.said), listener.said
    (note,) = (text for text in decision(out)["warnings"] if "had been opened" in text)
    assert "was opened again for the same" in note and decision(out)["test_reads"] == 1


def test_an_opening_that_an_interruption_repeats_is_not_told(tmp_path: Path) -> None:
    from rung.ladder.again import opened_again_notes
    from rung.records import append_lines

    read = {"time": "2026-11-27T07:19:07+00:00", "read": 1, "solutions": ["a"], "digest": "d", "continues": False}
    append_lines(tmp_path / "test_reads.jsonl", [read, {**read, "continues": True}])
    log(tmp_path, "finalists", solutions=["a"])
    assert opened_again_notes(tmp_path) == []
    log(tmp_path, "reopened", void=[], added=[], rows={})
    assert len(opened_again_notes(tmp_path)) == 1
    other = {**read, "read": 2, "solutions": ["b"]}
    append_lines(tmp_path / "test_reads.jsonl", [other, {**other, "continues": True}])
    log(tmp_path, "finalists", solutions=["b"])
    assert opened_again_notes(tmp_path) == []


def test_a_new_run_because_documents_changed_says_so(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = write_task(tmp_path / "t", Path("small:clerk"), examples=96, corpus=True)
    run(task, RunOptions(only=ONLY), Silent())
    corpus = tmp_path / "t" / "corpus.jsonl"
    corpus.write_text(corpus.read_text() + json.dumps({"id": "fees", "text": "Five euros."}) + "\n")

    class Hearing(Silent):
        def say(self, text: str) -> None:
            heard.append(text)

    heard: list[str] = []
    assert run(task, RunOptions(again=True, only=ONLY), Hearing()) == Path("runs/t-2")
    assert heard[0] == (
        "This is a new run, in runs/t-2: documents changed since runs/t (1 changed), and they are part of what "
        "decides scores. Nothing of runs/t holds for it."
    )
    heard.clear()
    task.write_text(task.read_text().replace("Answer with the colour.", "Name the colour."))
    run(task, RunOptions(again=True, only=ONLY), Hearing())
    assert heard[0].startswith("This is a new run, in runs/t-3: what decides scores beside models and examples is ")


def test_documents_are_told_from_examples_and_metrics_wherever_they_lie() -> None:
    task: dict[str, Any] = {"corpus": "/t/docs", "examples": ["/t/e.jsonl"], "path": "/t/task.yaml"}
    before, now = {**task, "data": {"e.jsonl": "1"}}, {**task, "data": {"e.jsonl": "2", "metric.py": "1"}}
    assert again.changed_documents(before, now) == ""
    grown = {**now, "data": {**now["data"], "docs/a.md": "1", "docs/b.md": "1"}}
    assert again.changed_documents(now, grown) == "2 added"
    assert again.changed_documents(grown, {**grown, "data": {"docs/a.md": "2"}}) == "1 removed, 1 changed"


@pytest.mark.parametrize("before", [{}, {"corpus": "/t/docs", "examples": ["/t/e.jsonl"], "path": "/t/task.yaml"}])
def test_of_a_record_without_files_nothing_is_said_to_have_been_added(before: dict[str, Any]) -> None:
    now = {"corpus": "/t/docs", "examples": [], "path": "/t/task.yaml", "data": {"docs/a.md": "1"}}
    assert again.changed_documents(before, now) == ""
