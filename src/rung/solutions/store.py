"""A Solution in a folder, and back: solution.json, adapter/, index/passages.jsonl.

The folder is whole in itself: moved elsewhere or copied to another machine, it answers the same. The passages of a
run's solutions are one file on the disk where they are the same: a hard link of each folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

from rung.errors import DamagedRecord, RunError
from rung.records import from_record, read_json, write_json
from rung.resume import folder_once
from rung.retrieval.passages import put_passages, read_passages
from rung.types import Constraint, Decoding, Demo, DemoSelection, Document, RetrieverSpec, Solution

FORMAT = 1
PASSAGES = "index/passages.jsonl"


def save_solution(solution: Solution, folder: Path, *, passages: Sequence[Document] = ()) -> Solution:
    """Writes the folder and returns the Solution with its adapter path pointing into it.

    passages: what a solution with a retriever searches. solution.json is removed first and written last: a folder
    without it is unfinished and does not count.
    """
    record: dict[str, Any] = {"format": FORMAT, **asdict(solution), "family": solution.family}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "solution.json").unlink(missing_ok=True)
    if solution.retriever is not None:
        put_passages(folder / PASSAGES, passages, _beside(folder))
    if solution.adapter is not None:
        inside = folder / "adapter"
        if Path(solution.adapter).resolve() != inside.resolve():
            source = Path(solution.adapter)
            shutil.rmtree(inside, ignore_errors=True)  # of another solution, or left by a kill
            folder_once(inside, lambda scratch: _copy(source, scratch))
        record["adapter"] = "adapter"
        solution = replace(solution, adapter=str(inside))
    write_json(folder / "solution.json", record)
    return solution


def _copy(source: Path, folder: Path) -> None:
    """With the modes of new files: some libraries write weights that their owner alone may read."""
    shutil.copytree(source, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)


def load_solution(folder: Path) -> Solution:
    """The Solution in a folder, with an absolute adapter path. Raises RunError when the folder holds no whole one."""
    path = folder / "solution.json"
    try:
        record = read_json(path)
        if record is None:
            raise RunError(f"{folder}: no solution.json here. Name a folder that rung wrote.")
        constraint, adapter = record["constraint"], record["adapter"]
        if adapter and (PurePath(adapter).is_absolute() or ".." in PurePath(adapter).parts):
            raise ValueError(f"its adapter {adapter!r} is not in the folder")
        if constraint is not None and constraint["kind"] == "labels":
            constraint["value"] = tuple(constraint["value"])
        return Solution(
            name=record["name"],
            instruction=record["instruction"],
            decoding=from_record(Decoding, record["decoding"]),
            demos=tuple(from_record(Demo, d) for d in record["demos"]),
            demo_selection=from_record(DemoSelection, record["demo_selection"]) if record["demo_selection"] else None,
            retriever=from_record(RetrieverSpec, record["retriever"]) if record["retriever"] else None,
            adapter=str((folder / adapter).resolve()) if adapter else None,
            constraint=Constraint(**constraint) if constraint else None,
            model=record.get("model", ""),
            cite=record.get("cite", False),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DamagedRecord(path, f"not a solution that this version can read: {error}") from None


def load_passages(folder: Path) -> Sequence[Document]:
    """The passages that a saved solution searches; empty when it has no retriever. Many stay in their file."""
    return read_passages(folder / PASSAGES)


def _beside(folder: Path) -> Iterator[Path]:
    """The passages of the run's other solutions, of which the folder is one, or the winner."""
    for solutions in (folder.parent, folder.parent / "solutions"):
        yield from sorted(solutions.glob(f"*/{PASSAGES}"))
