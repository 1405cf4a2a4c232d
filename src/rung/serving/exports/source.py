"""What is exported, read from a folder: a bundle or a run, and inputs with answers for the parity test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import ExportError, MetricError, came
from rung.records import read_json, read_lines
from rung.serving.bundle import Packed, read_bundle
from rung.serving.exports.export import ExportSource, ParityAsk, answer_text
from rung.types import Document, Message, MetricInfo, Query, RetrieverSpec

if TYPE_CHECKING:
    from rung.serving.bundle import Bundle

PARITY = "parity.jsonl"
"""File of a bundle: dev examples with the answers that were recorded."""


@dataclass(frozen=True)
class RecordedAnswer:
    """A dev example and the bundle's answer to it. passages: ids of those of its prompt, best first; None: not known.
    text: None where it is still to be answered."""

    query: Query
    references: tuple[str, ...]
    text: str | None
    score: float | None = None
    passages: tuple[str, ...] | None = None


def read_source(
    folder: Path,
    *,
    solution: str | None = None,
    rows: int = 50,
    parity: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ExportSource:
    """A bundle or run folder as a source of exports.

    rows: so many inputs for the parity test, 0 for none. parity: a file of inputs, in the form of parity.jsonl or with
    `input` alone; by default the bundle's own parity.jsonl, or the run's answers to dev. What has no recorded answer is
    answered by the bundle now. Raises RunError, ExportError or what opening the model raises.
    """
    packed = read_bundle(folder, solution=solution)
    metric = _metric_of(folder, packed)
    if rows == 0:
        return ExportSource(packed, folder, metric=metric, say=say)
    if parity is not None:
        recorded, reference = _of_file(parity), "recorded in the file"
    else:
        recorded, reference = _of_file(packed.place / PARITY) or _of_run(packed), "recorded on dev"
    if not recorded:
        return ExportSource(packed, folder, metric=metric, say=say)
    recorded = _spread(recorded, rows)
    asking = _Asking(packed, say)
    if any(r.text is None for r in recorded):
        recorded, reference = asking.answered(recorded), "given by the bundle now"
    again = None if _is_endpoint(packed.model) else asking.answered_exactly
    return ExportSource(packed, folder, asking.asks(recorded), reference, metric, again, say)


class _Asking:
    """Renders prompts as the bundle does. Its model is loaded only where prompts or answers need one."""

    def __init__(self, packed: Packed, say: Callable[[str], None]) -> None:
        self._packed = packed
        self._say = say

    @cached_property
    def _bundle(self) -> Bundle:
        from rung.models import open_model

        return self._packed.opened(open_model(self._packed.model, say=self._say))

    def answered(self, recorded: Sequence[RecordedAnswer]) -> list[RecordedAnswer]:
        """With the answers that the bundle gives now, where none is recorded."""
        self._say(f"no answers are recorded: the bundle answers {len(recorded)} inputs now …")
        predictions = self._bundle.answer([r.query for r in recorded])
        return [
            RecordedAnswer(r.query, r.references, p.text, None, p.passages)
            for r, p in zip(recorded, predictions, strict=True)
            if came(p.error)
        ]

    def answered_exactly(self, asks: Sequence[ParityAsk]) -> list[ParityAsk]:
        """The asks with the answers that the bundle gives in float32, where rounding decides next to nothing."""
        import torch

        from rung.models.loading import load_model
        from rung.solutions.answer import without_marks

        self._say(f"the bundle answers {len(asks)} inputs anew, in float32 …")
        model = load_model(self._packed.model, dtype=torch.float32, say=self._say)
        generations = model.generate([ask.request for ask in asks])
        solution = self._packed.solution
        return [
            replace(ask, text=without_marks(solution, answer_text(solution, g.text), ask.passages).text, score=None)
            for ask, g in zip(asks, generations, strict=True)
        ]

    def asks(self, recorded: Sequence[RecordedAnswer]) -> list[ParityAsk]:
        from rung.solutions.demos import select_demos
        from rung.solutions.prompt_rendering import render
        from rung.types import Request

        solution, queries = self._packed.solution, [r.query for r in recorded]
        passages = self._passages(recorded)
        return [
            ParityAsk(
                r.query,
                Request(
                    render(solution, r.query, demos=demos, passages=shown),
                    solution.decoding,
                    solution.constraint,
                    solution.adapter,
                ),
                shown,
                r.text or "",
                r.score,
                r.references,
            )
            for r, demos, shown in zip(recorded, select_demos(solution, queries), passages, strict=True)
        ]

    def _passages(self, recorded: Sequence[RecordedAnswer]) -> list[tuple[Document, ...]]:
        """Those that were recorded, cut as they were; else those that the search finds now."""
        from rung.retrieval.passages import by_id
        from rung.solutions.answer import asked_for
        from rung.solutions.prompt_rendering import within_budget
        from rung.solutions.store import load_passages

        spec = self._packed.solution.retriever
        if spec is None:
            return [()] * len(recorded)
        if any(r.passages is None for r in recorded):
            bundle = self._bundle
            _, shown = asked_for(bundle.solution, bundle.model, [r.query for r in recorded], retriever=bundle.retriever)
            return [found.passages for found in shown]
        known = by_id(load_passages(self._packed.place))
        count = self._counter(spec)
        return [within_budget(spec, [known[i] for i in r.passages or () if i in known], count) for r in recorded]

    def _counter(self, spec: RetrieverSpec) -> Callable[[str], int]:
        """How the model counts tokens; without loading it where its tokenizer is one file."""
        from rung.models.four_bit import split_spec
        from rung.models.token_counter import counter_of

        found = counter_of(split_spec(self._packed.model)[0])
        return found[0] if found is not None else self._bundle.model.count_tokens


def _is_endpoint(model: str) -> bool:
    return model.lstrip().startswith(("{", "http://", "https://"))


def _of_file(path: Path) -> list[RecordedAnswer]:
    """Rows in the form of parity.jsonl; none where there is no such file. Raises ExportError for others."""
    if not path.is_file():
        return []
    try:
        return [_row(number, record) for number, record in enumerate(read_lines(path), 1)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fact = f"{type(error).__name__}: {error}"
        raise ExportError(
            f"{path}: a row cannot be read ({fact}). Each line is a JSON object with at least input."
        ) from None


def _row(number: int, record: dict[str, Any]) -> RecordedAnswer:
    turns = tuple(Message(t["role"], t["content"]) for t in record.get("turns") or ())
    query = Query(
        str(record.get("id") or number), record["input"], record.get("context"), record.get("instruction"), turns
    )
    passages = record.get("passages")
    return RecordedAnswer(
        query,
        tuple(record.get("references") or ([record["output"]] if record.get("output") else ())),
        record.get("text"),
        record.get("score"),
        None if passages is None else tuple(p if isinstance(p, str) else p["id"] for p in passages),
    )


def _of_run(packed: Packed) -> list[RecordedAnswer]:
    """The answers to dev of a solution in a run folder, where its examples are still where they were."""
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task
    from rung.errors import RungError
    from rung.trials.trial import read_predictions

    name = packed.solution.name
    run = next((p for p in packed.place.resolve().parents if (p / "task.json").is_file()), None)
    task = read_json(run / "task.json") if run is not None else None
    if run is None or task is None:
        return []
    folder = packed.place if packed.place.parent.name == "solutions" else run / "solutions" / name
    predictions = [p for p in read_predictions(folder / "predictions.dev.jsonl") if came(p.error)]
    if not predictions:
        return []
    try:
        examples = {e.id: e for e in read_examples(read_task(Path(task["path"])))}
    except (RungError, OSError):
        return []
    retrieves = packed.solution.retriever is not None
    return [
        RecordedAnswer(e.query, e.references, p.text, p.score, p.passages if retrieves else ())
        for p in predictions
        if (e := examples.get(p.id)) is not None
    ]


def _metric_of(folder: Path, packed: Packed) -> MetricInfo | None:
    """The task's metric, as far as it can be loaded from what is noted of it; a judge's is not."""
    from rung.evaluation.metrics import load_metric

    run = next((p for p in (folder, *packed.place.resolve().parents) if (p / "task.json").is_file()), None)
    task = {**((read_json(run / "task.json") if run is not None else None) or {}), **packed.note}
    name = task.get("metric")
    if not isinstance(name, str) or name == "judge":
        return None
    try:
        return load_metric(
            name,
            Path(task.get("path") or folder).parent,
            whitespace=task.get("whitespace") or "folded",
            unordered=bool(task.get("unordered")),
            tolerance=task.get("tolerance"),
        )
    except MetricError:
        return None


def _spread(rows: Sequence[RecordedAnswer], most: int) -> list[RecordedAnswer]:
    """At most so many rows, evenly spread, so that those of files that are sorted differ."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]
