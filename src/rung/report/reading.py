"""A run folder that has its verdict, read once for all pages. Knows where each record lies, not how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision import Scale, answers_of, decision_from_record
from rung.errors import DamagedRecord, ModelError, RunError, fault_text
from rung.records import check_whole, damage_behind, read_json, read_lines
from rung.types import Candidate, Decision, SetName

Record = Mapping[str, Any]

UNKNOWN_HOST = "an endpoint"
"""The host of an endpoint whose spec this version cannot read."""


@dataclass(frozen=True)
class Trained:
    """How an adapter, or weights of a solution's own, came about.

    sweep: learning rate -> dev loss. epochs: (epoch, dev score). kept: the epoch. rates: learning rate -> best dev
    score, where every rate was trained to its end. left_out: {"count", "rows"} of rows that were too long to train on.
    cut: why the training was stopped before its end. full: whether all weights were trained. bytes: of what was
    learnt, on disk; 0 where an older version wrote the record. probed: whether the rate rests on probes. rate_from: in
    words, what it was taken over from.
    """

    learning_rate: float
    sweep: Mapping[str, float]
    epochs: tuple[tuple[float, float], ...]
    kept: float
    rates: Mapping[str, float] = field(default_factory=dict)
    left_out: Record = field(default_factory=dict)
    cut: str | None = None
    full: bool = False
    bytes: int = 0
    probed: bool = True
    rate_from: str = ""


@dataclass(frozen=True)
class NamedModel:
    """A model as task.json names it.

    host: of the endpoint that answers; empty where the model is on this machine. local: whether an endpoint is. called:
    by the endpoint, or the name, file or folder that was given. price: as the task gives it. facts: of models.json.
    """

    name: str
    host: str = ""
    local: bool = False
    called: str = ""
    batch: bool = False
    price: Record = field(default_factory=dict)
    facts: Record = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecords:
    """The records of a run that has its verdict; parts that a run did not write are empty.

    models: in the task's order. curve: the learning curve, where there is one. built: name -> solution.json.
    predictions: (name, "dev" or "test") -> lines of the file. latency: name -> latency.json. diagnosed: the solution
    whose wrong answers were looked into; empty where no record says it. contenders: finalists that dev does not show
    to be worse than the best; empty where no record says it. shortened: name of a solution with a shorter prompt ->
    shortening.json, also where no shorter prompt was taken. spent: by all commands, {seconds, usd (for tokens)}, as far
    as it was counted. helpers: "teacher" and "judge".
    """

    folder: Path
    task: Record
    decision: Decision
    plan: Record
    findings: tuple[Record, ...]
    events: tuple[Record, ...]
    test_reads: tuple[Record, ...]
    curve: Record
    built: Mapping[str, Record]
    trained: Mapping[str, Trained]
    predictions: Mapping[tuple[str, str], tuple[Record, ...]]
    models: tuple[NamedModel, ...] = ()
    latency: Mapping[str, Record] = field(default_factory=dict)
    diagnosed: str = ""
    shortened: Mapping[str, Record] = field(default_factory=dict)
    contenders: tuple[str, ...] = ()
    spent: Record = field(default_factory=dict)
    helpers: Mapping[str, NamedModel] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether more than one model was compared."""
        return len(self.models) > 1

    @property
    def scale(self) -> Scale:
        return scale_of(self.task)

    @property
    def metric(self) -> str:
        """What gave the scores: the metric of the task, or the one in the place of a judge that is secondary."""
        return str(self.task.get("scored_by") or self.task.get("metric") or "").rpartition(":")[2]

    @property
    def floor(self) -> str:
        """The floor in words, as the scores beside it are written: of the test, or of dev where the test is sealed."""
        return self.scale.value(self.decision.floor, self.decision.n_dev if self.unfinished else self.decision.n_test)

    @property
    def unfinished(self) -> bool:
        return self.decision.choice == "unfinished"

    @property
    def chosen(self) -> Candidate | None:
        return next((c for c in self.decision.candidates if c.name == self.decision.solution), None)

    @property
    def shown(self) -> Candidate | None:
        """The chosen candidate; with none, the best on the test (on dev where the test is sealed)."""
        models = [c for c in self.decision.candidates if c.family != "baseline"]
        tested = [c for c in models if c.test is not None] or (models if self.unfinished else [])
        return self.chosen or max(tested, key=lambda c: (c.test or c.dev).mean, default=None)

    @property
    def asking(self) -> list[str]:
        """The arguments of `rung ask` that ask the shown candidate; empty where there is none."""
        if self.shown is None:
            return []
        ready = self.chosen is not None and not self.unfinished
        return [str(self.folder), *([] if ready else ["--solution", self.shown.name]), *self._engine_of(self.shown)]

    def _engine_of(self, candidate: Candidate) -> list[str]:
        """The option by which what answered in the run answers again: vLLM's answers may differ from rung's own."""
        by_vllm = [m.name for m in self.models if m.facts.get("engine") == "vllm"]
        return ["--engine", "vllm"] if by_vllm and candidate.model in ("", *by_vllm) else []

    def best_of_models(self) -> list[Candidate]:
        """The best tested candidate of each model, in the task's order; of a model without one, its best on dev."""
        best = []
        for name in [m.name for m in self.models] if self.several else [""]:
            own = [c for c in self.decision.candidates if c.family != "baseline" and (c.model == name or not name)]
            tested = [c for c in own if c.test is not None]
            if own:
                best.append(max(tested or own, key=lambda c: (c.test or c.dev).mean))
        return best

    @property
    def baselines(self) -> frozenset[str]:
        return frozenset(c.name for c in self.decision.candidates if c.family == "baseline")


def scale_of(task: Record) -> Scale:
    """How this task's scores are written; task.json says whether its metric is right or wrong."""
    return Scale(bool(task.get("right_or_wrong")))


def models_of(task: Record, facts: Record | None = None) -> tuple[NamedModel, ...]:
    """The models of a task.json, also of an older one that names a single model. facts: models.json."""
    older: list[Record] = [{"name": str(task["model"]), "spec": str(task["model"])}] if task.get("model") else []
    given: list[Record] = task.get("models") or older
    found = []
    for one in given:
        name, spec = str(one["name"]), str(one.get("spec") or one["name"])
        known = (facts or {}).get(name) or {}
        price = one.get("price") or {}
        if spec.lstrip().startswith("{") or spec.lower().startswith(("http://", "https://")):
            from rung.models.endpoint.spec import parse

            try:
                e = parse(spec)
                found.append(NamedModel(name, e.host, e.is_loopback, e.name, e.batch, price, known))
            except ModelError:  # a newer version may know more keys; the text itself is never shown
                found.append(NamedModel(name, UNKNOWN_HOST, False, name, False, price, known))
        else:
            found.append(NamedModel(name, called=spec, price=price, facts=known))
    return tuple(found)


def models_in_words(task: Record, most: int = 99) -> str:
    """smollm2, or 2 models: smollm2, gpt-5-mini. most: so many are named; the others are counted."""
    names = [m.name for m in models_of(task)]
    if len(names) < 2:
        return "".join(names)
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return f"{len(names)} models: {', '.join([*names[:most], *more])}"


def read_run(folder: Path) -> RunRecords:
    """Raises RunError when there is no verdict yet, or a record is damaged or of another format."""
    try:
        decision = decision_from_record(runs.verdict_of(folder))
        names = [c.name for c in decision.candidates]
        task = read_json(folder / "task.json") or {}
        facts = read_json(folder / "models.json")
        finalists = read_json(folder / "finalists.json") or {}
        return RunRecords(
            folder=folder,
            task=task,
            decision=decision,
            plan=_spared(folder / "plan.json"),
            findings=tuple(_spared(folder / "checks.json").get("findings", ())),
            events=_events(folder, decision),
            test_reads=_test_reads(folder, decision),
            curve=read_json(folder / "curve.json") or {},
            built={n: read_json(folder / "solutions" / n / "solution.json") or {} for n in names},
            trained={n: t for n in names if (t := _trained(folder / "solutions" / n / "training"))},
            predictions={(n, which): _answers(folder, decision, n, which) for n in names for which in _SETS},
            models=_models(task, facts, decision),
            latency={n: r for n in names if (r := read_json(folder / "solutions" / n / "latency.json"))},
            shortened=_shortened(folder),
            diagnosed=str(finalists.get("diagnosed") or _diagnosed(folder, decision)),
            contenders=tuple(finalists.get("contenders", ())),
            spent={
                "seconds": _spared(folder / "clock.json").get("seconds"),
                "usd": (read_json(folder / "purse.json") or {}).get("usd"),
            },
            helpers=_helpers(task, facts),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        damaged = f"{folder}: a record is damaged ({fault_text(error)}). Run the task again in a new folder."
        raise damage_behind(error) or RunError(damaged) from error


_SETS: tuple[SetName, ...] = ("dev", "test")
_SPARED = ("plan.json", "checks.json", "clock.json")
"""Records that a report does without where they are damaged: the verdict is whole without them."""
_UNREAD = ("finished.json", "diagnosis.json", "models/*/diagnosis.json", "solutions/*/built.json")
"""Patterns of records of a finished run that a report does not read."""


def damage_beside(folder: Path) -> list[str]:
    """A line on each damaged record that stops no report: what the report leaves out, or does not rest on."""
    said = []
    for pattern in (*_SPARED, *_UNREAD):
        for path in sorted(folder.glob(pattern)):
            try:
                read_json(path)
            except DamagedRecord as damaged:
                left = "The report leaves it out" if pattern in _SPARED else "The report does not rest on it"
                said.append(f"{path}: is damaged ({damaged.fact}). {left}. Put it back from a copy.")
    return said


def _spared(path: Path) -> Record:
    """One of _SPARED; empty where it is not there or damaged. `damage_beside` says so."""
    try:
        return read_json(path) or {}
    except DamagedRecord:
        return {}


def _events(folder: Path, decision: Decision) -> tuple[Record, ...]:
    """Raises DamagedRecord where the file is there and does not tell of a verdict that rests on the test."""
    found = tuple(runs.events(folder))
    path, told = folder / "events.jsonl", any(e["event"] == "decided" for e in found)
    if decision.choice != "unfinished" and path.is_file() and not told:
        raise DamagedRecord(path, "it ends before the verdict" if found else "it is empty")
    return found


def _test_reads(folder: Path, decision: Decision) -> tuple[Record, ...]:
    """Raises DamagedRecord where the file is there and has fewer openings of the test than the verdict counts."""
    path = folder / "test_reads.jsonl"
    found = tuple(read_lines(path))
    check_whole(path, len({record["read"] for record in found}), decision.test_reads)
    return found


def _answers(folder: Path, decision: Decision, name: str, which: SetName) -> tuple[Record, ...]:
    """Raises DamagedRecord where the file is there and has fewer answers than the verdict counts."""
    path = folder / "solutions" / name / f"predictions.{which}.jsonl"
    found = tuple(read_lines(path))
    check_whole(path, len(found), answers_of(decision, name, which))
    return found


def _models(task: Record, facts: Record | None, decision: Decision) -> tuple[NamedModel, ...]:
    """As task.json names them; without one, as the candidates do."""
    candidates = dict.fromkeys(c.model for c in decision.candidates if c.model)
    return models_of(task, facts) or tuple(NamedModel(name) for name in candidates)


def _helpers(task: Record, facts: Record | None) -> dict[str, NamedModel]:
    """The teacher and the judge, as task.json names them."""
    judge = task.get("judge") or {}
    given = {"teacher": task.get("teacher"), "judge": judge.get("model")}
    known = {str(spec["name"]): spec for spec in task.get("models", ())}
    found = {}
    for role, spec in given.items():
        if spec:
            own = role if role in (facts or {}) and role not in known else str(spec["name"])
            (named,) = models_of({"models": [spec]}, {str(spec["name"]): (facts or {}).get(own) or {}})
            found[role] = named
    return found


def _shortened(folder: Path) -> dict[str, Record]:
    found = {path.parent.name: read_json(path) for path in sorted(folder.glob("solutions/*/shortening.json"))}
    return {name: record for name, record in found.items() if record}


def _diagnosed(folder: Path, decision: Decision) -> str:
    """The base of the diagnosis; of several models that have one, the best on dev."""
    paths = [folder / "diagnosis.json", *sorted(folder.glob("models/*/diagnosis.json"))]
    bases = {str((read_json(path) or {}).get("base", "")) for path in paths}
    known = [c for c in decision.candidates if c.name in bases]
    return max(known, key=lambda c: c.dev.mean).name if known else ""


def _trained(folder: Path) -> Trained | None:
    history = read_json(folder / "history.json")
    if history is None:
        return None
    sweep = read_json(folder / "sweep.json") or {"dev_loss": {}}
    return Trained(
        learning_rate=float(history["learning_rate"]),
        sweep={rate: float(loss) for rate, loss in sweep["dev_loss"].items() if loss is not None},
        epochs=tuple((float(e["epoch"]), float(e["dev"])) for e in history["epochs"]),
        kept=float(history["kept"]),
        rates={rate: float(score) for rate, score in history.get("rates", {}).items()},
        left_out=history.get("left_out") or {},
        cut=history.get("cut"),
        full=bool(history.get("all_weights", False)),
        bytes=int(history.get("bytes", 0)),
        probed=bool(history.get("probed", True)),
        rate_from=str(history.get("rate_from", "")),
    )
