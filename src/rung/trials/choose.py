"""Choosing among variants of one strategy on a small part of dev, and what a prompt costs.

Source: Jamieson & Talwalkar, Non-stochastic best arm identification (2016), for successive halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rung.records import write_lines
from rung.solutions.answer import requests_for
from rung.trials.trial import Trial, mean_score, read_predictions, try_all
from rung.trials.workshop import Workshop
from rung.types import Prediction, Solution

_SCREENED = "screened.jsonl"
_TURN_TOKENS = 5  # that a chat template puts round a turn


def choose(workshop: Workshop, variants: Sequence[Solution]) -> Solution:
    """The best variant on the screening sample; of equals, the one with the fewest prompt tokens.

    Successive halving: all answer a third of the sample, the best two (and their equals) the rest. When the time of
    this step is up, the choice is made among the variants that have been answered; the first one always is.
    The winner's predictions are left for `screened`.
    """
    (workshop.folder / _SCREENED).unlink(missing_ok=True)
    if len(variants) == 1:
        return variants[0]
    screen = workshop.inputs.screen
    first = 0 if workshop.limits.exhaustive else len(screen) // 3
    alive = list(variants)
    answered: dict[str, list[Prediction]] = {v.name: [] for v in variants}
    for number, part in enumerate((screen[:first], screen[first:]), 1):
        if not part:
            continue
        tried: list[Solution] = []
        for solution in alive:
            if tried and _time_is_up(workshop):
                break
            path = workshop.folder / "trials" / f"{solution.name}-{number}.jsonl"
            answered[solution.name] += try_all(workshop, [Trial(solution, part, path)])[0]
            tried.append(solution)
        means = {v.name: mean_score(answered[v.name]) for v in tried}
        tokens = {v.name: sum(p.tokens_in for p in answered[v.name]) for v in tried}
        alive = sorted(tried, key=lambda v: (-means[v.name], tokens[v.name]))
        alive = [v for v in alive if means[v.name] >= means[alive[min(1, len(alive) - 1)].name]]
    write_lines(workshop.folder / _SCREENED, (asdict(p) for p in answered[alive[0].name]))
    return alive[0]


def _time_is_up(workshop: Workshop) -> bool:
    left = workshop.limits.seconds_left()
    return left is not None and left <= 0


def screened(folder: Path) -> list[Prediction]:
    """What the solution built in that folder answered while it was chosen."""
    return read_predictions(folder / _SCREENED)


def affordable(workshop: Workshop, solution: Solution) -> bool:
    """Whether answering dev, and a test of its size, costs no more than one training may.

    What all prompts begin with is computed once, so only the tokens behind it count: fixed demos cost
    next to nothing, demos and passages chosen for each input cost their length every time.
    """
    model, dev = workshop.tools.model, workshop.inputs.dev
    requests, _ = requests_for(solution, model, [e.query for e in dev[:8]], retriever=workshop.retriever_of(solution))
    prompts = [r.messages for r in requests]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == prompts[0][shared] for p in prompts):
        shared += 1
    lengths = [[model.count_tokens(m.content) + _TURN_TOKENS for m in p] for p in prompts]
    if max(sum(turns) for turns in lengths) > workshop.limits.prompt_tokens:
        return False
    own = sum(sum(turns[shared:]) for turns in lengths) / len(lengths)
    # A token that is trained on costs two that are read: twice as many weights' worth of products.
    return own * 2 * len(dev) <= 2 * workshop.limits.training_tokens
