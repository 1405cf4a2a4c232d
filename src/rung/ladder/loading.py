"""Reads everything the user brought, checks it, and says what can be known before anything is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import __version__, runs
from rung.errors import ModelError, TaskError
from rung.ladder.again import reopen, spent_already
from rung.ladder.applies import check_that_some_apply, has
from rung.ladder.checking import CheckedData, Read, check, findings_of_split, read, refuse
from rung.ladder.identity import described
from rung.ladder.judge_costs import share_of, share_record, with_judge
from rung.ladder.judging import hold_judge, read_scored
from rung.ladder.ledger import Ledger, Spent, spent_before
from rung.ladder.opening import Opened, check_prices, closed_on_error, helpers_of, hourly_usd, purse_of, token_price
from rung.ladder.options import Listener, RunOptions
from rung.ladder.plan import Plan, Step, make_plan
from rung.ladder.plan_checks import with_checks
from rung.ladder.plan_records import plan_record, planned_before, start_record
from rung.ladder.plan_search import with_search
from rung.ladder.plan_shortening import with_shortening
from rung.ladder.state import RunState, WholeRun
from rung.records import write_json
from rung.resume import is_done, once, recorded
from rung.runs import Files
from rung.strategies import STRATEGIES
from rung.types import (
    Budget,
    Constraint,
    Finding,
    MetricInfo,
    Model,
    Split,
    Task,
    Trainable,
    candidate_name,
)

if TYPE_CHECKING:
    from rung.data.beside import Beside
    from rung.data.growth import Growth
    from rung.trials.workshop import Inputs, Tools


_READING_LINES = 6  # about how files were read; rung check tells all of them


@dataclass(frozen=True)
class Loaded:
    """What the user brought, read. versions: name of a model -> its version; no weights are loaded yet.

    helpers: "teacher" and "judge" -> version, where the task names them.
    """

    read: Read
    versions: Mapping[str, str]
    helpers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """What the checks say of it, and the split. constraint: what answers can be held to.

    growth: what changed in train since the run began; None: nothing may have.
    """

    split: Split
    findings: tuple[Finding, ...]
    constraint: Constraint | None
    growth: Growth | None = None

    @property
    def split_record(self) -> dict[str, Any]:
        """As split.json holds it."""
        from rung.data.split import split_record

        return dict(split_record(self.split))

    @property
    def checks_record(self) -> dict[str, Any]:
        """As checks.json holds it."""
        return {"findings": [asdict(f) for f in self.findings]}


def with_options(task: Task, options: RunOptions) -> Task:
    """The task under the budget, and with the engine, that the command names.

    Raises TaskError for a strategy that does not exist.
    """
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
    return replace(task, budget=budget, engine=options.engine or task.engine)


def load(task: Task, listener: Listener) -> Loaded:
    """What the user brought, read. What can fail for a reason in it fails before anything is written."""
    from rung.engine.variables import check_variables
    from rung.models import is_local, model_version

    if any(is_local(model.spec) for model in (*task.models, *helpers_of(task).values())):
        check_variables()
    data = read(task, listener.say)
    versions: dict[str, str] = {}
    for model in task.models:
        version = model_version(model.spec, say=listener.say)
        if twin := next((name for name, other in versions.items() if other == version), None):
            raise TaskError(f"{task.path}: {model.name} and {twin} are the same model. Keep one of them in models:.")
        versions[model.name] = version
    helping: dict[str, str] = {}
    for role, spec in helpers_of(task).items():
        try:
            helping[role] = model_version(spec.spec, say=listener.say)
        except ModelError as fault:
            raise type(fault)(f"{task.path.name}: {role}: {fault}") from fault
    return Loaded(data, versions, helping)


def examine(loaded: Loaded, options: RunOptions, earlier: Mapping[str, Any] | None, listener: Listener) -> Examined:
    """Checks the data and splits it. earlier: split.json of this run, which is then read back; nothing is checked
    again. With --again, rows that were added since then train, and the data is checked where they do.

    Raises DataError where the checks find an error, and with --strict where they warn.
    """
    from rung.data.constraint import constraint_of
    from rung.data.split import split_from_record

    data = loaded.read
    if earlier is not None and options.again:
        return _examined_again(data, earlier, options)
    if earlier is not None:
        split = split_from_record(data.examples, earlier)
        return Examined(split, (), constraint_of(data.task, split.train))
    for line in data.how[:_READING_LINES]:
        listener.say(line)
    checked = check(data, listener.say)
    refuse(checked, options.strict)
    assert checked.split is not None
    return Examined(checked.split, checked.findings, checked.constraint)


def _examined_again(data: Read, earlier: Mapping[str, Any], options: RunOptions) -> Examined:
    """The split of a run that began, with rows that were added since then in train; checked where train changed."""
    from rung.data.constraint import constraint_of
    from rung.data.findings import without_ignored
    from rung.data.growth import grown_split
    from rung.data.near_duplicates import near_duplicate_groups, near_duplicates
    from rung.data.vectors import forget

    examples = data.examples
    pairs = near_duplicates(examples)
    groups = near_duplicate_groups(examples, pairs)
    grown, growth = grown_split(data.sets, groups, earlier)
    constraint = constraint_of(data.task, grown.train)
    if growth.any:
        found = findings_of_split(data, pairs, groups, grown, constraint)
        forget()
    else:
        found = without_ignored(data.findings, data.task.ignore)
    refuse(CheckedData(data, grown, found, constraint), options.strict)
    return Examined(grown, found, constraint, growth)


def start(
    task: Task,
    loaded: Loaded,
    examined: Examined,
    models: Opened,
    folder: Path,
    record: Mapping[str, Any],
    options: RunOptions,
    listener: Listener,
) -> WholeRun:
    """Writes task, split, checks and plan, or reads them back, and returns what the stages need.

    Raises TaskError where dollars are to be counted and no price is known.
    """
    started, before = time.monotonic(), spent_before(folder)  # at one moment: the clock of this command runs already
    files, hourly = Files(folder), hourly_usd(task)
    _check(task, loaded, examined, models, options)
    beside, scored = _beside(loaded, examined.split, listener), read_scored(loaded.read)
    known = recorded(files.task) or described(models.models)
    record = {**record, "home": known.get("home", record["home"])}
    if options.again and is_done(files.task):  # nothing can stop it any more
        _reopen(task, examined, folder, record, before, listener)
    write_json(files.task, {**{k: known[k] for k in ("versions", "machine")}, **record})  # first: whose folder this is
    once(files.checks, lambda: examined.checks_record)  # before the split: it is not
    split = _kept_split(files, loaded, examined)  # checked again once that is recorded
    homes = {name for name, version in loaded.versions.items() if version == record["home"]}
    inputs = _inputs(loaded, examined, split, beside, models, homes)
    purse = purse_of(files, task, models, before)  # first: speeds are measured by calls, too
    with closed_on_error(purse):
        plans = _plans(inputs, split, models, homes, options, recorded(files.plan), loaded.read.metric)
        share = share_of(task, split.train, models.helpers.get("judge"), recorded(files.plan))
        plans = with_judge(plans, share, len(scored))
        planned = {**plan_record(plans, hourly), **share_record(share), **start_record(models.everybody)}
        write_json(files.plan, planned)
        listener.planned(folder, planned, recorded(files.checks) or {})
        ledger = Ledger(task.budget, models.everybody, hourly, purse, before, started)
        asked = {"versions": dict(loaded.versions), **_asked(task, options)}
        runs.log(folder, "started", spent_s=round(before.seconds, 1), rung=__version__, **asked)
        held = hold_judge(loaded.read, scored, split.train, models, share, ledger, folder, listener)
        tools = _tools(loaded.read.metric if held is None else held.metric, models, options)
        states = [
            RunState(
                folder=folder,
                inputs=inputs,
                test=split.test,
                tools=replace(tools, model=models.counted[spec.name], shared=_shared(models.models[spec.name])),
                model=models.counted[spec.name],
                plan=plans[spec.name],
                ledger=ledger,
                listener=listener,
                exhaustive=options.exhaustive,
                engine_named=options.engine is not None,
                spec=spec,
                home=spec.name in homes,
                helpers=models.helpers,
                held=held,
            )
            for spec in task.models
        ]
        return WholeRun(tuple(states), recorded(files.models) or {})


def _reopen(
    task: Task, examined: Examined, folder: Path, record: Mapping[str, Any], before: Spent, listener: Listener
) -> None:
    """Makes the run climb again, and says where its budget leaves nothing for that. before: spent until now."""
    reopen(folder, record, examined.growth, examined.split_record, examined.checks_record, listener)
    if (spent := spent_already(task.budget, before)) is not None:
        listener.say(spent)


def _tools(metric: MetricInfo, models: Opened, options: RunOptions) -> Tools:
    from rung.evaluation.scorer import Scorer
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Tools

    first = next(iter(models.counted.values()))
    teacher = models.helpers.get("teacher")
    return Tools(first, Scorer(metric), options.executor or InOrder(), teacher=teacher)


def _beside(loaded: Loaded, split: Split, listener: Listener) -> Beside:
    """The rows beside the examples. Raises DataError for what cannot be read; nothing is written yet."""
    from rung.data.beside import read_beside
    from rung.data.fence import fence_of

    return read_beside(loaded.read.task, fence_of(loaded.read.examples, split), listener.say)


def _inputs(
    loaded: Loaded, examined: Examined, split: Split, beside: Beside, models: Opened, homes: Collection[str]
) -> Inputs:
    """homes: names of the model that the run began with. It counts the tokens of passages, whatever model is added."""
    from rung.cache import cache_folder
    from rung.data.fence import fence_of
    from rung.retrieval.library import Library
    from rung.trials.workshop import Inputs

    counting = models.counted[next((name for name in models.counted if name in homes), next(iter(models.counted)))]
    return Inputs(
        task=loaded.read.task,
        train=split.train,
        dev=split.dev,
        constraint=examined.constraint,
        library=Library(loaded.read.documents, count_tokens=counting.count_tokens, folder=cache_folder() / "indexes"),
        groups=split.groups,
        unlabelled=beside.unlabelled,
        synthetic=beside.synthetic,
        preferences=beside.preferences,
        fence=fence_of(loaded.read.examples, split),
    )


def _plans(
    inputs: Inputs,
    split: Split,
    models: Opened,
    homes: Collection[str],
    options: RunOptions,
    earlier: Mapping[str, Any] | None,
    metric: MetricInfo,
) -> dict[str, Plan]:
    """The plan of each model. homes: names of models whose candidates are called by their strategies alone."""
    trainable = sum(isinstance(model, Trainable) for model in models.counted.values())
    sharing = trainable if inputs.task.budget.minutes is not None else 1
    plans = {
        spec.name: make_plan(
            inputs,
            split,
            models.counted[spec.name],
            only=options.only,
            earlier=planned_before(earlier, spec.name),
            called=str if spec.name in homes else partial(candidate_name, model=spec.name),
            spec=spec,
            price=token_price(spec.price) or models.counted[spec.name].price,
            sharing=sharing,
            teacher=models.helpers.get("teacher"),
        )
        for spec in inputs.task.models
    }
    plans = {name: with_shortening(plan) for name, plan in plans.items()}
    plans = with_search(with_checks(plans, inputs, models.counted, metric), inputs, earlier)
    groups = sum(len({s.family for s in p.steps if s.applies}) + p.shortened for p in plans.values())
    return {name: plan.with_detectable(groups, split) for name, plan in _asking_once(plans).items()}


def _asking_once(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """The same plans; only the first one that has the teacher answer dev keeps that step: it is asked once a run."""
    first = next((name for name, plan in plans.items() if plan.teacher.applies), None)
    why = f"it answers dev once, with the best prompt of {first}"
    no = Step("teacher", "prompt", False, why)
    return {
        name: replace(plan, teacher=no) if plan.teacher.applies and name != first else plan
        for name, plan in plans.items()
    }


def _check(
    task: Task,
    loaded: Loaded,
    examined: Examined,
    models: Opened,
    options: RunOptions,
) -> None:
    """Raises TaskError where nothing could be tried, or a budget not be kept; nothing is written yet."""
    corpus, constrained = bool(loaded.read.documents), examined.constraint is not None
    have = [has(model, task, corpus=corpus, constrained=constrained) for model in models.counted.values()]
    check_that_some_apply(options.only, have)
    check_prices(task, models)


def _kept_split(files: Files, loaded: Loaded, examined: Examined) -> Split:
    """The split as it lies in the run folder; the examined one is written there first, where there is none."""
    from rung.data.split import split_from_record

    record = examined.split_record
    on_disk = once(files.split, lambda: record)
    if on_disk["sets"] == record["sets"]:
        return examined.split
    return split_from_record(loaded.read.examples, on_disk)  # another command was faster


def _asked(task: Task, options: RunOptions) -> dict[str, Any]:
    """What a command asked for, of all that may change between the commands on a run."""
    return {"budget": asdict(task.budget), "target": task.target, "only": sorted(options.only)}


def _shared(model: Model) -> Path:
    """Where answers are kept that all runs with this model share."""
    from rung.cache import cache_folder
    from rung.models import answers_key

    return cache_folder() / "answers" / answers_key(model)
