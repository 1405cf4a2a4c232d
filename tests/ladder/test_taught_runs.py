"""Whole runs with a teacher: what it does stands in the verdict, and a kill at any write pays for nothing twice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_kills import Deaths, Killed

import rung
import taught_task
from conftest import decision
from rung.data.near_duplicates import near_duplicate_groups
from rung.evaluation.sealed import count_reads
from rung.ladder import RunOptions, run
from rung.records import read_lines
from rung.strategies import STRATEGIES, Texts, function_of
from rung.testing import FakeEndpoint, ScriptedJudge, Shares, Silent
from rung.testing.endpoint.teaching import nearly
from rung.types import Example
from small_task import timeless

TAUGHT = ("stated_rules", "optimised_prompt", "synth_lora", "distilled_lora")
SEARCHES = ("stated_rules", "optimised_prompt")
PROMPTS = ("zero_shot", "few_shot")
TIMED = 2
"""Calls by which the speed of an endpoint is measured."""


@pytest.fixture(autouse=True)
def pupil(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    back = taught_task.register()
    yield
    back()


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """The folder of the task; its task.yaml names no teacher yet."""
    return taught_task.write(tmp_path / "task", unlabelled=120).parent


def with_teacher(task: Path, endpoint: FakeEndpoint, **keys: Any) -> Path:
    """task.yaml with the endpoint as the teacher."""
    return taught_task.rewrite(task, teacher={"endpoint": endpoint.url, "name": endpoint.model}, **keys)


def rows(path: Path) -> list[dict[str, Any]]:
    return list(read_lines(path))


def inputs_of(task: Path, *sets: str) -> list[str]:
    return [row["input"] for name in sets for row in rows(task / f"{name}.jsonl")]


def dev_score(folder: Path, name: str) -> float:
    return next(float(c["dev"]["mean"]) for c in decision(folder)["candidates"] if c["name"] == name)


def near_any(texts: list[str], others: list[str]) -> list[str]:
    """Those of the texts that are near-duplicates of one of the others, whatever rung's fence said of them."""
    examples = [Example(f"t{i}", text, "", ()) for i, text in enumerate(texts)]
    examples += [Example(f"o{i}", text, "", ()) for i, text in enumerate(others)]
    groups = near_duplicate_groups(examples)
    theirs = {groups[e.id] for e in examples if e.id.startswith("o")}
    return [e.input for e in examples if e.id.startswith("t") and groups[e.id] in theirs]


def test_each_thing_that_a_teacher_can_do_is_built_or_skipped_with_a_reason(tmp_path: Path, task: Path) -> None:
    teacher = taught_task.teacher_of(task)
    with FakeEndpoint(teacher) as endpoint:
        folder = run(with_teacher(task, endpoint), RunOptions(out=tmp_path / "run"), Silent())
    found = decision(folder)
    built, skipped = {c["name"] for c in found["candidates"]}, {s["name"]: s["why"] for s in found["skipped"]}
    assert all(name in built or skipped.get(name) for name in TAUGHT)
    assert {"stated_rules", "optimised_prompt"} & built, "words can fix a third of the answers"
    assert found["choice"] != "undecided" and count_reads(folder / "test_reads.jsonl") == 1
    assert not [text for text in teacher.unknown if "red" in text], "it knows all that it is asked"


@pytest.mark.parametrize("name", TAUGHT)
def test_what_a_teacher_does_makes_the_pupil_better_on_dev(name: str, tmp_path: Path, task: Path) -> None:
    with FakeEndpoint(taught_task.teacher_of(task)) as endpoint:
        only = (*PROMPTS, name)
        folder = run(with_teacher(task, endpoint), RunOptions(out=tmp_path / "run", only=only), Silent())
    assert dev_score(folder, name) > dev_score(folder, "few_shot") + 0.1
    asked = [row for path in (folder / "solutions" / name).glob("*.jsonl") for row in rows(path) if "key" in row]
    assert asked, "what the teacher said stands in the folder of the solution"


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_writes_it_ends_in_the_same_verdict_and_asks_nothing_twice(
    seed: int, tmp_path: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = (*PROMPTS, "optimised_prompt", "synth_lora", "distilled_lora")
    teacher = taught_task.teacher_of(task, shares=Shares(wavering=0.1, refused=0.05, bad_replies=0.2))
    with FakeEndpoint(teacher, faults={"500": 0.02, "429-retry-after": 0.02}, retry_after_s=0.0) as endpoint:
        path = with_teacher(task, endpoint)
        undisturbed = run(path, RunOptions(out=tmp_path / "undisturbed", only=only), Silent())
        once = endpoint.charged
        assert not endpoint.record.paid_again()
        monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "another cache"))
        endpoint.record.calls.clear()
        deaths, chance, kills = Deaths(monkeypatch), random.Random(seed), 0
        while True:
            deaths.at(chance.randrange(1, 45) if kills < 7 else 0)
            try:
                run(path, RunOptions(out=tmp_path / "killed" / "run", only=only), Silent())
                break
            except Killed:
                kills += 1
        assert kills > 3
        assert not endpoint.record.paid_again(), "an answer that was paid is never asked for again"
        assert endpoint.charged == once
    out = tmp_path / "killed" / "run"
    assert timeless(out / "decision.json") == timeless(undisturbed / "decision.json")
    assert count_reads(out / "test_reads.jsonl") == 1


@pytest.mark.parametrize(("name", "file"), [("synth_lora", "synthetic.jsonl"), ("distilled_lora", "taught.jsonl")])
def test_no_row_that_is_written_or_answered_is_near_dev_or_the_test(
    name: str, file: str, tmp_path: Path, task: Path
) -> None:
    sealed, chance = inputs_of(task, "dev", "test"), random.Random(0)
    planted = [nearly(text, chance) for text in sealed[::3]]
    with (task / "unlabelled.jsonl").open("a", encoding="utf-8") as unlabelled:
        unlabelled.writelines(json.dumps({"input": text}) + "\n" for text in planted)
    assert len(near_any(planted, sealed)) == len(planted), "what is planted is near"
    teacher = taught_task.teacher_of(task, near=sealed, shares=Shares(near=0.4))
    with FakeEndpoint(teacher) as endpoint:
        options = RunOptions(out=tmp_path / "run", only=(*PROMPTS, name))
        folder = run(with_teacher(task, endpoint), options, Silent()) / "solutions" / name
    repeats = [text for text, plant in teacher.written.items() if plant == "near"]
    assert len(repeats) > 15 or name == "distilled_lora"
    learnt = [row["input"] for row in rows(folder / file)]
    assert len(learnt) > 20 and near_any(learnt, sealed) == []
    said = "".join(path.read_text("utf-8") for path in folder.glob("rejected.jsonl"))
    assert not any(json.dumps(text)[1:-1] in said for text in (*sealed, *repeats)), "nor is it told what was near"


@pytest.mark.parametrize("name", TAUGHT)
def test_calls_of_a_teacher_are_planned_and_what_is_spent_is_within_a_tenth(
    name: str, tmp_path: Path, task: Path
) -> None:
    with FakeEndpoint(taught_task.teacher_of(task)) as endpoint:
        options = RunOptions(out=tmp_path / "run", only=(*PROMPTS, name))
        folder = run(with_teacher(task, endpoint), options, Silent())
        spent = endpoint.charged - TIMED
    planned = planned_of_teacher(folder, name)
    assert spent <= 1.1 * planned
    assert spent >= 0.9 * planned or name in SEARCHES, "a search ends where nothing is left to gain"


def planned_of_teacher(folder: Path, name: str) -> int:
    """Calls of the teacher that the plan of a run holds: for the strategy, and for the teacher's answers to dev."""
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    (basis,) = plan["models"].values()
    taught = STRATEGIES[name].taught
    assert taught is not None
    calls: int = function_of(taught)(Texts(**basis["texts"])).calls
    return calls + sum(step["calls"] for step in plan["experiments"] if step["kind"] == "teacher" and step["applies"])


def test_synth_writes_rows_that_are_right_wherever_votes_can_say_it(tmp_path: Path, task: Path) -> None:
    sealed = inputs_of(task, "dev", "test")
    shares = Shares(wrong=0.05, wavering=0.1, off_label=0.03, broken=0.03, refused=0.03, near=0.2, bad_replies=0.1)
    teacher = taught_task.teacher_of(task, near=sealed, shares=shares)
    with FakeEndpoint(teacher, response_format="ignored") as endpoint:
        path = with_teacher(task, endpoint)
        rung.synth(path, rows=100, out=str(tmp_path / "synthetic.jsonl"))
    kept = {row["input"]: row["output"] for row in rows(tmp_path / "synthetic.jsonl")}
    filtered = teacher.filtered(kept)
    assert len(kept) > 60 and near_any(list(kept), sealed) == []
    assert filtered.through["near"] == filtered.through["off_label"] == filtered.through["refused"] == 0
    assert filtered.recall > 0.8, filtered


def test_a_judged_run_that_is_killed_asks_its_judge_nothing_twice(
    tmp_path: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = ScriptedJudge(lambda asked, answer: float(taught_task.colour_of(asked) in answer), noise=0.1)
    with FakeEndpoint(judge) as endpoint:
        named = {"endpoint": endpoint.url, "name": endpoint.model, "rubric": "The right colour is named."}
        path = taught_task.rewrite(task, metric="judge", judge=named, labels=None, unlabelled=None)
        undisturbed = run(path, RunOptions(out=tmp_path / "undisturbed", only=PROMPTS), Silent())
        once = endpoint.charged
        monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "another cache"))
        endpoint.record.calls.clear()
        deaths, chance, kills = Deaths(monkeypatch), random.Random(0), 0
        while True:
            deaths.at(chance.randrange(1, 20) if kills < 5 else 0)
            try:
                run(path, RunOptions(out=tmp_path / "killed" / "run", only=PROMPTS), Silent())
                break
            except Killed:
                kills += 1
        assert kills == 5 and not endpoint.record.paid_again() and endpoint.charged == once
    assert timeless(tmp_path / "killed" / "run" / "decision.json") == timeless(undisturbed / "decision.json")
