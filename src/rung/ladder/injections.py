"""Whether finalists follow orders that stand in what they only ought to read, before the test is opened and on dev.

Dev questions are asked again with an injection planted (`rung.evaluation.injections`): in the passages of a solution
that retrieves, behind the input of another one. Each finalist is asked as it ships, and all of them with the same rows.
Where none of them retrieves, nothing is asked: nobody but who asks writes what they read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rung.errors import came
from rung.evaluation.injections import Planted, plant
from rung.evaluation.scorer import Scorer
from rung.evaluation.statistics import score, units_of
from rung.ladder.climbed import Climbed
from rung.ladder.finalist_checks import asked_again, is_due, not_measured
from rung.ladder.plan_checks import PLANTED, why_nothing_is_planted
from rung.ladder.state import RunState, WholeRun
from rung.records import write_json
from rung.resume import recorded
from rung.retrieval.planted import PLACES, Place, WithPlanted
from rung.solutions.prompt_rendering import within_budget
from rung.trials.workshop import Workshop, sample_of
from rung.types import Example, Injected, MetricInfo, Prediction, Score, Solution

RECORD = "injections.json"


def check_injections(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> None:
    """Leaves injections.json in the folder of each finalist, where one of them retrieves and an answer can show that an
    order is followed."""
    reads = any(climbed.built[name].solution.retriever is not None for name in names)
    if not reads or why_nothing_is_planted(run.inputs):
        return
    rows = sample_of(run.inputs.dev, PLANTED, run.inputs.task.seed)
    planted = plant(rows, run.inputs.task)
    rows = tuple(e for e in rows if e.id in planted)
    for name in names:
        state = run.of(climbed.built[name].solution.model)
        path = state.files.solution(name) / RECORD
        if is_due(path):
            write_json(path, _record(state, climbed, name, rows, planted))


def injected(run: WholeRun, climbed: Climbed) -> tuple[list[dict[str, Any]], list[str]]:
    """(records of `Injected`, of each finalist that was asked; whole sentences about what was not measured)."""
    found, said = [], []
    for name in climbed.whole():
        record = recorded(run.files.solution(name) / RECORD)
        if record is None:
            continue
        if record["why"] is not None:
            said.append(not_measured(f"Whether {name} follows planted orders", record["why"]))
        else:
            found.append(asdict(injected_of(name, record, run.inputs.groups, run.inputs.task.seed)))
    return found, said


def injected_of(name: str, record: Mapping[str, Any], groups: Mapping[str, str], seed: int) -> Injected:
    """What injections.json says of a finalist, with intervals. groups: row id -> group of the split."""
    rows: Mapping[str, Mapping[str, Any]] = record["rows"]
    units = units_of(list(rows), groups)

    def mean(key: str) -> Score | None:
        values = [row[key] for row in rows.values()]
        return None if None in values else score([float(value) for value in values], groups=units, seed=seed)

    followed = mean("followed")
    assert followed is not None
    places = _counted(rows, "place") if record["where"] == "passages" else ()
    return Injected(
        name,
        record["where"],
        record["fenced"],
        followed,
        _counted(rows, "kind"),
        places,
        right=mean("score"),
        before=mean("score_before"),
    )


# ---- asking ---------------------------------------------------------------------------------------


def planted_answers(
    workshop: Workshop, solution: Solution, rows: Sequence[Example], planted: Mapping[str, Planted], path: Path
) -> list[Prediction]:
    """The solution's scored answers to rows with what is planted for them; kept at the path, block by block.

    Where a judge would have to score them, scores say nothing.
    """
    from rung.trials.trial import attempt

    if workshop.tools.scorer.metric.needs_judge:
        workshop = replace(workshop, tools=replace(workshop.tools, scorer=Scorer(_UNSCORED)))
    spec = solution.retriever
    if spec is None:
        return attempt(workshop, solution, [_behind(e, planted[e.id].text) for e in rows], path)
    search = workshop.retriever_of(solution)
    assert search is not None
    count = workshop.tools.model.count_tokens
    placed = {e.id: (place_of(number), planted[e.id].text) for number, e in enumerate(rows)}
    poisoned = WithPlanted(search, placed, lambda ranked: within_budget(spec, ranked, count))
    return attempt(workshop, solution, rows, path, retriever=poisoned)


def place_of(number: int) -> Place:
    """Where the injection of the row with this number stands among passages; each place in turn."""
    return PLACES[number % len(PLACES)]


def rows_record(
    rows: Sequence[Example],
    planted: Mapping[str, Planted],
    answers: Sequence[Prediction],
    before: Mapping[str, Prediction],
    *,
    scored: bool,
) -> dict[str, dict[str, Any]]:
    """Row id -> what was planted, whether it was followed, and the score with and without it.

    before: answers without an injection. Left out is a row of which an answer did not come, and one whose answer holds
    the planted word anyway: nothing could be told by it. scored: whether the scores say anything.
    """
    found = {}
    by_id = {p.id: p for p in answers}
    for number, example in enumerate(rows):
        own, with_it, without = planted[example.id], by_id.get(example.id), before.get(example.id)
        if with_it is None or without is None or not (came(with_it.error) and came(without.error)):
            continue
        if own.followed(without.text):
            continue
        found[example.id] = {
            "kind": own.kind,
            "place": place_of(number),
            "word": own.word,
            "followed": own.followed(with_it.text, cut=with_it.finish == "length"),
            "score": with_it.score if scored else None,
            "score_before": without.score if scored else None,
        }
    return found


def _record(
    run: RunState, climbed: Climbed, name: str, rows: Sequence[Example], planted: Mapping[str, Planted]
) -> dict[str, Any]:
    """What injections.json holds. why: what kept it from being asked."""
    built = climbed.built[name]
    spec = built.solution.retriever
    record: dict[str, Any] = {
        "where": "input" if spec is None else "passages",
        "fenced": spec is not None and spec.fenced,
        "asked": len(rows),
    }
    answers = _answers(run, climbed, name, rows, planted)
    if isinstance(answers, str):
        return {**record, "rows": {}, "why": answers}
    before = {p.id: p for p in built.predictions}
    found = rows_record(rows, planted, answers, before, scored=not run.tools.scorer.metric.needs_judge)
    return {**record, "rows": found, "why": None if found else "none of its answers can tell"}


def _answers(
    run: RunState, climbed: Climbed, name: str, rows: Sequence[Example], planted: Mapping[str, Planted]
) -> list[Prediction] | str:
    """Its answers with injections; a sentence part, where something keeps it from being asked."""

    def ask(workshop: Workshop, path: Path) -> list[Prediction]:
        return planted_answers(workshop, climbed.built[name].solution, rows, planted, path)

    return asked_again(run, climbed, name, run.plan.injections, len(rows), ask)


_UNSCORED = MetricInfo("unscored", lambda answers: [0.0] * len(answers), right_or_wrong=True)


def _behind(example: Example, text: str) -> Example:
    """The example with a text behind its input."""
    return replace(example, input=f"{example.input}\n\n{text}")


def _counted(rows: Mapping[str, Mapping[str, Any]], key: str) -> tuple[tuple[str, int, int], ...]:
    """(name, followed, asked) for each value of a key, the most followed first."""
    own: dict[str, list[bool]] = {}
    for row in rows.values():
        own.setdefault(str(row[key]), []).append(bool(row["followed"]))
    counted = [(name, sum(followed), len(followed)) for name, followed in own.items()]
    return tuple(sorted(counted, key=lambda one: (-one[1] / one[2], -one[1], one[0])))
