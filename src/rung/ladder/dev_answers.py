"""Answers to dev of a solution that was built: all of them, or part of them where it is behind; and whether it proves
its gain.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rung.evaluation.statistics import units_of
from rung.ladder.climbed import Climbed
from rung.ladder.state import RunState, scale_of
from rung.resume import record_of
from rung.strategies import strategy_of
from rung.trials.workshop import Workshop
from rung.types import Comparison, Prediction, Solution, kind_of


def answer_dev(
    run: RunState, climbed: Climbed, workshop: Workshop, solution: Solution, folder: Path
) -> tuple[list[Prediction], str | None]:
    """Answers to dev; to part of it, with the reason, where the best so far is ahead at a planned interim look."""
    from rung.evaluation.sequential import LOOKS, boundary, planned_looks
    from rung.trials.choose import screened
    from rung.trials.trial import attempt, read_predictions

    dev, seed = workshop.inputs.dev, workshop.inputs.task.seed
    whole = folder / "predictions.dev.jsonl"
    rival = climbed.best(model=run.name)
    record = record_of(folder / "built.json")
    if record and record["left"] is not None:
        return read_predictions(whole), record["left"]
    if record or solution.adapter is not None or rival is None or run.exhaustive:
        return attempt(workshop, solution, dev, whole, known=screened(folder)), None
    ordered = random.Random(seed).sample(dev, len(dev))
    known = {p.id: p for p in screened(folder)}
    looks = planned_looks(len(ordered))
    for look, end in enumerate(looks, 1):
        part = [e for e in ordered[:end] if e.id not in known]
        path = folder / "trials" / f"dev-{look}.jsonl"
        known |= {p.id: p for p in attempt(workshop, solution, part, path)} if part else {}
        if look == len(looks):
            continue
        seen = ordered[:end]
        found = _compared(run, climbed, rival, solution, [known[e.id] for e in seen])
        if found.difference < 0 and found.p < boundary(look, LOOKS):
            predictions = attempt(workshop, solution, seen, whole, known=[known[e.id] for e in seen])
            gap = scale_of(run).gap(-found.difference)
            return predictions, f"after {end} of {len(ordered)} dev examples {rival} was ahead by {gap}"
    return attempt(workshop, solution, dev, whole, known=[known[e.id] for e in dev]), None


def compared_before(
    run: RunState, climbed: Climbed, solution: Solution, predictions: Sequence[Prediction]
) -> Comparison | None:
    """The solution minus the best of its family that was built before it, on dev; None where there is none.

    predictions: its answers to all of dev.
    """
    rival = climbed.best(solution.family, run.name)
    return _compared(run, climbed, rival, solution, predictions) if rival is not None else None


def unproven(
    run: RunState,
    climbed: Climbed,
    solution: Solution,
    predictions: Sequence[Prediction],
    found: Comparison | None,
) -> str | None:
    """Reason why a solution that has to prove its gain is no candidate; None where it has.

    found: of `compared_before`. A prompt with other words has proven its gain where that paired test shows it. What was
    fine-tuned costs no more a request than its rival: it is a candidate where it is ahead, since the better of both
    goes to the sealed test anyway. One that replaces another family must not be further below the best of that than
    the margin, whatever is asked for.
    """
    from rung.evaluation.statistics import ALPHA, MARGIN

    strategy = strategy_of(kind_of(solution.name))
    model = climbed.best(strategy.replaces, run.name) if strategy is not None and strategy.replaces else None
    if model is not None and (behind := -_compared(run, climbed, model, solution, predictions).difference) > MARGIN:
        return f"it is {scale_of(run).gap(behind)} below {model} on dev, whose answers it has learnt"
    if found is None or run.exhaustive:
        return None
    if found.difference > 0 and (found.p < ALPHA or solution.adapter is not None):
        return None
    gap = scale_of(run).gap(abs(found.difference))
    how = f"{gap} {'above' if found.difference > 0 else 'below'} it" if found.difference else "equal to it"
    if solution.adapter is not None:
        return f"it is not ahead of {found.a} on dev: it is {how}"
    return f"it is not shown to beat {found.a} on dev: it is {how} (p = {found.p:.2g})"


def _compared(
    run: RunState, climbed: Climbed, rival: str, solution: Solution, predictions: Sequence[Prediction]
) -> Comparison:
    """The solution minus its rival on the dev examples of these predictions."""
    from rung.evaluation.statistics import compare

    before = {p.id: p.score or 0.0 for p in climbed.built[rival].predictions}
    ids = [p.id for p in predictions]
    theirs, ours = [before[i] for i in ids], [p.score or 0.0 for p in predictions]
    groups = units_of(ids, run.inputs.groups)
    return compare(rival, solution.name, theirs, ours, "dev", groups=groups, seed=run.inputs.task.seed)
