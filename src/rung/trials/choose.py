"""Choosing among variants of one strategy on a small part of dev, and what a prompt costs.

Source: Jamieson & Talwalkar, Non-stochastic best arm identification (2016), for successive halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rung.records import write_lines
from rung.solutions.answer import requests_for, shared_turns
from rung.trials.trial import Trial, mean_score, read_predictions, try_all
from rung.trials.workshop import Workshop
from rung.types import Example, Prediction, Solution

TURN_TOKENS = 5
"""Tokens that a chat template puts around a turn, about."""

_SCREENED = "screened.jsonl"
_AFFORDABLE_ON = 8  # dev inputs


def choose(workshop: Workshop, variants: Sequence[Solution]) -> Solution:
    """The best variant on the screening sample; of equals, the one with the fewest prompt tokens.

    Successive halving: all answer a third of the sample, the best two (and their equals) the rest. When the time of
    this step is up, the choice is made among the variants that were answered until then, and the cut is noted. The
    first one is always answered, so the cheapest stands first. Names tell variants of one folder apart.
    The winner's predictions are kept for `screened`.
    """
    (workshop.folder / _SCREENED).unlink(missing_ok=True)
    if len(variants) == 1:
        return variants[0]
    screen = workshop.inputs.screen
    first = 0 if workshop.limits.exhaustive else len(screen) // 3
    alive = list(variants)
    answered: dict[str, list[Prediction]] = {v.name: [] for v in variants}
    cut: str | None = None
    for number, part in enumerate((screen[:first], screen[first:]), 1):
        if not part:
            continue
        found = _answers(workshop, alive, part, number)
        if cut is None and len(found) < len(alive):
            cut = f"{len(found)} of {len(alive)} variants were compared when the time was up"
        tried = alive[: len(found)]
        for solution, predictions in zip(tried, found, strict=True):
            answered[solution.name] += predictions
        means = {v.name: mean_score(answered[v.name]) for v in tried}
        tokens = {v.name: sum(p.tokens_in for p in answered[v.name]) for v in tried}
        ranked = sorted(tried, key=lambda v: (-means[v.name], tokens[v.name]))
        second = ranked[min(1, len(ranked) - 1)]
        alive = [v for v in ranked if means[v.name] >= means[second.name]]
    workshop.note_cut(f"choice among {', '.join(v.name for v in variants)}", cut)
    write_lines(workshop.folder / _SCREENED, (asdict(p) for p in answered[alive[0].name]))
    return alive[0]


def _answers(
    workshop: Workshop, variants: Sequence[Solution], part: Sequence[Example], number: int
) -> list[list[Prediction]]:
    """Answers of the variants to a part of the screen: of all at once, or under a time limit of as many as it allows.

    Shape (variants answered, examples of the part).
    """
    trials = [Trial(v, part, workshop.folder / "trials" / f"{v.name}-{number}.jsonl") for v in variants]
    if workshop.limits.seconds_left() is None:
        return try_all(workshop, trials)
    found: list[list[Prediction]] = []
    for trial in trials:
        if found and _time_is_up(workshop):
            break
        found += try_all(workshop, [trial])
    return found


def _time_is_up(workshop: Workshop) -> bool:
    left = workshop.limits.seconds_left()
    return left is not None and left <= 0


def screened(folder: Path) -> list[Prediction]:
    """The answers that the solution built in that folder gave while it was chosen; none where nothing was chosen."""
    return read_predictions(folder / _SCREENED)


def affordable(workshop: Workshop, solution: Solution) -> bool:
    """Whether answering dev, and a test of its size, costs no more than one training may.

    A shared prefix is computed once, so only the tokens behind it count. Fixed demos therefore cost next to nothing;
    demos and passages chosen for each input cost their length every time.
    """
    model, dev = workshop.tools.model, workshop.inputs.dev
    some = [e.query for e in dev[:_AFFORDABLE_ON]]
    requests, _ = requests_for(solution, model, some, retriever=workshop.retriever_of(solution))
    shared = shared_turns([r.messages for r in requests])
    lengths = [[model.count_tokens(m.content) + TURN_TOKENS for m in r.messages] for r in requests]
    if max(sum(turns) for turns in lengths) > workshop.limits.prompt_tokens:
        return False
    own = sum(sum(turns[shared:]) for turns in lengths) / len(lengths)
    # A token that is trained on costs two that are read: twice as many weights' worth of products.
    return own * 2 * len(dev) <= 2 * workshop.limits.training_tokens
