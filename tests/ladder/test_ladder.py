"""The whole path on the tiny model: what a run leaves, that it repeats, and that nothing can interrupt it for good."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rung.errors import DataError, RunError, TaskError, TrainingError
from rung.ladder import RunOptions, run
from rung.testing import Silent
from small_task import timeless, write_task

RUN = [sys.executable, "-m", "rung", "run"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run with a strategy of each kind."""
    place = tmp_path_factory.mktemp("finished")
    return run(write_task(place, tiny_folder, corpus=True), RunOptions(out=place / "run"), Silent())


def test_a_run_leaves_every_file_of_the_design(finished: Path) -> None:
    names = {"task.json", "split.json", "checks.json", "plan.json", "events.jsonl", "decision.json", "test_reads.jsonl"}
    names |= {"finalists.json", "baselines", "finished.json"}
    names |= {"diagnosis.json", "pilot.json", "curve.json"}
    assert names <= {p.name for p in finished.iterdir()}
    for name in ("zero_shot", "constrained", "few_shot", "rag", "rag_lora"):
        assert (finished / "solutions" / name / "solution.json").is_file()
        assert (finished / "solutions" / name / "predictions.dev.jsonl").is_file()
    assert (finished / "solutions" / "rag_lora" / "adapter" / "adapter_model.safetensors").is_file()
    assert not list((finished / "solutions").rglob("*.pt")), "optimiser states are tidied away"


def test_a_finished_run_is_told_again_without_loading_the_model(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rung.models.open_model", never)
    said: list[str] = []
    listener = Silent()
    monkeypatch.setattr(listener, "say", said.append)
    assert run(finished.parent / "task.yaml", RunOptions(out=finished), listener) == finished
    assert any("is finished: this is its verdict" in line for line in said)


def test_the_sealed_test_is_read_once_and_only_for_the_named_candidates(finished: Path) -> None:
    reads = [json.loads(line) for line in (finished / "test_reads.jsonl").read_text().splitlines()]
    decision = json.loads((finished / "decision.json").read_text())
    assert len(reads) == 1 and decision["test_reads"] == 1
    tested = {p.parent.name for p in (finished / "solutions").glob("*/predictions.test.jsonl")}
    assert tested == set(reads[0]["solutions"])
    scored = {c["name"] for c in decision["candidates"] if c["test"] and c["family"] != "baseline"}
    assert scored == tested
    assert len(tested) <= 4, "one candidate a family"


def test_the_three_sets_share_no_example(finished: Path) -> None:
    sets = json.loads((finished / "split.json").read_text())["sets"]
    ids = [i for name in ("train", "dev", "test") for i in sets[name]]
    assert len(ids) == len(set(ids)) == 48


def test_the_same_seed_gives_the_same_decision(finished: Path, tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder, corpus=True)
    again = run(task, RunOptions(out=tmp_path / "run"), Silent())
    assert timeless(again / "decision.json") == timeless(finished / "decision.json")


def test_a_finished_run_is_shown_and_not_repeated(finished: Path) -> None:
    before = (finished / "events.jsonl").read_text()
    listener = Silent()
    task = Path(json.loads((finished / "task.json").read_text())["path"])
    run(task, RunOptions(out=finished), listener)
    assert "finished" in listener.said[-1]
    assert (finished / "events.jsonl").read_text() == before


def test_a_folder_of_another_run_is_refused(finished: Path, tmp_path: Path, tiny_folder: Path) -> None:
    other = write_task(tmp_path, tiny_folder, labels=False)
    with pytest.raises(RunError, match="holds another run"):
        run(other, RunOptions(out=finished), Silent())


def test_climbing_stops_at_the_target_where_that_lies_above_the_floor(tmp_path: Path, fake_model: Path) -> None:
    for target, stops in ((0.5, True), (0.99, False)):
        task = write_task(tmp_path, fake_model, corpus=True, target=target)
        listener = Silent()
        run(task, RunOptions(out=tmp_path / f"run-{target}", only=("rag", "lora")), listener)
        assert ("target" in listener.skips.get("lora", "")) == stops


def test_a_step_that_outlives_the_budget_is_given_up_and_the_run_still_decides(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rung.strategies.prompting as prompting
    from rung.trials.workshop import Workshop
    from rung.types import Solution

    def endless(workshop: Workshop) -> Solution:
        while True:
            workshop.tools.tell("thinking it over", 0.1)
            time.sleep(0.05)

    monkeypatch.setattr(prompting, "few_shot", endless)
    monkeypatch.setattr("rung.ladder.climbing._Climber._unaffordable", lambda *_: None)
    task = write_task(tmp_path, tiny_folder, budget={"minutes": 0.1})
    listener = Silent()
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "few_shot")), listener)
    assert listener.skips["few_shot"] == "the budget was spent while thinking it over"
    assert (folder / "decision.json").is_file()


def test_what_a_killed_command_spent_counts(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rung.ladder.ledger as ledger
    import rung.strategies.prompting as prompting
    from rung.trials.workshop import Workshop
    from rung.types import Solution

    class Killed(BaseException):
        """Not caught by anything, like SIGKILL."""

    real = prompting.few_shot

    def killed(workshop: Workshop) -> Solution:
        workshop.tools.model.inner.engine.computed_tokens += 1_000_000
        time.sleep(0.6)
        workshop.tools.tell("thinking it over", 0.5)
        raise Killed

    monkeypatch.setattr(ledger, "_EVERY_S", 0.1)
    monkeypatch.setattr(prompting, "few_shot", killed)
    task, options = write_task(tmp_path, tiny_folder), RunOptions(out=tmp_path / "run", only=("zero_shot", "few_shot"))
    with pytest.raises(Killed):
        run(task, options, Silent())
    monkeypatch.setattr(prompting, "few_shot", real)
    events = _events(run(task, options, Silent()))
    zero_shot, few_shot = (e for e in events if e["event"] == "built")
    assert few_shot["seconds"] > 0.6 and few_shot["tokens"] > 1_000_000
    again = [e for e in events if e["event"] == "started"][1]
    assert again["spent_s"] >= round(zero_shot["seconds"] + 0.6, 1) - 0.1, "a budget is of all commands together"
    assert not list((tmp_path / "run").rglob("spent.json")), "what is done is told by the events"


def test_a_training_that_cannot_be_done_is_skipped_and_the_run_still_decides(tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder, labels=False)
    rows = [json.loads(line) for line in (tmp_path / "examples.jsonl").read_text().splitlines()]
    for row in rows[::2]:  # in every set; the tiny model has room for 2,048 tokens
        row["input"] += " very" * 1000
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    listener = Silent()
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "lora")), listener)
    assert "do not fit" in listener.skips["lora"]
    decision = json.loads((folder / "decision.json").read_text())
    assert decision["choice"] == "unfinished", "it could have changed the verdict"
    assert [(s["name"], s["reason"]) for s in decision["skipped"] if s["matters"]] == [("lora", "fault")]
    with pytest.raises(TrainingError, match="do not fit"):
        run(task, RunOptions(out=tmp_path / "alone", only=("lora",)), Silent())


def test_a_reference_that_the_metric_cannot_read_fails_before_anything_is_spent(
    tmp_path: Path, tiny_folder: Path
) -> None:
    task = write_task(tmp_path, tiny_folder, labels=False)
    rows = [{"input": f"How many are {i}", "output": str(i)} for i in range(12)]
    files = {"train": rows[:8], "dev": rows[8:11], "test": [{"input": "How many?", "output": "some"}] * 2}
    for name, part in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    text = task.read_text().replace("metric: exact_match", "metric: numeric_match")
    task.write_text(
        text.replace("examples: examples.jsonl", "examples: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}")
    )
    with pytest.raises(DataError, match=r"test\.jsonl, line 1: numeric_match cannot read the right answer"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_three_examples_to_learn_from_are_shown_whole(tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder)
    rows = (tmp_path / "examples.jsonl").read_text().splitlines(keepends=True)
    for name, part in {"train": rows[:3], "dev": rows[3:13], "test": rows[13:23]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(part))
    text = task.read_text()
    task.write_text(
        text.replace("examples: examples.jsonl", "examples: {train: train.jsonl, dev: dev.jsonl, test: test.jsonl}")
    )
    folder = run(task, RunOptions(out=tmp_path / "run", only=("few_shot",)), Silent())
    assert len(json.loads((folder / "solutions" / "few_shot" / "solution.json").read_text())["demos"]) == 3


def test_what_cannot_gain_is_skipped_with_the_reason_unless_all_is_asked_for(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rung.ladder.climbing as climbing
    from rung.ladder.gains import Gain

    def hopeless(steps: list[Any], known: object) -> list[tuple[str, Gain]]:
        return [(way.name, Gain(0.0, 0.001, "it was tried by hand")) for way in steps]

    monkeypatch.setattr(climbing, "order", hopeless)
    for exhaustive in (False, True):
        listener = Silent()
        options = RunOptions(out=tmp_path / f"run-{exhaustive}", only=("zero_shot", "rag"), exhaustive=exhaustive)
        folder = run(write_task(tmp_path, tiny_folder, corpus=True), options, listener)
        assert ("rag" in listener.tries) == exhaustive
        told = " ".join(json.loads((folder / "decision.json").read_text())["reasons"])
        assert ("it could gain 0.1 points on dev at most (it was tried by hand)" in told) == (not exhaustive)


def test_an_unknown_strategy_names_the_known_ones(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(TaskError, match="few_shot"):
        run(write_task(tmp_path, tiny_folder), RunOptions(only=("fewshot",)), Silent())


def test_strategies_of_which_none_applies_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(TaskError, match="the task has no corpus"):
        run(write_task(tmp_path, tiny_folder), RunOptions(out=tmp_path / "run", only=("rag",)), Silent())


def test_a_folder_killed_before_it_said_whose_it_is_is_taken_over(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "task.json.tmp").write_text("{")
    folder = run(write_task(tmp_path, tiny_folder), RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert (folder / "decision.json").is_file()


def test_the_same_task_finds_its_run_and_another_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    from rung import runs

    assert runs.choose_folder("t", "me", out=None, base=tmp_path) == tmp_path / "t"
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "task.json").write_text('{"identity": "me"}')
    assert runs.choose_folder("t", "me", out=None, base=tmp_path) == tmp_path / "t", "unfinished: it goes on"
    assert runs.choose_folder("t", "another", out=None, base=tmp_path) == tmp_path / "t-2"
    runs.mark_finished(tmp_path / "t")
    assert runs.choose_folder("t", "me", out=None, base=tmp_path) == tmp_path / "t", "finished: its verdict is shown"


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    from rung import runs

    (tmp_path / "t [v2]").mkdir()
    (tmp_path / "t [v2]" / "task.json").write_text('{"identity": "another"}')
    assert runs.choose_folder("t [v2]", "me", out=None, base=tmp_path) == tmp_path / "t [v2]-2"


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    from rung import runs

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run folder"):
        runs.choose_folder("t", "me", out=tmp_path / "notes.txt")


def test_strict_stops_at_a_warning_before_anything_is_written(tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder)
    rows = (tmp_path / "examples.jsonl").read_text()
    twin = json.dumps({"id": "twin", "input": "The small door number 0 please", "output": "blue"})
    (tmp_path / "examples.jsonl").write_text(rows + twin + "\n")
    with pytest.raises(DataError, match="--strict"):
        run(task, RunOptions(out=tmp_path / "run", strict=True), Silent())
    assert not (tmp_path / "run").exists()


def test_two_processes_never_share_a_run_folder(tmp_path: Path, tiny_folder: Path) -> None:
    from rung import runs

    task = write_task(tmp_path, tiny_folder)
    with runs.held(tmp_path / "run"):
        done = subprocess.run([*RUN, task, "--out", tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 2 and "another rung is working here" in done.stderr and "Traceback" not in done.stderr


def test_killed_at_random_moments_it_ends_in_the_same_decision(
    finished: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    """SIGKILL after random times, the same command again, until it is through."""
    task = write_task(tmp_path, tiny_folder, corpus=True)
    command = [*RUN, str(task), "--out", str(tmp_path / "run")]
    chance = random.Random(3)
    kills = 0
    for attempt in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        try:
            # Starting takes most of the time; the later a kill comes, the more there is to lose.
            assert process.wait(timeout=None if attempt >= 4 else 6 + chance.random() * 10) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert timeless(tmp_path / "run" / "decision.json") == timeless(finished / "decision.json")
    finished_events = [e["solution"] for e in _events(tmp_path / "run") if e["event"] == "built"]
    assert len(finished_events) == len(set(finished_events)), "nothing finished is done again"


def test_killed_inside_any_write_it_ends_in_the_same_decision(
    finished: Path, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at each of a sample of its own writes, the ones that a clock rarely hits."""
    import rung.ladder
    import rung.records
    import rung.trials.trial as trials

    class Killed(BaseException):
        """Not caught by anything, like SIGKILL."""

    task = write_task(tmp_path, tiny_folder, corpus=True)
    real = rung.records.append_lines
    count, chance = 0, random.Random(0)

    def torn(path: Path, records: object) -> None:
        nonlocal count
        count += 1
        if chance.random() < 0.12:
            real(path, records)  # type: ignore[arg-type]
            written = path.read_bytes()
            path.write_bytes(written[: len(written) - chance.randrange(1, 40)])
            raise Killed
        real(path, records)  # type: ignore[arg-type]

    monkeypatch.setattr(trials, "append_lines", torn)
    for _ in range(60):
        try:
            run(task, RunOptions(out=tmp_path / "run"), Silent())
            break
        except Killed:
            continue
    assert count > 10
    assert timeless(tmp_path / "run" / "decision.json") == timeless(finished / "decision.json")


def test_ctrl_c_leaves_one_line_and_exit_code_130(tmp_path: Path, tiny_folder: Path) -> None:
    task = write_task(tmp_path, tiny_folder, corpus=True)  # long enough to be met in the middle
    command = [*RUN, str(task), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment())
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "events.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in errors and "Traceback" not in errors


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
