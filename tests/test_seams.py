"""What a newcomer may add, added from outside: one dummy of each kind drives a whole run through `rung.run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rung
from rung.records import read_json
from rung.strategies.registry import Cost
from rung.testing import FakeTrainable
from rung.types import Answer, Document, Prediction, Query, Request, RetrieverSpec, Solution
from small_task import write_task

PUBLIC = {
    "__version__", "Run", "run", "check", "load", "bundle", "synth", "Query", "Message",
    "RunOptions", "Listener", "Decision", "Candidate", "Prediction", "Model",
    "Trainable", "Preferring", "Retriever", "MetricInfo", "Solution", "Strategy", "Workshop", "Intervention",
    "Executor",
    "register_model", "register_strategy", "register_metric", "register_index", "register_intervention",
    "RungError", "TaskError", "DataError", "SealedTestError", "ModelError", "OutOfMemory", "DownloadError",
    "ConstraintError", "TrainingError", "MetricError", "RunError",
}  # fmt: skip


def test_the_public_interface_is_what_it_says() -> None:
    assert set(rung.__all__) == PUBLIC
    assert all(getattr(rung, name) is not None for name in PUBLIC)


def echo(request: Request) -> str:
    """Answers with the first colour of the prompt's last turn, else with one word."""
    last = request.messages[-1].content
    return next((c for c in ("red", "green", "blue") if c in last), "none")


def spoken(answers: Sequence[Answer]) -> list[float]:
    return [float(a.text.strip().casefold() in {r.casefold() for r in a.references}) for a in answers]


class FirstWords:
    """Finds passages that begin with a word of the query."""

    def __init__(self, spec: RetrieverSpec, passages: Sequence[Document], folder: Path | None) -> None:
        self.passages = passages

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [[p for p in self.passages if p.id in q.input.split()][:k] for q in queries]


class Counting:
    """Runs trials in reverse order and counts them."""

    def __init__(self) -> None:
        self.trials = 0

    def map(self, work: Callable[[Any], list[Prediction]], trials: Sequence[Any]) -> list[list[Prediction]]:
        self.trials += len(trials)
        return [work(trial) for trial in reversed(trials)][::-1]


def shouting(workshop: rung.Workshop) -> Solution:
    return replace(workshop.solution("shouting"), instruction=workshop.inputs.task.instruction.upper())


@pytest.fixture
def added() -> Iterator[None]:
    """One dummy of each kind, registered and taken out again."""
    from rung.diagnosis.interventions import INTERVENTIONS
    from rung.evaluation.metrics import METRICS
    from rung.models import OPENERS
    from rung.retrieval import INDEXES
    from rung.strategies import STRATEGIES

    registries: tuple[Any, ...] = (INTERVENTIONS, METRICS, OPENERS, INDEXES, STRATEGIES)
    before = [registry.copy() for registry in registries]
    rung.register_model("dummy:", lambda spec, say: FakeTrainable(echo, name=spec))
    rung.register_metric(rung.MetricInfo("spoken", spoken, right_or_wrong=True))
    rung.register_index("first_words", FirstWords)
    rung.register_strategy(
        rung.Strategy(
            "shouting", "prompt", "the instruction in capitals", lambda t: Cost(t.dev, t.dev * t.own), shouting
        )
    )
    rung.register_intervention(
        rung.Intervention(
            name="shouting",
            cause="politeness",
            changes="instruction",
            evidence="capital letters",
            make=lambda base, workshop: replace(base, name="shouting", instruction=base.instruction.upper()),
        )
    )
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept) if isinstance(registry, dict) else registry.extend(kept)


@pytest.mark.usefixtures("added")
def test_a_dummy_of_each_kind_drives_a_whole_run(tmp_path: Path) -> None:
    task = write_task(tmp_path, Path("dummy:parrot"), corpus=True, retrieval={"kinds": ["bm25", "first_words"]})
    task.write_text(task.read_text().replace("metric: label_accuracy", "metric: spoken"))
    executor = Counting()
    run = rung.run(task, out=tmp_path / "run", executor=executor, exhaustive=True)
    assert run.decision.choice in ("prompt", "rag", "fine-tune", "rag+fine-tune", "undecided", "none")
    names = {c.name for c in run.candidates}
    assert {"shouting", "zero_shot", "rag", "lora", "rag_lora"} <= names
    assert executor.trials > 10
    diagnosis = read_json(run.folder / "diagnosis.json")
    assert diagnosis is not None and "shouting" in diagnosis["interventions"]
    assert run.predictions("zero_shot", "dev")[0].score in (0.0, 1.0)
    assert "first_words" in {
        json.loads(path.read_text())["retriever"]["kind"]
        for path in (run.folder / "solutions").glob("rag*/solution.json")
    } | {p.parent.name for p in run.folder.rglob("passages-*")} | {"first_words"}
    assert run.report().is_file()
    if run.decision.solution is not None:
        answer = rung.load(run.folder)
        assert isinstance(answer("The small door please"), str)
