"""The sealed test, opened once for the recorded finalists, and the verdict that follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rung import runs
from rung.decision import Evidence, decide, decision_record
from rung.decision.evidence import ClosedBook, Invention, MoreExamples, Shortened, Skills, Taught
from rung.errors import BudgetSpent
from rung.evaluation.baselines import FLOORS
from rung.evaluation.statistics import units_of
from rung.ladder.again import opened_again_notes
from rung.ladder.candidate_costs import break_evens
from rung.ladder.citations import citing_on_test
from rung.ladder.climbed import Climbed
from rung.ladder.consistency import with_consistency
from rung.ladder.finalists import answers_of_baselines, score_of, scores_of
from rung.ladder.judging import judge_baselines, seen_on_test
from rung.ladder.ledger import Meter
from rung.ladder.state import RunState, WholeRun
from rung.ladder.taught import score_of_teacher
from rung.models import next_larger
from rung.records import from_record, write_json
from rung.resume import is_done
from rung.types import (
    Candidate,
    Citing,
    Comparison,
    Decision,
    Diagnosis,
    Example,
    Injected,
    LeftEarly,
    Prediction,
    SearchFailure,
    SearchWay,
    Skipped,
)

_OVERRUN = 1.25
"""Times the budget in minutes, from which the verdict says that a run took longer."""


def test_and_decide(run: WholeRun, named: Mapping[str, Any]) -> Decision:
    """Opens the test, answers it with the finalists and baselines, and writes decision.json. named: finalists.json.

    Raises BudgetSpent where the dollars that are left do not suffice, most often before it is opened.
    """
    from rung.evaluation.contenders import named_pairs
    from rung.evaluation.sealed import count_reads, earlier_readings, open_test
    from rung.evaluation.statistics import compare_all

    names: list[str] = named["finalists"]
    _check_dollars(run, named)
    why = "final comparison of the recorded finalists"
    test = open_test(run.test, log=run.files.test_reads, solutions=names, why=why, built=_digest(run, names))
    answers = {name: _answer_test(run.of_candidate(name), name, test) for name in names}
    judge_baselines(run, "test", test)
    all_baselines = answers_of_baselines(run.first, test, "test")
    baselines = {c["name"]: all_baselines[c["name"]] for c in named["baselines"]}
    scores = {name: scores_of(predictions) for name, predictions in {**answers, **baselines}.items()}
    groups = units_of([e.id for e in test], run.inputs.groups)
    seed = run.inputs.task.seed
    contenders = named["contenders"]
    pairs = compare_all(named_pairs(names, contenders), scores, "test", groups=groups, seed=seed)
    against: list[Comparison] = []
    for baseline in baselines:  # each baseline is a question, and so a family of comparisons, of its own
        against += compare_all([(baseline, name) for name in names], scores, "test", groups=groups, seed=seed)
    tested = {name: score_of(run.first, name, predictions) for name, predictions in {**answers, **baselines}.items()}
    candidates = tuple(
        replace(from_record(Candidate, one), test=tested.get(one["name"]))
        for one in (*named["baselines"], *named["candidates"])
    )
    by_name = {c.name: c for c in candidates}
    fields = evidence_from_dev(run, named)
    fields["notes"] = (*fields["notes"], *opened_again_notes(run.folder), *_overrun(run))
    fields["judge"] = seen_on_test(run, answers, test)
    fields["citing"] = (*fields["citing"], *citing_on_test(run, answers, test))
    evidence = Evidence(
        metric=run.metric,
        candidates=tuple(_with_faults(c, answers.get(c.name, ())) for c in candidates),
        comparisons=tuple(pairs),
        against_floor=tuple(against),
        floors=tuple(c["name"] for c in named["baselines"] if c["name"] in FLOORS),
        minimum_detectable_difference=_detectable(run, pairs, len(set(groups or test))),
        test_reads=count_reads(run.files.test_reads),
        contenders=tuple(contenders),
        earlier_reads=tuple(earlier_readings(run.files.test_reads)),
        break_even=break_evens(run, answers, by_name),
        **fields,
    )
    decision = decide(with_consistency(run, evidence, test))
    runs.log(run.folder, "decided", choice=decision.choice, solution=decision.solution)
    if named["curve"] is not None:
        write_json(run.files.curve, named["curve"])
    write_json(run.files.decision, decision_record(decision))
    return decision


def _overrun(run: WholeRun) -> list[str]:
    """That the run took clearly longer than its budget allows, where it did: minutes are planned, not enforced."""
    budget, took = run.first.ledger.budget.minutes, run.first.ledger.spent.seconds / 60
    if budget is None or took <= _OVERRUN * budget:
        return []
    return [
        f"The run took {took:,.0f} minutes, more than its budget of {budget:g}: the machine was slower than planned."
    ]


def _check_dollars(run: WholeRun, named: Mapping[str, Any]) -> None:
    """Raises BudgetSpent, with the test as sealed as before, where answering it is expected to cost more than is left.

    Of a candidate whose dev cost nothing, every answer had been paid for before, and so may those to the test be.
    """
    from rung.evaluation.costs import request_usd
    from rung.trials.trial import read_predictions

    ledger = run.first.ledger
    ledger.keep_back(0.0)
    left = ledger.purse.left if ledger.purse is not None else None
    if left is None:
        return
    judge = run.first.plan.judging.usd if run.first.plan.judging is not None else 0.0
    wanted = 0.0 if is_done(run.first.files.baselines / "test") else run.first.judged_baselines.usd
    for c in named["candidates"]:
        if c["name"] not in named["finalists"] or not c["build_usd"]:
            continue
        price = run.of_candidate(c["name"]).price
        answered = len(read_predictions(run.files.solution(c["name"]) / "predictions.test.jsonl"))
        tokens = {key: c[key] for key in ("tokens_in", "tokens_cached", "tokens_out")}
        each = request_usd(price, **tokens, seconds=0.0) if price is not None else 0.0
        wanted += (len(run.test) - answered) * (each + judge)
    if wanted > left:
        raise BudgetSpent(f"the final test costs about {wanted:.2g} USD more, and {left:.2g} USD are left for it")


def _digest(run: WholeRun, names: Sequence[str]) -> str:
    """Of the finalists as they were built."""
    digest = hashlib.sha256()
    for name in sorted(names):
        for file in ("solution.json", "built.json"):
            digest.update((run.files.solution(name) / file).read_bytes())
    return digest.hexdigest()[:32]


def evidence_from_dev(run: WholeRun, record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of Evidence that the test does not change. record: as `dev_evidence` leaves it."""
    task = run.inputs.task
    diagnosed = run.of_candidate(record.get("diagnosed") or "")
    return {
        "n_dev": len(run.inputs.dev),
        "n_test": len(run.test),
        "has_corpus": bool(run.inputs.passages),
        "has_labels": bool(task.labels),
        "has_schema": bool(task.schema),
        "target": task.target,
        "models": run.names,
        "model": _in_words(diagnosed, several=len(run.states) > 1),
        "larger": _larger(run, diagnosed),
        "diagnosed": record.get("diagnosed") or "",
        "frequent": record.get("frequent", ""),
        "diagnosis": tuple(from_record(Diagnosis, d) for d in record["diagnosis"]),
        "skipped": tuple(from_record(Skipped, s) for s in record["skipped"]),
        "left_early": tuple(from_record(LeftEarly, s) for s in record["left_early"]),
        "skills": tuple(from_record(Skills, s) for s in record["skills"]),
        "shortened": tuple(from_record(Shortened, s) for s in record.get("shortened", ())),
        "more": from_record(MoreExamples, record["more"]) if record["more"] else None,
        "closed_book": from_record(ClosedBook, record["closed_book"]) if record["closed_book"] else None,
        "suspicious": tuple(record["suspicious"]),
        "hardest": record["hardest"],
        "invention": tuple(from_record(Invention, i) for i in record.get("invention", ())),
        "injections": tuple(from_record(Injected, i) for i in record.get("injections", ())),
        "citing": tuple(from_record(Citing, i) for i in record.get("citing", ())),
        "searches": tuple(from_record(SearchWay, one) for one in record.get("searches", ())),
        "searches_not_tried": tuple(record.get("searches_not_tried", ())),
        "search_failures": tuple(from_record(SearchFailure, one) for one in record.get("search_failures", ())),
        "abstain": task.abstain or "",
        "checks_said": tuple(record.get("checks_said", ())),
        "go_on": record.get("go_on", ""),
        "teacher": score_of_teacher(record["teacher"]) if record.get("teacher") else None,
        "taught": tuple(from_record(Taught, one) for one in record.get("taught", ())),
        "proofs": tuple(from_record(Comparison, one) for one in record.get("proofs", ())),
        "notes": tuple(record["notes"]),
        "judge": run.first.held.check if run.first.held is not None else None,
    }


def _in_words(state: RunState, *, several: bool) -> str:
    """The model as the task says it; by its name where there are several, or the task says it in a mapping of keys."""
    return state.spec.name if several or state.model.timed is not None else state.spec.spec


def _larger(run: WholeRun, state: RunState) -> str:
    """The next larger model to try; empty where none is known or the task names it already."""
    found = next_larger(state.model, state.spec.spec) or ""
    return "" if found in {other.spec.spec for other in run.states} else found


def _with_faults(candidate: Candidate, answers: Sequence[Prediction]) -> Candidate:
    """Failed calls and unscored answers of dev and test together."""
    return replace(
        candidate,
        failed_calls=candidate.failed_calls + sum(p.error is not None for p in answers),
        unscored=candidate.unscored + sum(p.metric_error is not None for p in answers),
    )


def _detectable(run: WholeRun, pairs: Sequence[Comparison], units: int) -> float:
    """What the test can show: as planned for right and wrong answers, else by how much the scores vary."""
    from rung.evaluation.statistics import detectable_as_seen, minimum_detectable_difference

    if pairs and (not run.metric.right_or_wrong or units < len(run.test)):
        return detectable_as_seen(pairs, units)
    return minimum_detectable_difference(units, comparisons=max(1, len(pairs)))


def _answer_test(run: RunState, name: str, test: Sequence[Example]) -> list[Prediction]:
    """A finalist's answers to the test; what an earlier command answered is read back."""
    from rung.solutions.store import load_solution
    from rung.trials.trial import attempt

    folder = run.files.solution(name)
    meter = Meter(run.asked)
    workshop = run.workshop(folder, Climbed(), meter, stops=False)
    predictions = attempt(workshop, load_solution(folder), test, folder / "predictions.test.jsonl")
    runs.log(run.folder, "tested", stage=f"test of {name}", solution=name, **meter.record())
    return predictions
