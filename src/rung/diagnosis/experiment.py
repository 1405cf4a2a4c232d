"""The experiment: which answers are given again, under which changes, and the answering itself.

Wrong answers, and some right ones, are answered again under each intervention, under the placebo and as samples. Every
answer is kept in the folder as it comes, so that a run that was killed goes on and ends in the same record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rung.diagnosis.interventions import INTERVENTIONS, Impossible, Intervention
from rung.diagnosis.lenient import Yardstick, common_words, yardstick
from rung.diagnosis.placebo import PLACEBO, OwnSeeds, placebo, samples
from rung.diagnosis.shares import Sampled
from rung.errors import came
from rung.solutions.demos import NEAREST_POOL
from rung.trials.trial import Trial, attempt, try_all
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, MetricInfo, Prediction, Retriever, Solution

HALF = 0.5
"""From here an answer counts as right where the metric grades."""

Answers = Mapping[str, Mapping[str, Prediction]]
"""Name of a change, the placebo or a sample -> example id -> its scored answer."""


@dataclass(frozen=True)
class Change:
    """An intervention that can be made on this base. solution: the changed base. examples: those it is tried on."""

    intervention: Intervention
    solution: Solution
    examples: tuple[Example, ...]
    retriever: Retriever | None = None


@dataclass(frozen=True)
class Experiment:
    """What is answered again, and how answers are judged.

    folder: where answers are kept. by: how answers are judged. common: words of the answers' form. old: example id ->
    the base's answer. right_share: of all dev answers. errors: inputs without an answer. skipped: intervention ->
    why it cannot be made.
    """

    workshop: Workshop
    base: Solution
    folder: Path
    by: Yardstick
    common: frozenset[str]
    old: Mapping[str, Prediction]
    sampled: Sampled
    right_share: float
    errors: int
    changes: Mapping[str, Change]
    skipped: Mapping[str, str]

    @property
    def asked(self) -> tuple[Example, ...]:
        """The failed and the succeeded examples that are answered again."""
        return (*self.sampled.failed, *self.sampled.succeeded)


def right_from(metric: MetricInfo) -> float:
    """The score from which an answer is right: 1, or a half where the metric grades."""
    return 1.0 if metric.right_or_wrong else HALF


def set_up(
    workshop: Workshop, base: Solution, predictions: Sequence[Prediction], folder: Path, most: int
) -> Experiment:
    """Draws the examples and makes the changed Solutions. Nothing is answered yet, and nothing made if none failed."""
    inputs, scorer = workshop.inputs, workshop.tools.scorer
    old = {p.id: p for p in predictions}
    right = right_from(scorer.metric)
    answered = [e for e in inputs.dev if e.id in old and came(old[e.id].error)]
    good = [e for e in answered if (old[e.id].score or 0.0) >= right]
    bad = [e for e in answered if (old[e.id].score or 0.0) < right]
    sampled = Sampled(
        failed=sample_of(bad, most, inputs.task.seed),
        succeeded=sample_of(good, most // 2, inputs.task.seed),
        right_per_wrong=len(good) / max(1, len(bad)),
        groups=inputs.groups,
        seed=inputs.task.seed,
    )
    some = sample_of(inputs.train, NEAREST_POOL, inputs.task.seed)
    changes: dict[str, Change] = {}
    skipped: dict[str, str] = {}
    for name, intervention in INTERVENTIONS.items() if bad else ():
        made = _change(intervention, workshop, base, old, sampled)
        if isinstance(made, Impossible):
            skipped[name] = made.why
        else:
            changes[name] = made
    return Experiment(
        workshop=workshop,
        base=base,
        folder=folder,
        by=yardstick(scorer, right, inputs.task.labels, some),
        common=common_words(some),
        old=old,
        sampled=sampled,
        right_share=len(good) / max(1, len(predictions)),
        errors=sum(not came(p.error) for p in predictions),
        changes=changes,
        skipped=skipped,
    )


def _change(
    intervention: Intervention,
    workshop: Workshop,
    base: Solution,
    old: Mapping[str, Prediction],
    sampled: Sampled,
) -> Change | Impossible:
    made = intervention.make(base, workshop)
    if isinstance(made, Impossible):
        return made
    concerns, failed = intervention.concerns, sampled.failed
    if concerns is not None:
        failed = tuple(e for e in failed if concerns(old[e.id].text, workshop))
    if not failed:
        return Impossible("it can fix none of the wrong answers")
    if intervention.retriever is None:
        return Change(intervention, made, (*failed, *sampled.succeeded))
    retriever, known = intervention.retriever((*failed, *sampled.succeeded), workshop)
    if not {e.id for e in failed} & {e.id for e in known}:
        return Impossible("no passage is known that holds the answer to a failed example")
    return Change(intervention, made, tuple(known), retriever)


def answer_all(experiment: Experiment) -> Answers:
    """The answers of the placebo, of every change and of the samples. Nothing is answered where nothing failed."""
    workshop, base = experiment.workshop, experiment.base
    if not experiment.sampled.failed:
        return {}
    model = OwnSeeds(workshop.tools.model, base.decoding.seed)

    def trial(name: str, solution: Solution, examples: Sequence[Example]) -> Trial:
        named = replace(solution, name=f"{base.name} again ({name})")
        return Trial(named, examples, experiment.folder / f"{name}.jsonl", model=model)

    trials = {PLACEBO: trial(PLACEBO, placebo(base), experiment.asked)}
    for name, change in experiment.changes.items():
        plain = trial(name, change.solution, change.examples)
        trials[name] = replace(plain, retriever=change.retriever, reading=change.intervention.reading)
    answers = dict(zip(trials, try_all(workshop, list(trials.values())), strict=True))
    # One after the other, because the first draws the others' answers with its own.
    for sample in samples(base):
        one = trial(sample.name, sample, experiment.asked)
        answers[sample.name] = attempt(workshop, one.solution, one.examples, one.path, model=model)
    return {name: {p.id: p for p in predictions} for name, predictions in answers.items()}
