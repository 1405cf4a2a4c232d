from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

import rung
from rung.records import write_json, write_lines
from rung.solutions.store import save_solution
from rung.testing import FakeModel
from rung.types import Decoding, Example, Prediction, Solution

DEV = tuple(Example(f"d{i}", f"input {i}", f"answer {i}", (f"answer {i}",)) for i in range(20))


@pytest.fixture
def echo() -> Iterator[str]:
    """The spec of a model that answers the number in the input, and two of twenty wrongly."""
    from rung.models import OPENERS

    before = OPENERS.copy()

    def says(request: rung.types.Request) -> str:
        number = request.messages[-1].content.rpartition(" ")[2]
        return "nothing" if number in ("3", "4") else f"answer {number}"

    rung.register_model("echo:", lambda spec, say: FakeModel(says, name=spec))
    yield "echo:model"
    OPENERS[:] = before


def write_run(folder: Path, model: str, version: str, solution: Solution | None = None, **task: object) -> Path:
    """A run folder, as far as a bundle is made of it; its solution "zero_shot" has answered dev."""
    solution = solution or Solution("zero_shot", "Repeat the number.", Decoding(8), model="m")
    save_solution(solution, folder / "solutions" / solution.name)
    texts = ["nothing" if i in (3, 4) else e.output for i, e in enumerate(DEV)]
    answered = [
        Prediction(e.id, text, 1, 1, 0.1, score=float(text == e.output)) for e, text in zip(DEV, texts, strict=True)
    ]
    write_lines(folder / "solutions" / solution.name / "predictions.dev.jsonl", map(asdict, answered))
    record = {
        "name": "numbers",
        "path": str(folder / "task.yaml"),
        "instruction": "Repeat the number.",
        "abstain": None,
        "models": [{"name": "m", "spec": model, "price": None}],
        "model_versions": {"m": version},
        "home": version,
        "metric": "exact_match",
        "right_or_wrong": True,
        "seed": 0,
        "license": None,
        **task,
    }
    write_json(folder / "task.json", record)
    write_json(folder / "split.json", {"groups": {}, "sets": {"dev": [e.id for e in DEV]}})
    return folder
