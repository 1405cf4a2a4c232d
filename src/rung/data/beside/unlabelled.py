"""Inputs without answers, for a teacher to answer: any format and shape that examples may have, or a line each.

The columns are those that hold the same in the examples; where a file has none of these, it is recognised by itself.
An answer that stands there all the same is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rung.data.beside.asking import AskedColumns, asked_in_examples, asks, columns_of, kept_away, own_ids, there
from rung.data.examples import names_of
from rung.data.fence import Fence
from rung.data.formats import read_table
from rung.data.formats.encoding import encoding_of, text_of
from rung.data.formats.source import identify
from rung.data.rows import Problem, Row, Table, raise_problems, shown_columns, unpacked_name
from rung.data.shapes import flat, recognised
from rung.data.shapes.conversation import is_conversation, messages_of, transcript
from rung.data.shapes.reading import Answers, RowReader
from rung.data.shapes.seam import Fields
from rung.data.shapes.values import listed
from rung.errors import DataError
from rung.text import normal_form, visible
from rung.types import Query, Task

PREFIX = "unlabelled:"
"""Before the id of each input, so that it is not that of an example."""

MOST = 3_000
"""Inputs that are kept away from dev and the test and then used, at most; a training visits fewer of them."""

_LINE = re.compile(r"\r\n?|\n")
_MOST_CHARACTERS = 500_000_000  # of a text with an input a line
_ANSWER = "answer not given"
"""The column that stands for the answer of a row without one, while the row is read."""


def read_unlabelled(task: Task, fence: Fence, say: Callable[[str], None]) -> tuple[Query, ...]:
    """The inputs of the files that `unlabelled:` names, in their order, each once; a fixed sample where they are many.

    Left out, and counted by `say`: inputs that stand there twice, and those that nearly repeat a row of dev or of the
    test. Raises DataError with file and row: for a file that cannot be read, one in which no column is like the input,
    rows without an input, and files of which nothing is left.
    """
    called = names_of(task.unlabelled)
    how = HowAsked(asked_in_examples(task), task.fields, task.instruction)
    problems: list[Problem] = []
    found = [query for path in task.unlabelled for query in read_asked(path, called[path], how, problems, say)]
    raise_problems(problems)
    kept = kept_away(found, lambda query: normal_form(query.text), lambda query: query, MOST, task.seed, fence)
    number, out = len(kept.rows), kept.left_out("that nearly repeat")
    say(f"unlabelled: {number:,} input{'' if number == 1 else 's'} without answers{out}.")
    if not kept.rows:
        names = ", ".join(called.values())
        raise DataError(
            f"{names}: no input is left: all of them nearly repeat rows of dev or of the test, or there are none. "
            "Bring inputs that are new, or delete unlabelled: from task.yaml."
        )
    ids = own_ids(PREFIX, (query.id for query in kept.rows))
    return tuple(replace(query, id=i) for query, i in zip(kept.rows, ids, strict=True))


@dataclass(frozen=True)
class HowAsked:
    """like: how the examples say what is asked. fields: those that the task names. instruction: of the task."""

    like: AskedColumns
    fields: Fields
    instruction: str


def read_asked(
    path: Path,
    name: str,
    how: HowAsked,
    problems: list[Problem],
    say: Callable[[str], None],
    takes: Callable[[Row], bool] = lambda row: True,
) -> list[Query]:
    """The inputs of one file, which messages call `name`. problems: takes the rows that cannot be read. takes: whether
    a row counts; lines of a text all do.

    Raises DataError for a file that cannot be read, or in which no column is like the input.
    """
    if unpacked_name(path).suffix.lower() == ".txt":
        return [Query(f"{name}:line-{n}", line) for n, line in _lines(path, name)]
    table = read_table(path)
    table.call(name)
    problems += table.problems
    if not table.rows:
        return []
    like = how.like
    fields = _fields(table, name, how, say)
    answered, asked = (
        RowReader(own, Answers(empty=True), f"{name}:", visible(how.instruction), like.same)
        for own in (fields, {**fields, "output": _ANSWER})
    )
    found: list[Query] = []
    for row in filter(takes, flat(table.taken())):
        try:
            if like.talks:
                row = _talking(row, fields)
            read = answered if _holds_answer(row, fields) else asked
            found.append(read(replace(row, values={**row.values, _ANSWER: "?"})).query)
        except ValueError as error:
            problems.append(Problem(row.where, str(error)))
    return found


def _lines(path: Path, name: str) -> list[tuple[int, str]]:
    """The lines of a text that are not empty, with their numbers. Raises DataError where there are none."""
    try:
        source = identify(path)
        text = text_of(source, encoding_of(source), _MOST_CHARACTERS)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error}). Check its path: {path}") from error
    found = [(n, line.strip()) for n, line in enumerate(_LINE.split(text), 1) if line.strip()]
    if not found:
        raise DataError(f"{name}: the file holds no line of text. Put one input on each line.")
    return found


def _fields(table: Table, name: str, how: HowAsked, say: Callable[[str], None]) -> Fields:
    """The columns of what is asked in a file: those of the examples, else as they are recognised in it, which is said.

    Raises DataError where none is like an input.
    """
    rows = list(flat(table.rows))
    columns = columns_of(table, rows)
    own = there(how.like.fields, columns)
    if "input" in own or "instruction" in own:
        return own
    chosen = {**there(asks(how.fields), columns), "output": _ANSWER}
    answered = [replace(row, values={**row.values, _ANSWER: "?"}) for row in rows]
    try:
        reading = recognised([*columns, _ANSWER], answered, chosen)
    except DataError:
        reading = None
    column = reading.fields.get("input") if reading is not None and not reading.alternatives else None
    if reading is None or not isinstance(column, str):
        wanted = " and ".join(f'"{column}"' for column in listed(how.like.fields.get("input", "input")))
        fact = f"{name}: it is not clear which column is the input; columns are {shown_columns(columns)}"
        raise DataError(f"{fact}. Name it as in the examples: {wanted}.")
    say(f'{name}: the inputs are read from the column "{column}".')
    return asks(reading.fields)


def _talking(row: Row, fields: Fields) -> Row:
    """A row of conversations, of which the input may be a text that says who speaks; its turns stand there then.

    Raises ValueError for a list without turns.
    """
    column = str(fields.get("input"))
    value = row.values.get(column)
    if isinstance(value, list) and not is_conversation(value):
        raise ValueError(
            f'"{column}" is no list of turns; write [{{"role": "user", "content": …}}, …] or remove the row'
        )
    turns = transcript(value)
    if turns is None:
        return row
    if turns[-1].role == "assistant" and not turns[-1].content:  # where the answer is to stand
        turns.pop()
    return replace(row, values={**row.values, column: [{"role": m.role, "content": m.content} for m in turns]})


def _holds_answer(row: Row, fields: Fields) -> bool:
    """Whether the input of a row is a conversation that ends with its answer."""
    value = row.values.get(column) if isinstance(column := fields.get("input"), str) else None
    return is_conversation(value) and messages_of(value)[-1].role == "assistant"
