"""Consistency: samples of the opened test, planned beforehand, kept, continued, and chosen from by nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rung
from conftest import KNOWN, decision, events, expert, noun_of
from rung.evaluation.consistency import pass_k
from rung.ladder import RunOptions, run
from rung.testing import FakeTrainable, Silent
from rung.types import Request
from small_task import timeless, write_task

Model = Callable[..., Path]


class Killed(BaseException):
    """Not caught by anything, like SIGKILL."""


@pytest.fixture
def shaky() -> Iterator[Model]:
    """The spec of a model that knows all when it is greedy, and is right in two of three samples."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    sampled: list[Request] = []
    dies: dict[str, int] = {}

    def answer(request: Request) -> str:
        if request.decoding.temperature > 0:
            if dies and len(sampled) == dies["at"]:
                dies.clear()
                raise Killed
            sampled.append(request)
            if request.decoding.seed % 3 == 0:
                return "none"
        noun = noun_of(request)
        return KNOWN[noun] if noun is not None else "none"

    def spec(*, at: int | None = None) -> Path:
        if at is not None:
            dies["at"] = at
        return Path("shaky:one")

    rung.register_model("shaky:", lambda s, say: FakeTrainable(answer, taught=expert, name=s, version=s))
    spec.sampled = sampled  # type: ignore[attr-defined]
    yield spec
    OPENERS[:] = before


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def samples_of(folder: Path, name: str, repeats: int) -> list[list[dict[str, Any]]]:
    return [lines(folder / "solutions" / name / f"predictions.test-sample-{i}.jsonl") for i in range(1, repeats + 1)]


ONLY = ("zero_shot", "constrained")


def test_what_is_shipped_is_sampled_as_often_as_the_task_says_and_the_verdict_tells_both_shares(
    tmp_path: Path, shaky: Model
) -> None:
    task = write_task(tmp_path, shaky(), repeats=3)
    folder = run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    found = decision(folder)
    (chosen,) = [c for c in found["candidates"] if c["name"] == found["solution"]]
    samples = samples_of(folder, chosen["name"], 3)
    tests = json.loads((folder / "split.json").read_text())["sets"]["test"]
    assert all([p["id"] for p in sample] == tests for sample in samples)
    rows = [[s["score"] for s in row] for row in zip(*samples, strict=True)]
    assert chosen["repeats"] == 3
    assert chosen["pass_k"]["mean"] == pytest.approx(pass_k(rows, 3).mean)
    assert chosen["pass_1"]["mean"] == pytest.approx(pass_k(rows, 1).mean)
    assert chosen["pass_k"]["mean"] < chosen["pass_1"]["mean"] < 1
    assert chosen["test"]["mean"] == 1, "the verdict rests on greedy answers"
    assert any("right three times in three on" in reason for reason in found["reasons"])
    assert found["test_reads"] == 1
    requests: list[Request] = shaky.sampled  # type: ignore[attr-defined]
    assert {r.decoding.temperature for r in requests} == {1.0}
    assert len({(r.messages, r.decoding.seed) for r in requests}) == len(requests), "each sample has its own seed"
    sampled = [e for e in events(folder) if e["event"] == "sampled"]
    assert sum(e["calls"] for e in sampled) == len(requests)


def test_samples_change_no_choice(tmp_path: Path, shaky: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ("headline", "choice", "solution", "comparisons", "frontier", "warnings")

    def verdict(place: Path) -> list[Any]:
        found = decision(run(write_task(place, shaky(), repeats=2), RunOptions(out=place / "run", only=ONLY), Silent()))
        return [found[key] for key in kept]

    sampled = verdict(tmp_path / "sampled")
    assert shaky.sampled  # type: ignore[attr-defined]
    monkeypatch.setattr("rung.ladder.final_test.with_consistency", lambda run, evidence, test: evidence)
    assert sampled == verdict(tmp_path / "once")


def test_they_are_planned_and_spent_as_planned(tmp_path: Path, shaky: Model) -> None:
    task = write_task(tmp_path, shaky(), repeats=5)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    plan = json.loads((folder / "plan.json").read_text())
    (step,) = [s for s in plan["experiments"] if s["kind"] == "consistency"]
    assert step["applies"] and step["calls"] == 5 * plan["sizes"]["test"]
    assert len(shaky.sampled) == step["calls"]  # type: ignore[attr-defined]
    without = sum(s["calls"] for s in (*plan["steps"], *plan["experiments"]) if s["applies"])
    assert plan["calls"] == without + plan["sizes"]["test"]


@pytest.mark.parametrize("at", [0, 9, 20])
def test_killed_while_it_samples_it_goes_on_and_asks_one_block_again_at_most(
    at: int, tmp_path: Path, shaky: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("rung.ladder.consistency", "rung.trials.trial"):
        monkeypatch.setattr(f"{module}.BLOCK", 4)
    whole = run(write_task(tmp_path / "a", shaky(), repeats=3), RunOptions(out=tmp_path / "a/run", only=ONLY), Silent())
    asked: list[Request] = shaky.sampled  # type: ignore[attr-defined]
    needed, _ = len(asked), asked.clear()
    task, out = write_task(tmp_path / "b", shaky(at=at), repeats=3), tmp_path / "b" / "run"
    with pytest.raises(Killed):
        run(task, RunOptions(out=out, only=ONLY), Silent())
    assert not (out / "decision.json").exists()
    run(task, RunOptions(out=out, only=ONLY), Silent())
    assert len(asked) <= needed + 3 * 4
    assert timeless(out / "decision.json") == timeless(whole / "decision.json")


def test_a_budget_that_is_spent_keeps_them_out_with_a_reason_and_ends_in_the_same_verdict(
    tmp_path: Path, shaky: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.ladder.state import RunState

    monkeypatch.setattr(RunState, "over_budget", lambda self, climbed, *a, **k: None if climbed.built else "no time")
    listener = Silent()
    folder = run(write_task(tmp_path, shaky(), repeats=3), RunOptions(out=tmp_path / "run", only=ONLY), listener)
    found = decision(folder)
    assert f"How often {found['solution']} is right every time was not measured: no time." in listener.said
    assert found["choice"] == "prompt" and all(c["pass_k"] is None for c in found["candidates"])
    name = found["solution"]
    assert f"How often {name} is right every time was not measured: no time." in found["reasons"]


def test_where_the_task_names_them_they_are_reserved_with_the_test(tmp_path: Path, shaky: Model) -> None:
    task = write_task(tmp_path, shaky(), repeats=50, budget={"calls": 300})
    listener = Silent()
    run(task, RunOptions(out=tmp_path / "run", only=("zero_shot", "few_shot")), listener)
    assert "few_shot" in listener.skips and "the test is reserved first" in listener.skips["few_shot"]


@pytest.mark.parametrize("priced", [False, True])
def test_without_being_named_only_cheap_answers_of_this_machine_are_sampled(
    priced: bool, tmp_path: Path, shaky: Model
) -> None:
    price = {"price": {"usd_per_million_in": 1.0, "usd_per_million_out": 2.0}} if priced else {}
    task = write_task(tmp_path, shaky(), **price)
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    (step,) = [s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "consistency"]
    repeats = {c["repeats"] for c in decision(folder)["candidates"]}
    if priced:
        assert not step["applies"] and "not this machine's own" in step["why"] and repeats == {0}
    else:
        assert step["applies"] and repeats == {0, 4}


def test_a_metric_that_grades_is_sampled_only_where_the_task_says_so(tmp_path: Path, shaky: Model) -> None:
    def step_of(**keys: Any) -> dict[str, Any]:
        out = tmp_path / f"{len(keys)}"
        task = write_task(out, shaky(), labels=False, **keys)
        task.write_text(task.read_text().replace("exact_match", "token_f1"))
        folder = run(task, RunOptions(out=out / "run", only=("zero_shot",)), Silent())
        (step,) = [
            s for s in json.loads((folder / "plan.json").read_text())["experiments"] if s["kind"] == "consistency"
        ]
        return {**step, "reasons": decision(folder)["reasons"]}

    assert not (plain := step_of())["applies"] and "the metric grades" in plain["why"]
    named = step_of(repeats=2)
    assert named["applies"] and any("scores 1 twice in two on" in r for r in named["reasons"])


def test_again_sets_the_record_aside_and_keeps_the_answers(tmp_path: Path, shaky: Model) -> None:
    task, out = write_task(tmp_path, shaky(), repeats=2), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot",)), Silent())
    asked: list[Request] = shaky.sampled  # type: ignore[attr-defined]
    before = len(asked)
    run(task, RunOptions(out=out, only=("zero_shot",), again=True), Silent())
    assert len(asked) == before and (out / "earlier" / "1" / "consistency.json").exists()
    assert (out / "consistency.json").read_bytes() == (out / "earlier" / "1" / "consistency.json").read_bytes()


def test_where_nothing_is_shipped_nothing_is_sampled(tmp_path: Path, shaky: Model) -> None:
    rung.register_model("mute:", lambda s, say: FakeTrainable(lambda request: "nothing", name=s, version=s))
    task = write_task(tmp_path, Path("mute:one"), repeats=2)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert decision(folder)["choice"] == "none" and not list(folder.rglob("*test-sample*"))


def test_samples_that_did_not_come_count_as_wrong_and_are_told(tmp_path: Path) -> None:
    def flaky(request: Request) -> Any:
        if request.decoding.temperature > 0 and request.decoding.seed % 5 == 0:
            return ValueError("the prompt was refused")
        return KNOWN[noun_of(request) or ""]

    rung.register_model("flaky:", lambda s, say: FakeTrainable(flaky, taught=expert, name=s, version=s))
    folder = run(
        write_task(tmp_path, Path("flaky:one"), repeats=2), RunOptions(out=tmp_path / "run", only=ONLY), Silent()
    )
    found = decision(folder)
    name = found["solution"]
    failed = sum(p["error"] is not None for sample in samples_of(folder, name, 2) for p in sample)
    assert failed and f"{failed} of the sampled answers of {name} did not come and count as wrong." in found["reasons"]
    (chosen,) = [c for c in found["candidates"] if c["name"] == name]
    assert chosen["pass_k"]["mean"] < chosen["pass_1"]["mean"] < 1


def test_an_endpoint_that_takes_no_temperature_is_told(
    tmp_path: Path, shaky: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.models.metering.Metered.facts", lambda self: {"takes_temperature": False})
    folder = run(write_task(tmp_path, shaky(), repeats=2), RunOptions(out=tmp_path / "run", only=ONLY), Silent())
    said = [r for r in decision(folder)["reasons"] if "takes no temperature" in r]
    assert len(said) == 1 and said[0].endswith("its samples vary as its endpoint lets them.")


def test_the_plan_counts_that_samples_on_this_machine_share_their_prompt_and_those_of_an_endpoint_do_not() -> None:
    from types import SimpleNamespace

    from rung.ladder.plan import TYPICAL, Plan, Step
    from rung.ladder.plan_checks import _consistency
    from rung.types import Decoding, MetricInfo, Speed

    def step(kind: str) -> Step:
        return Step(kind, "prompt", True, "", 100, 0, 1000.0, 0.0, kind)

    none, sizes = Step("pilot", "fine-tune", False, ""), {"train": 200, "dev": 100, "test": 100}
    plan = Plan((step("zero_shot"),), none, none, Decoding(8), TYPICAL, Speed(1000, 100, 300), sizes, {}, {})
    metric = MetricInfo("exact", lambda answers: [], right_or_wrong=True)

    def planned(repeats: int, timed: Any = None) -> Step:
        task: Any = SimpleNamespace(repeats=repeats)
        model: Any = SimpleNamespace(timed=timed)
        return _consistency(plan, task, model, metric)

    here, there, twice = planned(4), planned(4, timed=len), planned(2)
    assert here.calls == there.calls == 2 * twice.calls == 400
    assert here.seconds == pytest.approx(twice.seconds + 2 * (twice.seconds - planned(1).seconds), abs=0.05)
    assert there.seconds == pytest.approx(4 * planned(1).seconds, abs=0.05) and there.seconds > here.seconds
    assert here.applies and planned(0).applies and "not this machine's own" in planned(0, timed=len).why
    slow = Plan((step("zero_shot"),), none, none, Decoding(8), TYPICAL, Speed(10, 1, 3), sizes, {}, {})
    task: Any = SimpleNamespace(repeats=0)
    model: Any = SimpleNamespace(timed=None)
    assert "more than 15 % of the planned time" in _consistency(slow, task, model, metric).why
