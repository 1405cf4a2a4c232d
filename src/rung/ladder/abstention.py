"""What finalists say to questions that cannot be answered, before the test is opened and on dev alone.

Two kinds of such questions. Given: dev rows whose reference is the task's `abstain`; every finalist has answered them
already. Made: dev questions for which the passages that hold the answer are known; a solution that retrieves is asked
again with a search that leaves them out, and what another one said on dev stands, since it reads no passage.
Never for labels: one of them is always an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rung import runs
from rung.decision.evidence import Invention
from rung.errors import RungError, came
from rung.evaluation.abstention import (
    Unanswered,
    more_invented,
    refuses_by_reference,
    says_nothing,
    share_of,
    what_it_says,
)
from rung.evaluation.scorer import Scorer
from rung.ladder.climbed import Climbed
from rung.ladder.finalist_checks import asked_again, is_due, not_measured
from rung.ladder.ledger import Meter
from rung.ladder.plan_checks import LEAST_MADE, MADE, why_no_questions
from rung.ladder.state import RunState, WholeRun
from rung.records import from_record, write_json
from rung.resume import recorded
from rung.trials.workshop import Workshop, sample_of
from rung.types import Answer, Example, MetricInfo, Prediction

RECORD = "abstention.json"

LEAST_GIVEN = 10
"""Unanswerable rows of the task's own in dev; fewer say next to nothing."""

_KINDS = ("given", "made")


@dataclass(frozen=True)
class _Questions:
    """Dev rows that cannot be answered, by kind, and those that can."""

    given: tuple[Example, ...]
    made: tuple[Example, ...]
    answerable: tuple[Example, ...]


def check_abstention(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> None:
    """Leaves abstention.json in the folder of each finalist, where there are questions that cannot be answered."""
    due = [name for name in names if is_due(run.files.solution(name) / RECORD)]
    if not due:
        return
    try:
        questions = _questions(run, climbed, names)
    except RungError as fault:
        runs.log(run.folder, "not checked", what="abstention", why=str(fault))
        return
    if not (questions.given or questions.made):
        return
    for name in due:
        state = run.of(climbed.built[name].solution.model)
        write_json(run.files.solution(name) / RECORD, _record(state, climbed, name, questions))


def inventions(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(records of `Invention`, of each of these solutions; whole sentences about what was not measured).

    Of one that was not checked, as where a run is unfinished, what its dev answers say of rows that are given.
    """
    records = {n: recorded(run.files.solution(n) / RECORD) or _known(run, climbed, n) for n in names}
    said = [
        not_measured(f"What {name} says where no passage holds the answer", record["why"])
        for name, record in records.items()
        if record["why"] is not None
    ]
    found = [
        asdict(_invention(run, kind, name, records, _base_of(climbed, list(records), name)))
        for name, record in records.items()
        for kind in _KINDS
        if record[kind] is not None
    ]
    return found, said


# ---- the questions ------------------------------------------------------------------------------


def _questions(run: WholeRun, climbed: Climbed, names: Sequence[str]) -> _Questions:
    inputs, found = run.inputs, _as_given(run)
    reads = any(climbed.built[name].solution.retriever is not None for name in names)
    if not reads or why_no_questions(inputs):
        return found
    known = _with_known_passages(run, climbed, found.answerable)
    return replace(found, made=sample_of(known, MADE, inputs.task.seed) if len(known) >= LEAST_MADE else ())


def _as_given(run: WholeRun) -> _Questions:
    """Rows of dev as the task gives them; none is made."""
    dev, task = run.inputs.dev, run.inputs.task
    if task.labels or task.multi_label:
        return _Questions((), (), ())
    refused = {e.id for e in dev if refuses_by_reference(e, task.abstain)}
    given = tuple(e for e in dev if e.id in refused) if len(refused) >= LEAST_GIVEN else ()
    return _Questions(given, (), tuple(e for e in dev if e.id not in refused))


def _with_known_passages(run: WholeRun, climbed: Climbed, examples: Sequence[Example]) -> Sequence[Example]:
    """Those for which a passage is known to hold the answer."""
    from rung.diagnosis.interventions import gold_retriever

    state = run.first
    return gold_retriever(examples, state.workshop(run.folder, climbed, Meter(state.asked)))[1]


# ---- what a solution says to them -----------------------------------------------------------------


def _record(run: RunState, climbed: Climbed, name: str, questions: _Questions) -> dict[str, Any]:
    """What abstention.json holds: of each kind of questions, row id -> what was said; why: what kept it from being.

    An answer that did not come says nothing of what is made up, and its row is left out.
    """
    built, abstain = climbed.built[name], run.inputs.task.abstain
    on_dev = {p.id: p for p in built.predictions if came(p.error)}
    made, why = None, None
    if questions.made:
        answers: Mapping[str, Prediction] | str = on_dev
        if built.solution.retriever is not None:
            answers = _without_passages(run, climbed, name, questions.made)
        if isinstance(answers, str):
            why = answers
        else:
            asked = [e for e in questions.made if e.id in answers]
            said = {e.id: what_it_says(answers[e.id].text, e.references, abstain) for e in asked}
            made = {"rows": said, "answerable": _to_answerable(on_dev, questions, abstain)} if said else None
            why = None if said else "none of its answers came"
    return {"given": _to_given(on_dev, questions, abstain), "made": made, "why": why}


def _known(run: WholeRun, climbed: Climbed, name: str) -> dict[str, Any]:
    """The same without what would have to be asked."""
    on_dev = {p.id: p for p in climbed.built[name].predictions if came(p.error)}
    return {"given": _to_given(on_dev, _as_given(run), run.inputs.task.abstain), "made": None, "why": None}


def _to_given(on_dev: Mapping[str, Prediction], questions: _Questions, abstain: str | None) -> dict[str, Any] | None:
    """on_dev: row id -> an answer that came."""
    said = {e.id: what_it_says(on_dev[e.id].text, (), abstain) for e in questions.given if e.id in on_dev}
    return {"rows": said, "answerable": _to_answerable(on_dev, questions, abstain)} if said else None


def _to_answerable(on_dev: Mapping[str, Prediction], questions: _Questions, abstain: str | None) -> dict[str, str]:
    asked = [e.id for e in questions.answerable if e.id in on_dev]
    return {i: "nothing" if says_nothing(on_dev[i].text, abstain) else "right" for i in asked}


def _without_passages(
    run: RunState, climbed: Climbed, name: str, rows: Sequence[Example]
) -> dict[str, Prediction] | str:
    """Its answers where the search leaves out what holds the answer; a sentence part, where something keeps it from
    being asked."""
    from rung.retrieval.gold import WithoutGold
    from rung.trials.trial import attempt

    solution = climbed.built[name].solution

    def ask(workshop: Workshop, path: Path) -> list[Prediction]:
        search, index = workshop.retriever_of(solution), workshop.inputs.library.gold(solution.retriever)
        assert search is not None
        scoring = replace(workshop, tools=replace(workshop.tools, scorer=_scorer(run.inputs.task.abstain)))
        return attempt(scoring, solution, rows, path, retriever=WithoutGold(search, rows, index))

    answers = asked_again(run, climbed, name, run.plan.abstention, len(rows), ask)
    return answers if isinstance(answers, str) else {p.id: p for p in answers if came(p.error)}


def _scorer(abstain: str | None) -> Scorer:
    """1 where nothing is made up: the task's own metric says nothing here, and may ask a judge."""

    def score(answers: Sequence[Answer]) -> list[float]:
        return [float(what_it_says(a.text, a.references, abstain) != "made up") for a in answers]

    return Scorer(MetricInfo("nothing made up", score, right_or_wrong=True))


# ---- before and after fine-tuning -----------------------------------------------------------------


def _base_of(climbed: Climbed, names: Sequence[str], name: str) -> str:
    """Of a fine-tuned finalist, that of the same model without an adapter: one that retrieves where it does, too."""
    tuned = climbed.built[name].solution
    if tuned.adapter is None:
        return ""
    plain = [n for n in names if (s := climbed.built[n].solution).adapter is None and s.model == tuned.model]
    alike = [n for n in plain if (climbed.built[n].solution.retriever is None) == (tuned.retriever is None)]
    return next(iter([*alike, *plain]), "")


def _invention(run: WholeRun, kind: str, name: str, records: Mapping[str, Mapping[str, Any]], base: str) -> Invention:
    groups, seed = run.inputs.groups, run.inputs.task.seed
    own = from_record(Unanswered, records[name][kind])
    share = share_of(own.invented, groups, seed)
    assert share is not None, "there are questions"
    found = Invention(name, kind == "given", share, share_of(own.refused, groups, seed))
    if not base or records[base][kind] is None:
        return found
    before = from_record(Unanswered, records[base][kind])
    difference = more_invented((base, before), (name, own), groups, seed)
    if difference is None:
        return found
    return replace(
        found,
        base=base,
        base_share=share_of(before.invented, groups, seed),
        base_refused=share_of(before.refused, groups, seed),
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        p=difference.p,
    )
