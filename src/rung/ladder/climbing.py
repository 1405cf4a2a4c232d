"""The way up: prompts first, then why they fail, then what can be expected to mend that.

Every stage leaves a file and looks for it first. What is tried next depends on records alone, never on the clock
(but for a budget that the user set), so a continued run goes the way of an undisturbed one.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.decision import RATES
from rung.errors import BudgetSpent, TrainingError
from rung.evaluation.statistics import units_of
from rung.ladder.gains import Gain, Known, order, what_matters
from rung.ladder.spending import Spending
from rung.ladder.state import Built, Run
from rung.records import read_json, write_json
from rung.strategies import STRATEGIES
from rung.types import Prediction, Solution

if TYPE_CHECKING:
    from rung.ladder.plan import Step
    from rung.trials.workshop import Materials


def climb(run: Run) -> tuple[dict[str, Built], list[tuple[str, str]]]:
    """Builds and tries what pays. Returns what was built, in order, and (strategy, why) of what was not."""
    climber = _Climber(run)
    prompts = [s for s in run.plan.steps if s.applies and s.family == "prompt"]
    dearer = [s for s in run.plan.steps if s.applies and s.family != "prompt"]
    while prompts:
        climber.take(prompts.pop(0), [*prompts, *dearer])
    if climber.built and dearer and not climber.enough:
        climber.ask_why(dearer)
    while dearer:
        step, gain = climber.next_of(dearer)
        dearer.remove(step)
        if gain is not None and gain.high < climber.matters and not run.exhaustive and not climber.is_built(step.name):
            climber.skip(step.name, f"it could gain {100 * gain.high:.1f} points on dev at most ({gain.why})")
            continue
        climber.take(step, dearer)
    return climber.built, [*climber.skipped, *((s.name, s.why) for s in run.plan.steps if not s.applies)]


class _Climber:
    """What is built and known so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.built: dict[str, Built] = {}
        self.skipped: list[tuple[str, str]] = []
        self.matters = what_matters(run.task.metric in RATES, len(run.split.test))
        self.enough: str | None = None
        self._settled = run.settled()

    # ---- one strategy ----------------------------------------------------------------------

    def take(self, step: Step, later: Sequence[Step]) -> None:
        """Builds a strategy and answers dev with it, unless there is enough already, or the budget or it itself fails.

        What an earlier command settled stays settled.
        """
        if step.name in self._settled or self.is_built(step.name):
            why = self._settled.get(step.name)
        else:
            why = self.enough or (self._over_budget(step) if self.built else None)
        if why:
            self.skip(step.name, why)
            return
        try:
            built, seconds = self._build(step, later)
        except (BudgetSpent, TrainingError) as failed:
            if not self.built:
                raise
            self.skip(step.name, str(failed))
            return
        self.built[step.name] = built
        self.run.listener.tried(step.name, built.solution.family, built.dev, seconds)
        if built.left:
            self.run.listener.say(f"{step.name} was left early: {built.left}.")
        target = self.run.task.target
        if target is not None and built.dev.low > target and not self.run.exhaustive:
            self.enough = f"{step.name} is confidently above the target of {target:g} on dev"

    def skip(self, name: str, why: str) -> None:
        self.skipped.append((name, why))
        if name not in self._settled:
            runs.log(self.run.folder, "skipped", solution=name, why=why)
        self.run.listener.skipped(name, why)

    def is_built(self, name: str) -> bool:
        return (self.run.folder / "solutions" / name / "built.json").is_file()

    def _over_budget(self, step: Step) -> str | None:
        return self.run.over_budget(step.seconds, step.calls, self.built, step.family)

    def _build(self, step: Step, later: Sequence[Step]) -> tuple[Built, float]:
        from rung.solutions.store import load_solution, save_solution

        run, name = self.run, step.name
        folder = run.folder / "solutions" / name
        left = [step.seconds, *(s.seconds for s in later)]
        spending = Spending(run.model, folder)
        materials = run.materials(folder, self.built, left, spending=spending, stops=bool(self.built))
        if (folder / "solution.json").is_file():
            solution = load_solution(folder)
        else:
            runs.log(run.folder, "building", solution=name)
            module, _, attribute = STRATEGIES[name][1].partition(":")
            solution = getattr(import_module(module), attribute)(materials)
            solution = save_solution(solution, folder, passages=run.passages)
        predictions, left_early = self._answer_dev(materials, solution, folder)
        record = read_json(folder / "built.json")
        if record is None:
            record = {**spending.record(), "left": left_early}
            write_json(folder / "built.json", record)
        if name not in self._settled:
            runs.log(run.folder, "built", solution=name, **{k: v for k, v in record.items() if v is not None})
            spending.done()
            _tidy(folder)
        built = Built(solution, tuple(predictions), run.score(predictions), record["left"])
        return built, float(record["seconds"])

    def _answer_dev(
        self, materials: Materials, solution: Solution, folder: Path
    ) -> tuple[list[Prediction], str | None]:
        """Answers to dev; to part of it, with the reason, where the best so far is ahead by a planned look."""
        from rung.evaluation.sequential import LOOKS, boundary, planned_looks
        from rung.evaluation.statistics import compare
        from rung.trials.workshop import attempt, screened

        whole = folder / "predictions.dev.jsonl"
        rival = self._best()
        if solution.adapter is not None or rival is None or self.run.exhaustive:
            return attempt(materials, solution, materials.dev, whole, known=screened(folder)), None
        record = read_json(folder / "built.json")
        ordered = random.Random(materials.task.seed).sample(materials.dev, len(materials.dev))
        beaten = {p.id: p.score or 0.0 for p in self.built[rival].predictions}
        known = {p.id: p for p in screened(folder)}
        looks = planned_looks(len(ordered))
        for look, end in enumerate(looks, 1):
            part = [e for e in ordered[:end] if e.id not in known]
            path = folder / "trials" / f"dev-{look}.jsonl"
            known |= {p.id: p for p in attempt(materials, solution, part, path)} if part else {}
            if look == len(looks) or (record is not None and record["left"] is None):
                continue
            seen = ordered[:end]
            theirs, ours = [beaten[e.id] for e in seen], [known[e.id].score or 0.0 for e in seen]
            groups = units_of([e.id for e in seen], self.run.split.groups)
            found = compare(rival, solution.name, theirs, ours, "dev", groups=groups, seed=materials.task.seed)
            if found.difference < 0 and found.p < boundary(look, LOOKS):
                predictions = attempt(materials, solution, seen, whole, known=[known[e.id] for e in seen])
                gap = f"{-100 * found.difference:.0f} points"
                return predictions, f"after {end} of {len(ordered)} dev examples {rival} was ahead by {gap}"
        return attempt(materials, solution, materials.dev, whole, known=[known[e.id] for e in materials.dev]), None

    def _best(self, *, family: str | None = None) -> str | None:
        """The best on dev of those that answered all of it; of equals, the first built."""
        whole = [n for n, b in self.built.items() if b.left is None and family in (None, b.solution.family)]
        return max(whole, key=lambda n: self.built[n].dev.mean, default=None)

    # ---- why, and what next ----------------------------------------------------------------

    def ask_why(self, later: Sequence[Step]) -> None:
        """Diagnoses the wrong answers of the best prompt, by experiment on dev, before anything dearer is built."""
        from rung.diagnosis.diagnose import diagnose

        run, name = self.run, self._best(family="prompt")
        if name is None or (run.folder / "diagnosis.json").is_file():
            return
        if run.limit_s is not None and run.spent_s + run.plan.test_seconds > 0.7 * run.limit_s:
            return  # what is left is for what can be shipped
        if run.over_budget(0.0, run.plan.experiments[0].calls, self.built):
            return
        left = [run.plan.experiments[0].seconds, *(s.seconds for s in later)]
        folder = run.folder / "solutions" / name
        spending = Spending(run.model, run.folder / "diagnosis")
        built = self.built[name]
        try:
            materials = run.materials(folder, self.built, left, spending=spending)
            record = diagnose(materials, built.solution, built.predictions, run.folder / "diagnosis")
        except BudgetSpent:
            return
        write_json(run.folder / "diagnosis.json", record)
        runs.log(run.folder, "diagnosed", solution=name, **spending.record())
        spending.done()

    def next_of(self, steps: Sequence[Step]) -> tuple[Step, Gain | None]:
        """The step with the highest expected gain per token. A pilot is run first where fine-tuning is what is next."""
        by_name = {step.name: step for step in steps}
        if not self.built:  # no prompt was tried: as the ladder has them
            return steps[0], None
        if settled := [by_name[name] for name in self._settled if name in by_name]:
            return settled[0], None
        while True:
            ranked = order([(s.name, float(s.tokens)) for s in steps], self._known())
            name, gain = ranked[0]
            if name != "lora" or self.is_built(name) or self.enough or not self._pilot(by_name[name], steps):
                return by_name[name], gain

    def _known(self) -> Known:
        best = self._best()
        diagnosis = read_json(self.run.folder / "diagnosis.json")
        base = diagnosis["base"] if diagnosis is not None else best
        return Known(
            best=self.built[best].dev.mean if best else 0.0,
            base=self.built[base].dev.mean if base in self.built else 0.0,
            diagnosis=diagnosis,
            pilot=read_json(self.run.folder / "pilot.json"),
            built={name: built.dev.mean for name, built in self.built.items()},
        )

    def _pilot(self, step: Step, steps: Sequence[Step]) -> bool:
        """Runs the next pilot where one is needed. Returns whether something new is known.

        A second, larger one is run where everything is built in full: it takes half as long as the whole training, and
        forbids that less often than every other time.
        """
        from rung.diagnosis.pilot import run_pilot, sizes

        run = self.run
        record = read_json(run.folder / "pilot.json")
        done = [p["examples"] for p in record["points"] if p["examples"]] if record else []
        left = [n for n in sizes(len(run.split.train)) if n not in done]
        if not left or (done and not run.exhaustive) or self._over_budget(step):
            return False
        spending = Spending(run.model, run.folder / "pilot" / f"pilot-{left[0]}")
        try:
            seconds = [run.plan.experiments[1].seconds, *(s.seconds for s in steps)]
            materials = run.materials(run.folder / "pilot", self.built, seconds, spending=spending)
            run_pilot(materials, run.folder / "pilot", left[0])
        except (BudgetSpent, TrainingError):
            return False
        write_json(run.folder / "pilot.json", self._curve(materials, [*done, left[0]]))
        runs.log(run.folder, "piloted", examples=left[0], **spending.record())
        spending.done()
        point = (read_json(run.folder / "pilot.json") or {})["points"][-1]
        run.listener.say(
            f"pilot on {left[0]} examples: dev {point['mean']:.2f} ({point['low']:.2f}–{point['high']:.2f})"
        )
        _tidy(run.folder / "pilot" / f"pilot-{left[0]}")
        return True

    def _curve(self, materials: Materials, counts: Sequence[int]) -> dict[str, Any]:
        from rung.diagnosis.pilot import pilot_answers, scores_of

        ids = [e.id for e in materials.piloted]
        # Training starts from the bare prompt, under the constraint where there is one.
        bare = [n for n in ("constrained", "zero_shot") if n in self.built and self.built[n].left is None]
        points: list[tuple[int, Sequence[float]]] = []
        if bare:
            points.append((0, scores_of(self.built[bare[0]].predictions, ids)))
        for count in counts:
            points.append((count, scores_of(pilot_answers(self.run.folder / "pilot", count), ids)))
        return {**_curve_through(self.run, points, ids), "ids": ids, "start": bare[0] if bare else None}


def whole_curve(run: Run, lora: Built) -> Mapping[str, Any] | None:
    """The learning curve with the whole training as its last point; None where there was no pilot."""
    from rung.diagnosis.pilot import pilot_answers, scores_of

    record = read_json(run.folder / "pilot.json")
    if record is None:
        return None
    points: list[tuple[int, Sequence[float]]] = []
    for point in record["points"]:
        if point["examples"]:
            answers = pilot_answers(run.folder / "pilot", point["examples"])
            points.append((point["examples"], scores_of(answers, record["ids"])))
    points.append((record["train"], scores_of(lora.predictions, record["ids"])))
    return _curve_through(run, points, record["ids"])


def _curve_through(run: Run, points: Sequence[tuple[int, Sequence[float]]], ids: Sequence[str]) -> dict[str, Any]:
    from rung.diagnosis.pilot import curve, parts

    train = run.split.train
    groups = units_of(ids, run.split.groups)
    return curve(points, len(train), run.task.seed, parts=parts(run.task.metric, train), groups=groups)


def _tidy(folder: Path) -> None:
    """Optimiser states and the adapters of other epochs are of no use once a solution stands."""
    for path in (folder / "training").glob("lr-*"):
        shutil.rmtree(path, ignore_errors=True)
