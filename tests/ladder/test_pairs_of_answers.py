"""Whole runs with preferences: dpo goes on from lora, and is a candidate only where dev shows its gain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import rung
from conftest import clerk, decision, events, expert
from rung.ladder import RunOptions, run
from rung.resume import record_of
from rung.testing import FakeTrainable, Silent
from rung.types import Request
from small_task import COLOURS, write_task

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch")


@pytest.fixture(autouse=True)
def models() -> Iterator[None]:
    """pupil: pairs teach it what examples do not. idle: pairs teach it nothing."""
    from rung.models import OPENERS

    before = OPENERS.copy()

    def by_pairs(request: Request) -> str:
        return expert(request) if "/dpo/" in str(request.adapter) else clerk(request)

    rung.register_model("pupil:", lambda spec, say: FakeTrainable(clerk, taught=by_pairs, name=spec))
    rung.register_model("idle:", lambda spec, say: FakeTrainable(clerk, taught=clerk, name=spec))
    yield
    OPENERS[:] = before


def run_with_pairs(
    tmp_path: Path, model: str, only: tuple[str, ...] = ("zero_shot", "lora", "dpo")
) -> tuple[Path, Silent]:
    pairs = [
        {"prompt": f"What is the colour of {a} beside {b}", "chosen": COLOURS[i % 3], "rejected": "It is hard to say"}
        for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS if a != b)
    ]
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), "utf-8")
    task, listener = write_task(tmp_path, Path(model), examples=240, preferences="pairs.jsonl"), Silent()
    return run(task, RunOptions(out=tmp_path / "run", only=only), listener), listener


def test_pairs_that_help_on_dev_are_shipped_with_what_they_brought(tmp_path: Path) -> None:
    folder, _ = run_with_pairs(tmp_path, "pupil:one")
    found = decision(folder)
    assert found["solution"] == "dpo" and found["choice"] == "fine-tune" and not found["left_early"]
    built = [event["solution"] for event in events(folder) if event["event"] == "built"]
    assert built == ["zero_shot", "lora", "dpo"]
    course = record_of(folder / "solutions" / "dpo" / "training" / "course.json")
    assert course["from"] == "lora" and course["steps"] >= 40
    took = {name: record_of(folder / "solutions" / name / "built.json")["seconds"] for name in ("lora", "dpo")}
    (dpo,) = [c for c in found["candidates"] if c["name"] == "dpo"]
    assert dpo["build_seconds"] == pytest.approx(sum(took.values()), abs=0.02), "lora has to be trained first"


def test_pairs_that_bring_nothing_are_left_with_the_number(tmp_path: Path) -> None:
    folder, _ = run_with_pairs(tmp_path, "idle:one")
    (left,) = decision(folder)["left_early"]
    assert left["name"] == "dpo" and left["why"] == "it is not ahead of lora on dev: it is equal to it"
    assert decision(folder)["solution"] != "dpo"


def test_without_lora_the_chosen_answers_come_first(tmp_path: Path) -> None:
    folder, _ = run_with_pairs(tmp_path, "pupil:one", ("zero_shot", "dpo"))
    assert (folder / "solutions" / "dpo" / "first" / "adapter").is_dir()
    assert decision(folder)["solution"] == "dpo"
