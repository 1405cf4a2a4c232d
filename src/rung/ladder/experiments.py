"""The experiments of a climb: why the best prompt fails, and the pilot of fine-tuning with its learning curve.

They build nothing that could be shipped. Each leaves a record and is never made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rung import runs
from rung.errors import BudgetSpent
from rung.evaluation.statistics import units_of
from rung.ladder.climbed import Built, Climbed
from rung.ladder.gains import Known
from rung.ladder.ledger import Meter, stage_of
from rung.ladder.plan import Step
from rung.ladder.state import RunState, scale_of, tidy
from rung.ladder.taught import RECORD
from rung.records import write_json
from rung.resume import is_done, record_of, recorded
from rung.strategies import function_of, long_form, strategy_of
from rung.types import Family, Prediction, Score, kind_of

_LATEST_DIAGNOSIS = 0.7  # of a limited budget: what is left then is for what can be shipped


def ask_why(run: RunState, climbed: Climbed) -> None:
    """Diagnoses the wrong answers of the best prompt, by experiment on dev, before anything dearer is built."""
    from rung.diagnosis.diagnose import diagnose, worth_diagnosing

    name = climbed.best("prompt", run.name)
    if name is None or is_done(run.files.diagnosis):
        return
    built, limit = climbed.built[name], run.ledger.limit_s
    if not worth_diagnosing(built.predictions, run.tools.scorer.metric):
        return  # nothing is right: the pilot is the experiment then
    if limit is not None and run.ledger.spent.seconds + run.reserve(climbed).seconds > _LATEST_DIAGNOSIS * limit:
        return
    if run.over_budget(climbed, 0.0, run.plan.diagnosis.calls, usd=run.plan.diagnosis.usd):
        return
    folder = run.files.diagnosed / name
    meter = Meter(run.asked, folder)
    try:
        workshop = run.workshop(run.files.solution(name), climbed, meter)
        record = diagnose(workshop, built.solution, built.predictions, folder, near=_alike(run))
    except BudgetSpent:
        return
    except Exception as fault:  # an experiment that fails explains nothing, and ends nothing
        runs.log(run.folder, "not diagnosed", solution=name, why=f"{type(fault).__name__}: {fault}")
        return
    write_json(run.files.diagnosis, record)
    runs.log(run.folder, "diagnosed", stage=stage_of(run.folder, folder), solution=name, **meter.record())
    meter.done()


def _alike(run: RunState) -> list[tuple[str, str]] | None:
    """Pairs of near-duplicates, by the groups of the split; None where the user's own groups are among them."""
    if any(e.group is not None for e in (*run.inputs.train, *run.inputs.dev)):
        return None
    first: dict[str, str] = {}
    pairs = [(first.setdefault(group, i), i) for i, group in run.inputs.groups.items()]
    return [(a, b) for a, b in pairs if a != b]


def known_so_far(run: RunState, climbed: Climbed) -> Known:
    """What the records say, for the choice of the next step with this model.

    A gain is over the best of this model and of those that cost less.
    """
    best, scale = climbed.best_up_to(run.name), scale_of(run)
    diagnosis = recorded(run.files.diagnosis)
    base = diagnosis["base"] if diagnosis is not None else climbed.best("prompt", run.name) or best
    taught = recorded(run.files.teacher / RECORD)
    imitating = any(step.applies and step.strategy.imitates for step in run.plan.steps)
    families: dict[Family, float] = {}
    for built in climbed.whole(model=run.name).values():
        families[built.family] = max(built.dev.mean, families.get(built.family, 0.0))
    return Known(
        best=climbed.built[best].dev.mean if best else 0.0,
        base=climbed.built[base].dev.mean if base in climbed.built else 0.0,
        diagnosis=diagnosis,
        pilot=recorded(run.files.pilot),
        curve=whole_curve(run, like_the_pilots(run, climbed)) if imitating else None,
        value=scale.value,
        gap=scale.gap,
        leader=best or "",
        built=families,
        teacher=(taught["mean"], taught["high"]) if taught is not None else None,
    )


def run_pilot(run: RunState, climbed: Climbed, step: Step) -> bool:
    """Runs the next pilot where one is needed. Returns whether something new is known.

    A second, larger one is run where everything is built in full: it takes half as long as the whole training, and
    forbids that less often than every other time.
    """
    from rung.diagnosis.learning_curve import sizes

    done = [p["examples"] for p in record_of(run.files.pilot).get("points", ()) if p["examples"]]
    missing = [n for n in sizes(len(run.inputs.train)) if n not in done]
    if not missing or (done and not run.exhaustive) or step.strategy.pilot is None:
        return False
    if run.over_budget(climbed, run.plan.pilot.seconds, run.plan.pilot.calls, step.family):
        return False
    folder = run.files.piloted / f"pilot-{missing[0]}"
    meter = Meter(run.asked, folder)
    try:
        function_of(step.strategy.pilot)(run.workshop(folder, climbed, meter), missing[0])
    except BudgetSpent:
        return False
    except Exception as fault:
        runs.log(run.folder, "not piloted", examples=missing[0], why=f"{type(fault).__name__}: {fault}")
        return False
    write_json(run.files.pilot, _pilots_curve(run, climbed, [*done, missing[0]]))
    runs.log(run.folder, "piloted", stage=stage_of(run.folder, folder), examples=missing[0], **meter.record())
    meter.done()
    point = record_of(run.files.pilot)["points"][-1]
    score = Score(point["mean"], point["low"], point["high"], len(run.inputs.piloted))
    of = "" if run.home else f" of {run.name}"
    run.listener.say(f"pilot{of} on {missing[0]} examples: dev {scale_of(run).full(score)}")
    tidy(folder)
    return True


def pilot_predictions(run: RunState, count: int) -> list[Prediction]:
    """What the pilot on so many train examples answered."""
    from rung.trials.trial import read_predictions

    return read_predictions(run.files.piloted / f"pilot-{count}" / "predictions.dev.jsonl")


def pilot_scores(run: RunState, count: int, ids: Sequence[str]) -> list[float]:
    """Scores of the pilot on so many train examples, for those dev examples."""
    from rung.diagnosis.learning_curve import scores_of

    return scores_of(pilot_predictions(run, count), ids)


def _pilots_curve(run: RunState, climbed: Climbed, counts: Sequence[int]) -> dict[str, Any]:
    """The learning curve through the pilots. It starts at the bare prompt, where one answered all of dev."""
    from rung.diagnosis.learning_curve import scores_of

    ids = [e.id for e in run.inputs.piloted]
    # Training starts from the bare prompt, under the constraint where there is one.
    bare = {n: b for n, b in climbed.whole("prompt", run.name).items() if not b.solution.demos}
    start = max(bare, key=lambda n: bare[n].solution.constraint is not None, default=None)
    points: list[tuple[int, Sequence[float]]] = []
    if start is not None:
        points.append((0, scores_of(bare[start].predictions, ids)))
    points += [(count, pilot_scores(run, count, ids)) for count in counts]
    return {**_curve_through(run, points, ids), "ids": ids, "start": start}


def like_the_pilots(run: RunState, climbed: Climbed) -> Built | None:
    """The best of those that the pilots are small ones of, repaired or not: training all weights is no such one, what
    learnt more than train is none, and a shorter prompt is another matter."""
    tuned = [
        built
        for name, built in climbed.whole("fine-tune", run.name).items()
        if (s := strategy_of(kind_of(name))) is not None and s.pilot is not None and long_form(name) is None
    ]
    return max(tuned, key=lambda built: built.dev.mean, default=None)


def whole_curve(run: RunState, tuned: Built | None) -> Mapping[str, Any] | None:
    """The learning curve, with the whole training as its last point where there was one; None without a pilot."""
    from rung.diagnosis.learning_curve import scores_of

    record = recorded(run.files.pilot)
    if record is None or tuned is None:
        return record
    counts = [point["examples"] for point in record["points"] if point["examples"]]
    points: list[tuple[int, Sequence[float]]] = [(n, pilot_scores(run, n, record["ids"])) for n in counts]
    points.append((record["train"], scores_of(tuned.predictions, record["ids"])))
    return _curve_through(run, points, record["ids"])


def _curve_through(run: RunState, points: Sequence[tuple[int, Sequence[float]]], ids: Sequence[str]) -> dict[str, Any]:
    from rung.diagnosis.learning_curve import curve, parts

    train, groups = run.inputs.train, units_of(ids, run.inputs.groups)
    per_answer = parts(run.tools.scorer.metric, train)
    found = curve(points, len(train), run.inputs.task.seed, parts=per_answer, groups=groups)
    if run.held is None:
        return found
    # On the scale of the candidates' scores, in which a judge's errors are. What is expected is held against these.
    for point in found["points"]:
        told = run.held.corrected(Score(point["mean"], point["low"], point["high"], len(ids)))
        point |= {"mean": told.mean, "low": told.low, "high": told.high}
    expected = found["expected"]
    expected |= {key: run.held.corrected_mean(value) for key, value in expected.items()}
    return found
