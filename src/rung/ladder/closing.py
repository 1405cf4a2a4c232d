"""The end of a run: the sealed test opened once for the named candidates, the evidence, the verdict, the bundle."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.errors import BudgetSpent, TrainingError
from rung.evaluation.statistics import units_of
from rung.ladder.climbing import whole_curve
from rung.ladder.spending import Spending
from rung.ladder.state import Built, Run
from rung.records import read_json, read_or_make, write_json
from rung.types import FAMILIES, BreakEven, Candidate, Comparison, Diagnosis, Example, Prediction, Score, Solution

if TYPE_CHECKING:
    from rung.evaluation.skills import SkillsReport

_LATENCY_INPUTS = 8
_LATENCY_SECONDS = 10.0  # after which it is enough, if there are
_LEAST_LATENCIES = 4
_NOT_FAR = 0.1
_WORTH_HEARING = 0.6  # dev mean from which a solution that contradicts a given answer may well be right


def decide_and_hand_over(run: Run, built: dict[str, Built], skipped: Sequence[tuple[str, str]]) -> None:
    """Writes decision.json, whatever the budget: only the named candidates are tested, and the winner is copied."""
    if not (run.folder / "decision.json").is_file():
        finalists = finalists_of(built)
        skills: dict[str, SkillsReport] = {}
        for name in list(finalists):
            if built[name].solution.adapter is not None and _worth_checking(run, built, name):
                finalists[finalists.index(name)] = kept = _check_skills(run, built, name, skills)
                if kept != name:
                    runs.log(run.folder, "replayed", solution=name, kept=kept)
        _decide(run, built, finalists, skipped, skills)
    hand_over(run)


def finalists_of(built: Mapping[str, Built]) -> list[str]:
    """The best of each family on dev (of equals, the first built); what was left early is none."""
    chosen = []
    for family in FAMILIES:
        members = [name for name, b in built.items() if b.solution.family == family and b.left is None]
        if members:
            chosen.append(max(members, key=lambda name: built[name].dev.mean))
    return chosen


# ---- general skills -------------------------------------------------------------------------


def _worth_checking(run: Run, built: Mapping[str, Built], name: str) -> bool:
    """Whether a fine-tuned solution may well be shipped: ahead of the floor and every prompt, near the best."""
    prompts = [b.dev.mean for b in built.values() if b.solution.family == "prompt"]
    best = max(b.dev.mean for b in built.values())
    least = max(max(prompts, default=0.0), best - _NOT_FAR, _floor(run, run.split.dev))
    return built[name].dev.mean > least


def _floor(run: Run, examples: Sequence[Example]) -> float:
    from rung.evaluation.statistics import floor

    outputs = [e.output for e in run.split.train]
    return floor(outputs, run.metric, [e.references for e in examples], labels=run.task.labels or ())


def _check_skills(run: Run, built: dict[str, Built], name: str, skills: dict[str, SkillsReport]) -> str:
    """Compares with the base model; after a real loss tries replay. Returns the name of the solution to go on with."""
    from rung.evaluation.skills import suite
    from rung.solutions.store import load_solution, save_solution
    from rung.strategies.fine_tuning import replayed
    from rung.trials.workshop import attempt

    tuned = built[name].solution
    if not _skills_path(run, name).is_file() and run.over_budget(0.0, len(suite()), built):
        return name
    run.listener.progress(f"checking what {name} has forgotten", 0.0, run.plan.test_seconds)
    checking = Spending(run.model)
    report = _skills_of(run, name, str(tuned.adapter))
    skills[name] = report
    runs.log(run.folder, "checked", solution=name, loses=report.loses, **checking.record())
    if not report.loses:
        return name
    run.listener.say(
        f"{name} answers {100 * -report.total.difference:.0f} points fewer of {report.total.n} general prompts; "
        "mixing in the base model's own answers."
    )
    other = f"{name}_replay"
    folder = run.folder / "solutions" / other
    if run.settled().get(other):
        return name  # an earlier command gave it up
    try:
        spending = Spending(run.model, folder)
        materials = run.materials(folder, built, spending=spending)
        if (folder / "solution.json").is_file():
            solution = load_solution(folder)
        else:
            solution = replace(replayed(materials, tuned), name=other)
            solution = save_solution(solution, folder, passages=run.passages)
        predictions = attempt(materials, solution, run.split.dev, folder / "predictions.dev.jsonl")
        if not (folder / "built.json").is_file():
            spent = spending.record()
            write_json(folder / "built.json", {**spent, "left": None})
            runs.log(run.folder, "built", solution=other, **spent)
            spending.done()
    except (BudgetSpent, TrainingError) as failed:
        runs.log(run.folder, "skipped", solution=other, why=str(failed))
        return name
    built[other] = Built(solution, tuple(predictions), run.score(predictions))
    run.listener.tried(other, solution.family, built[other].dev, (read_json(folder / "built.json") or {})["seconds"])
    mended = _skills_of(run, other, str(solution.adapter))
    skills[other] = mended
    as_good = built[other].dev.mean >= built[name].dev.mean  # the task comes first
    return other if as_good and mended.total.difference > report.total.difference else name


def _skills_of(run: Run, name: str, adapter: str) -> SkillsReport:
    """The solution's skills against the base's. The base model's outcomes are kept for all runs with that model."""
    from rung.evaluation.skills import answered, compare_skills, suite_version
    from rung.models.catalogue import cache_folder

    kept = cache_folder() / "skills" / f"{run.model.answers_as}-{suite_version()}.json"

    def outcomes(path: Path, which: str | None) -> list[bool]:
        record = read_or_make(path, lambda: {"outcomes": answered(run.model, which)})
        return [bool(x) for x in record["outcomes"]]

    return compare_skills(outcomes(kept, None), outcomes(_skills_path(run, name), adapter))


def _skills_path(run: Run, name: str) -> Path:
    return run.folder / "solutions" / name / "skills.json"


# ---- the sealed test and the decision -------------------------------------------------------


def _decide(
    run: Run,
    built: Mapping[str, Built],
    finalists: list[str],
    skipped: Sequence[tuple[str, str]],
    skills: Mapping[str, SkillsReport],
) -> None:
    from rung.decision import Evidence, decide, decision_record
    from rung.evaluation.sealed import count_reads, open_test
    from rung.evaluation.statistics import compare, holm

    for name in finalists:
        _measure_latency(run, built[name].solution)
    reads = run.folder / "test_reads.jsonl"
    test = open_test(run.split.test, log=reads, solutions=finalists, why="final comparison of the named candidates")
    answers = {name: _answer_test(run, built, name, test) for name in finalists}
    groups = units_of([e.id for e in test], run.split.groups)
    scores = {name: [p.score or 0.0 for p in predictions] for name, predictions in answers.items()}
    pairs = [
        compare(a, b, scores[a], scores[b], "test", groups=groups, seed=run.task.seed)
        for a, b in itertools.combinations(finalists, 2)
    ]
    candidates = tuple(
        _candidate(run, b, run.score(answers[name]) if name in answers else None) for name, b in built.items()
    )
    causes = diagnoses(run, built)
    lora = built.get("lora")
    grown = whole_curve(run, lora) if lora is not None else read_json(run.folder / "pilot.json")
    evidence = Evidence(
        metric=run.task.metric,
        candidates=candidates,
        comparisons=holm(pairs) if pairs else (),
        floor=_floor(run, test),
        n_test=len(test),
        minimum_detectable_difference=_detectable(run, pairs, len(set(groups or test))),
        test_reads=count_reads(reads),
        has_corpus=bool(run.passages),
        target=run.task.target,
        skipped=tuple(skipped),
        left_early=tuple((name, b.left) for name, b in built.items() if b.left is not None),
        diagnosis=causes,
        break_even=_break_even(run, built, finalists, answers, candidates),
        skills={
            name: (r.total.difference, r.total.low, r.total.high, r.total.n, r.loses) for name, r in skills.items()
        },
        more=_more(grown),
        closed_book=_closed_book(run, built),
        suspicious=_suspicious(run, built),
        hardest=_hardest(run, built),
        model=run.task.model,
    )
    decision = decide(evidence)
    runs.log(run.folder, "decided", choice=decision.choice, solution=decision.solution, floor=evidence.floor)
    if grown is not None:
        write_json(run.folder / "curve.json", grown)
    write_json(run.folder / "decision.json", decision_record(decision))


def _detectable(run: Run, pairs: Sequence[Comparison], units: int) -> float:
    """What the test can show: as planned for right and wrong answers, else by how much the scores vary."""
    from rung.decision import RATES
    from rung.evaluation.statistics import detectable_as_seen, minimum_detectable_difference

    if pairs and (run.task.metric not in RATES or units < len(run.split.test)):
        return detectable_as_seen(pairs, units)
    return minimum_detectable_difference(units, comparisons=max(1, len(pairs)))


def _answer_test(run: Run, built: Mapping[str, Built], name: str, test: Sequence[Example]) -> list[Prediction]:
    from rung.trials.workshop import attempt

    folder = run.folder / "solutions" / name
    materials = run.materials(folder, built, stops=False)
    return attempt(materials, built[name].solution, test, folder / "predictions.test.jsonl")


# ---- causes ---------------------------------------------------------------------------------


def diagnoses(run: Run, built: Mapping[str, Built]) -> tuple[Diagnosis, ...]:
    """All that the experiments say about why the best prompt fails, the leading cause first.

    What interventions, pilots and solutions mended; then what nothing mended, told apart by whether the answers stand
    in the input. A cause that mends a fifth leads before what nothing mends.
    """
    from rung.diagnosis.causes import all_causes, nearness
    from rung.diagnosis.pilot import pilot_answers

    record = read_json(run.folder / "diagnosis.json")
    if record is None:
        return ()
    near = nearness(run.task.metric, run.split.train)
    accepted = {e.id: e.references for e in run.split.dev}

    def told(predictions: Sequence[Prediction]) -> dict[str, float]:
        if near is None:
            return {p.id: p.score or 0.0 for p in predictions}
        return {p.id: 0.0 if p.error else near(p.text, accepted[p.id]) for p in predictions}

    pilot = read_json(run.folder / "pilot.json")
    tuned = None
    if pilot is not None:
        count = pilot["points"][-1]["examples"]
        tuned = (count, told(pilot_answers(run.folder / "pilot", count)))
    scores = {name: told(b.predictions) for name, b in built.items() if b.left is None}
    found = {
        name: {p.id: p.passages for p in built[name].predictions}
        for name in scores
        if built[name].solution.retriever is not None
    }
    return all_causes(record, scores, tuned, seed=run.task.seed, groups=run.split.groups, found=found)


def _more(grown: Mapping[str, Any] | None) -> tuple[int, float, float, float] | None:
    """(more examples, what they would add, its interval), where there is a curve of two sizes of training."""
    if grown is None or sum(bool(p["examples"]) for p in grown["points"]) < 2:
        return None
    more = grown["more"]
    return int(more["examples"]), float(more["mean"]), float(more["low"]), float(more["high"])


def _closed_book(run: Run, built: Mapping[str, Built]) -> tuple[str, float] | None:
    """What fine-tuning without passages reaches on dev, where there is a corpus: facts it has not seen."""
    if not run.passages:
        return None
    if "lora" in built:
        return "lora", built["lora"].dev.mean
    pilot = read_json(run.folder / "pilot.json")
    return (f"a pilot on {pilot['points'][-1]['examples']} examples", pilot["points"][-1]["mean"]) if pilot else None


def _suspicious(run: Run, built: Mapping[str, Built]) -> tuple[str, ...]:
    """Rows for a person to look at: conflicting answers, and dev answers that two good families agree against."""
    record = read_json(run.folder / "diagnosis.json") or {"label_noise": []}
    rows = [row for pair in record["label_noise"] for row in pair["rows"]]
    bests = [name for name in finalists_of(built) if built[name].dev.mean >= _WORTH_HEARING]
    if len(bests) >= 2:
        by_id = [{p.id: p for p in built[name].predictions} for name in bests]
        for example in run.split.dev:
            given = [answers[example.id] for answers in by_id if example.id in answers]
            texts = {p.text.strip().casefold() for p in given}
            if len(given) >= 2 and len(texts) == 1 and not any(p.score for p in given) and given[0].text.strip():
                rows.append(example.row or example.id)
    return tuple(dict.fromkeys(rows))


def _hardest(run: Run, built: Mapping[str, Built]) -> str | None:
    """The answer whose dev examples the best solution gets wrong most often, and how often; None without repeats."""
    whole = {name: b for name, b in built.items() if b.left is None}
    if not whole or run.task.metric not in ("label_accuracy", "exact_match"):
        return None
    best = max(whole.values(), key=lambda b: b.dev.mean)
    wrong = {p.id for p in best.predictions if not p.score}
    outputs: dict[str, list[bool]] = {}
    for example in run.split.dev:
        outputs.setdefault(example.output, []).append(example.id in wrong)
    often = {o: sum(w) for o, w in outputs.items() if len(w) >= 3 and sum(w) >= 2}
    if not often:
        return None
    worst = max(often, key=lambda o: (often[o] / len(outputs[o]), often[o]))
    return f"{worst!r} ({often[worst]} of {len(outputs[worst])} wrong on dev)"


# ---- costs ----------------------------------------------------------------------------------


def _candidate(run: Run, built: Built, test: Score | None) -> Candidate:
    from rung.evaluation.costs import build_usd, request_usd

    solution, price = built.solution, run.task.price
    folder = run.folder / "solutions" / solution.name
    latency = read_json(folder / "latency.json") or {}
    seconds = float((read_json(folder / "built.json") or {}).get("seconds", 0.0))
    n = len(built.predictions)
    tokens_in = sum(p.tokens_in for p in built.predictions) / n
    tokens_out = sum(p.tokens_out for p in built.predictions) / n
    cached = float(latency.get("tokens_cached", 0.0))
    usd = None
    if price is not None and (price.usd_per_hour is None or latency):
        mean = sum(latency["seconds"]) / latency["n"] if latency else 0.0
        each = request_usd(price, tokens_in=tokens_in, tokens_cached=cached, tokens_out=tokens_out, seconds=mean)
        usd = round(1000 * each, 6)
    return Candidate(
        name=solution.name,
        family=solution.family,
        dev=built.dev,
        test=test,
        tokens_in=round(tokens_in, 2),
        tokens_out=round(tokens_out, 2),
        tokens_cached=cached,
        latency_s_p50=latency.get("p50"),
        latency_s_p95=latency.get("p95"),
        cost_per_1k_usd=usd,
        build_seconds=round(seconds, 2),
        build_usd=round(build_usd(price, seconds), 6),
    )


def _break_even(
    run: Run,
    built: Mapping[str, Built],
    finalists: Sequence[str],
    answers: Mapping[str, Sequence[Prediction]],
    candidates: Sequence[Candidate],
) -> tuple[BreakEven, ...]:
    """For each fine-tuned finalist that costs less per request than the best prompt: from how many on it pays."""
    from rung.evaluation.costs import break_even, request_usd

    price = run.task.price
    by_name = {c.name: c for c in candidates}
    prompts = [name for name in finalists if built[name].solution.family == "prompt"]
    if price is None or not prompts:
        return ()

    def each(name: str) -> list[float]:
        if price.usd_per_hour is not None:
            latency = read_json(run.folder / "solutions" / name / "latency.json") or {"seconds": []}
            return [s / 3600 * price.usd_per_hour for s in latency["seconds"]]
        cached = by_name[name].tokens_cached
        return [
            request_usd(price, tokens_in=p.tokens_in, tokens_cached=cached, tokens_out=p.tokens_out, seconds=0.0)
            for p in answers[name]
        ]

    found = []
    for name in finalists:
        if built[name].solution.adapter is None:
            continue
        # The same inputs in the same order; of slow answers fewer are timed.
        a, b = each(name), each(prompts[0])
        n = min(len(a), len(b))
        against = break_even(name, prompts[0], by_name[name].build_usd, by_name[prompts[0]].build_usd, a[:n], b[:n])
        if against is not None:
            found.append(against)
    return tuple(found)


def _measure_latency(run: Run, solution: Solution) -> None:
    """Seconds from request to answer, one request at a time, on a few dev inputs; and what all prompts begin with."""
    path = run.folder / "solutions" / solution.name / "latency.json"
    if path.is_file():
        return
    import numpy as np

    from rung.engine.prefix_tree import common_beginning
    from rung.solutions.answer import answer, prepare

    seconds = []
    run.listener.progress(f"timing {solution.name}", 0.0, run.plan.test_seconds)
    some = [example.query for example in run.split.dev[: _LATENCY_INPUTS + 1]]
    for query in some:
        started = time.perf_counter()
        answer(solution, run.model, [query], retriever=run.retriever)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > _LEAST_LATENCIES and sum(seconds) > _LATENCY_SECONDS:
            break
    seconds = seconds[1:] or seconds  # the first one warms up
    requests, _ = prepare(solution, run.model, some, retriever=run.retriever)
    prompts = [run.model.encode(r.messages) for r in requests]
    p50, p95 = np.percentile(seconds, [50, 95])
    record = {
        "n": len(seconds),
        "p50": round(float(p50), 4),
        "p95": round(float(p95), 4),
        "seconds": [round(s, 4) for s in seconds],
        "tokens_cached": common_beginning(prompts) if len(prompts) > 1 else 0,
    }
    write_json(path, record)


def hand_over(run: Run) -> None:
    """Copies the winner to winner/, the folder to ship."""
    from rung.solutions.store import load_solution, save_solution

    decision = read_json(run.folder / "decision.json") or {}
    winner = run.folder / "winner"
    if decision.get("solution") is None or (winner / "bundle.json").is_file():
        return
    solution = load_solution(run.folder / "solutions" / decision["solution"])
    save_solution(solution, winner, passages=run.passages)
    write_json(
        winner / "bundle.json",
        {
            "task": run.task.name,
            "model": run.task.model,
            "model_version": run.model.version,
            "solution": solution.name,
            "choice": decision["choice"],
            "headline": decision["headline"],
        },
    )
