"""Copies of the example files with a column gold_ids, beside the task.yaml that then reads them.

A column gold_by says of each marked row that a search found the mark, so that no search is measured by it.
The user's own files are only read. A copy that would not be read as the same examples is taken away again. Knows not
how gold passages are found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rung.data.examples import names_of, read_data
from rung.data.formats import read_table
from rung.data.init.trial import TriedDraft
from rung.data.init.yaml_text import as_comment, as_yaml
from rung.data.rows import GOLD_SUFFIX, Row
from rung.data.shapes.values import FOUND_BY
from rung.data.task_file import read_task
from rung.errors import RungError
from rung.records import write_lines
from rung.types import Example, Task

COLUMN = "gold_ids"
BY = "gold_by"


def copy_names(task: Task) -> dict[Path, Path]:
    """File of examples -> its copy beside task.yaml, named after it."""
    called = names_of(task.example_files)
    return {p: task.path.parent / f"{_stem(called[p])}{GOLD_SUFFIX}" for p in task.example_files}


def rows_are_examples(examples: Sequence[Example]) -> bool:
    """Whether each row is one example, so that a column of the row can say something of it."""
    return max(Counter(e.row for e in examples).values(), default=1) == 1


def with_gold_copies(trial: TriedDraft, gold: Mapping[str, str], note: str) -> TriedDraft:
    """The trial with copies written and named in its task.yaml, and a note about them.

    gold: row of an example -> id of the document that holds its answer. Where the copies would be read as other
    examples, or cannot be written, nothing is changed and the note says so.
    """
    task = trial.task
    assert task is not None
    copies = copy_names(task)
    text = _naming(trial.draft.text, task, copies, note)
    try:
        called = names_of(task.example_files)
        for path, copy in copies.items():
            table = read_table(path)
            table.call(called[path])
            write_lines(copy, (_marked(row, gold.get(row.where)) for row in table.taken()))
        trial.path.write_text(text, "utf-8")
        made = read_task(trial.path)
        found = [_said(e) for examples in read_data(made).sets.values() for e in examples]
        expected = [
            replace(e, gold_ids=(gold[e.row],) if e.row in gold else (), gold_found=e.row in gold) for e in trial.every
        ]
        if found != [_said(e) for e in expected]:
            raise ValueError("they would be read otherwise")
    except (RungError, OSError, TypeError, ValueError) as fault:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
        trial.path.write_text(trial.draft.text, "utf-8")
        why = str(fault).splitlines()[0].rstrip(".")
        failed = f"Gold passages are not marked, as copies of the rows cannot be used: {why}."
        return replace(trial, draft=replace(trial.draft, notes=(*trial.draft.notes, failed)))
    return replace(trial, task=made, draft=replace(trial.draft, text=text, notes=(*trial.draft.notes, note)))


def _marked(row: Row, document: str | None) -> dict[str, object]:
    """The values of a row with its mark, where it has one."""
    if document is None:
        return {**row.values, COLUMN: [], BY: None}
    return {**row.values, COLUMN: [document], BY: FOUND_BY}


def _naming(text: str, task: Task, copies: Mapping[Path, Path], note: str) -> str:
    """task.yaml with the copies under examples:, and the note as a comment."""
    names = {p: copy.name for p, copy in copies.items()}
    value: object
    if isinstance(task.examples, Mapping):
        value = {name: _one_or_all([names[p] for p in paths]) for name, paths in task.examples.items()}
    else:
        value = _one_or_all([names[p] for p in task.examples])
    lines = text.split("\n")
    place = next(i for i, line in enumerate(lines) if line.startswith("examples: "))
    said = re.search(r"  # .*$", lines[place])
    lines[place : place + 1] = [f"examples: {as_yaml(value)}{said[0] if said else ''}", f"# {as_comment(note)}"]
    return "\n".join(lines)


def _one_or_all(names: Sequence[str]) -> object:
    return names[0] if len(names) == 1 else list(names)


def _stem(name: str) -> str:
    """Of "a/train.csv": "a-train"."""
    *folders, file = name.split("/")
    return "-".join([*folders, file.split(".")[0] or file])


def _said(example: Example) -> Example:
    """All that an example says; what it is called where the file names its lines is another thing in a copy."""
    return replace(example, id="", row="")
