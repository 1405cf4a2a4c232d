"""A workshop around a small task, for tests of what is built in it. The number in an input gives the answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from rung.errors import Diverged
from rung.evaluation.scorer import Scorer
from rung.records import read_json, write_json
from rung.retrieval import open_index
from rung.testing import FakeModel
from rung.trials.trial import InOrder
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import (
    Answer,
    Constraint,
    Decoding,
    Document,
    Example,
    MetricInfo,
    Progress,
    Request,
    Task,
    TrainingOptions,
    TrainingRow,
)

COLOURS = ("red", "green", "blue")
PASSAGES = tuple(Document(f"p{i}", f"Thing {i} is {COLOURS[i % 3]}.") for i in range(60))
INSTRUCTION = "Say the colour."


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
        Task("t", folder / "task.yaml", task.pop("instruction", INSTRUCTION), (), "exact", "fake", **task),
        rows[:train],
        rows[train:],
        passages=PASSAGES,
        open_index=lambda spec: open_index(spec, PASSAGES),
    )
    tools = Tools(model, Scorer(MetricInfo("exact", metric)), **({"executor": InOrder()} | (tools or {})))
    return Workshop(inputs, tools, Limits(**(limits or {})), folder / "solution", Decoding(8))


class Trainee(FakeModel):
    """A fake model that can be trained: an adapter is a note of its rate and its steps.

    answers: (request, the note of its adapter or None) -> the answer. loss_of: note -> loss. diverging: rates at which
    training fails. words_long: rows with more words do not fit. trainings: what each call of `train` was given.
    """

    version = "1"
    context_length = 1_000
    price = None

    def __init__(
        self,
        answers: Callable[[Request, dict[str, Any] | None], str] = lambda request, note: "red",
        loss_of: Callable[[dict[str, Any]], float] = lambda note: 1.0,
        diverging: Collection[float] = (),
        words_long: int = 1_000,
    ) -> None:
        super().__init__(lambda request: answers(request, note_of(request.adapter)))
        self.loss_of, self.diverging, self.words_long = loss_of, diverging, words_long
        self.trainings: list[dict[str, Any]] = []
        self.released: list[Path] = []

    def check(self, constraint: Constraint) -> None: ...

    def train(
        self,
        rows: Sequence[TrainingRow],
        options: TrainingOptions,
        folder: Path,
        *,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        self.trainings.append(
            {"rows": list(rows), "options": options, "folder": folder, "until": until, "start": start}
        )
        assert rows and not self.too_long(rows)
        until = options.steps if until is None else until
        result = folder / f"step-{until}"
        if options.learning_rate in self.diverging:
            raise Diverged("the loss is nan")
        done = (read_json(folder / "checkpoint.json") or {"step": 0})["step"]
        try:
            while done < until:
                done += 1
                on_step(Progress(done, options.steps, 1.0, done * 10, float(done)))
        finally:
            write_json(folder / "checkpoint.json", {"step": done})
        write_json(result / "adapter_config.json", {"rate": options.learning_rate, "step": until, "rows": len(rows)})
        return result

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        return [
            r for r in rows if len(" ".join([*(m.content for m in r.messages), r.answer]).split()) > self.words_long
        ]

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        assert rows and not self.too_long(rows)
        return self.loss_of(note_of(adapter) or {})

    def release(self, adapter: Path) -> None:
        self.released.append(adapter)


def note_of(adapter: str | Path | None) -> dict[str, Any] | None:
    return read_json(Path(adapter) / "adapter_config.json") if adapter is not None else None
