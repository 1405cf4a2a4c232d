"""The draft tried on its own data: written, read as `rung run` reads it, and put right where the guess was wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rung.data.examples import read_data
from rung.data.init.draft import Draft
from rung.data.rows import raise_problems
from rung.data.task_file import read_task
from rung.errors import RungError, TaskError
from rung.types import Example, Task

SHOWN = 3
_LOOKED_AT = 500  # examples among which different answers are sought


@dataclass(frozen=True)
class TriedDraft:
    """The task as it was written. examples: some, with different answers, of train where the user made the split.

    every: all examples. problem: why the task cannot run on its data yet; None where it can.
    bad_rows: how many rows that is about. note: what was taken back, or empty.
    """

    path: Path
    draft: Draft
    task: Task | None = None
    examples: tuple[Example, ...] = ()
    every: tuple[Example, ...] = ()
    problem: str | None = None
    bad_rows: int = 0
    note: str = ""


def try_draft(draft: Draft, *, force: bool = False) -> TriedDraft:
    """Writes task.yaml, and what belongs beside it, and reads it with all its examples.

    Where the rows can be read, but not with what the draft says of the answers, that is taken back. Raises TaskError
    where a file is there already and not `force`, or the folder cannot be written.
    """
    path = draft.folder / "task.yaml"
    for file in (path, *(draft.folder / name for name in draft.files)):
        if file.exists() and not force:
            raise TaskError(f"{file}: is there already. Use --force to replace it.")
    _write(path, draft)
    first = _read(TriedDraft(path, draft))
    if first.problem is None or draft.faulty or draft.plain is None:
        return first
    _write(path, draft.plain)
    second = _read(TriedDraft(path, draft.plain))
    if first.task is None or second.bad_rows < first.bad_rows:
        for name in draft.files:
            (draft.folder / name).unlink(missing_ok=True)
        fact = (first.problem.splitlines()[1:2] or [first.problem])[0].strip()
        return replace(second, note=f"A guess about the answers did not hold and was taken back: {fact}")
    _write(path, draft)
    return first


def _write(path: Path, draft: Draft) -> None:
    for file, text in ((path, draft.text), *((path.parent / name, text) for name, text in draft.files.items())):
        try:
            file.write_text(text, "utf-8")
        except OSError as error:
            fact = f"{file}: cannot be written ({error.strerror})"
            raise TaskError(f"{fact}. Copy the data to a folder of yours.") from None


def _read(trial: TriedDraft) -> TriedDraft:
    """The trial with its task, its examples, and why it cannot run."""
    task = None
    bad_rows = 0
    try:
        task = read_task(trial.path)
        found = read_data(task)
        bad_rows = len(found.problems)
        raise_problems(found.problems)
    except RungError as error:
        return replace(trial, task=task, problem=str(error), bad_rows=bad_rows or _all_rows(str(error)))
    train = found.sets.get("train", found.sets.get(None, ()))
    every = tuple(e for part in found.sets.values() for e in part)
    return replace(trial, task=task, examples=tuple(_different(train)), every=every)


def _all_rows(message: str) -> int:
    """Rows that a message about too many bad rows speaks of: the number in its first line, or one."""
    said = re.search(r": (\d+) problems in its rows", message)
    return int(said.group(1)) if said else 1


def _different(examples: Iterable[Example]) -> list[Example]:
    """A few examples: those whose instruction and answer were not shown yet first, then those with one of both."""
    rest = list(islice(examples, _LOOKED_AT))
    found: list[Example] = []
    for needed in (2, 1, 0):
        for e in list(rest):
            new = (e.instruction not in {f.instruction for f in found}) + (e.output not in {f.output for f in found})
            if new >= needed and len(found) < SHOWN:
                found.append(e)
                rest.remove(e)
    return found
