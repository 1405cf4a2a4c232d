"""Files of examples -> Example values. Refuses what cannot be learnt from or scored.

Knows tasks, sets, ids, labels and empty answers; how rows become examples is in `shapes`. Does not judge whether
examples are good (`checks` does) and does not split them (`split` does).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.data.formats import read_table
from rung.data.metric_names import lists_are_json
from rung.data.rows import PROBLEMS_SHOWN, Problem, Row, parse_json, raise_problems
from rung.data.shapes import Labels, Recognised, flat, recognise
from rung.data.shapes.reading import Answers, EmptyAnswer, RowReader, WrongLabel
from rung.errors import DataError
from rung.text import visible
from rung.types import Example, Finding, SetName, Task

MIN_EXAMPLES = 12
"""Fewer cannot fill train, dev and test with anything a score could be computed from."""
FEW_EXAMPLES = 60
"""The least that can tell very different solutions apart."""
START_EXAMPLES = 150
"""What the README calls a start."""
"""With fewer, differences between solutions hardly show."""
FEW_EMPTY = 0.02
"""From this share of rows on, two at least, an empty answer may be meant; the message then says how to allow it."""

Sets = Mapping[SetName | None, tuple[Example, ...]]
"""Examples by the set their file was named for; the key None where rung makes the split."""


@dataclass(frozen=True)
class ReadExamples:
    """What the files of a task hold.

    sets: the rows that can be used. problems: the rows that cannot, in file order. findings: what was read otherwise
    than it was written. how: what was recognised in each file, a line each. beside: id -> the columns of a row that
    its example does not use, where they were asked for.
    """

    sets: Sets
    problems: tuple[Problem, ...] = ()
    findings: tuple[Finding, ...] = ()
    how: tuple[str, ...] = ()
    beside: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def read_examples(task: Task) -> tuple[Example, ...]:
    """All examples of a task, in file order (train, dev, test where the user made the split)."""
    return tuple(example for examples in read_sets(task).values() for example in examples)


def read_sets(task: Task) -> Sets:
    """All examples of a task, by set: {None: …} for plain files, or {"train": …, "dev": …, "test": …}.

    Raises DataError with file, row and column: for a file that cannot be read, rows of no shape or of two, a missing
    column, empty or NaN inputs and outputs, ids that stand twice in one file, labels that task.yaml does not declare,
    or fewer than 12 examples. Up to ten bad rows are in one message.
    """
    found = read_data(task)
    raise_problems(found.problems)
    return found.sets


def read_data(task: Task, *, beside: bool = False, least: int = MIN_EXAMPLES) -> ReadExamples:
    """As `read_sets`, with what was recognised; bad rows are in `problems` as long as 12 good ones are left.

    beside: keep the columns that the examples do not use, too. least: another number than 12, for rows that are only
    answered.
    """
    by_set: dict[SetName | None, tuple[Path, ...]]
    by_set = dict(task.examples.items()) if isinstance(task.examples, Mapping) else {None: task.examples}
    paths = [path for several in by_set.values() for path in several]
    called, prefixes = names_of(paths), _id_prefixes(paths)
    labels = Labels(task.labels) if task.labels else None
    files: dict[SetName | None, list[_File]] = {}
    for name, several in by_set.items():
        files[name] = [_read_file(path, called[path], prefixes[path], task, labels, beside) for path in several]
        if name is not None:
            _refuse_hidden_answers(name, files[name])
    everything = [file for read in files.values() for file in read]
    problems = _allow_empty([p for file in everything for p in file.problems], everything, task)
    total = sum(len(file.examples) for file in everything)
    if total < least:
        raise_problems(problems)
        raise DataError(
            f"{', '.join(called.values())}: only {total} example{'s' if total != 1 else ''}; at least {MIN_EXAMPLES} "
            f"are needed to fill train, dev and test, and {FEW_EXAMPLES} or more to tell solutions apart. Add examples."
        )
    _make_ids_unique(everything)
    return ReadExamples(
        {name: tuple(e for file in read for e in file.examples) for name, read in files.items()},
        tuple(problems),
        tuple(finding for file in everything for finding in file.findings),
        tuple(line for file in everything for line in file.how),
        {e.id: own for file in everything for e, own in zip(file.examples, file.beside, strict=False)},
    )


@dataclass
class _File:
    """What one file held. name: what messages call it. ids: those that rows bring.

    empty: its rows without an answer, which are among `problems`. beside: the columns that are not used, of each
    example, where they were asked for.
    """

    name: str
    prefix: str
    examples: list[Example] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    empty: list[Problem] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    findings: tuple[Finding, ...] = ()
    how: tuple[str, ...] = ()
    beside: list[Mapping[str, object]] = field(default_factory=list)


def _read_file(path: Path, name: str, prefix: str, task: Task, labels: Labels | None, beside: bool) -> _File:
    """The rows of one file, which messages call `name`."""
    table = read_table(path)
    table.call(name)
    file = _File(name, prefix, problems=list(table.problems))
    if not table.rows:
        return file
    _refuse_written(name, table.rows)
    reading = recognise(table, task.fields, task.shape)
    same = reading.instruction is not None
    read = RowReader(reading.fields, _answers(name, reading, task, labels), prefix, visible(task.instruction), same)
    file.how = tuple(f"{file.name}: {line}" for line in (*table.how, *_told(reading, task)))
    first_with: dict[str, str] = {}
    for row in flat(table.taken()):
        example = _example(row, read, file, task, labels)
        if example is None:
            continue
        if example.id in first_with:
            twin = first_with[example.id]
            fact = f'the id "{example.id[:60]}" is that of {twin} already'
            text = f"{fact}; make ids unique, or write id: null under fields:"
            file.problems.append(Problem(row.where, text))
            continue
        first_with[example.id] = row.where
        if example.id != f"{prefix}{row.key}":
            file.ids.add(example.id)
        file.examples.append(example)
        if beside:
            file.beside.append({name: value for name, value in row.values.items() if name not in reading.used})
    if table.problems:
        file.problems.sort(key=_line)
    file.findings = tuple(_findings(read, file.name))
    return file


def _example(row: Row, read: RowReader, file: _File, task: Task, labels: Labels | None) -> Example | None:
    """The row's example, or None for a bad row, which then is among the file's problems."""
    try:
        example = read(row)
        if task.metric == "json_match" and not (task.empty_answers and not example.output):
            _check_json(example)
        return example
    except EmptyAnswer as e:
        file.empty.append(Problem(row.where, str(e)))
        file.problems.append(file.empty[-1])
    except WrongLabel as e:
        assert labels is not None
        # To look for the nearest label takes long, and only the first problems are spelt out.
        text = labels.unknown(e.answer, guess=len(file.problems) < PROBLEMS_SHOWN)
        file.problems.append(Problem(row.where, text))
    except ValueError as e:
        file.problems.append(Problem(row.where, str(e)))
    return None


def _answers(file: str, reading: Recognised, task: Task, labels: Labels | None) -> Answers:
    """How the answers are read. Raises DataError where lists may be labels as well as accepted answers."""
    is_json = lists_are_json(task)
    one_each = isinstance(reading.fields.get("output"), tuple)
    if reading.lists and reading.several and not (task.multi_label or is_json or one_each):
        column = reading.fields["output"]
        names = ", ".join(reading.several.labels[:5])
        raise DataError(
            f'{file}: the column "{column}" holds lists, which can be read in two ways. Write in task.yaml '
            f"multi_label: true where all of a list apply ({names}, …), or fields: {{references: {column}}} where any "
            "one of a list is a right answer."
        )
    return Answers(
        labels=labels,
        several=task.multi_label or one_each,
        separator=reading.several.separator if reading.several else None,
        lists_are_json=is_json or reading.sequences,
        empty=task.empty_answers,
        whole=reading.whole,
        missing_is_none=labels is None and task.metric == "label_accuracy",
    )


def _told(reading: Recognised, task: Task) -> tuple[str, ...]:
    """What was recognised, unless the columns have the standard names or the task names them."""
    plain = {"input": "input", "output": "output"}
    if reading.fields.items() >= {**plain, **task.fields}.items() or not reading.why:
        return ()
    unused = [c for c in reading.columns if c not in reading.used]
    left = f"; not read: {', '.join(unused[:10])}{', …' if len(unused) > 10 else ''}" if unused else ""
    return (f"shape {reading.shape}: {reading.why}{left}",)


def _findings(read: RowReader, file: str) -> list[Finding]:
    """What the rows say otherwise than their examples."""
    found = []
    if read.left_out:
        message = f"{file}: {_rows(read.left_out)} with turns after the last answer; these turns are left out."
        found.append(Finding("turns_left_out", "note", "", message))
    if read.missing_groups:
        message = f'{file}: {_rows(read.missing_groups)} with a group such as "nan" or "NULL", read as without a group.'
        found.append(Finding("missing_group", "note", "", message))
    for label, count in read.respelt.items():
        message = f'{file}: {_rows(count)} with the label "{label}" in another spelling, read as this label.'
        found.append(Finding("label_respelt", "note", "", message))
    return found


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def _refuse_written(name: str, rows: Sequence[Row]) -> None:
    """Raises DataError for rows of `rung synth` or `rung review`: a glob may name their file, and examples judge."""
    for row in rows:
        origin = row.values.get("origin")
        if (isinstance(origin, Mapping) and "votes" in origin) or {"review", "kind", "votes"} <= row.values.keys():
            raise DataError(
                f"{name}: holds rows that a model wrote ({row.where}), and examples fill dev and the test. Name the "
                "JSONL file under synthetic: in task.yaml, and keep its rows out of examples:."
            )


def _refuse_hidden_answers(name: SetName, files: Sequence[_File]) -> None:
    """Raises DataError for a set in which no row has an answer, as public benchmarks hide those of their test."""
    empty = sum(len(file.empty) for file in files)
    if not empty or any(file.examples for file in files) or empty < sum(len(file.problems) for file in files):
        return
    names = ", ".join(file.name for file in files)
    way_out = {
        "train": "Bring rows with answers.",
        "dev": "Bring its answers, or delete dev: and rung takes one from train.",
        "test": "Bring its answers, or name one file with answers (examples: train.jsonl) and rung makes the split.",
    }[name]
    raise DataError(f"{names}: none of the {_rows(empty)} of {name} has an answer, so nothing can be scored. {way_out}")


def _allow_empty(problems: list[Problem], files: Sequence[_File], task: Task) -> list[Problem]:
    """The problems; the first about an empty answer names the way out, where so many are empty that it may be meant."""
    empty = {id(p) for file in files for p in file.empty}
    total = sum(len(file.examples) + len(file.problems) for file in files)
    if len(empty) < 2 or len(empty) < FEW_EMPTY * total:
        return problems
    hint = "; where nothing is the right answer, write empty: allowed in task.yaml"
    if task.labels:
        hint = "; where no label applies, write a label for it, such as none, or empty: allowed instead of labels:"
    first = next(p for p in problems if id(p) in empty)
    return [replace(p, text=p.text + hint) if p is first else p for p in problems]


def _make_ids_unique(files: Sequence[_File]) -> None:
    """Where an id stands in two files, every id that a row brings gets the name of its file before it.

    Raises DataError where two rows have one id even so.
    """
    if len(files) == 1 or not any(file.ids for file in files) or _id_twice(files) is None:
        return
    for file in files:
        own, prefix = file.ids, file.prefix
        file.examples = [replace(e, id=prefix + e.id) if e.id in own else e for e in file.examples]
    if (twin := _id_twice(files)) is not None:
        raise DataError(
            f'{twin.row}: the id "{twin.id[:60]}" is that of another row, too. Make ids unique, or write in task.yaml '
            "id: null under fields:."
        )


def _id_twice(files: Sequence[_File]) -> Example | None:
    """The first example with the id of one before it."""
    seen: set[str] = set()
    for file in files:
        for example in file.examples:
            if example.id in seen:
                return example
            seen.add(example.id)
    return None


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """What messages call files: by their names, those of one name with the folders before it that tell them apart."""
    names = {path: path.name for path in paths}
    folders = 0
    while len(counts := Counter(names.values())) < len(names):
        folders += 1
        names = {p: "/".join(p.parts[-folders - 1 :]) if counts[n] > 1 else n for p, n in names.items()}
    return names


def _id_prefixes(paths: Sequence[Path]) -> dict[Path, str]:
    """What stands before "line-7" in the id of a row without one: nothing for one file, else the file's name."""
    if len(paths) == 1:
        return {paths[0]: ""}
    for names in ([p.stem for p in paths], [p.name for p in paths]):
        if len(set(names)) == len(paths):
            return {path: f"{name}:" for path, name in zip(paths, names, strict=True)}
    return {path: f"{i}:{path.name}:" for i, path in enumerate(paths, 1)}


def _line(problem: Problem) -> tuple[int, ...]:
    """The numbers at the end of a place: (3, 12) of "examples.json, item 3.12"."""
    found = re.search(r"[\d.]+$", problem.where)
    return tuple(int(n) for n in found[0].split(".") if n) if found else ()


def _check_json(example: Example) -> None:
    for answer in example.references:
        try:
            parse_json(answer)
        except ValueError as e:
            raise ValueError(f"the metric is json_match, but the answer is {e}; correct it") from e
