"""What a made set of documents is, and how it becomes a task on disk."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rung.records import write_lines

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One question. gold: paths of the documents that answer it. group: rows of one group are never parted."""

    id: str
    question: str
    answer: str
    gold: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class MadeSet:
    """files: path below docs/ -> content."""

    name: str
    instruction: str
    files: Mapping[str, bytes]
    rows: Sequence[Row]

    def write(self, folder: Path) -> Path:
        """The task as a folder: task.yaml, examples.jsonl, docs/. Returns the folder."""
        for path, content in self.files.items():
            place = folder / "docs" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        rows = [
            {"id": r.id, "input": r.question, "output": r.answer, "gold_ids": list(r.gold), "group": r.group}
            for r in self.rows
        ]
        write_lines(folder / "examples.jsonl", rows)
        (folder / "task.yaml").write_text(
            f"name: {self.name}\ninstruction: {json.dumps(self.instruction)}\nexamples: examples.jsonl\n"
            "metric: token_f1\ncorpus: docs\nmodel: smollm2-135m-instruct\n",
            "utf-8",
        )
        return folder


def taken(items: Sequence[T], count: int, draw: random.Random) -> list[T]:
    """So many of the items at most, in random order."""
    return draw.sample(list(items), min(count, len(items)))
