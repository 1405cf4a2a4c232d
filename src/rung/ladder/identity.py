"""Which run a command means: what decides what answers score, the machine, and the versions; as task.json holds it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rung import __version__, runs
from rung.data.documents.kinds import MARKDOWN_SUFFIXES
from rung.ladder.options import RunOptions
from rung.types import Document, MetricInfo, Model, SearchKeys, Task

_NOT_MEASURED = (
    *("path", "name", "examples", "corpus", "models", "budget", "target", "concurrency", "ignore", "repeats"),
    *("teacher", "unlabelled", "synthetic", "preferences", "judge", "judged", "abstain"),
    *("cite", "retrieval", "license", "engine"),
)
"""Keys of the task that decide what is tried or where things lie, but not what an answer scores. `abstain`, `cite`,
`retrieval` and `engine` do where they are named, and are added then: a run of a version that did not know them goes
on."""

_TAUGHT = ("unlabelled", "synthetic", "preferences")


def task_record_of(
    task: Task,
    options: RunOptions,
    metric: MetricInfo,
    model_versions: Mapping[str, str],
    helpers: Mapping[str, str],
    documents: Sequence[Document] = (),
) -> dict[str, Any]:
    """What task.json holds. identity: of all that decides what an answer scores; two runs with one continue each other.

    Budget, target and the choice of strategies are not part of it: a run is continued with more of them. Paths are
    not part of it either, so that a folder may be moved. basis: of the same without models and examples, which --again
    may change; a judge stays, with what people scored. home: version of the model that the run began with by itself.
    taught: hashes of what teaches beside the train examples, which --again may change too. helpers: versions of the
    teacher and the judge. documents: as they were read.
    """
    from rung.data.task_file import task_record

    resolved = task_record(task)
    beside = _hashes_beside_examples(task)
    data = _hashes(task, task.example_files) | beside
    measured = {key: value for key, value in resolved.items() if key not in _NOT_MEASURED}
    if task.abstain is not None:
        measured["abstain"] = task.abstain
    if task.cite:
        measured["cite"] = True
    if task.engine != "local":
        measured["engine"] = task.engine
    if task.retrieval != SearchKeys():
        measured["retrieval"] = resolved["retrieval"]
    stays: dict[str, Any] = {"task": measured, "beside": beside, "exhaustive": options.exhaustive}
    if (texts := _hash_of_parsed(documents)) is not None:
        stays["documents"] = texts
    if task.judge is not None:
        how = {key: value for key, value in asdict(task.judge).items() if key != "model"}
        stays |= {"judge": [helpers["judge"], how], "judged": _hashes(task, task.judged)}
    taught: dict[str, Any] = {key: _hashes(task, files) for key in _TAUGHT if (files := getattr(task, key))}
    if "teacher" in helpers:
        taught["teacher"] = helpers["teacher"]
    decides = {**stays, "data": data, "models": dict(sorted(model_versions.items())), **taught}
    return {
        **resolved,
        "data": data,
        "model_versions": dict(model_versions),
        "taught": taught,
        "judged_hashes": stays.get("judged", {}),
        "home": model_versions[task.models[0].name] if len(task.models) == 1 else None,
        "right_or_wrong": metric.right_or_wrong,
        "only": sorted(options.only),
        "exhaustive": options.exhaustive,
        "basis": runs.identity(stays),
        "identity": runs.identity(decides),
    }


def described(models: Mapping[str, Model]) -> dict[str, Any]:
    """Versions and the machine, as the models describe it; with several, each under its name."""
    found = {name: versions(model) for name, model in models.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    first = next(iter(found.values()))
    common = {k: v for k, v in first["machine"].items() if all(f["machine"].get(k) == v for f in found.values())}
    own = {n: {k: v for k, v in f["machine"].items() if k not in common} for n, f in found.items()}
    return {"versions": first["versions"], "machine": {**common, "models": own}}


def file_hashes(task: Task) -> dict[str, str]:
    """SHA-256 of every file of examples and documents that is read, by path relative to task.yaml where it can be."""
    return _hashes(task, task.example_files) | _hashes_beside_examples(task)


def _hashes_beside_examples(task: Task) -> dict[str, str]:
    """Of the documents, of a user's metric and of the files beside it that it imports."""
    from rung.data.corpus import files_of_task, texts_of
    from rung.evaluation.metric_files import metric_files

    files = list(texts_of(task.corpus, files_of_task(task))) if task.corpus is not None else []
    return _hashes(task, [*files, *metric_files(task.metric, task.path.parent)])


def _hash_of_parsed(documents: Sequence[Document]) -> str | None:
    """Of what was read from web pages, PDF and the like, since the libraries that read them decide it, too: one that is
    installed or replaced between two commands changes the documents. None where texts and rows are all there is, whose
    files say everything."""
    if not any(d.markdown and not d.id.lower().endswith(MARKDOWN_SUFFIXES) for d in documents):
        return None
    found = hashlib.sha256()
    for d in documents:
        found.update(json.dumps([d.id, d.title, d.text, d.markdown]).encode())
    return found.hexdigest()


def _hashes(task: Task, files: Sequence[Path]) -> dict[str, str]:
    return {name_in_record(path, task.path.parent): _sha256(path) for path in files}


def name_in_record(path: Path | str, home: Path) -> str:
    """A file by its path from the folder of task.yaml, as UTF-8 can hold it: other bytes of a name are escaped."""
    return os.path.relpath(path, home).encode("utf-8", "backslashreplace").decode("utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(model: Model) -> dict[str, Any]:
    """Versions of rung and of what it computes with, and the machine, for task.json and the events."""
    from importlib.metadata import PackageNotFoundError, version

    from rung.models.speed import describe

    found = {"rung": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "peft", "llguidance", "bm25s", "scipy", "statsmodels", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    return {"versions": found, "machine": {**machine, **describe(model)}}
