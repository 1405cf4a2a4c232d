"""What a run is going to do and spend, said before anything is spent.

Token counts come from the task's own texts. Seconds come from those counts and the model's speed on this machine,
which is measured once and then read back from plan.json. Seconds are shown and held against the budget; they decide
how long an adapter may train, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rung.ladder.applies import OFF_BY_DEFAULT, has, why_not
from rung.ladder.plan_rates import PlanRates, rates_of, seconds_of
from rung.ladder.plan_texts import as_asked, texts_of
from rung.records import but, from_record
from rung.strategies import STRATEGIES, Cost, Strategy, Texts, function_of
from rung.types import (
    Decoding,
    Family,
    Model,
    ModelSpec,
    Price,
    Speed,
    Split,
    Task,
)

if TYPE_CHECKING:
    from rung.ladder.judge_costs import JudgeShare
    from rung.ladder.plan_search import SearchPlan
    from rung.models.metering import Metered
    from rung.trials.workshop import Inputs

DEFAULT_MINUTES = 10.0
"""For which trainings are sized where the task names no budget."""

TRAINING_SHARE = 0.3
"""Of the budget's minutes, for one adapter."""

LATENCY_INPUTS = 8
"""Times that a model on this machine is timed, for each finalist."""

_LEAST_TIMED, _TIMED_EACH = 16, 4  # requests to an endpoint: at least so many, and so many times the concurrency

TYPICAL = Texts(
    own=60, answer=8, room=12, instruction=60, forms=80, passage=0, train=200, dev=100, screen=50, training_tokens=10**9
)
"""A task of 400 rows with short inputs and labels, and no corpus: 200 to train on, 100 for dev, 100 for the test."""

_DIAGNOSED = 30  # examples that are answered again under each intervention
_PILOT_SHARE = 0.25  # of train, and so of the cost of a training
_DEMOS_SHOWN = 4  # in the best prompt, about


@dataclass(frozen=True)
class Step:
    """One strategy of the plan, with one model.

    name: of the candidate. why: it does not apply. tokens: through the network. seconds, usd (for tokens): estimates.
    kind: the strategy, or the experiment. model: its name in the task. One that is off by default has its cost too,
    which counts nowhere. taught_s, taught_usd: of these, what the teacher takes, of whose answers a part is of no use.
    """

    name: str
    family: Family
    applies: bool
    why: str
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    kind: str = ""
    model: str = ""
    taught_s: float = 0.0
    taught_usd: float = 0.0

    @property
    def strategy(self) -> Strategy:
        return STRATEGIES[self.kind or self.name]


_NO_SKILLS = Step("skills", "fine-tune", False, "no fine-tuning is tried")
_NO_SHORTENING = Step("shortening", "fine-tune", False, "no fine-tuning is tried")
_NO_TEACHER = Step("teacher", "prompt", False, "no answers of a teacher are learnt")
_NO_ABSTENTION = Step("abstention", "prompt", False, "no questions are made unanswerable")
_NO_INJECTIONS = Step("injections", "prompt", False, "no orders are planted")
_NO_SEARCH = Step("search", "rag", False, "nothing reads passages")
_NO_SEARCH_FAILURES = Step("search_failures", "rag", False, "nothing that retrieves is tried")
_NO_CONSISTENCY = Step("consistency", "prompt", False, "the test is answered once")


@dataclass(frozen=True)
class Plan:
    """What is planned with one model.

    texts, speed: what the estimates rest on. experiments: the diagnosis and the pilot, which ship nothing, and the
    check of general skills with the repair of the dearest solution, which comes where they are lost; and the teacher's
    answers to dev, where they are learnt.
    sizes: numbers of examples. capped: sets that were cut -> examples before. detectable: set -> the smallest
    difference it can show, where so many pairs of candidates (`comparisons`) are compared. price: of the model. timed:
    requests that each finalist is timed with.
    teacher_speed: of the teacher, where there is one. abstention, injections, search_failures, consistency: checks of
    finalists (`plan_checks`), the last with the opened test. samples_are_wanted: the task names how many, so that they
    are reserved as the test is.
    shortening: of the prompts of so many (`shortened`) fine-tuned finalists (`plan_shortening`).
    search: measuring the ways to find passages (`plan_search`), and which ways (`searching`).
    judging: what a judge takes for one answer, which the steps hold already (`judge_costs`).
    """

    steps: tuple[Step, ...]
    diagnosis: Step
    pilot: Step
    decoding: Decoding
    texts: Texts
    speed: Speed
    sizes: dict[str, int]
    capped: dict[str, int]
    detectable: dict[str, float]
    comparisons: int = 1
    price: Price | None = None
    skills: Step = _NO_SKILLS
    teacher: Step = _NO_TEACHER
    timed: int = LATENCY_INPUTS
    teacher_speed: Speed | None = None
    abstention: Step = _NO_ABSTENTION
    injections: Step = _NO_INJECTIONS
    consistency: Step = _NO_CONSISTENCY
    samples_are_wanted: bool = False
    shortening: Step = _NO_SHORTENING
    shortened: int = 0
    judging: JudgeShare | None = None
    search: Step = _NO_SEARCH
    searching: SearchPlan | None = None
    search_failures: Step = _NO_SEARCH_FAILURES

    @property
    def training_tokens(self) -> int:
        return self.texts.training_tokens

    @property
    def answer_seconds(self) -> float:
        """Estimated for one answer of the base model to a prompt without demos or passages."""
        return seconds_of(Cost(1, self.texts.own, self.texts.answer + self.texts.thought), self.speed)

    @property
    def tuned_answer_seconds(self) -> float:
        """As answer_seconds, with an adapter: without a thought."""
        return seconds_of(Cost(1, self.texts.own, self.texts.answer), self.speed)

    def answer_usd(self, price: Price | None) -> float:
        """Dollars for tokens of one answer to a prompt without demos or passages."""
        texts = self.texts
        read = texts.instruction + texts.forms + texts.own
        return Cost(1, read, texts.answer + texts.thought, sent=read).usd(price)

    @property
    def everything(self) -> list[Step]:
        """All that is to be done before the test."""
        return [step for step in (*self.steps, *self.experiments) if step.applies]

    @property
    def experiments(self) -> list[Step]:
        """What ships nothing."""
        judge = self.judging.beside if self.judging is not None else ()
        checks = [self.skills, self.shortening, self.abstention, self.injections, self.search_failures]
        return [self.search, self.diagnosis, self.pilot, self.teacher, *checks, *judge]

    @property
    def test(self) -> Step:
        """The final test of the best of each family and of shorter prompts, the requests that are timed included."""
        families = {s.family: "trainable" in s.strategy.needs for s in self.steps if s.applies}
        tuned = [*families.values(), *[True] * self.shortened]
        each_s = sum(self.tuned_answer_seconds if own else self.answer_seconds for own in tuned)
        asked = self.sizes["test"] + self.timed
        usd = len(tuned) * asked * self.answer_usd(self.price)
        step = Step("test", "prompt", True, "", len(tuned) * self.sizes["test"], 0, asked * each_s, usd)
        return step if self.judging is None else self.judging.of(step, step.calls)

    def costing(self, kind: str, family: Family, cost: Cost, why: str = "") -> Step:
        """An experiment or a check with the model of this plan. why: it does not apply."""
        seconds, usd = PlanRates(self.speed, self.price).of(cost)
        name, model = self.diagnosis.name.replace("diagnosis", kind, 1), self.diagnosis.model
        return Step(name, family, not why, why, cost.calls, cost.tokens, seconds, usd, kind=kind, model=model)

    def with_detectable(self, groups: int, split: Split) -> Plan:
        """The same, where so many finalists are compared with each other. The unit is a group of the split."""
        from rung.evaluation.statistics import minimum_detectable_difference

        units = {name: len({split.groups.get(i, i) for i in ids}) for name, ids in _ids(split)}
        comparisons = max(1, math.comb(groups, 2))
        found = {n: minimum_detectable_difference(units[n], comparisons=comparisons) for n in ("dev", "test")}
        return replace(self, detectable=found, comparisons=comparisons)


def make_plan(
    inputs: Inputs,
    split: Split,
    model: Model,
    *,
    only: Sequence[str] = (),
    earlier: Mapping[str, Any] | None = None,
    called: Callable[[str], str] = str,
    spec: ModelSpec | None = None,
    price: Price | None = None,
    sharing: int = 1,
    teacher: Metered | None = None,
) -> Plan:
    """The strategies that apply to one model, what each will spend, and the smallest difference each set can show.

    earlier: what an earlier command on this run planned with this model (`plan_records.planned_before`), whose counts
    and speeds are used again. called: strategy -> name of its candidate. spec: as the task names the model; None: its
    first one. price: of the model. sharing: number of models that share the time for training. teacher: whom strategies
    ask.
    """
    task = inputs.task
    own = spec or task.models[0]
    have = has(model, task, corpus=bool(inputs.passages), constrained=inputs.constraint is not None)
    asked = any(s.taught is not None and not why_not(s, have, only) for s in STRATEGIES.values())
    rates = rates_of(model, price, teacher if asked else None, earlier)
    tokens = _training_tokens(task, rates.speed) // max(1, sharing)
    if earlier:
        texts = from_record(Texts, but(earlier["texts"], training_tokens=tokens))
    else:
        texts = texts_of(task, split, model, inputs.passages, tokens)
    texts = replace(texts, **as_asked(inputs))
    steps = [_step(strategy, texts, rates, why_not(strategy, have, only)) for strategy in STRATEGIES.values()]
    applying = [step for step in steps if step.applies]
    families = {step.family for step in applying}
    asks = "prompt" in families and (len(families) > 1 or any(step.strategy.cures for step in applying))
    tuned = next((s for s in applying if s.strategy.pilot is not None), None)
    diagnosis = _diagnosis(texts, rates) if asks else Step("diagnosis", "prompt", False, "only prompts are tried")
    pilot = _pilot(tuned) if asks and tuned else Step("pilot", "fine-tune", False, "no fine-tuning is tried")

    def of_model(step: Step) -> Step:
        return replace(step, name=called(step.name), kind=step.name, model=own.name)

    plan = Plan(
        steps=tuple(of_model(step) for step in steps),
        diagnosis=of_model(diagnosis),
        pilot=of_model(pilot),
        decoding=Decoding(texts.room, seed=task.seed, keep_space=task.whitespace == "counts"),
        texts=texts,
        speed=rates.speed,
        sizes={"train": len(split.train), "dev": len(split.dev), "test": len(split.test)},
        capped={name: n for name, n in split.capped.items()},
        detectable={},
        price=price,
        skills=of_model(_skills(applying, texts, rates)),
        teacher=of_model(_teacher(applying if "prompt" in families else [], texts, rates)),
        timed=timed_requests(model, task.concurrency),
        teacher_speed=rates.teacher.speed if rates.teacher is not None else None,
    )
    return plan.with_detectable(len(families), split)


def typical_seconds(speed: Speed) -> float:
    """Estimated for a run on TYPICAL: every strategy that needs nothing but the examples and does not wait for the
    diagnosis, the experiments, and the final test.

    Trainings are as long as they are planned to be, whatever a budget would allow.
    """
    tried = [s for s in STRATEGIES.values() if not (s.asked_for or s.cures or s.needs - {"constraint", "trainable"})]
    rates = PlanRates(speed)
    steps = [_step(strategy, TYPICAL, rates, "") for strategy in tried]
    steps += [_pilot(step) for step in steps if step.strategy.pilot is not None] + [_diagnosis(TYPICAL, rates)]
    steps.append(_skills(steps, TYPICAL, rates))
    answers = len({s.family for s in tried}) * (TYPICAL.dev + LATENCY_INPUTS)  # the test is as large as dev
    test = Cost(answers, answers * (TYPICAL.instruction + TYPICAL.own), answers * TYPICAL.answer)
    return sum(step.seconds for step in steps) + seconds_of(test, speed)


def timed_requests(model: Model, concurrency: int) -> int:
    """Requests that a finalist is timed with, where so many are in flight at once."""
    if getattr(model, "timed", None) is not None:  # over the network: fresh calls
        return max(_LEAST_TIMED, _TIMED_EACH * concurrency)
    return LATENCY_INPUTS * concurrency


def _training_tokens(task: Task, speed: Speed) -> int:
    return int((task.budget.minutes or DEFAULT_MINUTES) * 60 * TRAINING_SHARE * speed.train)


def _step(strategy: Strategy, texts: Texts, rates: PlanRates, why: str) -> Step:
    if why and why != OFF_BY_DEFAULT:
        return Step(strategy.name, strategy.family, False, why)
    cost: Cost = function_of(strategy.cost)(texts)
    taught: Cost = function_of(strategy.taught)(rates.as_taught(texts)) if strategy.taught is not None else Cost()
    (own_s, own_usd), (taught_s, taught_usd) = rates.of(cost), (rates.teacher or rates).of(taught)
    why = why and f"{why}, about {(own_s + taught_s) / 60:.1f} min; name it with --only"
    return Step(
        strategy.name,
        strategy.family,
        not why,
        why,
        cost.calls + taught.calls,
        (cost + taught).tokens,
        round(own_s + taught_s, 2),
        round(own_usd + taught_usd, 6),
        taught_s=taught_s,
        taught_usd=taught_usd,
    )


def _diagnosis(texts: Texts, rates: PlanRates) -> Step:
    from rung.diagnosis.interventions import INTERVENTIONS, THINKING_TOKENS
    from rung.diagnosis.placebo import SAMPLES

    calls = _DIAGNOSED * (len(INTERVENTIONS) + SAMPLES)
    written = calls * (texts.answer + texts.thought) + _DIAGNOSED * THINKING_TOKENS
    prompt = texts.instruction + texts.forms + texts.own + texts.answer
    cost = Cost(calls, calls * (texts.own + texts.answer), written, sent=calls * prompt)
    return Step("diagnosis", "prompt", True, "", cost.calls, cost.tokens, *rates.of(cost))


def _pilot(tuned: Step) -> Step:
    return Step(
        "pilot",
        tuned.family,
        True,
        "",
        int(tuned.calls * _PILOT_SHARE),
        int(tuned.tokens * _PILOT_SHARE),
        round(tuned.seconds * _PILOT_SHARE, 2),
        round(tuned.usd * _PILOT_SHARE, 6),
    )


def _skills(applying: Sequence[Step], texts: Texts, rates: PlanRates) -> Step:
    """The check of general skills: of the base, of the best of each fine-tuned family, and of the repaired one, whose
    repair is counted for the dearest. Tokens are estimated by characters."""
    from rung.strategies.replay import cost_of_base_answers

    tuned = [step for step in applying if step.name in STRATEGIES and step.strategy.repair_cost is not None]
    if not tuned:
        return _NO_SKILLS
    repairs = [function_of(step.strategy.repair_cost)(texts) for step in tuned if step.strategy.repair_cost]
    dearest: Cost = max(repairs, key=lambda cost: seconds_of(cost, rates.speed))
    asked = 2 + len({step.family for step in tuned})
    cost = sum([cost_of_suite()] * asked, dearest + cost_of_base_answers())
    return Step("skills", tuned[0].family, True, "", cost.calls, cost.tokens, *rates.of(cost))


def cost_of_suite() -> Cost:
    """Of one model's answers to the check of general skills; tokens by characters."""
    from rung.evaluation.skills import suite

    return Cost(len(suite()), sum(len(s.prompt) for s in suite()) / 4, sum(s.room for s in suite()) / 2)


def _teacher(applying: Sequence[Step], texts: Texts, rates: PlanRates) -> Step:
    """The teacher's answers to dev with the best prompt, which may show demos. It is asked once a run."""
    from rung.strategies.prompting import answering

    imitating = [step for step in applying if step.strategy.imitates]
    if rates.teacher is None or not imitating:
        return _NO_TEACHER
    texts = rates.as_taught(texts)
    cost = answering(texts, texts.dev, texts.own, demos=_DEMOS_SHOWN * (texts.own + texts.answer))
    return Step("teacher", imitating[0].family, True, "", cost.calls, cost.tokens, *rates.teacher.of(cost))


def _ids(split: Split) -> list[tuple[str, tuple[str, ...]]]:
    return [("dev", tuple(e.id for e in split.dev)), ("test", split.test.ids)]
