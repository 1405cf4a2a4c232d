"""`judged:` of task.yaml: answers that people scored, to hold a judge against.

Knows files and scores; asks no judge. These rows never train, and no candidate answers them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rung.data.examples import names_of
from rung.data.formats import read_table
from rung.data.rows import Problem, Row, Table, as_text, raise_problems, shown_columns
from rung.data.shapes.seam import by_key, key_of
from rung.errors import DataError
from rung.text import normal_form
from rung.types import Answer, Example, Query, Task

LEAST_JUDGED = 20
"""With fewer rows an agreement says next to nothing. `bench/judges.py` shows how wide its interval is at 20."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "example_id"),
    "input": ("input", "question", "prompt"),
    "context": ("context",),
    "answer": ("answer", "output", "response", "prediction"),
    "score": ("score", "human_score", "human", "rating", "label"),
    "references": ("references", "reference", "expected"),
    "scale": ("scale",),
    "model": ("model", "origin"),
}
"""What a row says -> the names that its column may have, the usual one first."""

_WORDS = {
    **dict.fromkeys(("right", "correct", "true", "yes", "good", "pass"), 1.0),
    **dict.fromkeys(("wrong", "incorrect", "false", "no", "bad", "fail"), 0.0),
}
_SCALE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:-|–|to|\.\.)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Judged:
    """An answer that a person scored.

    score: in [0, 1]; higher is better. model: what wrote the answer, where the row says it. row: for messages.
    """

    answer: Answer
    score: float
    model: str = ""
    row: str = ""


def read_judged(task: Task, examples: Iterable[Example]) -> tuple[Judged, ...]:
    """The rows of the files that `judged:` names, in their order.

    examples: of the task; a row that repeats the input of one, or names its id and no input, takes its input, context
    and references from there. An id beside another input is the row's own.
    Raises DataError with file and row: for a column that is missing, a score that is no number of its scale, a row
    without a reference where the judge compares answers with it, and fewer than LEAST_JUDGED rows.
    """
    known = {e.id: e for e in reversed(list(examples))}
    by_input = _by_input(list(known.values()))
    called = names_of(task.judged)
    pairwise = task.judge is not None and task.judge.mode == "pairwise"
    problems: list[Problem] = []
    found: list[Judged] = []
    for path in task.judged:
        table = read_table(path)
        table.call(called[path])
        problems += table.problems
        columns = _columns(table, called[path])
        for row in table.taken():
            try:
                found.append(_judged(row, columns, known, by_input, pairwise))
            except ValueError as error:
                problems.append(Problem(row.where, str(error)))
    raise_problems(problems)
    if len(found) < LEAST_JUDGED:
        names = ", ".join(called.values())
        raise DataError(
            f"{names}: only {len(found)} scored answer{'s' if len(found) != 1 else ''}; at least {LEAST_JUDGED} are "
            "needed to hold a judge against people. Have more answers scored, or delete judged: from task.yaml."
        )
    return tuple(found)


def _by_input(examples: Sequence[Example]) -> dict[str, Example]:
    """Examples by all that is asked, by context and input, and by the input alone where that is another's under no
    other context."""
    alone: dict[str, list[Example]] = {}
    for example in examples:
        alone.setdefault(normal_form(example.input), []).append(example)
    found = {form: same[0] for form, same in alone.items() if len({e.context for e in same}) == 1}
    found |= {_with_context(e.context, e.input): e for e in examples if e.context}
    return found | {normal_form(e.query.text): e for e in examples}


def _with_context(context: str | None, asked: str) -> str:
    return f"{normal_form(context or '')}\0{normal_form(asked)}"


def _columns(table: Table, name: str) -> dict[str, str]:
    """What a row says -> its column in this table. Raises DataError where one is missing that is needed."""
    there = by_key(table.columns)
    found = {what: there[alias] for what, names in COLUMNS.items() if (alias := _first(names, there)) is not None}
    missing = [f'"{what}"' for what in ("answer", "score") if what not in found]
    if "id" not in found and "input" not in found:
        missing.insert(0, '"input" or "id"')
    if missing:
        fact = f"{name}: no column {' and no column '.join(missing)}; columns are {shown_columns(table.columns)}"
        raise DataError(
            f"{fact}. Each row needs the id or the input of an example, the answer that was scored, and its score."
        )
    return found


def _first(names: Sequence[str], there: Mapping[str, str]) -> str | None:
    return next((key_of(name) for name in names if key_of(name) in there), None)


def _judged(
    row: Row, columns: Mapping[str, str], known: Mapping[str, Example], by_input: Mapping[str, Example], pairwise: bool
) -> Judged:
    values = {what: row.values.get(column) for what, column in columns.items()}
    answer = values["answer"]
    if answer is None:
        raise ValueError(f'the column "{columns["answer"]}" is empty; give the answer that was scored')
    score = _score(values["score"], values.get("scale"), columns["score"])
    said, context, named = (_text(values.get(key)) for key in ("input", "context", "id"))
    example = known.get(named)
    if said and (example is None or not _asks(example, said, context)):
        example = by_input.get(_with_context(context, said) if context else normal_form(said))
    references = _references(values.get("references")) or (example.references if example is not None else ())
    if example is None and not said:
        raise ValueError(f'the id "{named[:60]}" is that of no example; give the input as well')
    if pairwise and not references:
        raise ValueError("no example has this input, so there is no reference to compare with; add a column reference")
    query = example.query if example is not None else Query(row.key, said, context or None)
    return Judged(Answer(query, _text(answer), references), score, _text(values.get("model")), row.where)


def _asks(example: Example, said: str, context: str) -> bool:
    """Whether the example is what the row asks."""
    forms = {normal_form(example.input), normal_form(example.query.text)}
    same = not context or normal_form(context) == normal_form(example.context or "")
    return same and normal_form(said) in forms


def _score(value: object, scale: object, column: str) -> float:
    """The score in [0, 1]. Raises ValueError."""
    if isinstance(value, bool):
        return float(value)
    text = _text(value).strip()
    if text.casefold() in _WORDS:
        return _WORDS[text.casefold()]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'the column "{column}" holds "{text[:40]}", which is no score; give a number, right or wrong')
    low, high = _ends(scale)
    if not low <= number <= high:
        raise ValueError(
            f'the column "{column}" holds {number:g}, but scores go from {low:g} to {high:g}. Where people scored on '
            "another scale, add a column scale, such as 1-5"
        )
    return (number - low) / (high - low)


def _ends(scale: object) -> tuple[float, float]:
    text = _text(scale)
    if not text:
        return 0.0, 1.0
    found = _SCALE.fullmatch(text)
    if found is None or float(found[1]) >= float(found[2]):
        raise ValueError(f'the scale "{text[:40]}" cannot be read; write its ends, such as 1-5')
    return float(found[1]), float(found[2])


def _references(value: object) -> tuple[str, ...]:
    several = value if isinstance(value, list) else [value]
    return tuple(text for one in several if (text := _text(one)))


def _text(value: object) -> str:
    return "" if value is None else as_text(value)
