"""The metric of a bundle: what it needs to score as the run did, and the metric itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.data.metric_names import JUDGE
from rung.errors import MetricError
from rung.evaluation.metric_files import metric_files
from rung.types import MetricInfo, Task

METRIC = "metric"
"""The folder of a user's own metric, with the files beside it that it imports."""

_OF_ANSWERS = (
    *("labels", "multi_label", "schema", "pattern", "whitespace", "unordered", "tolerance", "empty_answers"),
    *("fields", "shape"),
)


def scoring_note(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What bundle.json says of scoring, for a bundle in `folder`; a user's own metric is copied there.

    task: task.json. A metric that a judge gives way to is the one that counts. Where a judge counts, a bundle, which
    does not hold the judge, names the metric that stands in for it.
    """
    name = str(task.get("scored_by") or task["metric"])
    judged = name == JUDGE
    if judged:
        name = str((task.get("judge") or {}).get("fallback") or "token_f1")
    if name.startswith("python:"):
        name = _copied(name, Path(task["path"]).parent, folder)
    said = {key: task[key] for key in _OF_ANSWERS if task.get(key) not in (None, False, {})}
    return {"name": name, "judged": judged, "right_or_wrong": bool(task.get("right_or_wrong")) and not judged, **said}


def load_scoring(folder: Path, note: Mapping[str, Any], *, trusted: bool = False) -> MetricInfo:
    """The metric of the bundle in `folder`. note: what bundle.json says of scoring.

    trusted: whether code that lies in the bundle may run. Raises MetricError where it would have to and may not, or
    where the metric cannot be loaded.
    """
    from rung.evaluation.metrics import load_metric

    name = str(note.get("name") or "")
    if name.startswith("python:") and not trusted:
        file = name.removeprefix("python:").rpartition(":")[0]
        raise MetricError(
            f"{folder}: its metric is code in the bundle, {file}, which runs when it is called. Read it, then add "
            "--trust-code."
        )
    if name.startswith("python:"):
        sys.dont_write_bytecode = True  # of what it imports when it is called: the bundle lists no such file
    if not name:
        raise MetricError(f"{folder}: it does not say how answers are scored. Make it anew with rung bundle.")
    return load_metric(
        name,
        folder,
        whitespace=note.get("whitespace") or "folded",
        unordered=bool(note.get("unordered")),
        tolerance=note.get("tolerance"),
    )


def task_for_reading(name: str, examples: Path, instruction: str, note: Mapping[str, Any]) -> Task:
    """A task by which `rung.data.examples` reads a file of examples as those of the run were read."""
    fields = {key: tuple(c) if isinstance(c, list) else c for key, c in (note.get("fields") or {}).items()}
    return Task(
        name=name,
        path=examples,
        instruction=instruction,
        examples=(examples,),
        metric=str(note.get("name") or "exact_match"),
        models=(),
        labels=tuple(note["labels"]) if note.get("labels") else None,
        schema=note.get("schema"),
        pattern=note.get("pattern"),
        fields=fields,
        shape=note.get("shape"),
        multi_label=bool(note.get("multi_label")),
        whitespace=note.get("whitespace"),
        unordered=bool(note.get("unordered")),
        tolerance=note.get("tolerance"),
        empty_answers=bool(note.get("empty_answers")),
    )


def _copied(name: str, home: Path, folder: Path) -> str:
    """Copies the metric's files into the bundle and returns its name there. Files outside its folder stay out."""
    files = metric_files(name, home)
    root = files[0].parent
    for file in files:
        if file.is_file() and root in file.parents:
            target = folder / METRIC / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return f"python:{METRIC}/{files[0].name}:{name.rpartition(':')[2]}"
