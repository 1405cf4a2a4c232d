"""Inputs without answers, for a teacher to answer: any format and shape that examples may have, or a line each.

The columns are those that hold the same in the examples; where a file has none of these, it is recognised by itself.
An answer that stands there all the same is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rung.data.examples import names_of
from rung.data.fence import Fence
from rung.data.formats import read_table
from rung.data.formats.encoding import encoding_of, text_of
from rung.data.formats.source import identify
from rung.data.rows import Problem, Row, Table, raise_problems, unpacked_name
from rung.data.shapes import flat, recognise, recognised
from rung.data.shapes.conversation import is_conversation, messages_of
from rung.data.shapes.reading import Answers, RowReader
from rung.data.shapes.seam import Fields, key_of
from rung.data.shapes.values import listed
from rung.errors import DataError
from rung.text import normal_form, visible
from rung.types import Query, Task

PREFIX = "unlabelled:"
"""Before the id of each input, so that it is not that of an example."""

_ASKS = ("input", "instruction", "context", "turns", "tools", "id")
"""Fields that say what is asked."""
_MOST_CHARACTERS = 500_000_000  # of a text with an input a line
_ANSWER = "answer not given"
"""The column that stands for the answer of a row without one, while the row is read."""


def read_unlabelled(task: Task, fence: Fence, say: Callable[[str], None]) -> tuple[Query, ...]:
    """The inputs of the files that `unlabelled:` names, in their order, each once.

    Left out, and counted by `say`: inputs that stand there twice, and those that nearly repeat a row of dev or of the
    test. Raises DataError with file and row: for a file that cannot be read, one in which no column is like the input,
    rows without an input, and files of which nothing is left.
    """
    called = names_of(task.unlabelled)
    like = _of_examples(task)
    problems: list[Problem] = []
    found = [query for path in task.unlabelled for query in _read_file(path, called[path], task, like, problems, say)]
    raise_problems(problems)
    once = list({normal_form(query.text): query for query in reversed(found)}.values())[::-1]
    kept = [query for query, near in zip(once, fence.near(once), strict=True) if near not in ("dev", "test")]
    _tell(say, len(kept), len(found) - len(once), len(once) - len(kept))
    if not kept:
        names = ", ".join(called.values())
        raise DataError(
            f"{names}: no input is left: all of them nearly repeat rows of dev or of the test, or there are none. "
            "Bring inputs that are new, or delete unlabelled: from task.yaml."
        )
    return tuple(_with_own_ids(kept))


def _tell(say: Callable[[str], None], kept: int, twice: int, near: int) -> None:
    left = [f"{twice:,} that stand there twice"] if twice else []
    left += [f"{near:,} that nearly repeat a row of dev or the test"] if near else []
    out = f"; left out: {' and '.join(left)}" if left else ""
    say(f"unlabelled: {kept:,} input{'' if kept == 1 else 's'} without answers{out}.")


def _with_own_ids(queries: Sequence[Query]) -> Iterator[Query]:
    """The queries; of several with one id, each later one has its number behind it."""
    seen: Counter[str] = Counter()
    for query in queries:
        seen[query.id] += 1
        number = f"#{seen[query.id]}" if seen[query.id] > 1 else ""
        yield replace(query, id=f"{PREFIX}{query.id}{number}")


def _of_examples(task: Task) -> Fields:
    """The columns of what is asked in the first file of examples. Raises DataError as reading them does."""
    reading = recognise(read_table(task.example_files[0]), task.fields, task.shape)
    return {name: columns for name, columns in reading.fields.items() if name in _ASKS}


def _read_file(
    path: Path, name: str, task: Task, like: Fields, problems: list[Problem], say: Callable[[str], None]
) -> list[Query]:
    """The inputs of one file, which messages call `name`. problems: takes the rows that cannot be read."""
    if unpacked_name(path).suffix.lower() == ".txt":
        return [Query(f"{name}:line-{n}", line) for n, line in _lines(path, name)]
    table = read_table(path)
    problems += table.problems
    if not table.rows:
        return []
    fields = _fields(table, name, task, like, say)
    answered = RowReader(fields, Answers(empty=True), f"{name}:", visible(task.instruction), same=True)
    asked = RowReader({**fields, "output": _ANSWER}, Answers(empty=True), f"{name}:", visible(task.instruction), True)
    found: list[Query] = []
    for row in flat(table.taken()):
        try:
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
    found = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not found:
        raise DataError(f"{name}: the file holds no line of text. Put one input on each line.")
    return found


def _fields(table: Table, name: str, task: Task, like: Fields, say: Callable[[str], None]) -> Fields:
    """The columns of what is asked in a file: those of the examples, else as they are recognised in it, which is said.

    Raises DataError where none is like an input.
    """
    rows = list(flat(table.rows))
    there = list(dict.fromkeys([*table.columns, *(column for row in rows[:1] for column in row.values)]))
    own = _there(like, there)
    if "input" in own or "instruction" in own:
        return own
    chosen = {**_there({n: c for n, c in task.fields.items() if n in _ASKS}, there), "output": _ANSWER}
    answered = [replace(row, values={**row.values, _ANSWER: "?"}) for row in rows]
    try:
        reading = recognised([*there, _ANSWER], answered, chosen)
    except DataError:
        reading = None
    column = reading.fields.get("input") if reading is not None and not reading.alternatives else None
    if reading is None or not isinstance(column, str):
        wanted = " and ".join(f'"{column}"' for column in listed(like.get("input", "input")))
        here = ", ".join(column[:60] for column in there[:20]) or "none"
        raise DataError(
            f"{name}: it is not clear which column is the input; columns are {here}. Name it as in the examples: "
            f"{wanted}."
        )
    say(f'{name}: the inputs are read from the column "{column}".')
    return {n: columns for n, columns in reading.fields.items() if n in _ASKS}


def _there(fields: Fields, names: Sequence[str]) -> dict[str, str | tuple[str, ...]]:
    """The fields whose columns a file has, with the names that it gives them."""
    by_key = {key_of(column): column for column in reversed(names)}
    found: dict[str, str | tuple[str, ...]] = {}
    for name, columns in fields.items():
        own = tuple(by_key[key_of(column)] for column in listed(columns) if key_of(column) in by_key)
        if own and len(own) == len(listed(columns)):
            found[name] = own[0] if isinstance(columns, str) else own
    return found


def _holds_answer(row: Row, fields: Fields) -> bool:
    """Whether the input of a row is a conversation that ends with its answer."""
    value = row.values.get(column) if isinstance(column := fields.get("input"), str) else None
    return is_conversation(value) and messages_of(value)[-1].role == "assistant"
