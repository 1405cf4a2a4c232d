"""What candidates that cite name as their sources: counted in the answers that they gave to dev and to the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rung.ladder.climbed import Climbed
from rung.ladder.state import WholeRun
from rung.types import Citing, Example, Prediction, SetName, Solution


def citing_on_dev(run: WholeRun, climbed: Climbed) -> list[dict[str, Any]]:
    """Records of `Citing`, of each candidate that cites."""
    dev = run.inputs.dev
    built = climbed.whole().values()
    found = [_citing(run, b.solution, b.predictions, dev, "dev") for b in built if b.solution.cite]
    return [asdict(one) for one in found if one is not None]


def citing_on_test(
    run: WholeRun, answers: Mapping[str, Sequence[Prediction]], test: Sequence[Example]
) -> tuple[Citing, ...]:
    """Of each finalist that cites. answers: by name, to the opened test."""
    if not run.inputs.task.cite:
        return ()
    from rung.solutions.store import load_solution

    solutions = {name: load_solution(run.files.solution(name)) for name in answers}
    found = [_citing(run, s, answers[name], test, "test") for name, s in solutions.items() if s.cite]
    return tuple(one for one in found if one is not None)


def _citing(
    run: WholeRun, solution: Solution, predictions: Sequence[Prediction], examples: Sequence[Example], set_: SetName
) -> Citing | None:
    from rung.evaluation.citations import checked_citations, citing

    inputs, by_id = run.inputs, {e.id: e for e in examples}
    named = {i for p in predictions for i in p.citations}
    passages = {p.id: p for p in inputs.library.passages(solution.retriever) if p.id in named}
    gold = inputs.library.gold(solution.retriever)
    rows = checked_citations(predictions, by_id, passages, gold, inputs.task.abstain)
    return citing(solution.name, set_, rows, inputs.groups, inputs.task.seed)
