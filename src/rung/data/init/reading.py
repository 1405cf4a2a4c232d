"""The files of examples as `rung init` sees them: how rows are read, what the user is asked about it, and all answers.

Knows files, shapes and columns; what answers mean is in `answers`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.data.init.answers import AnswersSeen
from rung.data.init.sources import Sources
from rung.data.init.yaml_text import as_comment, as_yaml
from rung.data.rows import Problem, Table, raise_problems
from rung.data.shapes import Recognised, examples_of, recognised
from rung.data.shapes.seam import OPTIONAL, key_of
from rung.errors import DataError
from rung.types import Example

MOST_ASKED = 1_000
"""Instructions of rows that are counted."""
Ask = Callable[[str, Sequence[str]], int]
"""A question and its possible replies -> the index of the chosen one."""


@dataclass
class FilesRead:
    """What the files hold. fields: those to be named in task.yaml. rows: by file. problems: rows that cannot be read.
    unread: the first rows whose examples cannot be read.

    instructions: what all rows of a file ask for, of each file. asked: what rows ask for -> their number, of the first
    1,000 that differ. with_turns: rows with earlier turns. id_twice: the column of ids, where it names
    two rows of a file alike.
    """

    sources: Sources
    reading: Recognised
    fields: Mapping[str, str | tuple[str, ...]]
    columns: list[str] = field(default_factory=list)
    rows: dict[Path, int] = field(default_factory=dict)
    how: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: list[Problem] = field(default_factory=list)
    answers: AnswersSeen = field(default_factory=AnswersSeen)
    instructions: set[str | None] = field(default_factory=set)
    asked: Counter[str | None] = field(default_factory=Counter)
    with_turns: int = 0
    id_twice: str | None = None

    def add(self, example: Example | None) -> None:
        """Counts one more row; None is one that cannot be read."""
        if example is None:
            self.answers.add("")
            return
        self.answers.add(example.output, f"{example.input}\n{example.context or ''}", example.row)
        self.with_turns += bool(example.turns)
        if len(self.asked) < MOST_ASKED or example.instruction in self.asked:
            self.asked[example.instruction] += 1


def read_files(
    sources: Sources, fields: Mapping[str, str | tuple[str, ...]], shape: str | None, ask: Ask | None
) -> FilesRead:
    """Every file, one after another; only the answers are kept. A test file without answers is left out.

    fields, shape: those that the user chose. Raises DataError for a file that cannot be read, or whose columns leave no
    guess, or two and nobody to ask.
    """
    from rung.data.formats import read_table

    found: FilesRead | None = None
    hidden: list[Path] = []
    for path in sources.files:
        table = read_table(path)
        if not table.rows:
            raise_problems(table.problems)
        if found is None:
            reading = _chosen(recognised(table.columns, table.rows, fields, shape), sources, path, ask)
            found = FilesRead(
                sources, reading, {n: c for n, c in reading.fields.items() if n in fields or not _by_name(n, c)}
            )
        elif path in sources.sets.get("test", ()) and _hides_answers(table, found.reading):
            hidden.append(path)
            continue
        else:
            reading = recognised(table.columns, table.rows, found.fields, found.reading.shape)
            reading = replace(reading, several=found.reading.several, lists=found.reading.lists)
        found.instructions.add(reading.instruction)
        found.columns += [c for c in reading.columns if c not in found.columns]
        found.how[path] = table.how
        found.problems += table.problems
        ids: set[str] = set()
        column = reading.fields.get("id")
        for example in examples_of(table.taken(), reading, found.unread):
            found.rows[path] = found.rows.get(path, 0) + 1
            found.add(example)
            if example is not None and isinstance(column, str):
                if example.id in ids:
                    found.id_twice = column
                ids.add(example.id)
    assert found is not None
    found.sources = sources.without(hidden)
    return found


def _by_name(name: str, column: str | tuple[str, ...]) -> bool:
    """Whether a field need not be named, as a column of its name is read as it, in the files that have one."""
    return name in OPTIONAL and isinstance(column, str) and key_of(column) == name


def _hides_answers(table: Table, reading: Recognised) -> bool:
    """Whether a file has no answers at all: the test of a competition, which others keep."""
    output = reading.fields.get("output")
    return isinstance(output, str) and all(row.values.get(output) in (None, "") for row in table.rows)


def _chosen(reading: Recognised, sources: Sources, path: Path, ask: Ask | None) -> Recognised:
    """The reading, or the one that the user picks of several equally sensible ones. Raises DataError without a user."""
    if not reading.alternatives:
        return _labels_or_one(reading, ask)
    readings = [reading, *reading.alternatives]
    texts = [f"{_fields_in_words(r)} ({as_comment(r.why)})" for r in readings]
    if ask is not None:
        return _labels_or_one(readings[ask(f"{path.name} can be read in {len(readings)} ways. Which?", texts)], ask)
    data = " ".join(map(shlex.quote, sources.data))
    options = "\n".join(
        f"  {text}\n    rung init {data} {r.as_options}" for text, r in zip(texts, readings, strict=True)
    )
    raise DataError(f"{path.name}: can be read in {len(readings)} ways. Say which is meant:\n{options}")


def _labels_or_one(reading: Recognised, ask: Ask | None) -> Recognised:
    """Whether texts between separators are several labels, or each is one: the user knows."""
    several = reading.several
    if ask is None or several is None or several.separator is None:
        return reading
    question = f"{as_comment(several.why)}, such as {', '.join(several.labels[:3])}. Are these several labels?"
    one = ask(question, ("several labels in an answer (multi_label)", "one label: the separator is part of it"))
    return replace(reading, several=None) if one else reading


def _fields_in_words(reading: Recognised) -> str:
    return ", ".join(f"{name}: {as_yaml(column)}" for name, column in reading.needed.items())
