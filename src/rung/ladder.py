"""The practical path: load, say what can be known, climb, open the sealed test once, decide, hand over.

Every stage leaves a file and looks for it first, so the same command after an interruption goes on
where it stopped and ends in the same decision. Which rung comes next is decided here; what a rung
does is in strategies, and what the numbers mean in decision.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rung import runs
from rung.errors import DataError, TaskError
from rung.records import read_json, read_lines, write_json
from rung.strategies import STRATEGIES
from rung.types import (
    FAMILIES,
    Candidate,
    Constraint,
    Decision,
    Diagnosis,
    Document,
    Example,
    Family,
    Metric,
    Prediction,
    Retriever,
    Score,
    Solution,
    Split,
    Task,
)

if TYPE_CHECKING:
    from rung.models.local import LocalModel
    from rung.plan import Plan
    from rung.strategies.materials import Materials

_LATENCY_INPUTS = 8


class Listener(Protocol):
    """Who is told what happens. Every method returns at once; none may raise."""

    def say(self, text: str) -> None: ...
    def planned(self, folder: Path, plan: Mapping[str, Any], checks: Mapping[str, Any]) -> None: ...
    def progress(self, what: str, share: float, left_s: float | None) -> None: ...
    def tried(self, name: str, family: Family, dev: Score, seconds: float) -> None: ...
    def skipped(self, name: str, why: str) -> None: ...


@dataclass(frozen=True)
class RunOptions:
    """How to run. out: the run folder. only: strategies to try. strict: data warnings stop the run."""

    out: Path | None = None
    only: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True)
class _Run:
    """What every stage needs."""

    folder: Path
    task: Task
    split: Split
    model: LocalModel
    metric: Metric
    passages: tuple[Document, ...]
    retriever: Retriever | None
    plan: Plan
    listener: Listener
    started: float
    spent_before_s: float

    @property
    def spent_s(self) -> float:
        return self.spent_before_s + time.monotonic() - self.started


def run(task_path: Path, options: RunOptions, listener: Listener) -> Path:
    """Runs or continues a task and returns its run folder, in which decision.json then lies.

    Raises RungError, with nothing lost, for everything the user can mend.
    """
    from rung.data.task_file import read_task

    started = time.monotonic()
    task = read_task(task_path)
    unknown = [name for name in options.only if name not in STRATEGIES]
    if unknown:
        raise TaskError(f"--only {unknown[0]}: no such strategy; there are {', '.join(STRATEGIES)}.")
    loaded = _load(task, options, listener)
    record = _task_record(task, options, loaded)
    folder = runs.choose_folder(task.name, record["identity"], out=options.out)
    if runs.is_finished(folder):
        listener.say(f"{folder} is finished: this is its verdict. To run again, name another folder with --out.")
        return folder
    with runs.held(folder):
        if read_json(folder / "task.json") is None:
            write_json(folder / "task.json", record)  # first: it says whose folder this is
        write_json(folder / "checks.json", loaded.checks)
        spent = sum(e.get("seconds", 0.0) for e in runs.events(folder) if e["event"] in ("built", "diagnosed"))
        prepared = _prepare(task, loaded, folder, listener, started, spent)
        built, skipped = _climb(prepared)
        _decide(prepared, built, _finalists(prepared, built), skipped)
        _hand_over(prepared)
        runs.mark_finished(folder)
    return folder


# ---- load -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Loaded:
    split: Split
    documents: tuple[Document, ...]
    metric: Metric
    model: LocalModel
    checks: dict[str, Any]


def _load(task: Task, options: RunOptions, listener: Listener) -> _Loaded:
    """Everything that can fail for a reason in the user's files fails here, before anything is written."""
    from rung.data.checks import check_examples, near_duplicate_groups
    from rung.data.corpus import check_gold_ids, read_corpus
    from rung.data.examples import read_sets
    from rung.data.split import split_examples, straddling_groups
    from rung.evaluation.metrics import load_metric

    sets = read_sets(task)
    everything = [e for part in sets.values() for e in part]
    documents = read_corpus(task.corpus) if task.corpus else ()
    groups = near_duplicate_groups(everything)
    findings = [*check_examples(everything, task), *straddling_groups(sets, groups)]
    if documents:
        findings += check_gold_ids(everything, documents)
    split = split_examples(sets, groups, task)
    metric = load_metric(task.metric, task.path.parent)
    for example in (*split.train, *split.dev):  # a reference that cannot be read fails now, not after an hour
        metric(example.output, example.references)
    serious = [f for f in findings if f.severity != "note"]
    if options.strict and serious:
        listed = "\n".join(f"  {f.row + ': ' if f.row else ''}{f.message}" for f in serious[:10])
        raise DataError(f"{task.path}: {len(serious)} warnings, and --strict stops at warnings:\n{listed}")
    from rung.models.local import load_model

    model = load_model(task.model, say=listener.say)
    constraint = constraint_of(task)
    if constraint is not None:
        model.check_constraint(constraint)
    checks = {"findings": [asdict(f) for f in findings]}
    return _Loaded(split, documents, metric, model, checks)


def constraint_of(task: Task) -> Constraint | None:
    """What task.yaml says an answer may look like."""
    if task.labels:
        return Constraint("labels", task.labels)
    if task.schema:
        return Constraint("json_schema", task.schema)
    return Constraint("regex", task.pattern) if task.pattern else None


def _task_record(task: Task, options: RunOptions, loaded: _Loaded) -> dict[str, Any]:
    from rung.data.task_file import task_record
    from rung.plan import file_hashes, machine

    resolved = task_record(task)
    decides = {
        "task": {key: value for key, value in resolved.items() if key != "path"},
        "data": file_hashes(task),
        "model_version": loaded.model.version,
        "only": sorted(options.only),
    }
    here = machine(loaded.model)
    return {**resolved, **{k: v for k, v in decides.items() if k != "task"}, "identity": runs.identity(decides), **here}


def _prepare(
    task: Task, loaded: _Loaded, folder: Path, listener: Listener, started: float, spent_before_s: float
) -> _Run:
    from rung.data.split import split_record
    from rung.plan import make_plan
    from rung.retrieval.bm25 import BM25
    from rung.retrieval.chunk import chunk

    if not (folder / "split.json").is_file():
        write_json(folder / "split.json", split_record(loaded.split))
    passages = chunk(loaded.documents)
    retriever = BM25(passages) if passages else None
    only = tuple((read_json(folder / "task.json") or {})["only"])
    plan = make_plan(task, loaded.split, loaded.model, passages=passages, retriever=retriever, only=only)
    if not any(step.applies for step in plan.steps):
        reasons = "; ".join(f"{step.name}: {step.why}" for step in plan.steps if step.name in only)
        raise TaskError(f"{task.path}: none of the strategies named by --only applies ({reasons}). Name others.")
    if not (folder / "plan.json").is_file():
        write_json(folder / "plan.json", plan.record())
    listener.planned(folder, read_json(folder / "plan.json") or {}, loaded.checks)
    runs.log(folder, "started", spent_s=round(spent_before_s, 1))
    return _Run(
        folder,
        task,
        loaded.split,
        loaded.model,
        loaded.metric,
        passages,
        retriever,
        plan,
        listener,
        started,
        spent_before_s,
    )


# ---- climb ----------------------------------------------------------------------------------


def _climb(run: _Run) -> tuple[dict[str, tuple[Solution, Score]], list[tuple[str, str]]]:
    """Builds and tries each strategy of the plan in turn. Returns those built, with dev scores, and those skipped."""
    built: dict[str, tuple[Solution, Score]] = {}
    skipped: list[tuple[str, str]] = [(step.name, step.why) for step in run.plan.steps if not step.applies]
    enough: str | None = None
    steps = [step for step in run.plan.steps if step.applies]
    for place, step in enumerate(steps):
        finished = (run.folder / "solutions" / step.name / "solution.json").is_file()
        why = enough or (None if finished or place == 0 else _over_budget(run, step.name, step.seconds))
        if why:
            skipped.append((step.name, why))
            run.listener.skipped(step.name, why)
            continue
        solution, predictions, seconds = _build(run, step.name, built, steps[place:])
        dev = _score(run, predictions, [run.split.groups.get(p.id, p.id) for p in predictions])
        built[step.name] = (solution, dev)
        run.listener.tried(step.name, solution.family, dev, seconds)
        if run.task.target is not None and dev.low > run.task.target:
            enough = f"{step.name} is confidently above the target of {run.task.target:g} on dev"
        left = [s for s in steps[place + 1 :] if s.family != "prompt"]
        if solution.family == "prompt" and left and len(left) == len(steps) - place - 1 and not enough:
            _ask_why(run, built, steps[place:])
    return built, skipped


def _ask_why(run: _Run, built: Mapping[str, tuple[Solution, Score]], remaining: Sequence[Any]) -> None:
    """Diagnoses the wrong answers of the best prompt, by experiment on dev, before anything dearer is built."""
    from rung.diagnosis.diagnose import diagnose
    from rung.strategies.materials import read_predictions

    if (run.folder / "diagnosis.json").is_file():
        return
    started = time.monotonic()
    name = max(built, key=lambda n: built[n][1].mean)
    folder = run.folder / "solutions" / name
    materials = _materials(run, folder, built, remaining)
    predictions = read_predictions(folder / "predictions.dev.jsonl")
    record = diagnose(materials, built[name][0], predictions, run.folder / "diagnosis")
    write_json(run.folder / "diagnosis.json", record)
    runs.log(run.folder, "diagnosed", solution=name, seconds=round(time.monotonic() - started, 2))


def _over_budget(run: _Run, name: str, seconds: float) -> str | None:
    minutes = run.task.budget.minutes
    if minutes is None or run.spent_s + seconds <= minutes * 60:
        return None
    return f"about {seconds / 60:.1f} more minutes would pass the budget of {minutes:g}"


def _build(
    run: _Run, name: str, built: Mapping[str, tuple[Solution, Score]], remaining: Sequence[Any]
) -> tuple[Solution, list[Prediction], float]:
    from rung.solutions.store import load_solution, save_solution
    from rung.strategies.materials import attempt, screened

    folder = run.folder / "solutions" / name
    materials = _materials(run, folder, built, remaining)
    started = time.monotonic()
    if (folder / "solution.json").is_file():
        solution = load_solution(folder)
    else:
        runs.log(run.folder, "building", solution=name)
        module, _, attribute = STRATEGIES[name][1].partition(":")
        solution = getattr(import_module(module), attribute)(materials)
        solution = save_solution(solution, folder, passages=run.passages)
    path = folder / "predictions.dev.jsonl"
    predictions = attempt(materials, solution, run.split.dev, path, known=screened(folder))
    record = read_json(folder / "built.json")
    if record is None:
        record = {"seconds": time.monotonic() - started}
        write_json(folder / "built.json", record)
        runs.log(run.folder, "built", solution=name, seconds=round(record["seconds"], 2))
        _tidy(folder)
    return solution, predictions, float(record["seconds"])


def _materials(
    run: _Run, folder: Path, built: Mapping[str, tuple[Solution, Score]], remaining: Sequence[Any]
) -> Materials:
    from rung.strategies.materials import Materials

    lora = read_json(run.folder / "solutions" / "lora" / "training" / "history.json")
    rag = built.get("rag")
    seconds = [step.seconds for step in remaining]
    begun = time.monotonic()

    def tell(what: str, share: float) -> None:
        # The estimate of this step, corrected by how far it has come.
        spent = time.monotonic() - begun
        here = spent / share * (1 - share) if share > 0.15 else max(0.0, seconds[0] - spent)
        run.listener.progress(what, share, here + sum(seconds[1:]) + run.plan.test_seconds)

    return Materials(
        task=run.task,
        train=run.split.train,
        dev=run.split.dev,
        model=run.model,
        metric=run.metric,
        folder=folder,
        decoding=run.plan.decoding,
        constraint=constraint_of(run.task),
        passages=run.passages,
        retriever=run.retriever,
        compute_tokens=run.plan.compute_tokens,
        learning_rate=lora["learning_rate"] if lora else None,
        shown_passages=rag[0].retriever.k if rag and rag[0].retriever else None,
        tell=tell,
    )


def _tidy(folder: Path) -> None:
    """Optimiser states and the adapters of other epochs are of no use once a solution stands."""
    for path in (folder / "training").glob("lr-*"):
        shutil.rmtree(path, ignore_errors=True)


def _score(run: _Run, predictions: Sequence[Prediction], groups: Sequence[str]) -> Score:
    from rung.evaluation.statistics import score

    return score([p.score or 0.0 for p in predictions], groups=_numbered(groups), seed=run.task.seed)


# ---- the sealed test and the decision -------------------------------------------------------


def _finalists(run: _Run, built: Mapping[str, tuple[Solution, Score]]) -> list[str]:
    """The best of each family on dev (of equals, the first built)."""
    chosen = []
    for family in FAMILIES:
        members = [name for name, (solution, _) in built.items() if solution.family == family]
        if members:
            chosen.append(max(members, key=lambda name: built[name][1].mean))
    return chosen


def _decide(
    run: _Run,
    built: Mapping[str, tuple[Solution, Score]],
    finalists: list[str],
    skipped: list[tuple[str, str]],
) -> None:
    if (run.folder / "decision.json").is_file():
        return
    from rung.decision import Evidence, decide, decision_record
    from rung.evaluation.sealed import count_reads, open_test
    from rung.evaluation.statistics import compare, holm, minimum_detectable_difference
    from rung.evaluation.statistics import floor as floor_of

    for name in finalists:
        _measure_latency(run, built[name][0])
    reads = run.folder / "test_reads.jsonl"
    test = open_test(run.split.test, log=reads, solutions=finalists, why="final comparison of the named candidates")
    answers = {name: _answer_test(run, built[name][0], test) for name in finalists}
    groups = [run.split.groups.get(e.id, e.id) for e in test]
    scores = {name: [p.score or 0.0 for p in predictions] for name, predictions in answers.items()}
    pairs = [
        compare(a, b, scores[a], scores[b], "test", groups=_numbered(groups), seed=run.task.seed)
        for a, b in itertools.combinations(finalists, 2)
    ]
    evidence = Evidence(
        metric=run.task.metric,
        candidates=tuple(
            _candidate(run, solution, dev, _score(run, answers[name], groups) if name in answers else None)
            for name, (solution, dev) in built.items()
        ),
        comparisons=holm(pairs) if pairs else (),
        floor=floor_of(
            [e.output for e in run.split.train], run.metric, [e.references for e in test], labels=run.task.labels or ()
        ),
        n_test=len(test),
        minimum_detectable_difference=minimum_detectable_difference(len(set(groups))),
        test_reads=count_reads(reads),
        has_corpus=bool(run.passages),
        target=run.task.target,
        skipped=tuple(skipped),
        diagnosis=_causes(run.folder),
    )
    decision: Decision = decide(evidence)
    runs.log(run.folder, "decided", choice=decision.choice, solution=decision.solution, floor=evidence.floor)
    write_json(run.folder / "decision.json", decision_record(decision))


def _causes(folder: Path) -> tuple[Diagnosis, ...]:
    """What the diagnosis found, for the verdict; nothing where there was none, or too little to go by."""
    from rung.diagnosis.diagnose import causes

    record = read_json(folder / "diagnosis.json")
    return causes(record) if record is not None and not record["poor"] else ()


def _answer_test(run: _Run, solution: Solution, test: Sequence[Example]) -> list[Prediction]:
    from rung.strategies.materials import attempt

    folder = run.folder / "solutions" / solution.name
    materials = _materials(run, folder, {}, [replace(s, seconds=0.0) for s in run.plan.steps[:1]])
    return attempt(materials, solution, test, folder / "predictions.test.jsonl")


def _candidate(run: _Run, solution: Solution, dev: Score, test: Score | None) -> Candidate:
    folder = run.folder / "solutions" / solution.name
    lines = read_lines(folder / "predictions.dev.jsonl")
    latency = read_json(folder / "latency.json") or {}
    return Candidate(
        name=solution.name,
        family=solution.family,
        dev=dev,
        test=test,
        tokens_in=round(sum(r["tokens_in"] for r in lines) / len(lines), 2),
        tokens_out=round(sum(r["tokens_out"] for r in lines) / len(lines), 2),
        latency_s_p50=latency.get("p50"),
        latency_s_p95=latency.get("p95"),
        cost_per_1k_usd=None,
        build_seconds=round((read_json(folder / "built.json") or {}).get("seconds", 0.0), 2),
        build_usd=0.0,
    )


def _measure_latency(run: _Run, solution: Solution) -> None:
    """Seconds from request to answer, one request at a time, on a few dev inputs."""
    path = run.folder / "solutions" / solution.name / "latency.json"
    if path.is_file():
        return
    import numpy as np

    from rung.solutions.answer import answer

    seconds = []
    run.listener.progress(f"timing {solution.name}", 0.0, run.plan.test_seconds)
    for example in run.split.dev[: _LATENCY_INPUTS + 1]:
        started = time.perf_counter()
        answer(solution, run.model, [example.query], retriever=run.retriever)
        seconds.append(time.perf_counter() - started)
    seconds = seconds[1:]  # the first one warms up
    p50, p95 = np.percentile(seconds, [50, 95])
    write_json(path, {"n": len(seconds), "p50": round(float(p50), 4), "p95": round(float(p95), 4)})


def _numbered(groups: Sequence[str]) -> Any:
    """Group names as integers; None where every example is its own group."""
    import numpy as np

    if len(set(groups)) == len(groups):
        return None
    places = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    return np.array([places[name] for name in groups])


def _hand_over(run: _Run) -> None:
    """Copies the winner to winner/, the folder to ship."""
    from rung.solutions.store import load_solution, save_solution

    decision = read_json(run.folder / "decision.json") or {}
    winner = run.folder / "winner"
    if decision.get("solution") is None or (winner / "bundle.json").is_file():
        return
    solution = load_solution(run.folder / "solutions" / decision["solution"])
    save_solution(solution, winner, passages=run.passages)
    write_json(
        winner / "bundle.json",
        {
            "task": run.task.name,
            "model": run.task.model,
            "model_version": run.model.version,
            "solution": solution.name,
            "choice": decision["choice"],
            "headline": decision["headline"],
        },
    )


def test_examples(folder: Path) -> dict[str, Example]:
    """Examples of a finished run by id, for its report; empty when the files are no longer what they were.

    A run without a verdict gives none: its test is still sealed.
    """
    if not (folder / "decision.json").is_file():
        return {}
    from rung.data.examples import read_examples
    from rung.data.task_file import read_task
    from rung.errors import RungError
    from rung.plan import file_hashes

    record = read_json(folder / "task.json") or {}
    try:
        task = read_task(Path(record["path"]))
        if file_hashes(task) != record["data"]:
            return {}
        return {e.id: e for e in read_examples(task)}
    except (RungError, KeyError, OSError):
        return {}
