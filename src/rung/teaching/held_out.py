"""Train examples on which prompts are judged while they are written, and prompts that do not show their answers.

Dev is for choosing what was built, so whatever is learnt from single answers is learnt from train. A prompt that shows
an example as a demo would be judged on its own answer; such demos are hidden while it is judged. Knows no models.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rung.data.lengths import of_usual_length
from rung.solutions.demos import covering
from rung.text import normal_form
from rung.trials.workshop import Inputs
from rung.types import Example, Solution

DEMOS_KEPT = 16
"""Train examples that fixed demos are made of; others are held out first."""


def held_out_size(train: int) -> int:
    """How many of so many train examples may be held out: those that fixed demos leave."""
    return train - min(DEMOS_KEPT, train // 3)


def held_out(inputs: Inputs, most: int) -> tuple[Example, ...]:
    """At most so many train examples of usual length in a random, fixed order; first one of each group.

    Those that fixed demos are made of are left out.
    """
    train, seed = of_usual_length(inputs.train), inputs.task.seed
    shown = {d.input for d in covering(train, seed, len(train) - held_out_size(len(train)))}
    rows = [e for e in random.Random(seed).sample(train, len(train)) if e.query.text not in shown]
    turns: dict[str, int] = defaultdict(int)
    order = []
    for example in rows:
        group = inputs.groups.get(example.id, example.id)
        order.append(turns[group])
        turns[group] += 1
    ranked = sorted(range(len(rows)), key=lambda i: order[i])  # stable
    return tuple(rows[i] for i in ranked[:most])


def without_demos_of(solution: Solution, examples: Sequence[Example], inputs: Inputs) -> Solution:
    """The solution without demos that are one of these examples, or of the group of one."""
    if not solution.demos or solution.demo_selection is None:
        return solution
    groups = {inputs.groups.get(e.id, e.id) for e in examples}
    hidden = {normal_form(e.query.text) for e in examples}
    hidden |= {normal_form(e.query.text) for e in inputs.train if inputs.groups.get(e.id, e.id) in groups}
    shown = solution.demos
    if solution.demo_selection.kind == "fixed":
        shown = shown[: solution.demo_selection.k]
    return replace(solution, demos=tuple(d for d in shown if normal_form(d.input) not in hidden))
