"""Fine-tuning: a LoRA adapter that learns behaviour; with retrieval, one that learns to read passages; all weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from rung.resume import is_done
from rung.strategies.course import (
    FULL_COST,
    REPAIR_SHARE,
    Course,
    Lengths,
    epoch_of,
    interim_looks_of,
    onward_steps,
    probe_steps,
    steps_of,
    tokens_at,
    whole_course,
)
from rung.strategies.fit import fit
from rung.strategies.prompting import answering
from rung.strategies.reading import reading
from rung.strategies.registry import Cost, Texts
from rung.strategies.training_rows import training_rows, without_long
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Solution, TrainingOptions, TrainingRow

_TRAINED_PASSAGES = 3  # in a training prompt, at least
_LEAST_PILOT_STEPS = 12
_PROBES = 2  # of learning rates that are not chosen: the others of the grid


def lora(workshop: Workshop) -> Solution:
    """The instruction and an adapter trained on the train examples."""
    return _tuned(workshop, replace(workshop.solution("lora"), constraint=workshop.inputs.constraint))


def rag_lora(workshop: Workshop) -> Solution:
    """As `lora`, with retrieved passages in every prompt, so that the adapter learns to read them.

    It learns to name its sources and to refuse, too, where the task says so.
    """
    before = workshop.best_rag.retriever if workshop.best_rag is not None else None
    shown = workshop.passages_spec(max(before.k if before is not None else 0, _TRAINED_PASSAGES))
    return _tuned(workshop, replace(reading(workshop, "rag_lora"), retriever=shown))


def full(workshop: Workshop) -> Solution:
    """As `lora`, with all weights of the model trained in the place of an adapter.

    Raises OutOfMemory, with the numbers, where memory does not suffice for it.
    """
    plain = replace(workshop.solution("full"), constraint=workshop.inputs.constraint)
    return _tuned(workshop, plain, full=True)


def tuned_on(workshop: Workshop, plain: Solution, more: Sequence[Example]) -> Solution:
    """The solution with an adapter trained on the train examples and on more rows beside them.

    Where its course cannot visit all of them, those of train come first. It is judged on dev as `lora` is.
    """
    return _tuned(workshop, plain, more)


def pilot(workshop: Workshop, count: int) -> Solution:
    """As `lora`, from `count` train examples (a fixed sample) and in proportion fewer steps; judged once.

    An experiment, which ships nothing: it is never trained at every learning rate. Its predictions for
    `workshop.inputs.piloted` lie in the folder as predictions.dev.jsonl.
    """
    workshop = replace(workshop, limits=replace(workshop.limits, exhaustive=False))
    inputs = workshop.inputs
    plain = replace(workshop.solution(f"pilot-{count}"), constraint=inputs.constraint)
    if is_done(workshop.folder / "adapter"):
        return replace(plain, adapter=str(workshop.folder / "adapter"))
    whole = whole_course(workshop, lambda some: training_rows(workshop, plain, some), inputs.piloted)
    steps, wanted = (max(_LEAST_PILOT_STEPS, round(n * count / len(inputs.train))) for n in (whole.steps, whole.wanted))
    examples = random.Random(inputs.task.seed).sample(inputs.train, count)[: steps * TrainingOptions.batch_size]
    course = Course(steps, 1, inputs.piloted, len(examples), epoch_of(count), wanted)
    return _trained(workshop, plain, examples, course)


def _tuned(workshop: Workshop, plain: Solution, more: Sequence[Example] = (), *, full: bool = False) -> Solution:
    """The solution with an adapter, or weights, trained on the train examples, and more, that its course can visit."""
    if is_done(workshop.folder / "adapter"):
        return replace(plain, adapter=str(workshop.folder / "adapter"))
    train, seed = workshop.inputs.train, workshop.inputs.task.seed
    both = replace(workshop, inputs=replace(workshop.inputs, train=(*train, *more)))

    def render(some: Sequence[Example]) -> list[TrainingRow]:
        return training_rows(both, plain, some)

    course = whole_course(both, render, workshop.inputs.dev, full=full)
    own = sample_of(train, course.examples, seed)
    return _trained(both, plain, (*own, *sample_of(more, course.examples - len(own), seed)), course)


def _trained(workshop: Workshop, plain: Solution, examples: Sequence[Example], course: Course) -> Solution:
    rows, left_out = without_long(workshop, training_rows(workshop, plain, examples))
    return replace(plain, adapter=str(fit(workshop, plain, rows, course, left_out)))


# ---- what they cost -------------------------------------------------------------------------


def cost_of_lora(texts: Texts) -> Cost:
    """Of a training within its compute budget, the probes of learning rates, and dev at each interim look."""
    return _training(texts, texts.own)


def cost_of_tuning_on(texts: Texts, more: int) -> Cost:
    """As of lora, with so many rows more to train on (`tuned_on`)."""
    return _training(replace(texts, train=texts.train + more), texts.own)


def cost_of_rag_lora(texts: Texts) -> Cost:
    """As of lora, with passages in every prompt."""
    return _training(texts, texts.own + _TRAINED_PASSAGES * texts.passage)


def cost_of_full(texts: Texts) -> Cost:
    """As of lora; all weights take longer, so that the same time allows fewer steps."""
    return _training(texts, texts.own, full=True)


def cost_of_lora_repair(texts: Texts) -> Cost:
    """Of training it on with the base's own answers mixed in (see `replay`), and dev once."""
    return _training(texts, texts.own, repair=True)


def cost_of_rag_lora_repair(texts: Texts) -> Cost:
    """As of lora, with passages in every prompt of the task."""
    return _training(texts, texts.own + _TRAINED_PASSAGES * texts.passage, repair=True)


def cost_of_full_repair(texts: Texts) -> Cost:
    """As of lora, with all weights."""
    return _training(texts, texts.own, full=True, repair=True)


def _training(texts: Texts, own: float, *, full: bool = False, repair: bool = False) -> Cost:
    plain = replace(texts, forms=0.0, thought=0)
    lengths = Lengths(texts.instruction, own + texts.answer)
    steps = steps_of(texts.train, lengths, tokens_at(texts.training_tokens, full=full))
    each = lengths.step * (FULL_COST if full else 1.0)
    if repair:
        return answering(plain, texts.dev, own) + Cost(trained=onward_steps(steps, REPAIR_SHARE) * each)
    answers = answering(plain, interim_looks_of(steps, texts.train) * texts.dev, own)
    return answers + Cost(trained=(steps + _PROBES * probe_steps(steps)) * each)
