"""Prompting: no training, changed in minutes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rung.solutions.prompt_rendering import input_text
from rung.trials.workshop import Materials, affordable, choose
from rung.types import Demo, DemoSelection, Example, Solution

_FIXED = (4, 8, 16)
_NEAREST = (4, 8)


def zero_shot(materials: Materials) -> Solution:
    """The instruction alone."""
    return materials.solution("zero_shot")


def constrained(materials: Materials) -> Solution:
    """The instruction, and an answer that cannot leave the label set, schema or pattern."""
    return replace(materials.solution("constrained"), constraint=materials.constraint)


def few_shot(materials: Materials) -> Solution:
    """The instruction and worked examples: fixed ones that cover the labels, or the nearest to each input (BM25).

    Which, and how many, is chosen on dev. The task's constraint, if any, holds as well.
    """
    plain = replace(materials.solution("few_shot"), constraint=materials.constraint)
    ordered = covering(materials.train, materials.task.seed)
    pool = tuple(demo(e) for e in materials.train)
    fixed = [
        replace(plain, name=f"fixed-{k}", demos=ordered[:k], demo_selection=DemoSelection("fixed", k))
        for k in sorted({min(k, len(ordered)) for k in _FIXED})
    ]
    nearest = [
        replace(plain, name=f"nearest-{k}", demos=pool, demo_selection=DemoSelection("nearest", k))
        for k in _NEAREST
        if k < len(pool)
    ]
    # The shortest prompt is tried even where every one is long: the task has long inputs.
    variants = [v for v in (*fixed, *nearest) if affordable(materials, v)] or fixed[:1]
    return replace(choose(materials, variants), name="few_shot")


def demo(example: Example) -> Demo:
    return Demo(input_text(example.query), example.output)


def covering(train: Sequence[Example], seed: int) -> tuple[Demo, ...]:
    """Train examples as demos, ordered so that each beginning of the list covers as many different answers as it can.

    Answers take turns, the most frequent first; within an answer, short inputs near the median length
    come first, because they cost little and are typical.
    """
    by_output: dict[str, list[Example]] = defaultdict(list)
    shuffled = random.Random(seed).sample(list(train), len(train))
    median = sorted(len(e.input) for e in train)[len(train) // 2]
    for example in sorted(shuffled, key=lambda e: abs(len(e.input) - median)):
        by_output[example.output].append(example)
    turns = sorted(by_output.values(), key=lambda rows: -len(rows))
    ordered: list[Demo] = []
    for depth in range(max(len(rows) for rows in turns)):
        ordered += [demo(rows[depth]) for rows in turns if depth < len(rows)]
    return tuple(ordered)
