"""Reads everything the user brought and says what can be known before anything is spent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.errors import DataError, TaskError
from rung.ladder.spending import spent_before
from rung.ladder.state import Listener, Run, RunOptions
from rung.records import read_json, write_json
from rung.types import Constraint, Document, Metric, Split, Task

if TYPE_CHECKING:
    from rung.models.local import LocalModel


@dataclass(frozen=True)
class Loaded:
    split: Split
    documents: tuple[Document, ...]
    metric: Metric
    constraint: Constraint | None
    model_version: str
    checks: dict[str, Any]


def load(task: Task, options: RunOptions, listener: Listener) -> Loaded:
    """What the user brought, read and checked. What can fail for a reason in it fails before anything is written."""
    from rung.data.checks import check_examples, near_duplicate_groups
    from rung.data.constraint import constraint_of, refused
    from rung.data.corpus import check_gold_ids, read_corpus
    from rung.data.examples import read_sets
    from rung.data.split import split_examples, straddling_groups
    from rung.evaluation.metrics import load_metric
    from rung.models.catalogue import ensure_model, fingerprint

    sets = read_sets(task)
    everything = [e for part in sets.values() for e in part]
    documents = read_corpus(task.corpus) if task.corpus else ()
    groups = near_duplicate_groups(everything)
    findings = [*check_examples(everything, task), *straddling_groups(sets, groups)]
    if documents:
        findings += check_gold_ids(everything, documents)
    split = split_examples(sets, groups, task)
    constraint = constraint_of(task, split.train)
    findings += refused(everything, constraint)
    metric = load_metric(task.metric, task.path.parent)
    for example in everything:  # a reference that cannot be read fails now, not when the test has been opened
        metric(example.output, example.references)
    serious = [f for f in findings if f.severity != "note"]
    if options.strict and serious:
        listed = "\n".join(f"  {f.row + ': ' if f.row else ''}{f.message}" for f in serious[:10])
        raise DataError(f"{task.path}: {len(serious)} warnings, and --strict stops at warnings:\n{listed}")
    version = fingerprint(ensure_model(task.model, say=listener.say))
    return Loaded(split, documents, metric, constraint, version, {"findings": [asdict(f) for f in findings]})


def load_network(task: Task, constraint: Constraint | None, listener: Listener) -> LocalModel:
    """The task's model. Raises ModelError, and ConstraintError where it cannot be held to the task's constraint."""
    from rung.models.local import load_model

    model = load_model(task.model, say=listener.say)
    if constraint is not None:
        model.check_constraint(constraint)
    return model


def task_record_of(task: Task, options: RunOptions, loaded: Loaded) -> dict[str, Any]:
    from rung.data.task_file import task_record
    from rung.ladder.plan import file_hashes

    resolved = task_record(task)
    decides = {
        "task": {key: value for key, value in resolved.items() if key != "path"},
        "data": file_hashes(task),
        "model_version": loaded.model_version,
        "only": sorted(options.only),
        "exhaustive": options.exhaustive,
    }
    return {**resolved, **{k: v for k, v in decides.items() if k != "task"}, "identity": runs.identity(decides)}


def prepare(task: Task, loaded: Loaded, model: LocalModel, folder: Path, listener: Listener, started: float) -> Run:
    """Writes the split and the plan, tells them, and returns what the stages need."""
    from rung.data.split import split_record
    from rung.ladder.plan import make_plan
    from rung.retrieval.bm25 import BM25
    from rung.retrieval.chunk import chunk

    if not (folder / "split.json").is_file():
        write_json(folder / "split.json", split_record(loaded.split))
    passages = chunk(loaded.documents)
    retriever = BM25(passages) if passages else None
    only = tuple((read_json(folder / "task.json") or {})["only"])
    plan = make_plan(task, loaded.split, model, passages=passages, retriever=retriever, only=only)
    if not any(step.applies for step in plan.steps):
        reasons = "; ".join(f"{step.name}: {step.why}" for step in plan.steps if step.name in only)
        raise TaskError(f"{task.path}: none of the strategies named by --only applies ({reasons}). Name others.")
    if not (folder / "plan.json").is_file():
        write_json(folder / "plan.json", plan.record())
    listener.planned(folder, read_json(folder / "plan.json") or {}, loaded.checks)
    spent, calls = spent_before(folder)
    runs.log(folder, "started", spent_s=round(spent, 1))
    return Run(
        folder=folder,
        task=task,
        split=loaded.split,
        model=model,
        metric=loaded.metric,
        passages=passages,
        retriever=retriever,
        plan=plan,
        listener=listener,
        exhaustive=bool((read_json(folder / "task.json") or {}).get("exhaustive")),
        started=started,
        spent_before_s=spent,
        calls_before=calls,
        constraint=loaded.constraint,
    )
