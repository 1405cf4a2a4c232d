"""Prompting: no training, changed in minutes. And the form of the answer in words, for every prompt of a strategy."""

from __future__ import annotations

import re
from dataclasses import replace

from rung.data.constraint import form_in_words
from rung.data.lengths import of_usual_length
from rung.solutions.answer import BLOCK
from rung.solutions.demos import NEAREST_POOL, covering, demo
from rung.strategies.registry import Cost, Texts
from rung.trials.choose import affordable, choose, fits
from rung.trials.workshop import Workshop, sample_of
from rung.types import DemoSelection, Solution, Task

_FIXED = (4, 8, 16)
_NEAREST = (4, 8)
_FORM = "-form"  # behind the name of a variant whose instruction says the form of the answer
_WRITTEN = 0.6  # of the room for an answer, on average


# ---- the strategies -------------------------------------------------------------------------


def zero_shot(workshop: Workshop) -> Solution:
    """The instruction alone, as it is or with the form of the answer in words. Chosen on dev."""
    plain = workshop.solution("zero_shot")
    return replace(choose_form(workshop, plain), name=plain.name)


def constrained(workshop: Workshop) -> Solution:
    """As `zero_shot`, with an answer that cannot leave the label set, schema or pattern."""
    plain = replace(workshop.solution("constrained"), constraint=workshop.inputs.constraint)
    return replace(choose_form(workshop, plain), name=plain.name)


def few_shot(workshop: Workshop) -> Solution:
    """The instruction and worked examples: fixed ones that cover the labels, or the nearest to each input (BM25).

    Chosen on dev: first, with the fewest demos, whether the instruction says the form of the answer; then the demos;
    then the form again, with these demos. The task's constraint, if it has one, holds as well.
    """
    plain = replace(workshop.solution("few_shot"), constraint=workshop.inputs.constraint)
    settings = demo_settings(workshop, plain)
    first = choose_form(workshop, settings[0])
    best = choose(workshop, [in_form_of(first, setting) for setting in settings])
    return replace(choose_form(workshop, best), name=plain.name)


def demo_settings(workshop: Workshop, plain: Solution) -> list[Solution]:
    """The solution with each setting of demos that is affordable, the cheapest first; at least one."""
    train, seed = of_usual_length(workshop.inputs.train), workshop.inputs.task.seed
    ordered = covering(train, seed, max(_FIXED))
    pool = tuple(demo(e) for e in sample_of(train, NEAREST_POOL, seed))
    fixed = [
        replace(plain, name=f"fixed-{k}", demos=ordered[:k], demo_selection=DemoSelection("fixed", k))
        for k in sorted({min(k, len(ordered)) for k in _FIXED})
    ]
    nearest = [
        replace(plain, name=f"nearest-{k}", demos=pool, demo_selection=DemoSelection("nearest", k))
        for k in _NEAREST
        if k < len(pool)
    ]
    # Where every prompt is too long, the task has long inputs. The shortest one is tried then.
    return [v for v in (*fixed, *nearest) if affordable(workshop, v)] or fixed[:1]


# ---- the form of the answer in words --------------------------------------------------------


def choose_form(workshop: Workshop, solution: Solution) -> Solution:
    """The solution as it is or in the other form, chosen on dev."""
    variants = both_forms(workshop, solution)
    return choose(workshop, variants) if len(variants) > 1 else solution


def both_forms(workshop: Workshop, solution: Solution) -> list[Solution]:
    """The solution, and the same with the form of the answer at the end of its instruction (or without it).

    The solution alone where the task prescribes no form, the instruction says it already, or the prompt would be too
    long. What the form adds stands in the shared prefix, which is computed once: it is affordable wherever it fits.
    """
    task, inputs = workshop.inputs.task, workshop.inputs
    if solution.name.endswith(_FORM):
        said = solution.instruction.removesuffix(f"\n\n{form_in_words(task, inputs.train)}")
        return [solution, replace(solution, name=solution.name.removesuffix(_FORM), instruction=said)]
    form = None if names_its_labels(task) else form_in_words(task, inputs.train)
    if not form:
        return [solution]
    instruction = f"{solution.instruction.rstrip()}\n\n{form}"
    other = replace(solution, name=f"{solution.name}{_FORM}", instruction=instruction)
    return [solution, other] if fits(workshop, other) else [solution]


def in_form_of(chosen: Solution, other: Solution, behind: str = "") -> Solution:
    """The other solution with the instruction of the chosen one. behind: what is added to its name."""
    form = _FORM if chosen.name.endswith(_FORM) else ""
    return replace(other, name=f"{other.name.removesuffix(_FORM)}{behind}{form}", instruction=chosen.instruction)


def names_its_labels(task: Task) -> bool:
    """Whether the instruction already names every label of the task, and all that is noted on them."""
    if not task.labels:
        return False
    noted = [note for label in task.labels if (note := task.label_notes.get(label))]
    return all(_stands_in(text, task.instruction) for text in (*task.labels, *noted))


def _stands_in(text: str, instruction: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", instruction) is not None


# ---- what they cost -------------------------------------------------------------------------


def cost_of_zero_shot(texts: Texts) -> Cost:
    """Answers to dev. The other form answers the screen; the chosen one has answered it already."""
    return answering(texts, texts.dev, texts.own) + forms(texts, 1, texts.own)


def cost_of_constrained(texts: Texts) -> Cost:
    """As of zero_shot: the constraint changes what is written, not how much is read."""
    return cost_of_zero_shot(texts)


def cost_of_few_shot(texts: Texts) -> Cost:
    """Three settings of fixed demos and two of nearest ones on a third of the screen, two of them on all of it; dev."""
    shot = texts.own + texts.answer
    fixed = 2 * texts.screen + texts.dev
    mean = sum(_FIXED) / len(_FIXED) * shot  # of the settings; dev is taken to be answered with the most demos
    demos = (2 * texts.screen * mean + texts.dev * max(_FIXED) * shot) / max(1, fixed)
    return (
        answering(texts, fixed, texts.own, demos=demos)
        + answering(texts, texts.screen, max(_NEAREST) * shot + texts.own)
        + forms(texts, 2, texts.own, demos=mean)
    )


def answering(texts: Texts, calls: int, own: float, *, demos: float = 0.0) -> Cost:
    """Of so many answers. own: tokens of a prompt behind its shared prefix, which is read once a block.

    demos: tokens of demos in the shared prefix, where they are the same in every prompt. They are sent with each, and
    too few a block to count as read.
    """
    prefix = texts.instruction + texts.forms
    return Cost(
        calls=calls,
        read=calls * own + -(-calls // BLOCK) * prefix,
        written=calls * (_WRITTEN * texts.room + texts.thought),
        sent=calls * (own + prefix + demos),
    )


def forms(texts: Texts, variants: int, own: float, *, demos: float = 0.0) -> Cost:
    """Of so many more variants on the screen, which say the form of the answer or leave it out."""
    return answering(texts, variants * texts.screen, own, demos=demos) if texts.forms else Cost()
