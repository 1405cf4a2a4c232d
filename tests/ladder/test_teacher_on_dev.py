"""The teacher on dev: a ceiling that is measured once, in the plan, and said; and runs that learn from it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import rung
from conftest import decision, events
from rung.ladder import RunOptions, run
from rung.testing import FakeModel, FakeTrainable, Silent
from rung.types import Generation, Request

ONLY = ("zero_shot", "few_shot", "lora", "distilled_lora")
COLOURS = ("red", "green", "blue")
THINGS = [a + b for a in ("bo", "ki", "lu", "ma", "ne", "pi", "ro", "su") for b in ("dra", "fel", "gon", "hik")]
THINGS += [thing + "jus" for thing in THINGS]
_WORDS = "about above after among before below beyond during inside near outside over past since under until"
FILLERS = _WORDS.split()


def colour_of(request: Request) -> str:
    """Right for every thing."""
    words = request.messages[-1].content.split()
    return next((COLOURS[i % 3] for i, thing in enumerate(THINGS) if thing in words), "none")


def guess(request: Request) -> str:
    """Right for a quarter of the things."""
    words = request.messages[-1].content.split()
    return colour_of(request) if any(thing in words for thing in THINGS[::4]) else "red"


class Learner(FakeTrainable):
    """Knows a thing once a row about it was learnt, so that more rows teach more."""

    def _answer(self, request: Request) -> str | Exception:
        if request.adapter is not None:
            seen = {word for asked in self._adapter(request.adapter)["table"] for word in asked.split()}
            if any(thing in seen for thing in request.messages[-1].content.split() if thing in THINGS):
                return colour_of(request)
        return super()._answer(request)


class Wise(FakeModel):
    """A teacher that keeps what all runs ask of it."""

    asked: ClassVar[list[Request]] = []

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        Wise.asked += [r for r in requests if r.messages[0].role == "system"]  # not what measures its speed
        return super().generate(requests)


@pytest.fixture
def teachers() -> Iterator[None]:
    """wise: knows all. dull: knows nothing. learner: knows a quarter, and learns what its rows are about."""
    from rung.models import OPENERS

    before = OPENERS.copy()
    Wise.asked.clear()
    rung.register_model("learner:", lambda spec, say: Learner(guess, name=spec, version=spec))
    rung.register_model("wise:", lambda spec, say: Wise(colour_of, name=spec, version=spec))
    rung.register_model("dull:", lambda spec, say: Wise(lambda _: "red", name=spec, version=spec))
    yield
    OPENERS[:] = before


def texts(count: int, seed: int) -> list[str]:
    """Texts about one thing each, no two alike."""
    chance = random.Random(seed)
    return [" ".join(chance.sample([*chance.sample(FILLERS, 7), THINGS[i % len(THINGS)]], 8)) for i in range(count)]


def task_of(folder: Path, teacher: str = "wise:one", models: object = "learner:one", **keys: Any) -> Path:
    """128 examples about 64 things, and 192 inputs without answers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"input": text, "output": COLOURS[i % len(THINGS) % 3]} for i, text in enumerate(texts(128, 1))]
    inputs = [{"input": text} for text in texts(192, 2)]
    for name, lines in (("examples", rows), ("inputs", inputs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    named = {"models": models} if isinstance(models, list) else {"model": models}
    more = {"labels": COLOURS, "unlabelled": "inputs.jsonl", "teacher": teacher, **named, **keys}
    text = "instruction: Answer with the colour.\nexamples: examples.jsonl\n"
    text += "".join(f"{key}: {json.dumps(value)}\n" for key, value in more.items())
    (folder / "task.yaml").write_text(text, "utf-8")
    return folder / "task.yaml"


def done(task: Path, listener: Silent | None = None, only: tuple[str, ...] = ONLY) -> Path:
    return run(task, RunOptions(out=task.parent / "run", only=only), listener or Silent())


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_the_teacher_answers_dev_once_and_the_verdict_says_how_far_it_comes(tmp_path: Path, teachers: None) -> None:
    listener = Silent()
    folder = done(task_of(tmp_path), listener)
    record = read(folder / "teacher" / "teacher.json")
    dev = read(folder / "plan.json")["sizes"]["dev"]
    assert (record["mean"], record["n"], record["teacher"]) == (1.0, dev, "wise:one")
    assert len((folder / "teacher" / "predictions.dev.jsonl").read_text().splitlines()) == dev
    assert any(text.startswith("the teacher on dev: 100 %") for text in listener.said)
    said = " ".join(decision(folder)["reasons"])
    assert "The teacher reaches 100 %" in said and "on dev, the best candidate, " in said


def test_the_teachers_answers_are_in_the_plan_and_in_what_was_spent(tmp_path: Path, teachers: None) -> None:
    folder = done(task_of(tmp_path))
    plan = read(folder / "plan.json")
    (step,) = [s for s in plan["experiments"] if s["name"] == "teacher"]
    (taught,) = [e for e in events(folder) if e["event"] == "taught"]
    assert step["applies"] and step["calls"] == taught["calls"] == plan["sizes"]["dev"]
    (distilled,) = [s for s in plan["steps"] if s["name"] == "distilled_lora"]
    (plain,) = [s for s in plan["steps"] if s["name"] == "lora"]
    asked = len(Wise.asked) - taught["calls"]
    assert distilled["calls"] - plain["calls"] == pytest.approx(asked, rel=0.1)


def test_answers_to_unlabelled_inputs_are_learnt_where_the_teacher_is_ahead(tmp_path: Path, teachers: None) -> None:
    folder = done(task_of(tmp_path))
    counts = read(folder / "solutions" / "distilled_lora" / "taught.json")
    assert counts["kept"] == counts["asked"] > 20
    said = " ".join(decision(folder)["reasons"])
    assert (
        f"distilled_lora learnt, beside train, what the teacher (wise:one) answers to {counts['kept']} inputs." in said
    )


def test_a_teacher_that_is_behind_teaches_nothing_and_the_number_says_why(tmp_path: Path, teachers: None) -> None:
    listener = Silent()
    folder = done(task_of(tmp_path, "dull:one"), listener)
    assert "the teacher reaches" in listener.skips["distilled_lora"]
    assert not (folder / "solutions" / "distilled_lora").exists()


def test_without_what_learns_from_it_the_teacher_is_not_asked(tmp_path: Path, teachers: None) -> None:
    folder = done(task_of(tmp_path), only=("zero_shot", "lora"))
    assert not Wise.asked and not (folder / "teacher").exists()
    (step,) = [s for s in read(folder / "plan.json")["experiments"] if s["name"] == "teacher"]
    assert not step["applies"] and step["calls"] == 0


def test_a_continued_run_asks_the_teacher_nothing_twice(tmp_path: Path, teachers: None) -> None:
    task = task_of(tmp_path)
    folder = done(task)
    first, asked = decision(folder), len(Wise.asked)
    for name in ("finished.json", "decision.json", "finalists.json"):
        (folder / name).unlink()
    done(task)
    assert len(Wise.asked) == asked and decision(folder)["solution"] == first["solution"]


def test_a_budget_that_does_not_allow_it_keeps_the_teacher_from_being_asked(tmp_path: Path, teachers: None) -> None:
    folder = done(task_of(tmp_path, budget={"calls": 100}))
    assert not (folder / "teacher" / "teacher.json").exists()
    assert not Wise.asked


def test_several_models_ask_the_teacher_once(tmp_path: Path, teachers: None) -> None:
    models = [{"name": "learner:one", "label": "one"}, {"name": "learner:two", "label": "two"}]
    folder = done(task_of(tmp_path, models=models))
    plan = read(folder / "plan.json")
    assert sum(s["applies"] for s in plan["experiments"] if s["name"].startswith("teacher")) == 1
    assert sum(e["event"] == "taught" for e in events(folder)) == 1


# ---- retrieval into weights -----------------------------------------------------------------


def reader(request: Request) -> str:
    """Knows what a passage says, and nothing else."""
    asked = request.messages[-1].content
    return colour_of(request) if f"is {colour_of(request)}." in asked else "none"


class Forgetful(FakeTrainable):
    """Learns the rows themselves, and no fact behind them: as small models do with questions and answers."""


@pytest.mark.parametrize(("model", "kept"), [(Learner, True), (Forgetful, False)])
def test_retrieval_goes_into_weights_only_where_unseen_questions_hold_up(
    tmp_path: Path, teachers: None, model: type[FakeTrainable], kept: bool
) -> None:
    rung.register_model("reader:", lambda spec, say: model(reader, name=spec, version=spec))
    task = task_of(tmp_path, models="reader:one", corpus="facts.jsonl")
    facts = [{"id": thing, "text": f"A {thing} is {COLOURS[i % 3]}."} for i, thing in enumerate(THINGS)]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts), "utf-8")
    folder = done(task, only=("zero_shot", "rag", "lora", "rag_distilled"))
    found = decision(folder)
    dropped = {one["name"]: one["why"] for one in found["left_early"]}
    assert ("rag_distilled" not in dropped) == kept
    if not kept:
        assert dropped["rag_distilled"].endswith("points below rag on dev, whose answers it has learnt")
    learnt = "rag_distilled learnt, beside train, what rag with its passages answers to 192 inputs."
    assert learnt in found["reasons"]
