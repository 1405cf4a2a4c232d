"""Dollars that run out in any stage: what must not be lost, and what must be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rung
from conftest import LARGE, SMALL, clerk, decision, events
from rung.errors import BudgetSpent, ModelError, OutOfMemory
from rung.ladder import RunOptions, run
from rung.models.purse import Purse
from rung.records import read_json
from rung.testing import FakeModel, FakeTrainable, Silent
from rung.types import Request
from small_task import write_task

PAID = {**LARGE, "price": {"usd_per_million_in": 2.0, "usd_per_million_out": 8.0}}


def spend_nothing(*_: Any, **__: Any) -> Any:
    raise BudgetSpent("nothing is left")


@pytest.mark.parametrize("limit", [0.006, 0.01, 0.016, 0.02, 0.03])
def test_a_run_that_begins_its_test_can_pay_for_it(tmp_path: Path, models: None, limit: float) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL, PAID], examples=96, budget={"usd": limit})
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    assert (read_json(folder / "purse.json") or {})["usd"] <= limit
    found = decision(folder)
    if found["choice"] == "unfinished":
        run(task, RunOptions(out=tmp_path / "run", usd=1.0), Silent())


def test_a_test_that_cannot_be_paid_for_stays_sealed_and_its_cost_is_told(tmp_path: Path, models: None) -> None:
    task, out = write_task(tmp_path, Path(), models=[PAID], examples=96), tmp_path / "run"
    whole = run(task, RunOptions(out=tmp_path / "whole", only=("zero_shot",)), Silent())
    building = (read_json(whole / "solutions" / "zero_shot" / "built.json") or {})["usd"]
    limit = 1.7 * building
    with pytest.raises(BudgetSpent, match=r"the final test costs about .* are left for it.*larger --usd"):
        run(task, RunOptions(out=out, only=("zero_shot",), usd=limit), Silent())
    assert (out / "finalists.json").exists() and not (out / "test_reads.jsonl").exists()
    run(task, RunOptions(out=out, only=("zero_shot",), usd=1.0), Silent())
    assert decision(out)["test_reads"] == 1


def test_dollars_that_end_in_the_final_test_end_in_a_message_and_nothing_is_lost(tmp_path: Path, models: None) -> None:
    options = {"out": tmp_path / "run", "only": ("zero_shot",)}
    task = write_task(tmp_path, Path(), models=[PAID], examples=96)
    whole = run(task, RunOptions(out=tmp_path / "whole", only=("zero_shot",)), Silent())
    checks = sum(e["usd"] for e in events(whole) if e["event"] == "checked")  # they give way to the test
    paid = (read_json(whole / "purse.json") or {})["usd"] - checks
    with pytest.raises(BudgetSpent, match=r"Nothing is lost: give the same command with a larger --usd"):
        run(task, RunOptions(**options, usd=0.8 * paid, finish=True), Silent())  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "decision.json").exists()
    assert (read_json(tmp_path / "run" / "purse.json") or {})["usd"] <= 0.8 * paid
    run(task, RunOptions(**options, usd=10.0), Silent())  # type: ignore[arg-type]
    assert decision(tmp_path / "run")["test_reads"] <= 1


def test_dollars_that_build_nothing_end_in_a_message(tmp_path: Path, models: None) -> None:
    task = write_task(tmp_path, Path(), models=[PAID], examples=96)
    with pytest.raises(BudgetSpent, match=r"run: the budget ended before the verdict.*--usd"):
        run(task, RunOptions(out=tmp_path / "run", usd=1e-6), Silent())


def test_the_verdict_comes_although_dollars_end_in_the_check_of_skills_or_in_timing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: None
) -> None:
    task = write_task(tmp_path, Path(), models=[SMALL], examples=96)
    monkeypatch.setattr("rung.ladder.skills_check._skills_of", spend_nothing)
    monkeypatch.setattr("rung.solutions.answer.answer", spend_nothing)
    folder = run(task, RunOptions(out=tmp_path / "run"), Silent())
    found = decision(folder)
    assert found["test_reads"] == 1
    assert all(c["latency_s_p50"] is None for c in found["candidates"])


def test_a_model_that_fails_when_a_run_continues_spoils_no_other(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, out = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=96), tmp_path / "run"
    run(task, RunOptions(out=out, only=("zero_shot", "few_shot")), Silent())
    for name in ("finished.json", "decision.json", "finalists.json"):
        (out / name).unlink()
    for name in ("zero_shot@large", "few_shot@large"):
        (out / "solutions" / name / "screened.jsonl").unlink(missing_ok=True)
        answers = out / "solutions" / name / "predictions.dev.jsonl"
        first, *others = answers.read_text().splitlines()
        lost = {**json.loads(first), "error": "no reply from host (timeout)", "text": "", "score": 0.0}
        answers.write_text("".join(line + "\n" for line in (json.dumps(lost), *others)))
    generate = FakeModel.generate

    def or_down(self: FakeModel, requests: Any) -> Any:
        if self.name.startswith("large"):
            raise ModelError("model large:expert: the endpoint refused the key.")
        return generate(self, requests)

    monkeypatch.setattr(FakeModel, "generate", or_down)
    run(task, RunOptions(out=out, only=("zero_shot", "few_shot")), Silent())
    found = decision(out)
    assert found["choice"] == "unfinished"
    assert "zero_shot@small" in {c["name"] for c in found["candidates"]}
    assert {s["name"]: s["reason"] for s in found["skipped"]}["zero_shot@large"] == "fault"


def test_a_speed_that_is_measured_by_calls_is_paid_from_the_purse(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[Request] = []
    generate = FakeModel.generate

    def noted(self: FakeModel, asked: Any) -> Any:
        requests.extend(asked)
        return generate(self, asked)

    monkeypatch.setattr(FakeModel, "generate", noted)
    task = write_task(tmp_path, Path(), models=[PAID], examples=48)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    asked = sum(len(m.content.split()) for request in requests for m in request.messages)
    spent = (read_json(folder / "purse.json") or {})["usd"]
    assert spent >= asked * 2e-6 > 0, "what every request read is paid"


def test_a_run_whose_speed_cannot_be_measured_keeps_no_dollars_for_it(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: FakeModel, requests: Any) -> Any:
        raise ModelError("model large:expert: the endpoint refused the key.")

    def paid_by_itself(self: FakeModel, purse: Purse, price: Any) -> None:
        assert purse.reserve(0.001)
        purse.settle(0.001, 0.0)

    monkeypatch.setattr(FakeModel, "generate", refused)
    monkeypatch.setattr(FakeModel, "use_purse", paid_by_itself, raising=False)
    task = write_task(tmp_path, Path(), models=[PAID], examples=48)
    with pytest.raises(ModelError, match="refused the key"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())
    assert (read_json(tmp_path / "run" / "purse.json") or {})["usd"] == 0.0


def test_a_key_that_is_refused_ends_a_run_before_anything_is_written(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeModel) -> None:
        raise ModelError("model large:expert: the endpoint refused the key.")

    monkeypatch.setattr(FakeModel, "reach", refuse, raising=False)
    task = write_task(tmp_path, Path(), models=[SMALL, PAID], examples=48)
    with pytest.raises(ModelError, match="refused the key"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


def test_memory_that_does_not_suffice_for_all_models_is_said_with_what_to_do(tmp_path: Path, models: None) -> None:
    def full(spec: str, say: Any) -> FakeTrainable:
        if opened:
            raise OutOfMemory("model third:x: its weights need 9 GB, and 4 GB are free.")
        opened.append(spec)
        return FakeTrainable(clerk, name=spec, version=spec)

    opened: list[str] = []
    rung.register_model("third:", full)
    task = write_task(tmp_path, Path(), models=[SMALL, {"name": "third:x"}, LARGE], examples=48)
    with pytest.raises(OutOfMemory, match="All models of a task are loaded at once, and small came before"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())


def test_memory_that_does_not_suffice_to_start_what_answers_with_a_second_model_is_said_so_too(
    tmp_path: Path, models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []

    def reach(self: FakeModel) -> None:
        if reached:
            raise OutOfMemory("model large:expert: vLLM needs 9 GB, and 4 GB are free.")
        reached.append(self.name)

    monkeypatch.setattr(FakeModel, "reach", reach, raising=False)
    task = write_task(tmp_path, Path(), models=[SMALL, LARGE], examples=48)
    with pytest.raises(OutOfMemory, match="All models of a task are loaded at once, and small came before"):
        run(task, RunOptions(out=tmp_path / "run"), Silent())
