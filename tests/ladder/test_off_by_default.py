"""A strategy that is off by default: in the plan with its cost, tried where it is named, handed over whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rung
from rung.engine.whole_weights import is_whole
from rung.ladder import RunOptions, run
from rung.ladder.candidate_costs import candidate_of
from rung.ladder.climbed import Built, Climbed
from rung.ladder.experiments import like_the_pilots
from rung.ladder.state import RunState
from rung.models.metering import metered
from rung.records import write_json
from rung.report.html import write_report
from rung.runs import Files
from rung.strategies.learning_rate import OF_ADAPTERS, OF_WEIGHTS
from rung.testing import FakeModel, Silent
from rung.types import Decoding, Prediction, Score, Solution
from small_task import write_task


def record(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_it_stands_in_the_plan_with_its_cost_and_is_not_tried(tmp_path: Path, fake_model: Path) -> None:
    listener = Silent()
    folder = run(write_task(tmp_path, fake_model), RunOptions(out=tmp_path / "run"), listener)
    plan = record(folder / "plan.json")
    step = next(s for s in plan["steps"] if s["name"] == "full")
    assert not step["applies"] and step["seconds"] > 0 and step["tokens"] > 0
    assert step["why"].startswith("off by default, about ") and "name it with --only" in step["why"]
    applying = [s for s in [*plan["steps"], *plan["experiments"]] if s["applies"]]
    assert plan["tokens"] == sum(s["tokens"] for s in applying), "what is off counts nowhere"
    assert "full" not in listener.tries and not (folder / "solutions" / "full").exists()
    skipped = {s["name"]: s for s in record(folder / "decision.json")["skipped"]}
    assert skipped["full"]["reason"] == "plan" and not skipped["full"]["matters"]


def test_named_it_is_tried_beside_an_adapter_at_rates_of_its_own(tmp_path: Path, fake_model: Path) -> None:
    listener = Silent()
    only = ("zero_shot", "full", "rag_lora")
    task = write_task(tmp_path, fake_model, corpus=True)
    folder = run(task, RunOptions(out=tmp_path / "run", only=only, exhaustive=True), listener)
    assert {"zero_shot", "full", "rag_lora"} <= set(listener.tries)
    rates = {n: set(record(folder / "solutions" / n / "training" / "history.json")["rates"]) for n in only[1:]}
    assert rates["full"] == {f"{rate:g}" for rate in OF_WEIGHTS.grid}
    assert rates["rag_lora"] == {f"{rate:g}" for rate in OF_ADAPTERS.grid}


def test_its_rate_is_no_adapters_rate(tmp_path: Path) -> None:
    run_state: Any = SimpleNamespace(files=Files(tmp_path), named=str)
    history = {"learning_rate": 1e-4, "probed": True, "all_weights": True}
    write_json(tmp_path / "solutions" / "full" / "training" / "history.json", history)
    assert RunState._learning_rate(run_state) == (None, "")
    write_json(tmp_path / "solutions" / "rag_lora" / "training" / "history.json", {"learning_rate": 1e-3})
    assert RunState._learning_rate(run_state) == (1e-3, "as chosen for rag_lora")
    write_json(
        tmp_path / "solutions" / "rag_lora" / "training" / "history.json", {"learning_rate": 1e-3, "probed": False}
    )
    write_json(tmp_path / "pilot" / "pilot-50" / "training" / "history.json", {"learning_rate": 2e-3})
    assert RunState._learning_rate(run_state) == (2e-3, "as chosen for the pilot on 50 examples")


def test_what_building_a_repaired_solution_took_holds_the_training_that_it_goes_on_from(
    tmp_path: Path, fake_model: Path
) -> None:
    solution = Solution("full_replay", "Do it.", Decoding(1), adapter="a")
    run_state: Any = SimpleNamespace(
        files=Files(tmp_path), named=str, price=None, model=metered(FakeModel(lambda _: ""))
    )
    write_json(tmp_path / "solutions" / "full" / "built.json", {"seconds": 100.0})
    write_json(tmp_path / "solutions" / "full_replay" / "built.json", {"seconds": 10.0})
    dev = (Prediction("a", "x", 1, 1, 0.1, score=1.0),)
    built = Built(solution, dev, Score(1, 1, 1, 1))
    assert candidate_of(run_state, built).build_seconds == 110


def test_a_training_of_all_weights_is_no_point_of_the_curve_of_adapters() -> None:
    def built(name: str, mean: float) -> Any:
        return Built(Solution(name, "Do it.", Decoding(1), adapter="a"), (), Score(mean, mean, mean, 1))

    tuned = [built("lora", 0.6), built("lora_replay", 0.7), built("full", 0.9), built("full_replay", 0.8)]
    run_state: Any = SimpleNamespace(name="")
    climbed = Climbed(built={b.solution.name: b for b in tuned})
    assert climbed.best("fine-tune") == "full" and like_the_pilots(run_state, climbed) is tuned[1]
    assert like_the_pilots(run_state, Climbed(built={"full": tuned[2]})) is None


def test_a_finished_run_keeps_no_checkpoints_of_all_weights_that_were_given_up(
    tmp_path: Path, fake_model: Path
) -> None:
    left = {name: tmp_path / "run" / "solutions" / name / "training" / "lr-1" for name in ("full_replay", "lora")}

    class Leaves(Silent):
        def tried(self, *given: Any, **more: Any) -> None:
            super().tried(*given, **more)
            for name, folder in left.items():
                write_json(folder / "training.json", {"options": {"full": name != "lora"}})
                (folder / "checkpoint.pt").touch()

    run(write_task(tmp_path, fake_model), RunOptions(out=tmp_path / "run", only=("zero_shot",)), Leaves())
    assert not left["full_replay"].exists() and (left["lora"] / "checkpoint.pt").is_file()


def test_a_whole_run_on_a_real_network_hands_over_weights_that_answer(tmp_path: Path, tiny_folder: Path) -> None:
    folder = run(
        write_task(tmp_path, tiny_folder, examples=60),
        RunOptions(out=tmp_path / "run", only=("full",), exhaustive=True),
        Silent(),
    )
    built = folder / "solutions" / "full"
    assert is_whole(built / "adapter") and not list(built.rglob("*.pt")), "checkpoints are tidied away"
    decision = record(folder / "decision.json")
    assert next(c for c in decision["candidates"] if c["name"] == "full")["test"] is not None
    report = write_report(folder).read_text("utf-8")
    assert "a whole model of its own" in report and "can share one base model" in report
    if decision["solution"] == "full":
        assert is_whole(folder / "winner" / "adapter")
    answer = rung.load(folder, solution="full")
    inputs = {row["id"]: row["input"] for row in lines(tmp_path / "examples.jsonl")}
    for told in lines(built / "predictions.dev.jsonl")[:3]:
        assert answer(inputs[told["id"]]) == told["text"]
