"""A verdict never says more than was tried: what the budget kept out stands first, and the same command goes on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import events
from rung.errors import BudgetSpent, OutOfMemory
from rung.ladder import RunOptions, run
from rung.strategies import STRATEGIES
from rung.testing import Silent
from rung.types import Solution
from small_task import write_task


def decision(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "decision.json").read_text())
    return found


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """Puts another function in the place of the one that builds a strategy."""
    from dataclasses import replace

    def put(name: str, build: Any) -> None:
        monkeypatch.setitem(STRATEGIES, name, replace(STRATEGIES[name], build=build))

    return put


def spent(workshop: Any) -> Solution:
    raise BudgetSpent("the budget was spent while training")


def test_a_budget_that_keeps_a_family_out_leaves_the_run_unfinished_and_the_test_sealed(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    task, out = write_task(tmp_path, fake_model, budget={"minutes": 9}), tmp_path / "run"
    build = STRATEGIES["lora"].build
    replaced("lora", spent)
    folder = run(task, RunOptions(out=out), Silent())
    found = decision(folder)
    assert found["choice"] == "unfinished" and found["test_reads"] == 0
    assert not (folder / "test_reads.jsonl").exists() and not (folder / "finished.json").exists()
    assert all(c["test"] is None for c in found["candidates"])
    (missing,) = [s for s in found["skipped"] if s["matters"]]
    assert missing["name"] == "lora" and missing["reason"] == "budget" and missing["minutes"] > 0
    assert "lora" in found["headline"] + found["warnings"][0]
    assert any("--minutes" in step for step in (*found["warnings"], *found["next"]))
    assert all(d["fixed"] for d in found["diagnosis"]), "nothing is named by elimination"

    replaced("lora", build)
    listener = Silent()
    again = run(task, RunOptions(out=out, minutes=30), listener)
    assert again == folder and "lora" in listener.tries
    assert decision(folder)["choice"] != "unfinished" and (folder / "finished.json").exists()
    assert decision(folder)["test_reads"] == 1


def test_finish_opens_the_test_with_what_there_is_and_says_first_what_is_missing(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    replaced("lora", spent)
    task = write_task(tmp_path, fake_model, budget={"minutes": 9})
    folder = run(task, RunOptions(out=tmp_path / "run", finish=True), Silent())
    found = decision(folder)
    assert found["choice"] != "unfinished" and found["test_reads"] == 1
    assert "lora" in found["warnings"][0]


def test_no_memory_for_one_strategy_is_no_end_of_the_run(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    def full(workshop: Any) -> Solution:
        raise OutOfMemory("the model needs more memory than there is")

    replaced("few_shot", full)
    listener = Silent()
    folder = run(write_task(tmp_path, fake_model), RunOptions(out=tmp_path / "run"), listener)
    assert "memory" in listener.skips["few_shot"] and "zero_shot" in listener.tries
    found = decision(folder)
    assert found["choice"] != "unfinished", "prompts were tried, so their family is not missing"
    assert "few_shot" in found["warnings"][0]


def test_a_tiny_budget_builds_the_first_prompt_and_says_what_is_missing(tmp_path: Path, fake_model: Path) -> None:
    task = write_task(tmp_path, fake_model, budget={"minutes": 0.0001})
    listener = Silent()
    folder = run(task, RunOptions(out=tmp_path / "run"), listener)
    assert listener.tries == ["zero_shot"] and "budget" in listener.skips["lora"]
    assert decision(folder)["choice"] == "unfinished"


def test_a_budget_of_answers_is_kept(tmp_path: Path, fake_model: Path) -> None:
    task = write_task(tmp_path, fake_model, budget={"calls": 30})
    listener = Silent()
    run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "few_shot", "lora")), listener)
    assert listener.tries == ["zero_shot"] and "budget of 30" in listener.skips["lora"]


def test_retrieval_is_tried_before_dearer_prompts_where_the_budget_is_limited(tmp_path: Path, fake_model: Path) -> None:
    listener = Silent()
    task = write_task(tmp_path, fake_model, corpus=True, budget={"minutes": 60})
    run(task, RunOptions(out=tmp_path / "run"), listener)
    assert listener.tries.index("rag") < listener.tries.index("few_shot")


def test_the_reserve_for_the_test_counts_only_what_is_built(tmp_path: Path, fake_model: Path) -> None:
    from rung.ladder.judge_costs import JudgeShare
    from rung.ladder.ledger import Spent
    from rung.ladder.plan import Step
    from rung.ladder.state import Built, Climbed, RunState
    from rung.types import Decoding, ModelSpec, Score

    state: Any = object.__new__(RunState)
    asked: dict[str, Any] = {"samples_are_wanted": False, "consistency": Step("consistency", "prompt", False, "")}
    asked["judging"] = None
    plan = type("Plan", (), {"answer_seconds": 1.0, "answer_usd": lambda *_: 0.0, "timed": 8, **asked})()
    object.__setattr__(state, "plan", plan)
    object.__setattr__(state, "model", type("Model", (), {"price": None})())
    object.__setattr__(state, "spec", ModelSpec("", ""))
    object.__setattr__(state, "test", range(92))
    prompt = Built(Solution("a", "Answer.", Decoding(8)), (), Score(0.5, 0.4, 0.6, 10), seconds_per_answer=0.1)
    assert state.reserve(Climbed()) == Spent()
    assert state.reserve(Climbed(built={"a": prompt})).seconds == pytest.approx(10.0)
    both = state.reserve(Climbed(built={"a": prompt}), "fine-tune")
    assert (both.seconds, both.calls) == (pytest.approx(110.0), 184)
    plan.judging = JudgeShare(calls=2, tokens=300.0, seconds=0.1, usd=0.001)
    assert state.reserve(Climbed(built={"a": prompt}), "fine-tune").calls == 3 * 184
    counts = type("Held", (), {"check": type("Check", (), {"primary": True})()})()
    object.__setattr__(state, "held", counts)
    held = state.reserve(Climbed(built={"a": prompt}), "fine-tune")
    assert held.calls == 3 * 184 + 2 * 2 * 92, "the baselines' answers to the test are judged, too"
    assert held.usd == pytest.approx(2 * 92 * 0.001)


def test_more_budget_and_other_strategies_continue_the_same_run(tmp_path: Path, fake_model: Path) -> None:
    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    assert (out / "finished.json").exists()
    listener = Silent()
    run(task, RunOptions(out=out, minutes=50, only=("zero_shot", "lora")), listener)
    assert any("--again" in said for said in listener.said) and not listener.tries
    run(task, RunOptions(out=out, only=("zero_shot", "lora"), again=True), listener)
    assert "lora" in listener.tries
    found = decision(out)
    assert found["test_reads"] == 2 and any("2 times" in w for w in found["warnings"])
    assert (out / "earlier" / "1" / "decision.json").exists()


def test_a_prompt_that_is_right_in_none_of_40_is_not_diagnosed(tmp_path: Path, fake_model: Path) -> None:
    import rung
    from rung.models import OPENERS
    from rung.testing import FakeTrainable

    before = OPENERS.copy()
    try:
        rung.register_model("mute:", lambda spec, say: FakeTrainable(lambda _: "nothing", name=spec))
        task = write_task(tmp_path, Path("mute:one"), examples=240)
        folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    finally:
        OPENERS[:] = before
    assert not (folder / "diagnosis.json").exists() and (folder / "pilot.json").exists()


def test_where_nothing_is_right_a_prompt_that_the_budget_kept_out_keeps_the_test_sealed(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    import rung
    from rung.testing import FakeTrainable

    rung.register_model("mute:", lambda spec, say: FakeTrainable(lambda _: "nothing", name=spec))
    replaced("few_shot", spent)
    task = write_task(tmp_path, Path("mute:one"), budget={"minutes": 9})
    found = decision(run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "few_shot")), Silent()))
    assert found["choice"] == "unfinished" and found["test_reads"] == 0
    assert [s["name"] for s in found["skipped"] if s["matters"]] == ["few_shot"]


def test_the_command_of_an_unfinished_run_has_enough_budget_and_all_that_it_needs(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    from rung.cli.run import run as typed

    task = write_task(tmp_path, fake_model, budget={"minutes": 9, "calls": 700})
    build = STRATEGIES["lora"].build
    replaced("lora", spent)
    folder = run(task, RunOptions(out=tmp_path / "run", exhaustive=True), Silent())
    replaced("lora", build)
    words = shlex.split(next(w for w in decision(folder)["next"] if "rung run" in w).split("`")[1])
    options = typed.make_context("run", words[2:]).params
    assert options["exhaustive"] and options["minutes"] >= 9 and options["calls"] >= 700
    listener = Silent()
    named = {k: options[k] for k in ("out", "minutes", "calls", "exhaustive")}
    run(task, RunOptions(**named), listener)
    assert "lora" in listener.tries and decision(folder)["choice"] != "unfinished"


def test_finish_tries_nothing_more_whatever_the_budget(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    build = STRATEGIES["lora"].build
    replaced("lora", spent)
    task = write_task(tmp_path, fake_model, budget={"minutes": 9})
    run(task, RunOptions(out=tmp_path / "run"), Silent())
    replaced("lora", build)
    listener = Silent()
    run(task, RunOptions(out=tmp_path / "run", minutes=60, finish=True), listener)
    assert "lora" not in listener.tries and "lora" in decision(tmp_path / "run")["warnings"][0]


def test_any_exception_of_one_strategy_is_a_fault_of_that_strategy(
    tmp_path: Path, fake_model: Path, replaced: Callable[[str, Any], None]
) -> None:
    def broken(workshop: Any) -> Solution:
        raise ValueError("no such column")

    replaced("few_shot", broken)
    listener = Silent()
    folder = run(write_task(tmp_path, fake_model), RunOptions(out=tmp_path / "run"), listener)
    assert listener.skips["few_shot"] == "ValueError: no such column" and "lora" in listener.tries
    skipped = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert any("Traceback" in e.get("traceback", "") for e in skipped), "it is kept for whoever mends it"


def test_a_target_that_was_raised_is_climbed_towards(tmp_path: Path, fake_model: Path) -> None:
    task, out = write_task(tmp_path, fake_model, target=0.34), tmp_path / "run"
    listener = Silent()
    run(task, RunOptions(out=out, only=("constrained", "lora")), listener)
    task.write_text(task.read_text().replace("target: 0.34", "target: 0.99"))
    again = Silent()
    run(task, RunOptions(out=out, only=("constrained", "lora"), again=True), again)
    assert "lora" in again.tries


def test_other_strategies_are_added_to_what_is_built(tmp_path: Path, fake_model: Path) -> None:
    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot", "few_shot", "lora")), Silent())
    run(task, RunOptions(out=out, only=("constrained",), again=True), Silent())
    names = {c["name"] for c in decision(out)["candidates"]}
    assert {"zero_shot", "few_shot", "lora", "constrained"} <= names
    assert not any(s["name"] in names for s in decision(out)["skipped"])


def test_again_that_cannot_begin_leaves_the_verdict_as_it_is(tmp_path: Path, fake_model: Path) -> None:
    import rung

    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    before = (out / "decision.json").read_bytes()
    with pytest.raises(rung.TaskError, match="no corpus"):
        run(task, RunOptions(out=out, only=("rag",), again=True), Silent())
    assert (out / "decision.json").read_bytes() == before and (out / "finished.json").exists()


def test_dollars_for_tokens_count_over_all_commands(tmp_path: Path, fake_model: Path) -> None:
    from rung.ladder.ledger import spent_before

    task = write_task(tmp_path, fake_model, price={"usd_per_million_in": 1000.0, "usd_per_million_out": 1000.0})
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert spent_before(folder).usd > 0.1


@pytest.mark.parametrize("minutes", [float("inf"), float("nan"), -1.0])
def test_a_budget_that_is_no_number_is_refused(minutes: float, tmp_path: Path, fake_model: Path) -> None:
    import rung

    with pytest.raises(rung.TaskError, match="--minutes"):
        run(write_task(tmp_path, fake_model), RunOptions(out=tmp_path / "run", minutes=minutes), Silent())
    assert not (tmp_path / "run").exists()


def test_a_kill_between_checks_and_split_loses_no_warning(
    tmp_path: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rung.ladder.loading as loading

    task, out = write_task(tmp_path, fake_model), tmp_path / "run"
    rows = (tmp_path / "examples.jsonl").read_text()
    twin = json.dumps({"id": "twin", "input": "The small door number 0 please", "output": "blue"})
    (tmp_path / "examples.jsonl").write_text(rows + twin + "\n")

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    for place in ("_kept_split", "make_plan"):
        with monkeypatch.context() as patch:
            patch.setattr(loading, place, killed)
            with pytest.raises(Killed):
                run(task, RunOptions(out=out), Silent())
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    assert json.loads((out / "checks.json").read_text())["findings"]


def test_what_a_killed_diagnosis_spent_counts_although_its_base_is_built(tmp_path: Path) -> None:
    from rung import runs
    from rung.ladder.ledger import spent_before
    from rung.records import write_json

    runs.log(tmp_path, "built", stage="solutions/few_shot", solution="few_shot", seconds=10.0, calls=100)
    write_json(tmp_path / "diagnosis" / "few_shot" / "spent.json", {"seconds": 5.0, "calls": 30})
    assert (spent_before(tmp_path).seconds, spent_before(tmp_path).calls) == (15.0, 130)
    runs.log(tmp_path, "diagnosed", stage="diagnosis/few_shot", solution="few_shot", seconds=7.0, calls=40)
    assert spent_before(tmp_path).seconds == 17.0, "what the event says is not counted again"


def test_seconds_of_a_killed_command_count_whatever_its_stage_kept(tmp_path: Path) -> None:
    import time

    from rung.ladder.ledger import clocked, spent_before
    from rung.records import write_json

    write_json(tmp_path / "task.json", {})
    for commands in (1, 2):
        with clocked(tmp_path):
            time.sleep(0.03)
        assert spent_before(tmp_path).seconds >= 0.03 * commands


def test_what_the_clock_of_a_command_says_while_it_starts_is_not_of_earlier_ones(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.ladder import loading
    from rung.records import write_json

    out, inputs = tmp_path / "run", loading._inputs

    def slow(*args: Any) -> Any:
        write_json(out / "clock.json", {"seconds": 900.0})  # as the clock does, where this takes so long
        return inputs(*args)

    monkeypatch.setattr(loading, "_inputs", slow)
    run(write_task(tmp_path, Path("small:clerk")), RunOptions(out=out, only=("zero_shot",)), Silent())
    assert [e["spent_s"] for e in events(out) if e["event"] == "started"] == [0.0]


def test_a_folder_that_does_not_say_whose_it_is_gets_no_clock(tmp_path: Path) -> None:
    from rung.ladder.ledger import clocked

    with clocked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_took_longer_than_its_budget_says_so(
    tmp_path: Path, fake_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.ladder import final_test

    monkeypatch.setattr(final_test, "_OVERRUN", 0.0)
    task = write_task(tmp_path, fake_model, budget={"minutes": 9})
    found = decision(run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent()))
    assert any("more than its budget of 9" in warning for warning in found["warnings"])
