"""Choosing among variants of one strategy on a small part of dev, and what a prompt costs.

Source: Jamieson & Talwalkar, Non-stochastic best arm identification (2016), for successive halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rung.records import write_lines
from rung.solutions.answer import requests_for, shared_turns
from rung.trials.trial import Trial, is_answered, mean_score, read_predictions, try_all
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Prediction, Solution

TURN_TOKENS = 5
"""Tokens that a chat template puts around a turn, about."""

_SCREENED = "screened.jsonl"
_AFFORDABLE_ON = 8  # dev inputs


def choose(workshop: Workshop, variants: Sequence[Solution], *, in_order: bool = False) -> Solution:
    """The best variant on the screening sample; of equals, the one with the fewest prompt tokens.

    in_order: of equals, the first one, where the length of a prompt says nothing of what a variant takes.
    Successive halving: all answer a third of the sample, drawn at random, and the best two (and their equals) the rest.
    Variants are only compared on examples that each of them has answered. When the time of this step is up, only
    variants whose answers are all on disk are compared, and the cut is noted; the first one of a round is always
    answered, so the cheapest stands first. Names tell variants of one folder apart.
    The winner's predictions are kept for `screened`.
    """
    (workshop.folder / _SCREENED).unlink(missing_ok=True)
    if len(variants) == 1:
        return variants[0]
    screen = workshop.inputs.screen
    first = () if workshop.limits.exhaustive else sample_of(screen, len(screen) // 3, workshop.inputs.task.seed)
    early = {e.id for e in first}
    alive = list(variants)
    answered: dict[str, list[Prediction]] = {v.name: [] for v in variants}
    places = {v.name: place for place, v in enumerate(variants)}
    cut: str | None = None
    for number, part in enumerate((first, tuple(e for e in screen if e.id not in early)), 1):
        if not part:
            continue
        found = _answers(workshop, alive, part, number)
        if cut is None and len(found) < len(alive):
            cut = f"{len(found)} of {len(alive)} variants were compared when the time was up"
        tried = [v for v in alive if v.name in found]
        for name, predictions in found.items():
            answered[name] += predictions
        means = {v.name: mean_score(answered[v.name]) for v in tried}
        tokens = {v.name: sum(p.tokens_in for p in answered[v.name]) for v in tried}
        ranked = sorted(tried, key=lambda v: (-means[v.name], (places if in_order else tokens)[v.name]))
        second = ranked[min(1, len(ranked) - 1)]
        alive = [v for v in ranked if means[v.name] >= means[second.name]]
    workshop.note_cut(f"choice among {', '.join(v.name for v in variants)}", cut)
    by_id = {p.id: p for p in answered[alive[0].name]}
    write_lines(workshop.folder / _SCREENED, (asdict(by_id[e.id]) for e in screen))
    return alive[0]


def _answers(
    workshop: Workshop, variants: Sequence[Solution], part: Sequence[Example], number: int
) -> dict[str, list[Prediction]]:
    """Answers to a part of the screen by the names of the variants, each of shape (examples of the part,).

    Of all variants at once. Under a time limit, of the first, then of as many as it allows, and of those on disk.
    """
    trials = [Trial(v, part, workshop.folder / "trials" / f"{v.name}-{number}.jsonl") for v in variants]
    if workshop.limits.seconds_left() is None:
        return {v.name: predictions for v, predictions in zip(variants, try_all(workshop, trials), strict=True)}
    found: dict[str, list[Prediction]] = {}
    for trial in trials:
        if not found or is_answered(trial) or not _time_is_up(workshop):
            (found[trial.solution.name],) = try_all(workshop, [trial])
    return found


def _time_is_up(workshop: Workshop) -> bool:
    left = workshop.limits.seconds_left()
    return left is not None and left <= 0


def screened(folder: Path) -> list[Prediction]:
    """The answers that the solution built in that folder gave while it was chosen; none where nothing was chosen."""
    return read_predictions(folder / _SCREENED)


def fits(workshop: Workshop, solution: Solution) -> bool:
    """Whether its prompts are no longer than any that is worth paying for, judged by a few inputs of dev."""
    return _lengths(workshop, solution)[0] <= workshop.limits.prompt_tokens


def affordable(workshop: Workshop, solution: Solution) -> bool:
    """Whether its prompts fit, and answering dev and a test of its size costs no more than one training by the plan.

    A shared prefix is computed once, so only the tokens behind it count. Fixed demos therefore cost next to nothing;
    demos and passages chosen for each input cost their length every time.
    """
    longest, own = _lengths(workshop, solution)
    # A token that is trained on costs two that are read: twice as many weights' worth of products.
    in_budget = own * 2 * len(workshop.inputs.dev) <= 2 * workshop.limits.planned
    return longest <= workshop.limits.prompt_tokens and in_budget


def _lengths(workshop: Workshop, solution: Solution) -> tuple[int, float]:
    """Tokens of the longest prompt among a few, and the mean of those behind their shared turns."""
    model = workshop.tools.model
    some = [e.query for e in workshop.inputs.dev[:_AFFORDABLE_ON]]
    requests, _ = requests_for(solution, model, some, retriever=workshop.retriever_of(solution))
    shared = shared_turns([r.messages for r in requests])
    lengths = [[model.count_tokens(m.content) + TURN_TOKENS for m in r.messages] for r in requests]
    return max(sum(turns) for turns in lengths), sum(sum(turns[shared:]) for turns in lengths) / len(lengths)
