"""The way up: cheap prompts first, then why they fail, then what can be expected to fix that.

Every stage leaves a record and looks for it first. What is tried next depends on records alone, never on the clock
(but for a budget that the user set), so a continued run takes the way of an undisturbed one.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rung import runs
from rung.errors import BudgetSpent, DamagedRecord, NoGain, OutOfMemory, RunError, RungError, SealedTestError
from rung.ladder.building import noted_once, solution_once
from rung.ladder.climbed import Built, Climbed
from rung.ladder.dev_answers import answer_dev, compared_before, unproven
from rung.ladder.experiments import ask_why, known_so_far, run_pilot
from rung.ladder.finalists import floor_on_dev
from rung.ladder.gains import Gain, Way, expected_gain, order, too_little, what_matters
from rung.ladder.ledger import Meter, spent_on
from rung.ladder.plan import Step
from rung.ladder.search import measure_search
from rung.ladder.shortening import ENDED
from rung.ladder.state import LEAST_OF_A_STEP, PROMPT_SHARE, RunState, WholeRun, scale_of
from rung.records import from_record
from rung.resume import is_done, record_of
from rung.strategies import Texts, function_of
from rung.teaching.search_log import search_in_words, search_log
from rung.trials.workshop import cut_of
from rung.types import Comparison, Skipped, SkipReason, Solution

PUT_OFF = f"prompts have had their {100 * PROMPT_SHARE:.0f} % of the budget while something dearer could be tried"

_TIMED_ANSWERS = 16  # from so many answers on, the time of one is taken from them


def climb(run: WholeRun, *, finish: bool = False) -> Climbed:
    """Builds and tries what pays: prompts with every model first, then what is dearer, the cheapest model first.

    finish: nothing new is tried once something is built.
    """
    climbed = Climbed(models=run.names)
    prompts = [step.name for state in run.states for step in state.plan.steps if step.family == "prompt"]
    climbers = [_Climber(state, climbed, prompts, finish) for state in run.states]
    _restore(run, climbers)
    later = any(climber.dearer_families for climber in climbers)
    for climber in climbers:
        climber.take_all(climber.cheap, later=later)
    for climber in climbers:
        climber.measure_search()
        climber.retrieve_first()
    for climber in climbers:
        climber.take_all(climber.other_prompts, later=later)
    for climber in climbers:
        climber.ask_why()
    for place, climber in enumerate(climbers):
        climber.climb_on(later=any(c.dearer_families for c in climbers[place + 1 :]))
    for climber in climbers:
        climber.take_put_off()
        climber.end()
    if not climbed.built and climbed.failed:
        raise climbed.failed
    return climbed


def _restore(run: WholeRun, climbers: Sequence[_Climber]) -> None:
    """Takes over what earlier commands built, in the order in which they built it, whatever is asked for now."""
    by_name = {step.name: (climber, step) for climber in climbers for step in climber.run.plan.steps}
    for event in runs.standing_events(run.folder):
        name = event.get("solution", "")
        if event["event"] == "built" and name in by_name:
            climber, step = by_name[name]
            climber.restore(step)


class _Climber:
    """What is built and known so far with one model. climbed: with all models. all_prompts: their names, of all."""

    def __init__(self, run: RunState, climbed: Climbed, all_prompts: Sequence[str], finish: bool) -> None:
        self.run = run
        self.climbed = climbed
        self.scale = scale_of(run)
        self.matters = what_matters(self.scale.right_or_wrong, len(run.test))
        self.before = _skipped_before(run)
        self._all_prompts = all_prompts
        self._finish = finish
        steps = [s for s in run.plan.steps if s.applies]
        self.prompts = [s for s in steps if s.family == "prompt"]
        self.dearer = [s for s in steps if s.family != "prompt" or s.strategy.cures]
        plain = [s for s in self.prompts if not s.strategy.cures]
        self.cheap = [s for s in plain if s.strategy.cheap] or plain[:1]
        self.other_prompts = [s for s in plain if s not in self.cheap]

    @property
    def built(self) -> bool:
        """Whether anything is, with this model."""
        return any(b.solution.model == self.run.name for b in self.climbed.built.values())

    @property
    def dearer_families(self) -> bool:
        """Whether something of a dearer family than prompts is left to try."""
        return any(step.family != "prompt" for step in self.dearer)

    @property
    def finishes(self) -> bool:
        """Whether nothing new is tried any more."""
        return self._finish and bool(self.climbed.built)

    # ---- the phases ------------------------------------------------------------------------

    def restore(self, step: Step) -> None:
        if step.name not in self.climbed.built:
            self._try(step, later=True)

    def take_all(self, steps: Sequence[Step], *, later: bool) -> None:
        for step in steps:
            self.take(step, later=later)

    def measure_search(self) -> None:
        """Measures the ways to find passages, where something is left that reads them."""
        reading = any("corpus" in s.strategy.needs for s in self.dearer if s.name not in self.climbed.built)
        if reading and not self.climbed.enough and not self.finishes:
            measure_search(self.run, self.climbed)

    def retrieve_first(self) -> None:
        """Retrieval, where it is tried before the dearer prompts."""
        if self.retrieves_first():
            for step in [s for s in self.dearer if s.family == "rag"]:
                self.dearer.remove(step)
                self.take(step, later=True)

    def ask_why(self) -> None:
        if self.built and self.dearer and not self.climbed.enough and not self.finishes:
            ask_why(self.run, self.climbed)
            if any(step.strategy.imitates for step in self.dearer):
                from rung.ladder.taught import teacher_on_dev

                teacher_on_dev(self.run, self.climbed)

    def climb_on(self, *, later: bool) -> None:
        """What is dearer than a prompt, in the order of expected gain per token. later: other models still follow."""
        while self.dearer:
            step, gain = self.next_of(self.dearer)
            self.dearer.remove(step)
            self.take(step, gain=gain, later=later or self.dearer_families)

    def take_put_off(self) -> None:
        """Prompts that were left for later, because prompts had had their part of the budget."""
        for step in self.prompts:
            skipped = self.climbed.skipped.get(step.name)
            if skipped is None or skipped.why != PUT_OFF:
                continue
            gain = None
            if step.strategy.cures and self.built:  # what was built since then may have left it nothing
                gain = expected_gain(_way(step, self.run.plan.texts), known_so_far(self.run, self.climbed))
            self.take(step, later=False, gain=gain)

    def end(self) -> None:
        """Notes what does not apply, and what was kept from being tried although it could matter."""
        for step in self.run.plan.steps:
            if not step.applies and step.name not in self.climbed.built:
                self.climbed.skipped[step.name] = Skipped(step.name, step.family, "plan", step.why, model=step.model)
        self.judge_skips()

    # ---- one strategy ----------------------------------------------------------------------

    def take(self, step: Step, *, later: bool, gain: Gain | None = None) -> None:
        """Builds a strategy and answers dev with it, unless it cannot help, or something keeps it from being tried.

        later: whether a dearer family could still be tried. gain: what is expected of it, where that is known.
        """
        if step.name in self.climbed.built:
            return
        if reason := self._settled(step, gain):
            self._skip(step, *reason)
            return
        if self.climbed.built and (why := self._unaffordable(step, later)):
            self._skip(step, "budget", why)
            return
        self._try(step, later=later)

    def _try(self, step: Step, *, later: bool) -> None:
        """Builds it and answers dev. What keeps it from that is no reason to lose other strategies and models."""
        try:
            self._keep(step, *self._build(step, later=later))
        except (SealedTestError, DamagedRecord):
            raise
        except BudgetSpent as spent:
            self._give_up(step, "budget", spent)
        except NoGain as nothing:  # an experiment within it says so
            self._skip(step, "gain", str(nothing), within=True)
        except OutOfMemory as full:
            self._give_up(step, "memory", full)
        except RungError as fault:
            self._give_up(step, "fault", fault)
        except Exception as defect:  # of a registered strategy, a library or rung
            kept = "".join(traceback.format_exception(defect))
            self._give_up(step, "fault", RunError(f"{type(defect).__name__}: {defect}"), traceback=kept)

    def _settled(self, step: Step, gain: Gain | None) -> tuple[SkipReason, str] | None:
        """Reason why it is not worth trying. One that an earlier command gave stays while the same is asked for."""
        before = self.before.get(step.name)
        if before is not None and (self.finishes or before["reason"] in ("gain", "target")):
            return before["reason"], before["why"]
        if self.finishes:
            return ENDED
        if self.climbed.enough:
            return "target", self.climbed.enough
        if gain is not None and gain.high < self.matters and not self.run.exhaustive:
            rates, test = self.scale.right_or_wrong, len(self.run.test)
            return "gain", too_little(gain, self.matters, rates, test, self.scale.gap)
        return None

    def _unaffordable(self, step: Step, later: bool) -> str | None:
        """Reason why the budget does not allow it. Choices and trainings can be cut, so not all of its time is needed;
        of a teacher's answers, all are.

        Prompts together may take a part of a limited budget only, as long as something dearer could be tried. What was
        spent on the step already is not needed again.
        """
        folder = self.run.files.solution(step.name)
        if is_done(folder / "built.json"):
            return None
        spent, least = spent_on(folder), LEAST_OF_A_STEP
        needed = max(0.0, least * step.seconds + (1 - least) * step.taught_s - spent.seconds)
        limit = self.run.ledger.limit_s
        capped = step.family == "prompt" and later and limit is not None
        if capped and self._spent_on_prompts() + needed > PROMPT_SHARE * (limit or 0.0):
            return PUT_OFF
        calls = max(0, step.calls - spent.calls)
        usd = max(0.0, least * step.usd + (1 - least) * step.taught_usd - spent.usd)
        return self.run.over_budget(self.climbed, needed, calls, step.family, usd)

    def _spent_on_prompts(self) -> float:
        prompts = [self.run.files.solution(name) for name in self._all_prompts]
        return sum(float(record_of(p / "built.json").get("seconds", 0.0)) + spent_on(p).seconds for p in prompts)

    def _give_up(self, step: Step, reason: SkipReason, error: RungError, **facts: Any) -> None:
        self.climbed.failed = self.climbed.failed or error
        self._skip(step, reason, str(error), begun=True, **facts)

    def _skip(self, step: Step, reason: SkipReason, why: str, *, begun: bool = False, **facts: Any) -> None:
        why = why.rstrip(".")
        minutes = step.seconds / 60 if reason == "budget" else None
        skipped = Skipped(step.name, step.family, reason, why, minutes, begun=begun, model=step.model)
        self.climbed.skipped[step.name] = skipped
        if (before := self.before.get(step.name)) is None or (before["reason"], before["why"]) != (reason, why):
            runs.log(self.run.folder, "skipped", solution=step.name, reason=reason, why=why, **facts)
        self.run.listener.skipped(step.name, why)

    def _keep(self, step: Step, built: Built, seconds: float) -> None:
        name, run = step.name, self.run
        self.climbed.built[name] = built
        self.climbed.skipped.pop(name, None)
        run.listener.tried(name, built.family, built.dev, seconds)
        if built.left:
            what = "is no candidate" if built.unproven else "was left early"
            run.listener.say(f"{name} {what}: {built.left}.")
        if built.cut:
            run.listener.say(f"{name}: {built.cut}.")
        if searched := search_in_words(search_log(run.files.solution(name))):
            run.listener.say(f"{name}: {searched}.")
        target = run.inputs.task.target
        if target is None or built.left is not None or run.exhaustive:
            return
        if built.dev.low > max(target, floor_on_dev(run)):
            self.climbed.enough = f"{name} is confidently above the target of {self.scale.value(target)} on dev"

    def _build(self, step: Step, *, later: bool) -> tuple[Built, float]:
        """The solution, its answers to dev, and the seconds that both took."""
        run, name = self.run, step.name
        folder = run.files.solution(name)
        meter = Meter(run.asked, folder)
        limit = run.ledger.limit_s
        ends_s = None
        if limit is not None and later and step.family == "prompt":  # prompts may not take all of the budget
            ends_s = run.ledger.spent.seconds + PROMPT_SHARE * limit - self._spent_on_prompts()
        stops = bool(self.climbed.built)
        workshop = run.workshop(folder, self.climbed, meter, family=step.family, stops=stops, ends_s=ends_s)

        def build() -> Solution:
            runs.log(run.folder, "building", solution=name)
            built: Solution = function_of(step.strategy.build)(workshop)
            return built

        solution = solution_once(run, folder, name, build)
        calls, began = run.model.calls, time.monotonic()
        predictions, left = answer_dev(run, self.climbed, workshop, solution, folder)
        lacks = versus = None
        if left is None and step.strategy.proves and not is_done(folder / "built.json"):
            versus = compared_before(run, self.climbed, solution, predictions)
            left = lacks = unproven(run, self.climbed, solution, predictions, versus)
        answered, seconds = run.model.calls - calls, time.monotonic() - began

        def beside_costs() -> dict[str, Any]:
            timed = {"seconds_per_answer": seconds / answered if answered >= _TIMED_ANSWERS else None}
            proof = {"unproven": lacks is not None, "versus": asdict(versus) if versus is not None else None}
            return {"left": left, **proof, **timed, "cut": cut_of(folder)}

        record = noted_once(run, folder, meter, "built", beside_costs, solution=name)
        built = Built(
            solution,
            tuple(predictions),
            run.score(predictions),
            record["left"],
            record["seconds_per_answer"],
            record["cut"],
            *run.usd_of_answers(predictions),
            unproven=bool(record.get("unproven")),
            versus=from_record(Comparison, record["versus"]) if record.get("versus") else None,
        )
        return built, float(record["seconds"])

    # ---- what next -------------------------------------------------------------------------

    def retrieves_first(self) -> bool:
        """Whether retrieval is tried before the dearer prompts: under a limited budget, and where prompting alone
        answers nothing right."""
        if not any(s.family == "rag" for s in self.dearer) or self.climbed.enough:
            return False
        budget = self.run.ledger.budget
        limited = any(limit is not None for limit in (budget.minutes, budget.calls, budget.usd))
        return limited or self._nothing_right()

    def _nothing_right(self) -> bool:
        from rung.diagnosis.diagnose import worth_diagnosing

        best = self.climbed.best(model=self.run.name)
        metric = self.run.tools.scorer.metric
        return best is not None and not worth_diagnosing(self.climbed.built[best].predictions, metric)

    def next_of(self, steps: Sequence[Step]) -> tuple[Step, Gain | None]:
        """The step with the highest expected gain per token. A pilot is run first where fine-tuning comes next."""
        by_name = {step.name: step for step in steps}
        if not self.built:  # no prompt was tried: in the ladder's order
            return steps[0], None
        while True:
            known = known_so_far(self.run, self.climbed)
            plain = {s.family for s in steps if not s.strategy.proves}  # what is to prove its gain waits for these
            waiting = [s for s in steps if s.strategy.proves and plain & {s.family, s.strategy.replaces}]
            ranked = order([_way(s, self.run.plan.texts) for s in steps if s not in waiting], known)
            name, gain = ranked[0]
            step = by_name[name]
            done = name in self.climbed.built or self.climbed.enough or self.finishes or self._settled(step, None)
            if step.strategy.pilot is None or done or not run_pilot(self.run, self.climbed, step):
                return step, gain

    def judge_skips(self) -> None:
        """Marks what was kept from being tried although it could have changed the verdict.

        Where something of its family was built whole, it could not, unless nothing at all is answered right; nor could
        what has to prove its gain where something else of its family is tried.
        """
        known = known_so_far(self.run, self.climbed)
        plain = {s.family for s in self.run.plan.steps if s.applies and not s.strategy.proves}
        for name, skipped in list(self.climbed.skipped.items()):
            own = skipped.model == self.run.name
            if not own or skipped.reason not in ("budget", "memory", "fault"):
                continue
            whole = self.climbed.whole(skipped.family, self.run.name).values()
            if any(prediction.score for built in whole for prediction in built.predictions):
                continue
            step = next((s for s in self.run.plan.steps if s.name == name), None)
            if step is not None and step.strategy.proves and step.family in plain:
                continue
            way = _way(step, self.run.plan.texts) if step is not None else Way(name, skipped.family)
            gain = expected_gain(way, known)
            if gain.high >= self.matters or not self.climbed.built:
                self.climbed.skipped[name] = replace(skipped, matters=True)


def _way(step: Step, texts: Texts) -> Way:
    strategy = step.strategy
    rows = function_of(strategy.grows)(texts) if strategy.grows is not None else texts.train
    doublings = math.log2(1 + rows / max(1, texts.train))
    return Way(
        step.name, step.family, float(step.tokens), strategy.cures, strategy.imitates, doublings, strategy.replaces
    )


def _skipped_before(run: RunState) -> dict[str, dict[str, Any]]:
    """What earlier commands skipped that asked for the same target and strategies: solution -> event.

    What a strategy found out within it rests on the time that is planned for it, and so on the budget.
    """
    events = runs.standing_events(run.folder)
    now: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "started"), {})
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "started" and any(event.get(key) != now.get(key) for key in ("target", "only")):
            found.clear()
        elif event["event"] == "started" and event.get("budget") != now.get("budget"):
            found = {name: skip for name, skip in found.items() if not skip.get("within")}
        elif event["event"] == "skipped":
            found[event["solution"]] = event
    return found
