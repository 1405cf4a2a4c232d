"""Pairs of answers to one input, of which a person prefers one: any format, with the columns `chosen` and `rejected`.

What is asked stands in a column, named as in the examples or as usual (`prompt`, `question`, …), or in the turns that
both answers share, as TRL, UltraFeedback and HH write it. Pairs only train; what judges is dev and the test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rung.data.beside.asking import asked_in_examples, asks, columns_of, kept_away, own_ids, there
from rung.data.examples import names_of
from rung.data.fence import Fence
from rung.data.formats import read_table
from rung.data.metric_names import lists_are_json
from rung.data.rows import Problem, Row, raise_problems, shown_columns
from rung.data.shapes import flat, recognised
from rung.data.shapes.reading import Answers, RowReader
from rung.data.shapes.seam import Fields, by_key
from rung.errors import DataError
from rung.text import visible
from rung.types import Preference, Task

PREFIX = "preference:"
"""Before the id of the input of each pair, so that it is not that of an example."""

LEAST_PAIRS = 8
"""Fewer fill no batch and teach nothing."""

MOST_PAIRS = 5_000
"""Pairs that are kept away from dev and the test and then used, at most; few trainings see more."""

_CHOSEN, _REJECTED = ("chosen", "preferred_output"), ("rejected", "non_preferred_output")


def read_preferences(task: Task, fence: Fence, say: Callable[[str], None]) -> tuple[Preference, ...]:
    """The pairs of the files that `preferences:` names, in their order, each once; a fixed sample where they are many.

    Left out, and counted by `say`: pairs that stand there twice, and those whose input nearly repeats a row of dev or
    of the test. Raises DataError with file and row: for a file that cannot be read or lacks a column, rows with an
    empty answer, two equal answers or two different inputs, and where fewer than LEAST_PAIRS are left.
    """
    called = names_of(task.preferences)
    problems: list[Problem] = []
    found = [pair for path in task.preferences for pair in _read_file(path, called[path], task, problems)]
    raise_problems(problems)
    kept = kept_away(found, _content, lambda pair: pair.query, MOST_PAIRS, task.seed, fence)
    number, out = len(kept.rows), kept.left_out("whose input nearly repeats")
    say(f"preferences: {number:,} pair{'' if number == 1 else 's'} of answers{out}.")
    if number < LEAST_PAIRS:
        raise DataError(
            f"{', '.join(called.values())}: {number} of {len(found)} pairs can be used; at least {LEAST_PAIRS} are "
            "needed to learn from. Bring pairs whose inputs are new, or delete preferences: from task.yaml."
        )
    ids = own_ids(PREFIX, (pair.query.id for pair in kept.rows))
    return tuple(replace(pair, query=replace(pair.query, id=i)) for pair, i in zip(kept.rows, ids, strict=True))


def _content(pair: Preference) -> tuple[str, str, str]:
    return pair.query.text, pair.chosen, pair.rejected


def _read_file(path: Path, name: str, task: Task, problems: list[Problem]) -> list[Preference]:
    """The pairs of one file, which messages call `name`. problems: takes the rows that cannot be used."""
    table = read_table(path)
    table.call(name)
    problems += table.problems
    rows = list(flat(table.taken()))
    if not rows:
        return []
    columns = columns_of(table, rows)
    chosen, rejected = _column(_CHOSEN, columns, name), _column(_REJECTED, columns, name)
    asked, same = _asked(rows, columns, chosen, name, task)
    answers = Answers(lists_are_json=lists_are_json(task) or task.multi_label)
    readers = [
        RowReader({**asked, "output": answer}, answers, f"{name}:", visible(task.instruction), same)
        for answer in (chosen, rejected)
    ]
    found: list[Preference] = []
    for row in rows:
        try:
            found.append(_pair(row, *readers))
        except ValueError as error:
            problems.append(Problem(row.where, str(error)))
    return found


def _pair(row: Row, chosen: RowReader, rejected: RowReader) -> Preference:
    """Raises ValueError that says what is wrong with the row."""
    better, worse = chosen(row), rejected(row)
    if better.query != worse.query:
        fact = "the chosen and the rejected answer follow different turns"
        raise ValueError(f"{fact}; make all turns before the last answer equal, or remove the row")
    if visible(better.output) == visible(worse.output):
        raise ValueError("the chosen and the rejected answer are equal; correct one of them or remove the row")
    return Preference(better.query, better.output, worse.output, row.where)


def _column(keys: Sequence[str], columns: Sequence[str], name: str) -> str:
    """The first column that has one of the keys. Raises DataError where there is none."""
    there_by_key = by_key(columns)
    found = next((there_by_key[key] for key in keys if key in there_by_key), None)
    if found is None:
        raise DataError(
            f'{name}: no column "{keys[0]}"; columns are {shown_columns(columns)}. Call the column of the answer that '
            f"is preferred {_CHOSEN[0]}, and that of the other one {_REJECTED[0]}."
        )
    return found


def _asked(rows: Sequence[Row], columns: Sequence[str], chosen: str, name: str, task: Task) -> tuple[Fields, bool]:
    """The columns of what is asked, as the task names them, else as usual beside pairs, else as in the examples; and
    whether all rows have one instruction in common.

    Raises DataError where none of them is there, and the answers are no whole conversations.
    """
    named = there(asks(task.fields), columns)
    alpaca = there({"instruction": "instruction", "input": "input"}, columns)
    if "input" not in named and len(alpaca) == 2:
        named = {**named, **alpaca}

    def beside(own: Fields) -> tuple[Fields, bool] | None:
        try:
            reading = recognised(columns, rows, {**own, "output": chosen}, "preference")
        except DataError:
            return None
        return asks(reading.fields), reading.instruction is not None

    found = beside(named)
    if found is None:
        found = beside(there(asked_in_examples(task).fields, columns))
    if found is None:
        raise DataError(
            f"{name}: it is not clear which column is the input; columns are {shown_columns(columns)}. Call it prompt, "
            "or as in the examples."
        )
    return found
