"""Files of examples -> Example values. Refuses what cannot be learnt from or scored.

Knows columns, ids, labels and empty cells. Does not judge whether examples are good (`checks` does) and does
not split them (`split` does).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from rung.data.rows import (
    PROBLEMS_SHOWN,
    Problem,
    Row,
    Table,
    as_text,
    kind_of,
    nearest,
    parse_json,
    raise_problems,
    read_table,
)
from rung.errors import DataError
from rung.types import Example, SetName, Task

MIN_EXAMPLES = 12
"""Fewer cannot fill train, dev and test with anything a score could be computed from."""
FEW_EXAMPLES = 60
"""With fewer, differences between solutions hardly show."""

INPUT_NAMES = ("input", "question", "text", "message", "prompt", "query", "sentence", "utterance", "review", "content",
               "problem", "request", "source", "instruction")  # fmt: skip
OUTPUT_NAMES = ("output", "answer", "label", "intent", "category", "class", "target", "response", "completion",
                "expected", "reply", "solution", "summary", "sentiment", "result")  # fmt: skip

Sets = Mapping[SetName | None, tuple[Example, ...]]
"""Examples by the set their file was named for; the key None where rung makes the split."""


def read_examples(task: Task) -> tuple[Example, ...]:
    """All examples of a task, in file order (train, dev, test where the user made the split)."""
    return tuple(example for examples in read_sets(task).values() for example in examples)


def read_sets(task: Task) -> Sets:
    """All examples of a task, by set: {None: …} for plain files, or {"train": …, "dev": …, "test": …}.

    Raises DataError with file, row and column: for a file that cannot be read, a missing column, empty or NaN
    inputs and outputs, duplicate ids, labels that task.yaml does not declare, or fewer than 12 examples. Up to
    ten bad rows are in one message.
    """
    by_set: dict[SetName | None, tuple[Path, ...]]
    by_set = dict(task.examples.items()) if isinstance(task.examples, Mapping) else {None: task.examples}
    prefixes = _id_prefixes([path for paths in by_set.values() for path in paths])
    problems: list[Problem] = []
    sets: dict[SetName | None, tuple[Example, ...]] = {}
    first_with: dict[str, str] = {}
    for name, paths in by_set.items():
        found: list[Example] = []
        for path in paths:
            table = read_table(path)
            columns = _columns(table, task) if table.rows else {}
            found += _read(table, columns, prefixes[path], task, first_with, problems)
        sets[name] = tuple(found)
    raise_problems(problems)
    total = sum(map(len, sets.values()))
    if total < MIN_EXAMPLES:
        files = ", ".join(path.name for path in prefixes)
        raise DataError(
            f"{files}: only {total} example{'s' if total != 1 else ''}; at least {MIN_EXAMPLES} are needed to fill "
            f"train, dev and test, and {FEW_EXAMPLES} or more to tell solutions apart. Add examples."
        )
    return sets


def _id_prefixes(paths: Sequence[Path]) -> dict[Path, str]:
    """What stands before "line-7" in the id of a row without one: nothing for one file, else the file's name."""
    if len(paths) == 1:
        return {paths[0]: ""}
    for names in ([p.stem for p in paths], [p.name for p in paths]):
        if len(set(names)) == len(paths):
            return {path: f"{name}:" for path, name in zip(paths, names, strict=True)}
    return {path: f"{i}:{path.name}:" for i, path in enumerate(paths, 1)}


def _columns(table: Table, task: Task) -> dict[str, str]:
    """Field -> column, for the columns that are there. Raises DataError for one that is needed or named and absent."""
    found: dict[str, str] = {}
    for name in ("input", "output", "id", "group", "context", "gold_ids", "references"):
        column = task.fields.get(name, name)
        if column in table.columns:
            found[name] = column
        elif name in ("input", "output") or name in task.fields:
            others = [c for c in table.columns if c and c not in task.fields.values() and c not in ("id", "group")]
            known = {"input": INPUT_NAMES, "output": OUTPUT_NAMES}.get(name, ())
            folded = {c.casefold(): c for c in reversed(others)}
            guess = nearest(str(column), others) or next((folded[k] for k in known if k in folded), None)
            here = ", ".join(c[:60] or '""' for c in table.columns[:20]) or "none"
            has_header = table.path.suffix.lower() in (".csv", ".tsv")
            place = f"{table.path.name}, line 1" if has_header else table.rows[0].where
            raise DataError(
                f'{place}: no column "{column}"; columns are {here}. '
                f"Name it in task.yaml with fields: {{{name}: {guess or 'COLUMN'}}}."
            )
    return found


def _read(
    table: Table,
    columns: Mapping[str, str],
    prefix: str,
    task: Task,
    first_with: dict[str, str],
    problems: list[Problem],
) -> list[Example]:
    """The good rows of one table, which is empty afterwards; the bad ones go to `problems`.

    first_with: id -> the row that has it.
    """
    labels = frozenset(task.labels or ())
    bad = list(table.problems)
    examples: list[Example] = []
    wrong_labels = 0
    for row in table.taken():
        try:
            example = _example(row, columns, prefix)
            if wrong := next((a for a in example.references if labels and a not in labels), None):
                wrong_labels += 1
                # To look for the nearest label takes long, and only the first problems are spelt out.
                raise ValueError(_wrong_label(wrong, labels, guess=wrong_labels <= PROBLEMS_SHOWN))
            if task.metric == "json_match":
                _check_json(example)
        except ValueError as e:
            bad.append(Problem(row.where, str(e)))
            continue
        if example.id in first_with:
            twin = first_with[example.id]
            bad.append(Problem(row.where, f'the id "{example.id[:60]}" is that of {twin} already; make ids unique'))
            continue
        first_with[example.id] = row.where
        examples.append(example)
    if table.problems:
        bad.sort(key=lambda p: int(p.where.rsplit(" ", 1)[1]))
    problems += bad
    return examples


def _example(row: Row, columns: Mapping[str, str], prefix: str) -> Example:
    """Raises ValueError that says which column of the row is wrong, and how."""

    def cell(name: str) -> object:
        return row.values.get(columns[name]) if name in columns else None

    def needed(name: str) -> str:
        column = columns[name]
        if column not in row.values:
            raise ValueError(f'no "{column}"; add it or remove the row')
        value = row.values[column]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(f'"{column}" is null; give a value or remove the row')
        text = text_of(name)
        if not text.strip():
            raise ValueError(f'"{column}" is empty; fill it in or remove the row')
        return text

    def text_of(name: str) -> str:
        try:
            return as_text(cell(name))
        except ValueError as e:
            raise ValueError(f'"{columns[name]}" {e}') from e

    output = needed("output")
    references = _texts(cell("references"), columns.get("references", "references"))
    return Example(
        id=text_of("id").strip() or f"{prefix}{row.key}",
        input=needed("input"),
        output=output,
        references=tuple(dict.fromkeys((output, *references))),
        group=text_of("group").strip() or None,
        context=text_of("context") or None,
        gold_ids=_texts(cell("gold_ids"), columns.get("gold_ids", "gold_ids"), one=True),
        row=row.where,
    )


def _texts(value: object, column: str, *, one: bool = False) -> tuple[str, ...]:
    """A list of texts, or its JSON in a CSV cell. one: a text alone is a list of one."""
    form = '["first", "second"]'
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError as e:
            raise ValueError(f'"{column}" is {e}; write {form}') from e
    if value is None or value == "" or value == []:
        return ()
    if one and isinstance(value, str | int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        raise ValueError(f'"{column}" is {kind_of(value)}, not a list of texts; write {form}')
    for item in cast("list[object]", value):
        if isinstance(item, bool) or not isinstance(item, str | int | float) or not str(item).strip():
            what = "empty text" if isinstance(item, str) else kind_of(item)
            raise ValueError(f'"{column}" holds {what}, not only texts; write {form}')
    try:
        return tuple(as_text(item) for item in value)
    except ValueError as e:
        raise ValueError(f'"{column}" {e}') from e


def _wrong_label(answer: str, labels: frozenset[str], guess: bool) -> str:
    near = nearest(answer.strip(), sorted(labels)) if guess else None
    hint = f'did you mean "{near}"?' if near else "add it to labels: in task.yaml or correct the row"
    return f'the answer "{answer[:80]}" is not one of the {len(labels)} labels; {hint}'


def _check_json(example: Example) -> None:
    for answer in example.references:
        try:
            parse_json(answer)
        except ValueError as e:
            raise ValueError(f"the metric is json_match, but the answer is {e}; correct it") from e
