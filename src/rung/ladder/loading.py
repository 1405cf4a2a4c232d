"""Reads everything the user brought, checks it, and says what can be known before anything is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import __version__, runs
from rung.errors import DataError, TaskError
from rung.ladder.ledger import Ledger, spent_before
from rung.ladder.options import Listener, RunOptions
from rung.ladder.plan import Plan, file_hashes, make_plan, versions
from rung.ladder.state import RunState
from rung.records import write_json
from rung.resume import once, recorded
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.types import (
    Answer,
    Budget,
    Constraint,
    Document,
    Example,
    Finding,
    MetricInfo,
    Model,
    Price,
    Retriever,
    RetrieverSpec,
    Split,
    Task,
)

if TYPE_CHECKING:
    from rung.data.examples import Sets

_PROBED = 100  # examples whose answers say whether a metric grades
_NOT_MEASURED = ("path", "name", "examples", "corpus", "model", "budget", "target", "price")
"""Keys of the task that decide what is tried or where things lie, but not what an answer scores."""


@dataclass(frozen=True)
class Loaded:
    """What the user brought, read. sets: as the files name them. model_version: of weights that are not loaded yet."""

    sets: Sets
    documents: tuple[Document, ...]
    metric: MetricInfo
    model_version: str

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(e for part in self.sets.values() for e in part)


@dataclass(frozen=True)
class Examined:
    """What the checks say of it, and the split. constraint: what answers can be held to."""

    split: Split
    findings: tuple[Finding, ...]
    constraint: Constraint | None


def with_options(task: Task, options: RunOptions) -> Task:
    """The task under the budget that the command names. Raises TaskError for a strategy that does not exist."""
    unknown = [name for name in options.only if name not in STRATEGIES]
    if unknown:
        raise TaskError(f"--only {unknown[0]}: there is no such strategy. The strategies are {', '.join(STRATEGIES)}.")
    for name, value in (("--minutes", options.minutes), ("--usd", options.usd)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise TaskError(f"{name} {value:g}: a budget is a number above 0.")
    budget = Budget(
        task.budget.minutes if options.minutes is None else options.minutes,
        task.budget.calls if options.calls is None else options.calls,
        task.budget.usd if options.usd is None else options.usd,
    )
    if budget.usd is not None and task.price is None:
        raise TaskError("--usd: the task names no price, so dollars cannot be counted. Add price: to task.yaml.")
    return replace(task, budget=budget)


def load(task: Task, listener: Listener) -> Loaded:
    """What the user brought, read. What can fail for a reason in it fails before anything is written."""
    from rung.data.corpus import read_corpus
    from rung.data.examples import read_sets
    from rung.evaluation.metrics import as_observed, load_metric
    from rung.models import model_version

    sets = read_sets(task)
    documents = read_corpus(task.corpus) if task.corpus else ()
    metric = load_metric(task.metric, task.path.parent)
    if task.metric.startswith("python:"):  # of a user's metric it is not known whether it grades
        metric = as_observed(metric, _scores_of_answers(metric, [e for part in sets.values() for e in part]))
    return Loaded(sets, documents, metric, model_version(task.model, say=listener.say))


def _scores_of_answers(metric: MetricInfo, examples: Sequence[Example]) -> list[float]:
    """Scores of right answers, and of the next example's answers, which say whether the metric grades."""
    from rung.evaluation.scorer import Scorer

    some = examples[:_PROBED]
    pairs = [(e, a.output) for e, a in zip(some, (*some[1:], *some[:1]), strict=True)]
    asked = [Answer(e.query, text, e.references) for e, other in pairs for text in (e.output, other)]
    return [outcome.score for outcome in Scorer(metric).score(asked)]


def examine(task: Task, loaded: Loaded, options: RunOptions, earlier: Mapping[str, Any] | None) -> Examined:
    """Checks the data and splits it. earlier: split.json of this run, which is then read back; nothing is checked
    again.

    Raises DataError with --strict and a warning, and where a set would be empty.
    """
    from rung.data.checks import check_examples
    from rung.data.constraint import constraint_of, refused
    from rung.data.corpus import check_gold_ids
    from rung.data.near_duplicates import groups_of, near_duplicates
    from rung.data.split import split_examples, split_from_record, straddling_groups
    from rung.evaluation.metrics import probe_metric

    examples = loaded.examples
    if earlier is not None:
        split = split_from_record(examples, earlier)
        return Examined(split, (), constraint_of(task, split.train))
    pairs = near_duplicates(examples)
    groups = groups_of(examples, pairs)
    split = split_examples(loaded.sets, groups, task)
    constraint = constraint_of(task, split.train)
    findings = [*check_examples(examples, task, pairs), *straddling_groups(loaded.sets, groups)]
    if loaded.documents:
        findings += check_gold_ids(examples, loaded.documents)
    findings += refused(examples, constraint)
    findings += probe_metric(loaded.metric, examples)
    serious = [f for f in findings if f.severity != "note"]
    if options.strict and serious:
        listed = "\n".join(f"  {f.row + ': ' if f.row else ''}{f.message}" for f in serious[:10])
        raise DataError(f"{task.path}: {len(serious)} warnings, and --strict stops at warnings:\n{listed}")
    return Examined(split, tuple(findings), constraint)


def task_record_of(task: Task, options: RunOptions, loaded: Loaded) -> dict[str, Any]:
    """What task.json holds. identity: of all that decides what an answer scores; two runs with one continue each other.

    Budget, target and the choice of strategies are not part of it: a run is continued with more of them. Paths are
    not part of it either, so that a folder may be moved.
    """
    from rung.data.task_file import task_record

    resolved = task_record(task)
    data = file_hashes(task)
    decides = {
        "task": {key: value for key, value in resolved.items() if key not in _NOT_MEASURED},
        "data": data,
        "model_version": loaded.model_version,
        "exhaustive": options.exhaustive,
    }
    return {
        **resolved,
        "data": data,
        "model_version": loaded.model_version,
        "right_or_wrong": loaded.metric.right_or_wrong,
        "only": sorted(options.only),
        "exhaustive": options.exhaustive,
        "identity": runs.identity(decides),
    }


def start(
    task: Task,
    loaded: Loaded,
    examined: Examined,
    model: Model,
    folder: Path,
    record: Mapping[str, Any],
    options: RunOptions,
    listener: Listener,
) -> RunState:
    """Writes task, split, checks and plan, or reads them back, and returns what the stages need."""
    from rung.evaluation.scorer import Scorer
    from rung.models.metering import metered
    from rung.retrieval.chunk import chunk
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Inputs, Tools

    started = time.monotonic()
    files = Files(folder)
    known = recorded(files.task) or versions(model)
    write_json(files.task, {**{k: known[k] for k in ("versions", "machine")}, **record})  # first: whose folder this is
    once(files.checks, lambda: {"findings": [asdict(f) for f in examined.findings]})  # before the split: it is not
    split = _kept_split(files, loaded, examined)  # checked again once that is recorded
    constraint = examined.constraint
    passages = chunk(loaded.documents)
    plan = make_plan(
        task,
        split,
        model,
        passages=passages,
        constrained=constraint is not None,
        only=options.only,
        earlier=recorded(files.plan),
    )
    _check_that_some_apply(plan, task, options)
    write_json(files.plan, plan.record())
    listener.planned(folder, plan.record(), recorded(files.checks) or {})
    before = spent_before(folder, task.price)
    runs.log(folder, "started", spent_s=round(before.seconds, 1), rung=__version__, **_asked(task, options))
    counted = metered(model, price=_token_price(task.price))
    return RunState(
        folder=folder,
        inputs=Inputs(
            task=task,
            train=split.train,
            dev=split.dev,
            constraint=constraint,
            passages=passages,
            open_index=_indexes(passages, folder),
            groups=split.groups,
        ),
        test=split.test,
        tools=Tools(counted, Scorer(loaded.metric), options.executor or InOrder(), shared=_shared(model)),
        model=counted,
        plan=plan,
        ledger=Ledger(task.budget, task.price, counted, before, started),
        listener=listener,
        exhaustive=options.exhaustive,
    )


def _kept_split(files: Files, loaded: Loaded, examined: Examined) -> Split:
    """The split as it lies in the run folder; the examined one is written there first, where there is none."""
    from rung.data.split import split_from_record, split_record

    record = split_record(examined.split)
    on_disk = once(files.split, lambda: record)
    if on_disk["sets"] == record["sets"]:
        return examined.split
    return split_from_record(loaded.examples, on_disk)  # another command was faster


def _asked(task: Task, options: RunOptions) -> dict[str, Any]:
    """What a command asked for, of all that may change between the commands on a run."""
    return {"budget": asdict(task.budget), "target": task.target, "only": sorted(options.only)}


def _check_that_some_apply(plan: Plan, task: Task, options: RunOptions) -> None:
    if not any(step.applies for step in plan.steps):
        reasons = "; ".join(f"{step.name}: {step.why}" for step in plan.steps if step.name in options.only)
        raise TaskError(f"{task.path}: none of the strategies named by --only applies ({reasons}). Name others.")


def _shared(model: Model) -> Path:
    """Where answers are kept that all runs with this model share."""
    from rung.models import answers_key
    from rung.models.cache import cache_folder

    return cache_folder() / "answers" / answers_key(model)


def _token_price(price: Price | None) -> Price | None:
    """Prices of tokens; the hours of a machine are counted by the ledger."""
    return price if price is not None and price.usd_per_hour is None else None


def _indexes(passages: tuple[Document, ...], folder: Path) -> Callable[[RetrieverSpec], Retriever]:
    """Opens each kind of index once."""
    from rung.retrieval import open_index

    opened: dict[str, Retriever] = {}

    def open_once(spec: RetrieverSpec) -> Retriever:
        if spec.kind not in opened:
            opened[spec.kind] = open_index(spec, passages, folder / "index" / spec.kind)
        return opened[spec.kind]

    return open_once
