"""What is exported, read from a folder: a bundle or a run, and inputs with answers for the parity test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import DamagedRecord, ExportError, MetricError, RungError, came
from rung.models.places import is_endpoint
from rung.records import object_of
from rung.resume import record_of
from rung.runs import Files, run_of
from rung.serving.bundle import Packed, read_bundle
from rung.serving.exports.export import ExportSource, ParityAsk, answer_text
from rung.types import Document, Message, MetricInfo, Query, RetrieverSpec

if TYPE_CHECKING:
    from rung.serving.bundle import Bundle


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read. solution, base: as for `read_bundle`. rows: so many inputs for the parity test, 0 for none.
    parity: a file of inputs, in the form of a bundle's parity.jsonl or with `input` alone; None: the bundle's own, or
    the run's answers to dev. trusted: code of the bundle, its metric, may run."""

    solution: str | None = None
    base: str | None = None
    rows: int = 50
    parity: Path | None = None
    trusted: bool = False


@dataclass(frozen=True)
class _Row:
    """An input, and the bundle's answer; text None: still to be given. passages: ids, best first; None: not known."""

    query: Query
    references: tuple[str, ...]
    text: str | None
    score: float | None = None
    passages: tuple[str, ...] | None = None


def read_source(
    folder: Path, options: SourceOptions | None = None, *, say: Callable[[str], None] = lambda _: None
) -> ExportSource:
    """A bundle or run folder as a source of exports. What has no recorded answer is answered by the bundle now.

    Raises RunError, ExportError or what opening the model raises.
    """
    options = options or SourceOptions()
    packed = read_bundle(folder, solution=options.solution, base=options.base)
    metric = _metric_of(packed, options.trusted, say)
    if options.rows == 0:
        return ExportSource(packed, folder, metric=metric, say=say)
    if options.parity is not None:
        rows, reference = _of_file(options.parity), f"recorded in {options.parity.name}"
    else:
        rows, reference = _of_bundle(packed) or _of_run(packed), "recorded on dev"
    if not rows:
        return ExportSource(packed, folder, metric=metric, say=say)
    rows = _spread(rows, options.rows)
    asking = _Asking(packed, say)
    if any(row.text is None for row in rows):
        rows, reference = asking.answered(rows), "given by the bundle now"
    again = None if is_endpoint(packed.model) else asking.answered_exactly
    return ExportSource(packed, folder, asking.asks(rows), reference, metric, again, say)


class _Asking:
    """Renders prompts as the bundle does. Its model is loaded only where prompts or answers need one."""

    def __init__(self, packed: Packed, say: Callable[[str], None]) -> None:
        self._packed = packed
        self._say = say

    @cached_property
    def _bundle(self) -> Bundle:
        from rung.models import open_model

        return self._packed.opened(open_model(self._packed.model, say=self._say))

    def answered(self, recorded: Sequence[_Row]) -> list[_Row]:
        """With the answers that the bundle gives now, where none is recorded."""
        self._say(f"no answers are recorded: the bundle answers {len(recorded)} inputs now …")
        predictions = self._bundle.answer([r.query for r in recorded])
        return [
            _Row(r.query, r.references, p.text, None, p.passages)
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

    def asks(self, recorded: Sequence[_Row]) -> list[ParityAsk]:
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

    def _passages(self, recorded: Sequence[_Row]) -> list[tuple[Document, ...]]:
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


def _of_bundle(packed: Packed) -> list[_Row]:
    retrieves = packed.solution.retriever is not None
    return [
        _Row(r.query, r.example.references, r.text, r.score, r.passages if retrieves else ())
        for r in packed.recorded
        if came(r.error)
    ]


def _of_file(path: Path) -> list[_Row]:
    """Rows in the form of parity.jsonl, or with `input` alone. Raises ExportError for others."""
    form = "Each line is a JSON object with at least input."
    try:
        lines = enumerate(path.read_bytes().splitlines(), 1)  # the last one may have no end
        rows = [_row(number, object_of(line, path, f"line {number}: ")) for number, line in lines if line.strip()]
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}). {form}") from None
    except DamagedRecord as error:  # the file is the user's
        raise ExportError(f"{path}: a row cannot be read ({error.fact.split(';')[0]}). {form}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{path}: a row cannot be read ({type(error).__name__}: {error}). {form}") from None
    if not rows:
        raise ExportError(f"{path}: there are no rows in it. Each line is a JSON object with at least input.")
    return rows


def _row(number: int, record: dict[str, Any]) -> _Row:
    turns = tuple(Message(t["role"], t["content"]) for t in record.get("turns") or ())
    id_ = str(record.get("id") or number)
    query = Query(id_, record["input"], record.get("context"), record.get("instruction"), turns)
    references = tuple(record.get("references") or ([record["output"]] if record.get("output") else ()))
    passages = record.get("passages")
    return _Row(
        query, references, record.get("text"), record.get("score"), None if passages is None else tuple(passages)
    )


def _of_run(packed: Packed) -> list[_Row]:
    """The answers to dev of a solution in a run folder, where its examples are still where they were."""
    from rung.bundles.packing import answers_to_dev
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task

    run, task = _run_of(packed)
    if run is None:
        return []
    name = packed.place.name if packed.place.parent.name == "solutions" else packed.solution.name
    predictions = [p for p in answers_to_dev(run, name) if came(p.error)]
    if not predictions:
        return []
    try:
        examples = {e.id: e for e in read_examples(read_task(Path(task["path"])))}
    except (RungError, OSError):
        return []
    retrieves = packed.solution.retriever is not None
    return [
        _Row(e.query, e.references, p.text, p.score, p.passages if retrieves else ())
        for p in predictions
        if (e := examples.get(p.id)) is not None
    ]


def _run_of(packed: Packed) -> tuple[Path | None, dict[str, Any]]:
    """The run folder that the solution lies in, and its task.json; None where it lies in none."""
    run = run_of(packed.solution.name, packed.place)
    return run, record_of(Files(run).task) if run is not None else {}


def _metric_of(packed: Packed, trusted: bool, say: Callable[[str], None]) -> MetricInfo | None:
    """The task's metric, or what stands in for a judge in a bundle; None where it is not known, or code that may not
    run, which `say` tells."""
    from rung.bundles.scoring import load_scoring
    from rung.evaluation.metrics import metric_for

    note = packed.note.get("metric")
    try:
        if isinstance(note, dict):
            return load_scoring(packed.place, note, trusted=trusted)
        run, task = _run_of(packed)
        if run is None or task.get("metric") in (None, "judge"):
            return None
        if str(task["metric"]).startswith("python:") and not trusted:
            raise MetricError("the run's metric is code, which runs with --trust-code alone.")
        from rung.data.task_file import read_task

        return metric_for(read_task(Path(task["path"])), str(task["metric"]))
    except (RungError, OSError) as error:
        say(f"no score: {error}")
        return None


def _spread(rows: Sequence[_Row], most: int) -> list[_Row]:
    """At most so many rows, evenly spread, so that those of files that are sorted differ."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]
