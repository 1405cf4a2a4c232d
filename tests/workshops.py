"""A workshop around a small task, for tests of what is built in it. The number in an input gives the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from rung.errors import Diverged
from rung.evaluation.scorer import Scorer
from rung.records import read_json, write_json
from rung.retrieval.library import Library
from rung.testing import FakeTrainable
from rung.trials.trial import InOrder
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import (
    Answer,
    Decoding,
    Document,
    Example,
    MetricInfo,
    ModelSpec,
    Request,
    Task,
    TrainingOptions,
    TrainingRow,
)

COLOURS = ("red", "green", "blue")
PASSAGES = tuple(Document(f"p{i}", f"Thing {i} is {COLOURS[i % 3]}.") for i in range(60))
INSTRUCTION = "Say the colour."

Note = dict[str, Any] | None


def example(i: int) -> Example:
    return Example(f"e{i}", f"what colour is thing {i}", COLOURS[i % 3], (COLOURS[i % 3],), gold_ids=(f"p{i}",))


def exact(answers: Sequence[Answer]) -> list[float]:
    return [float(a.text in a.references) for a in answers]


def workshop_of(
    model: Any,
    folder: Path,
    *,
    metric: Any = exact,
    train: int = 36,
    tools: Any = None,
    limits: Any = None,
    **task: Any,
) -> Workshop:
    """24 dev examples behind `train` train examples, with passages. tools, limits, task: what differs from defaults."""
    rows = tuple(example(i) for i in range(train + 24))
    inputs = Inputs(
        Task(
            "t",
            folder / "task.yaml",
            task.pop("instruction", INSTRUCTION),
            (),
            "exact",
            (ModelSpec("fake", "fake"),),
            **task,
        ),
        rows[:train],
        rows[train:],
        library=Library(PASSAGES),
    )
    tools = Tools(model, Scorer(MetricInfo("exact", metric)), **({"executor": InOrder()} | (tools or {})))
    return Workshop(inputs, tools, Limits(**(limits or {})), folder / "solution", Decoding(8))


class Trainee(FakeTrainable):
    """A fake trainable model whose adapters carry a note of their rate and steps, and which remembers its trainings.

    answers: (request, the note of its adapter or None) -> the answer. loss_of: note -> loss; None: as FakeTrainable.
    diverging: rates at which training fails. trainings: what each call of `train` was given.
    """

    def __init__(
        self,
        answers: Callable[[Request, Note], str] = lambda request, note: "red",
        loss_of: Callable[[dict[str, Any]], float] | None = None,
        diverging: Collection[float] = (),
        **more: Any,
    ) -> None:
        super().__init__(lambda request: answers(request, note_of(request.adapter)), **more)
        self.loss_of, self.diverging = loss_of, diverging
        self.trainings: list[dict[str, Any]] = []

    def train(self, rows: Sequence[TrainingRow], options: TrainingOptions, folder: Path, **more: Any) -> Path:
        self.trainings.append({"rows": list(rows), "options": options, "start": more["start"]})
        if options.learning_rate in self.diverging:
            raise Diverged("the loss is nan")
        result = super().train(rows, options, folder, **more)
        write_json(result / "note.json", {"rate": options.learning_rate, "step": more["until"]})
        return result

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        loss = super().loss(rows, adapter)
        return loss if self.loss_of is None else self.loss_of(note_of(adapter) or {})


def note_of(adapter: str | Path | None) -> Note:
    return read_json(Path(adapter) / "note.json") if adapter is not None else None
