"""The rows that a run's solution learnt from, rendered as they were for training. Of a solution that was not trained:
the run's train examples behind its instruction.

Reads the run folder and the files of its task. Dev and the test are known here by their ids and digests alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rung.errors import ExportError
from rung.records import read_lines
from rung.resume import record_of
from rung.runs import Files, run_of
from rung.serving.exports.export import ExportSource
from rung.types import Example, Solution, Split, Task, TrainingRow

if TYPE_CHECKING:
    from rung.retrieval.library import Library

_WORDS_A_TOKEN = 0.75  # where no tokenizer counts


@dataclass(frozen=True)
class TrainRows:
    """ids: of the examples, in the order of the rows. taught: so many of the rows a model wrote or answered. left_out:
    train examples that dev or the test holds as well. count: tokens of a text. counted_by: whose tokens they are."""

    ids: tuple[str, ...]
    rows: tuple[TrainingRow, ...]
    taught: int
    left_out: int
    count: Callable[[str], int]
    counted_by: str
    forbidden: frozenset[str]
    digests: tuple[str, ...]


def train_rows(source: ExportSource) -> TrainRows:
    """The rows of the solution that is exported.

    Raises ExportError for a bundle without its run, and where the task's files are no longer those of the run.
    """
    from rung.data.near_duplicates import content_digest

    run = run_of(source.packed.solution.name, source.given, source.packed.place)
    if run is None:
        raise ExportError(
            f"{source.given}: a bundle holds no train examples. Name the run that it is from: rung export runs/NAME "
            "--to …."
        )
    task, examples, split = _read(run)
    taught = _taught(run / "solutions" / source.packed.solution.name, task, examples, split)
    forbidden = frozenset((*split.test_digests.values(), *(content_digest(e) for e in split.dev)))
    found = [(e, content_digest(e)) for e in (*split.train, *taught)]
    kept = [(e, digest) for e, digest in found if digest not in forbidden]
    count, counted_by = _counter(source)
    rows = _rendered(source, task, split, [e for e, _ in kept], count)
    known = {e.id for e in split.train}
    return TrainRows(
        ids=tuple(e.id for e, _ in kept),
        rows=tuple(rows),
        taught=sum(e.id not in known for e, _ in kept),
        left_out=len(found) - len(kept),
        count=count,
        counted_by=counted_by,
        forbidden=forbidden,
        digests=tuple(digest for _, digest in kept),
    )


def _read(run: Path) -> tuple[Task, Sequence[Example], Split]:
    """The task, its examples and the run's split of them."""
    from rung.data.examples import read_data
    from rung.data.split import row_digest, split_from_record
    from rung.data.task_file import read_task

    record, split_record = record_of(Files(run).task), record_of(Files(run).split)
    place = Path(str(record.get("path")))
    if not place.is_file():
        raise ExportError(
            f"{run}: its task {place} is no longer there, and the train examples are in the files that it names. Put "
            "it back."
        )
    task = read_task(place)
    sets = read_data(task).sets
    examples = [e for several in sets.values() for e in several]
    split = split_from_record(examples, split_record)
    recorded = split_record.get("row_digests") or {}
    if changed := [e.id for e in split.train if recorded.get(e.id, row_digest(e)) != row_digest(e)]:
        raise ExportError(
            f"{run}: {len(changed)} train examples have changed since the run, the first is {changed[0]!r}. Put the "
            "files back as they were, or run the task again."
        )
    return task, examples, split


def _taught(folder: Path, task: Task, examples: Sequence[Example], split: Split) -> list[Example]:
    """Rows that a model wrote, or answered, and that the solution learnt beside train."""
    from rung.data.beside.unlabelled import read_unlabelled
    from rung.data.fence import fence_of
    from rung.teaching.synthesis.rows import example_of

    if (folder / "synthetic.jsonl").is_file():
        return [example_of(record) for record in read_lines(folder / "synthetic.jsonl")]
    answered = list(read_lines(folder / "taught.jsonl"))
    if not answered:
        return []
    by_id = {q.id: q for q in read_unlabelled(task, fence_of(examples, split), lambda line: None)}
    if lost := [row["id"] for row in answered if row["id"] not in by_id]:
        raise ExportError(f"{folder}: {len(lost)} of the inputs that it learnt are gone, the first is {lost[0]!r}.")
    return [by_id[row["id"]].answered(str(row["output"]), row=row["id"]) for row in answered]


def _rendered(
    source: ExportSource, task: Task, split: Split, examples: Sequence[Example], count: Callable[[str], int]
) -> list[TrainingRow]:
    """Without demos where the solution was not trained: they are train examples themselves."""
    from rung.data.constraint import constraint_of
    from rung.strategies.training_rows import training_rows
    from rung.trials.workshop import Inputs, Limits, Tools, Workshop

    solution = source.packed.solution
    if solution.adapter is None:
        solution = replace(solution, demos=(), demo_selection=None)
    inputs = Inputs(task, split.train, (), constraint_of(task, split.train), _library(source, task, solution, count))
    tools = Tools(cast(Any, _Counting(count)), cast(Any, None), cast(Any, None))
    workshop = Workshop(inputs, tools, Limits(), source.given, solution.decoding)
    return training_rows(workshop, solution, examples)


def _library(source: ExportSource, task: Task, solution: Solution, count: Callable[[str], int]) -> Library:
    """The documents of the task, cut as they were. Raises ExportError where they are not those of the bundle."""
    from rung.cache import cache_folder
    from rung.data.corpus import files_of_task, read_documents
    from rung.retrieval.library import Library
    from rung.solutions.store import load_passages

    if solution.retriever is None or task.corpus is None:
        return Library()
    documents = read_documents(task.corpus, but=files_of_task(task)).documents
    library = Library(documents, count_tokens=count, folder=cache_folder() / "indexes")
    if [p.text for p in library.passages(solution.retriever)] != [p.text for p in load_passages(source.packed.place)]:
        raise ExportError(f"{task.corpus}: the documents have changed since the run. Run the task again.")
    return library


class _Counting:
    """What of a model is needed to render a prompt."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self.count_tokens = count


def _counter(source: ExportSource) -> tuple[Callable[[str], int], str]:
    from rung.models import text_counter

    found = text_counter(source.packed.model)
    if found is None:
        return lambda text: round(len(text.split()) / _WORDS_A_TOKEN), "estimated from words"
    return found[0], f"of {Path(source.packed.model).name}"
