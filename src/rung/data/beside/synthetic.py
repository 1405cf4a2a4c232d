"""Rows that a model wrote, as `rung synth` leaves them: they train, and never enter dev or the test.

Each row is an example with two more keys. origin: how it came to be, {kind, teacher, prompt, from, votes, asked, usd}.
review: what a person says of it, "accepted", "edited" or "rejected"; null where nobody has looked at it yet. Files of
other programs, without these keys, are read like any examples.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rung.data.beside.asking import own_ids
from rung.data.constraint import constraint_of
from rung.data.examples import names_of
from rung.data.fence import Fence
from rung.data.formats import read_table
from rung.data.metric_names import lists_are_json
from rung.data.rows import Problem, Row, Table, raise_problems
from rung.data.shapes import Labels, flat, recognise
from rung.data.shapes.reading import Answers, RowReader, WrongLabel
from rung.data.shapes.seam import OPTIONAL, Fields
from rung.errors import DataError
from rung.text import normal_form, visible
from rung.types import Example, Task

Say = Callable[[str], None]
Review = Literal["accepted", "edited", "rejected"]

REVIEWS: tuple[Review, ...] = ("accepted", "edited", "rejected")


def read_synthetic(task: Task, fence: Fence, say: Say) -> tuple[Example, ...]:
    """The rows of the task's synthetic files that may train, in file order.

    Left out, and counted: rows that a person rejected, rows that nearly repeat a row of dev or the test, and rows that
    stand in an earlier line already. say: hears these counts, and how many rows nobody has reviewed.
    Raises DataError with file and row for what cannot be read, for answers outside the task's labels, and where no row
    is left.
    """
    rows: list[tuple[Example | None, Review | None]] = []
    problems: list[Problem] = []
    unseen: list[Path] = []
    called = names_of(task.synthetic)
    for path in task.synthetic:
        rows += (new := _read_file(path, called[path], task, problems))
        unseen += [path] if any(review is None for _, review in new) else []
    raise_problems(problems)
    usable = [(example, review) for example, review in rows if example is not None and review != "rejected"]
    nearby = fence.near([example.query for example, _ in usable])
    kept: dict[str, tuple[Example, Review | None]] = {}
    fenced = 0
    for (example, review), near in zip(usable, nearby, strict=True):
        if near in ("dev", "test"):
            fenced += 1
        else:
            kept.setdefault(normal_form(example.query.text), (example, review))
    _tell(say, len(rows), len(rows) - len(usable), fenced, [review for _, review in kept.values()], unseen)
    if not kept:
        names = ", ".join(called.values())
        raise DataError(
            f"{names}: no synthetic row is left: all of them were rejected or nearly repeat rows of dev or of the "
            "test, or there are none. Write others with rung synth, or delete synthetic: from task.yaml."
        )
    ids = own_ids("", (example.id for example, _ in kept.values()))
    return tuple(replace(example, id=i) for (example, _), i in zip(kept.values(), ids, strict=True))


def review_of(value: object) -> Review | None:
    """What a cell says of a row; None where it is empty or says "open". Raises ValueError for any other word."""
    said = normal_form(str(value)) if value is not None else ""
    words: Mapping[str, Review | None] = {
        "open": None,
        **{review: review for review in REVIEWS},
        **{"accept": "accepted", "a": "accepted", "ok": "accepted", "yes": "accepted"},
        **{"edit": "edited", "e": "edited"},
        **{"reject": "rejected", "r": "rejected", "no": "rejected"},
    }
    if not said or said in ("null", "none", "nan"):
        return None
    if said not in words:
        raise ValueError(f'the review is "{str(value)[:40]}"; write accepted, edited or rejected, or leave it empty')
    return words[said]


def fault_of_answer(task: Task, text: str) -> str | None:
    """Why an answer may not stand in a synthetic row: it is no label, or breaks the schema or the pattern. None where
    it may."""
    from rung.constraints import fault_of

    try:
        _reader({"input": "input", "output": "output"}, task, "")(Row("", "row", {"input": "?", "output": text}))
    except WrongLabel as wrong:
        return Labels(task.labels or ()).unknown(wrong.answer, guess=True)
    except ValueError as error:
        return str(error)
    constraint = constraint_of(task, ()) if task.schema or task.pattern else None
    fault = fault_of(constraint, text) if constraint is not None and text != task.abstain else None
    return f"the answer cannot be used: {fault}" if fault is not None else None


def _reader(fields: Fields, task: Task, prefix: str) -> RowReader:
    answers = Answers(
        labels=Labels(task.labels) if task.labels else None,
        several=task.multi_label,
        lists_are_json=lists_are_json(task),
        empty=task.empty_answers,
    )
    return RowReader(fields, answers, prefix, visible(task.instruction))


def _read_file(
    path: Path, name: str, task: Task, problems: list[Problem]
) -> list[tuple[Example | None, Review | None]]:
    """The rows of one file, which messages call `name`, with their reviews; of one that was rejected, and whose answer
    is no label, no example."""
    table = read_table(path)
    table.call(name)
    problems += table.problems
    if not table.rows:
        return []
    read = _reader(_fields(table, task), task, f"{path.stem}:")
    found: list[tuple[Example | None, Review | None]] = []
    for row in flat(table.taken()):
        review: Review | None = None
        try:
            review = review_of(row.values.get("review"))
            found.append((replace(read(row), group=None), review))
        except WrongLabel as wrong:
            if review == "rejected":
                found.append((None, review))
                continue
            assert read.answers.labels is not None
            problems.append(Problem(row.where, read.answers.labels.unknown(wrong.answer, guess=True)))
        except ValueError as fault:
            problems.append(Problem(row.where, str(fault)))
    return found


def _fields(table: Table, task: Task) -> Fields:
    """Which columns hold what: the names of `rung synth` where they stand there, else what is recognised."""
    if {"input", "output"} <= set(table.columns):
        names = ("input", "output", "instruction", *OPTIONAL)
        return {name: name for name in names if name in table.columns}
    return recognise(table, task.fields, task.shape).fields


def _tell(say: Say, rows: int, rejected: int, fenced: int, reviews: list[Review | None], unseen: list[Path]) -> None:
    """unseen: files with rows that nobody has reviewed."""
    used, new = len(reviews), sum(review is None for review in reviews)
    repeated = rows - rejected - fenced - used
    left = [
        f"{rejected:,} rejected in review" if rejected else "",
        f"{fenced:,} near a row of dev or the test" if fenced else "",
        f"{repeated:,} repeated" if repeated else "",
    ]
    left = [part for part in left if part]
    out = f" Left out: {', '.join(left)}." if left else ""
    say(f"Synthetic rows: {used:,} of {rows:,} train.{out}")
    if new:
        commands = " and ".join(f"rung review {shlex.quote(os.path.relpath(path))}" for path in unseen)
        say(f"Not reviewed yet: {new:,} of these {used:,} synthetic rows. See them with {commands}.")
