"""What a run is going to do and spend, said before anything is spent.

Token counts come from the task's own texts. Seconds come from those counts and the model's speed on this machine,
which is measured once and then read back from plan.json. Seconds are shown and held against the budget; they decide
how long an adapter may train, and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rung import __version__
from rung.strategies import STRATEGIES, Cost, Need, Strategy, Texts, function_of
from rung.types import Decoding, Document, Family, Model, Request, Solution, Speed, Split, Task, Trainable

DEFAULT_MINUTES = 10.0
"""For which trainings are sized where the task names no budget."""

TRAINING_SHARE = 0.3
"""Of the budget's minutes, for one adapter."""

LATENCY_INPUTS = 8
"""Inputs that are timed one by one, for each finalist."""

TYPICAL = Texts(
    own=60, answer=8, room=12, instruction=60, forms=80, passage=0, train=200, dev=100, screen=50, training_tokens=10**9
)
"""A task of 400 rows with short inputs and labels, and no corpus: 200 to train on, 100 for dev, 100 for the test."""

_SAMPLED = 32  # train examples and passages whose tokens are counted
_DIAGNOSED = 30  # examples that are answered again under each intervention
_PILOT_SHARE = 0.25  # of train, and so of the cost of a training
_ASKED_FOR = "off by default"
_NEED_WORDS: dict[Need, str] = {
    "corpus": "the task has no corpus",
    "trainable": "the model cannot be trained from here",
    "constraint": "the task has no labels, schema or pattern",
    "teacher": "the task has no teacher",
}


@dataclass(frozen=True)
class Step:
    """One strategy of the plan. why: it does not apply. tokens: through the network. seconds: an estimate.

    One that is off by default has its cost too, which counts nowhere.
    """

    name: str
    family: Family
    applies: bool
    why: str
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def strategy(self) -> Strategy:
        return STRATEGIES[self.name]


_NO_SKILLS = Step("skills", "fine-tune", False, "no fine-tuning is tried")


@dataclass(frozen=True)
class Plan:
    """texts, speed: what the estimates rest on. experiments: the diagnosis and the pilot, which ship nothing, and the
    check of general skills with the repair of the dearest solution, which comes where they are lost.

    sizes: numbers of examples. capped: sets that were cut -> examples before. detectable: set -> the smallest
    difference it can show. usd_per_hour: of the machine.
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
    usd_per_hour: float = 0.0
    skills: Step = _NO_SKILLS

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

    def record(self) -> dict[str, Any]:
        """As plan.json holds it."""
        everything = [step for step in (*self.steps, self.diagnosis, self.pilot, self.skills) if step.applies]
        tuned = {s.family: "trainable" in s.strategy.needs for s in self.steps if s.applies}
        families = len(tuned)
        each_s = sum(self.tuned_answer_seconds if own else self.answer_seconds for own in tuned.values())
        test_s = (self.sizes["test"] + LATENCY_INPUTS) * each_s
        seconds = sum(step.seconds for step in everything) + test_s
        return {
            "steps": [asdict(step) for step in self.steps],
            "experiments": [asdict(self.diagnosis), asdict(self.pilot), asdict(self.skills)],
            "calls": sum(step.calls for step in everything) + families * self.sizes["test"],
            "tokens": sum(step.tokens for step in everything),
            "seconds": round(seconds, 1),
            "usd": round(self.usd_per_hour * seconds / 3600, 4),
            "sizes": self.sizes,
            "capped": self.capped,
            "minimum_detectable_difference": self.detectable,
            "max_new_tokens": self.decoding.max_new_tokens,
            "texts": asdict(self.texts),
            "speed": asdict(self.speed),
        }


def make_plan(
    task: Task,
    split: Split,
    model: Model,
    *,
    passages: Sequence[Document],
    constrained: bool,
    only: Sequence[str] = (),
    earlier: Mapping[str, Any] | None = None,
) -> Plan:
    """The strategies that apply, what each will spend, and the smallest difference each set can show.

    constrained: whether answers can be held to labels, a schema or a pattern. earlier: plan.json of an earlier
    command on this run, whose counts and speed are used again.
    """
    from rung.evaluation.statistics import minimum_detectable_difference
    from rung.models.speed import speed_of

    speed = Speed(**earlier["speed"]) if earlier else speed_of(model)
    tokens = _training_tokens(task, speed)
    if earlier:
        texts = Texts(**{**earlier["texts"], "training_tokens": tokens})
    else:
        texts = _texts(task, split, model, passages, tokens)
    have: set[Need] = {"corpus"} if passages else set()
    have |= {"trainable"} if isinstance(model, Trainable) else set()
    have |= {"constraint"} if constrained else set()
    steps = [_step(strategy, texts, speed, _why_not(strategy, have, only)) for strategy in STRATEGIES.values()]
    applying = [step for step in steps if step.applies]
    families = {step.family for step in applying}
    asks = "prompt" in families and len(families) > 1
    tuned = next((s for s in applying if s.strategy.pilot is not None), None)
    units = {name: len({split.groups.get(i, i) for i in ids}) for name, ids in _ids(split)}
    comparisons = max(1, math.comb(len(families), 2))
    return Plan(
        steps=tuple(steps),
        diagnosis=_diagnosis(texts, speed) if asks else Step("diagnosis", "prompt", False, "only prompts are tried"),
        pilot=_pilot(tuned) if asks and tuned else Step("pilot", "fine-tune", False, "no fine-tuning is tried"),
        decoding=Decoding(texts.room, seed=task.seed),
        texts=texts,
        speed=speed,
        sizes={"train": len(split.train), "dev": len(split.dev), "test": len(split.test)},
        capped={name: n for name, n in split.capped.items()},
        detectable={n: minimum_detectable_difference(units[n], comparisons=comparisons) for n in ("dev", "test")},
        usd_per_hour=(task.price.usd_per_hour or 0.0) if task.price is not None else 0.0,
        skills=_skills(applying, texts, speed),
    )


def seconds_of(cost: Cost, speed: Speed) -> float:
    """Estimated seconds for reading, writing and training so many tokens."""
    return cost.read / speed.read + cost.written / speed.write + cost.trained / speed.train


def typical_seconds(speed: Speed) -> float:
    """Estimated for a run on TYPICAL: every strategy that needs no corpus, the experiments, and the final test.

    Trainings are as long as they are planned to be, whatever a budget would allow.
    """
    tried = [s for s in STRATEGIES.values() if not (s.asked_for or s.needs & {"corpus", "teacher"})]
    steps = [_step(strategy, TYPICAL, speed, "") for strategy in tried]
    steps += [_pilot(step) for step in steps if step.strategy.pilot is not None] + [_diagnosis(TYPICAL, speed)]
    steps.append(_skills(steps, TYPICAL, speed))
    answers = len({s.family for s in tried}) * (TYPICAL.dev + LATENCY_INPUTS)  # the test is as large as dev
    test = Cost(answers, answers * (TYPICAL.instruction + TYPICAL.own), answers * TYPICAL.answer)
    return sum(step.seconds for step in steps) + seconds_of(test, speed)


def _training_tokens(task: Task, speed: Speed) -> int:
    return int((task.budget.minutes or DEFAULT_MINUTES) * 60 * TRAINING_SHARE * speed.train)


def _texts(task: Task, split: Split, model: Model, passages: Sequence[Document], training_tokens: int) -> Texts:
    from rung.data.constraint import form_in_words
    from rung.models.speed import thought_tokens
    from rung.solutions.answer import requests_for
    from rung.trials.workshop import SCREEN

    sample = split.train[:_SAMPLED]
    requests, _ = requests_for(Solution("plan", task.instruction, Decoding(1)), model, [e.query for e in sample])
    prompt = sum(_tokens(r, model) for r in requests) / len(sample)
    instruction = model.count_tokens(task.instruction)
    lengths = [model.count_tokens(e.output) + 1 for e in sample]
    longest = max(sample, key=lambda e: len(e.output)), max(split.train, key=lambda e: len(e.output))
    room = max(model.count_tokens(e.output) + 1 for e in longest)
    room = max(room, *lengths)
    form = form_in_words(task, split.train)
    some = passages[: 2 * _SAMPLED]
    return Texts(
        own=max(8.0, prompt - instruction),
        answer=sum(lengths) / len(lengths),
        room=room + max(4, room // 4),  # a quarter more than the longest answer
        instruction=instruction,
        forms=float(model.count_tokens(form)) if form else 0.0,
        passage=sum(model.count_tokens(p.text) for p in some) / max(1, len(some)),
        train=len(split.train),
        dev=len(split.dev),
        screen=min(SCREEN, len(split.dev)),
        training_tokens=training_tokens,
        thought=thought_tokens(model),
    )


def _tokens(request: Request, model: Model) -> int:
    return sum(model.count_tokens(m.content) for m in request.messages)


def _step(strategy: Strategy, texts: Texts, speed: Speed, why: str) -> Step:
    if why and why != _ASKED_FOR:
        return Step(strategy.name, strategy.family, False, why)
    cost: Cost = function_of(strategy.cost)(texts)
    seconds = round(seconds_of(cost, speed), 2)
    why = why and f"{why}, about {seconds / 60:.1f} min; name it with --only"
    return Step(strategy.name, strategy.family, not why, why, cost.calls, cost.tokens, seconds)


def _why_not(strategy: Strategy, have: Iterable[Need], only: Sequence[str]) -> str:
    if missing := next((_NEED_WORDS[need] for need in sorted(strategy.needs) if need not in have), ""):
        return missing
    if strategy.name in only or not (only or strategy.asked_for):
        return ""
    return _ASKED_FOR if strategy.asked_for else "left out by --only"


def _diagnosis(texts: Texts, speed: Speed) -> Step:
    from rung.diagnosis.interventions import INTERVENTIONS, THINKING_TOKENS
    from rung.diagnosis.placebo import SAMPLES

    calls = _DIAGNOSED * (len(INTERVENTIONS) + SAMPLES)
    written = calls * (texts.answer + texts.thought) + _DIAGNOSED * THINKING_TOKENS
    cost = Cost(calls, calls * (texts.own + texts.answer), written)
    return Step("diagnosis", "prompt", True, "", cost.calls, cost.tokens, round(seconds_of(cost, speed), 2))


def _pilot(tuned: Step) -> Step:
    return Step(
        "pilot",
        tuned.family,
        True,
        "",
        int(tuned.calls * _PILOT_SHARE),
        int(tuned.tokens * _PILOT_SHARE),
        round(tuned.seconds * _PILOT_SHARE, 2),
    )


def _skills(applying: Sequence[Step], texts: Texts, speed: Speed) -> Step:
    """The check of general skills: of the base, of the best of each fine-tuned family, and of the repaired one, whose
    repair is counted for the dearest. Tokens are estimated by characters."""
    from rung.evaluation.skills import suite
    from rung.strategies.replay import cost_of_base_answers

    tuned = [step for step in applying if step.name in STRATEGIES and step.strategy.repair_cost is not None]
    if not tuned:
        return _NO_SKILLS
    repairs = [function_of(step.strategy.repair_cost)(texts) for step in tuned if step.strategy.repair_cost]
    dearest: Cost = max(repairs, key=lambda cost: seconds_of(cost, speed))
    asked = 2 + len({step.family for step in tuned})
    once = Cost(len(suite()), sum(len(s.prompt) for s in suite()) / 4, sum(s.room for s in suite()) / 2)
    cost = sum([once] * asked, dearest + cost_of_base_answers())
    return Step("skills", tuned[0].family, True, "", cost.calls, cost.tokens, round(seconds_of(cost, speed), 2))


def _ids(split: Split) -> list[tuple[str, tuple[str, ...]]]:
    return [("dev", tuple(e.id for e in split.dev)), ("test", split.test.ids)]


def file_hashes(task: Task) -> dict[str, str]:
    """SHA-256 of every file of examples and documents that is read, by path relative to task.yaml where it can be."""
    from rung.data.corpus import texts_of

    examples = task.examples
    files = list(examples) if isinstance(examples, tuple) else [p for part in examples.values() for p in part]
    if task.corpus is not None:
        files += texts_of(task.corpus)
    if task.metric.startswith("python:"):
        files.append(task.path.parent / task.metric.removeprefix("python:").rpartition(":")[0])
    return {os.path.relpath(p, task.path.parent): _sha256(p) for p in files}


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
