"""What is compared: the inputs that a bundle or run was tested on, and a file of requests.

Of a run, these are the rows of train and dev as far as they are what they were; of a bundle by itself, the dev rows
that it holds. Rows of the sealed test are never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung.data.rows import Row
from rung.data.shapes.values import listed
from rung.errors import DataError, RunError, RungError
from rung.records import read_json
from rung.resume import record_of
from rung.serving.names import plain_name
from rung.types import Example, Query, Task

Say = Callable[[str], None]
ANY_MODEL = "*"
"""In the place of a served name: requests to every model count."""
_SHOWN = 5  # names in a message
_ASKED = {name: name for name in ("input", "instruction", "context", "turns", "id")}


@dataclass(frozen=True)
class KnownInputs:
    """inputs: each once. answers: what the solution answered to some of them, as recorded on dev. labels: the closed
    set of answers, where the task has one. task: its file, where it is still there. name: by which it is served."""

    inputs: tuple[Query, ...]
    answers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    task: Task | None = None
    name: str = ""


@dataclass(frozen=True)
class RequestFile:
    """inputs: of the rows that can be read. answers: to them, where they were asked for. unreadable: what is wrong with
    the other rows, with the row. others: model -> rows that asked it, and are left out."""

    inputs: tuple[Query, ...]
    answers: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)


def known_inputs(folder: Path) -> KnownInputs:
    """folder: a run, or a bundle. Raises RunError where it holds no input that it was tested on, or changed files."""
    from rung.bundles.recorded import read_recorded
    from rung.serving.bundle import check_folder, checked_note

    check_folder(folder)
    place, run = folder, record_of(folder / "task.json")
    if run and (folder / "split.json").is_file():
        found = _of_run(folder, run)
        if found.inputs:
            return found
        place = folder / "winner"
    note = checked_note(place) or {}
    recorded = read_recorded(place)
    if not recorded and run:
        raise RunError(
            f"{folder}: the data of this run ({run.get('path', 'its task')}) are gone, or are not what they were, and "
            "its winner holds no inputs (parity.jsonl), so nothing can be compared. Put the data back, or run again."
        )
    if not recorded:
        raise RunError(
            f"{folder}: holds no inputs that it was tested on (parity.jsonl), so nothing can be compared. Name the "
            "run folder that it comes from, or write the bundle anew: rung bundle RUN --out DIR."
        )
    answers = tuple(a.text for a in recorded if a.error is None)
    name = plain_name(str(note.get("task") or place.resolve().name))
    return KnownInputs(tuple(a.query for a in recorded), answers, _labels(place), name=name)


class _ToModel:
    """Takes the rows that name this model or none, and counts the others by theirs.

    named: the model; empty takes every row. task: where "model" is a column of its inputs, it says no model that was
    asked, and every row is taken.
    """

    def __init__(self, named: str, task: Task | None) -> None:
        columns = [] if task is None else [c for several in task.fields.values() for c in listed(several)]
        self.named = "" if named == ANY_MODEL or "model" in columns else named
        self.others: Counter[str] = Counter()

    def __call__(self, row: Row) -> bool:
        model = row.values.get("model")
        if not self.named or not isinstance(model, str) or not model.strip() or model == self.named:
            return True
        self.others[model] += 1
        return False


def read_requests(
    path: Path, tested: KnownInputs, *, answers: bool, model: str | None = None, say: Say = lambda _: None
) -> RequestFile:
    """The requests of a file in any format and shape that `unlabelled:` reads. answers: read the answers, too.

    model: rows with a `model` count where it is this one; None: where it is the name that `tested` is served by.
    Raises DataError for a file that cannot be read, or none of whose rows can, or asked this model.
    """
    from rung.data.rows import Problem

    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Name a file of requests.")
    problems: list[Problem] = []
    takes = _ToModel(model or tested.name, tested.task)
    if answers:
        examples = _answered(path, tested.task, problems, takes)
        inputs, said = tuple(e.query for e in examples), tuple(e.output for e in examples)
    else:
        inputs, said = tuple(_asked(path, tested.task, problems, say, takes)), ()
    told = tuple(f"{p.where}: {p.text}" for p in problems)
    if not inputs and takes.others:
        asked = ", ".join(f"{name[:80]} ({n:,})" for name, n in takes.others.most_common(_SHOWN))
        raise DataError(
            f"{path}: no request asked the model {takes.named}; its rows name {asked}. Name the one that this bundle "
            "was served by: --model NAME. Where that column is something else, --model '*' counts every row."
        )
    if not inputs:
        more = f" The first: {told[0]}." if told else ""
        raise DataError(f"{path}: no request can be read.{more} Put each into a row with its text as input.")
    return RequestFile(inputs, said, told, dict(takes.others.most_common()))


def _of_run(folder: Path, run: dict[str, Any]) -> KnownInputs:
    """What a run was tested on and learnt from; nothing where its data are no longer what they were."""
    from rung.data.examples import read_sets
    from rung.data.split import row_digest
    from rung.data.task_file import read_task

    split = record_of(folder / "split.json")
    digests = split.get("row_digests")
    try:
        task = read_task(Path(run["path"]))
        sets = read_sets(task) if digests is not None or _same_files(task, run["data"]) else {}
    except (RungError, KeyError, OSError):
        return KnownInputs(())
    # train is drawn as dev is only where rung made the split, and chose nothing of it
    alike = None in sets and task.train_size is None
    ids = {i for name in (("train", "dev") if alike else ("dev",)) for i in split.get("sets", {}).get(name, ())}
    rows: Sequence[Example] = [e for part in sets.values() for e in part if e.id in ids]
    inputs = tuple(e.query for e in rows if digests is None or row_digest(e) == digests.get(e.id))
    return KnownInputs(inputs, _answers_on_dev(folder), tuple(task.labels or ()), task, plain_name(task.name))


def _same_files(task: Task, hashes: Mapping[str, str]) -> bool:
    """Whether the files of examples are those of the run; an older version kept no digests of rows."""
    from rung.models.identity import file_sha256

    return {file_sha256(path) for path in task.example_files} <= set(hashes.values())


def _answers_on_dev(folder: Path) -> tuple[str, ...]:
    """Of the solution that the run ships."""
    from rung.bundles.packing import answers_to_dev

    name = record_of(folder / "decision.json").get("solution")
    if not name:
        return ()
    return tuple(p.text for p in answers_to_dev(folder, name) if p.error is None)


def _labels(folder: Path) -> tuple[str, ...]:
    """The labels that a bundle's answers are held to; none where they are held to something else, or to nothing."""
    constraint = (read_json(folder / "solution.json") or {}).get("constraint") or {}
    return tuple(constraint["value"]) if constraint.get("kind") == "labels" else ()


def _asked(path: Path, task: Task | None, problems: list[Any], say: Say, takes: _ToModel) -> Sequence[Query]:
    from rung.data.beside.asking import AskedColumns, asked_in_examples
    from rung.data.beside.unlabelled import HowAsked, read_asked

    how = HowAsked(AskedColumns(_ASKED, same=False, talks=False), {}, "")
    if task is not None:
        how = HowAsked(asked_in_examples(task), task.fields, task.instruction)
    return read_asked(path, path.name, how, problems, say, takes)


def _answered(path: Path, task: Task | None, problems: list[Any], takes: _ToModel) -> Sequence[Example]:
    from rung.data.formats import read_table
    from rung.data.rows import Problem
    from rung.data.shapes import flat, recognise
    from rung.data.shapes.reading import RowReader
    from rung.text import visible

    table = read_table(path)
    problems += table.problems
    reading = recognise(table, task.fields if task else {}, task.shape if task else None)
    same = reading.instruction is not None
    read = RowReader(reading.fields, reading.answers(empty=True), "", visible(task.instruction) if task else "", same)
    found = []
    for row in filter(takes, flat(table.taken())):
        try:
            found.append(read(row))
        except ValueError as error:
            problems.append(Problem(row.where, str(error)))
    return found
