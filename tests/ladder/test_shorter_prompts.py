"""A fine-tuned finalist with a shorter prompt: built beside its long form, tested, told, and kept within the budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_kills import Deaths, Killed

import rung
from conftest import clerk, decision, events, expert
from rung.evaluation.sealed import count_reads
from rung.ladder import RunOptions, run
from rung.ladder.shortening import outcome_of
from rung.records import read_json
from rung.testing import FakeTrainable, Silent
from rung.types import Request
from small_task import timeless, write_task

LONG = "Answer with the colour. " + "There are three colours and no others. " * 3
ONLY = ("zero_shot", "lora")


def worded(least: int) -> Any:
    """What training can teach where the prompt says at least so many words before the input."""

    def taught(request: Request) -> str:
        said = " ".join(m.content for m in request.messages if m.role == "system")
        return expert(request) if len(said.split()) >= least else "none"

    return taught


class Pupil(FakeTrainable):
    """Learns no row by heart, so that what it is taught decides, and with it the prompt."""

    def _adapter(self, folder: str) -> dict[str, Any]:
        return {"table": {}, "share": 1.0}


@pytest.fixture
def pupils() -> Iterator[None]:
    from rung.models import OPENERS

    before = OPENERS.copy()
    for least in (0, 3, 20):
        rung.register_model(
            f"pupil{least}:",
            lambda spec, say, least=least: Pupil(clerk, taught=worded(least), name=spec, version=spec),
        )
    yield
    OPENERS[:] = before


def task_of(folder: Path, least: int, instruction: str = LONG, **more: Any) -> Path:
    task = write_task(folder, Path(f"pupil{least}:x"), examples=240, **more)
    task.write_text(task.read_text().replace("instruction: Answer with the colour.", f'instruction: "{instruction}"'))
    return task


def ran(folder: Path, least: int, **more: Any) -> Path:
    task = task_of(folder, least, **more)
    return run(task, RunOptions(out=folder / "run", only=ONLY), Silent())


def of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in found["candidates"] if c["name"] == name)


def test_the_shortest_prompt_that_holds_up_is_a_finalist_and_is_shipped(tmp_path: Path, pupils: None) -> None:
    folder = ran(tmp_path, 0, price={"usd_per_hour": 1.0})
    found = decision(folder)
    assert found["choice"] == "fine-tune" and found["solution"] == "lora_short"
    short, long = of(found, "lora_short"), of(found, "lora")
    assert short["test"]["mean"] == long["test"]["mean"] == 1.0
    assert short["tokens_in"] == 6 and long["tokens_in"] == 31
    assert short["latency_s_p50"] is not None and short["build_seconds"] >= long["build_seconds"]
    assert {"lora", "lora_short"} in [{c["a"], c["b"]} for c in found["comparisons"]]
    (said,) = [r for r in found["reasons"] if "tokens a request" in r]
    assert said.startswith("lora_short (the input alone) reads 6 tokens a request in the place of 31")
    assert "of the sealed test right" in said and said.endswith("lora: 100 %.")
    bundle = read_json(folder / "winner" / "solution.json") or {}
    assert bundle["instruction"] == "" and bundle["adapter"] == "adapter"
    note = read_json(folder / "winner" / "bundle.json") or {}
    assert note["instruction"] == LONG.strip(), "which conversations may repeat"
    assert rung.load(folder)("The small door number 1 please") == "red"
    (event,) = [e for e in events(folder) if e["event"] == "shortened"]
    assert event["solution"] == "lora_short" and event["calls"] > 0 and event["stage"] == "solutions/lora_short"
    step = next(s for s in (read_json(folder / "plan.json") or {})["experiments"] if s["name"] == "shortening")
    assert step["applies"] and step["calls"] >= event["calls"] and step["seconds"] > 0


def test_a_prompt_that_is_needed_is_kept_and_the_number_is_told(tmp_path: Path, pupils: None) -> None:
    folder = ran(tmp_path, 20)
    found = decision(folder)
    assert found["solution"] == "lora" and not any(c["name"] == "lora_short" for c in found["candidates"])
    (said,) = [r for r in found["reasons"] if "shorter prompt" in r]
    assert said.startswith("No shorter prompt than that of lora held up on dev: the input alone reads 6 tokens in")
    assert "margin that matters is 2 points" in said
    assert any(e["event"] == "not shortened" and e["calls"] > 0 for e in events(folder))
    assert "lora_short" not in {s["name"] for s in found["skipped"]}, "it was tried"


def test_where_the_prompt_is_hardly_longer_than_the_input_nothing_is_shortened(tmp_path: Path, pupils: None) -> None:
    task = task_of(tmp_path, 0, "Colour?")
    rows = (tmp_path / "examples.jsonl").read_text().replace(" please", " please and thank you very much for it all")
    (tmp_path / "examples.jsonl").write_text(rows)
    found = decision(run(task, RunOptions(out=tmp_path / "run", only=ONLY), Silent()))
    (skipped,) = [s for s in found["skipped"] if s["name"] == "lora_short"]
    assert skipped["reason"] == "gain" and "tokens of a prompt only" in skipped["why"] and not skipped["matters"]
    assert not (tmp_path / "run" / "solutions" / "lora_short").exists()


def test_where_a_request_would_hardly_be_shorter_nothing_is_claimed_of_its_score(
    tmp_path: Path, pupils: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pupil.generate

    def wordy(self: Pupil, requests: Any) -> Any:
        return [replace(answer, tokens_in=answer.tokens_in + 300) for answer in real(self, requests)]

    monkeypatch.setattr(Pupil, "generate", wordy)
    found = decision(ran(tmp_path, 0))
    (skipped,) = [s for s in found["skipped"] if s["name"] == "lora_short"]
    assert (skipped["reason"], skipped["why"]) == ("gain", "of 331 tokens of a request 306 would be left")
    assert found["solution"] == "lora" and not any("shorter prompt" in reason for reason in found["reasons"])


def test_a_budget_that_does_not_allow_it_is_told_and_changes_no_verdict(
    tmp_path: Path, pupils: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.ladder.state import RunState

    real = RunState.over_budget

    def tight(self: RunState, climbed: Any, seconds: float, calls: int, *more: Any, **named: Any) -> str | None:
        asked = calls >= len(self.test) and "lora" in climbed.built and not more
        return "no time is left" if asked else real(self, climbed, seconds, calls, *more, **named)

    monkeypatch.setattr(RunState, "over_budget", tight)
    found = decision(ran(tmp_path, 0))
    (skipped,) = [s for s in found["skipped"] if s["name"] == "lora_short"]
    assert (skipped["reason"], skipped["matters"]) == ("budget", False) and found["solution"] == "lora"
    assert any(w.startswith("lora_short (fine-tuning) was not tried") for w in found["warnings"])


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_writes_it_ends_in_the_same_verdict(
    seed: int, tmp_path: Path, pupils: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    undisturbed = timeless(ran(tmp_path / "undisturbed", 3) / "decision.json")
    assert undisturbed["solution"] == "lora_short"
    deaths, chance, kills = Deaths(monkeypatch), random.Random(seed), 0
    while True:
        deaths.at(chance.randrange(20, 60) if kills < 5 else 0)
        try:
            folder = ran(tmp_path / "killed", 3)
            break
        except Killed:
            kills += 1
    assert kills >= 2 and count_reads(folder / "test_reads.jsonl") == 1
    assert timeless(folder / "decision.json") == undisturbed
    assert len([e for e in events(folder) if e["event"] == "shortened"]) == 1


def test_where_none_is_within_the_margin_the_shortest_one_is_told_of() -> None:
    def row(length: str, tokens: float, mean: float, *, trained: bool = False) -> dict[str, Any]:
        versus = {"difference": mean - 0.9, "low": mean - 1.0, "high": mean - 0.8}
        score = {"mean": mean, "low": mean, "high": mean, "n": 48}
        return {"length": length, "trained": trained, "tokens_in": tokens, "score": score, "versus": versus}

    rows = [row("as it is", 40, 0.9), row("first", 20, 0.8), row("alone", 10, 0.5), row("alone", 10, 0.7, trained=True)]
    found = outcome_of({"lengths": rows, "taken": None}, "lora", None)
    assert (found.length, found.trained, found.mean, found.tokens, found.tokens_before) == ("alone", True, 0.7, 10, 40)
