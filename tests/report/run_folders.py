"""Run folders as a finished run leaves them, written without a model."""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rung.decision import Evidence, decide, decision_record, unfinished
from rung.evaluation.statistics import compare_all, minimum_detectable_difference, score
from rung.records import append_lines, write_json
from rung.types import (
    Candidate,
    Comparison,
    Decoding,
    Demo,
    DemoSelection,
    Example,
    Family,
    LeftEarly,
    MetricInfo,
    RetrieverSpec,
    SetName,
    Skipped,
    Solution,
)

QUEUES = ("heron-2", "wren-7", "gannet-1", "plover-4", "tern-9", "curlew-3", "dipper-5", "petrel-6")
FAMILIES: dict[str, Family] = {
    "zero_shot": "prompt",
    "constrained": "prompt",
    "few_shot": "prompt",
    "rag": "rag",
    "lora": "fine-tune",
    "rag_lora": "rag+fine-tune",
}
INPUTS = (
    "We stood at Thrush Point for fifty minutes this morning and the noon run never came.",
    "My employer pays half of my season ticket, where do I send the claim form?",
    "Everything in my box was soaked through, the letters are pulp.",
    "Can the skipper wait two minutes for the school class on Thursday?",
)


@dataclass(frozen=True)
class Case:
    """What a written run should be like.

    right: name -> share right on the test, and on dev a little less. floor, learner: shares of the baselines. failed:
    of the last candidate, answers that did not come and answers that could not be scored.
    """

    right: dict[str, float]
    metric: str = "label_accuracy"
    n: int = 60
    floor: float = 0.1
    learner: float = 0.25
    skipped: tuple[Skipped, ...] = (
        Skipped("rag", "rag", "plan", "the task has no corpus"),
        Skipped("rag_lora", "rag+fine-tune", "plan", "the task has no corpus"),
    )
    left_early: tuple[LeftEarly, ...] = ()
    notes: tuple[str, ...] = ()
    failed: tuple[int, int] = (0, 0)
    unfinished: bool = False
    target: float | None = None
    name: str = "tickets"
    untested: tuple[str, ...] = ()
    labels: tuple[str, ...] = QUEUES
    findings: int = 3


FINE_TUNE = Case(
    {"zero_shot": 0.03, "constrained": 0.13, "few_shot": 0.42, "lora": 0.82}, untested=("zero_shot", "constrained")
)
UNDECIDED = Case({"few_shot": 0.6, "lora": 0.68}, n=60)
NONE = Case({"zero_shot": 0.02, "few_shot": 0.05, "lora": 0.2})
ONLY_ONE = Case(
    {"zero_shot": 0.7},
    skipped=(
        Skipped("few_shot", "prompt", "plan", "left out by --only"),
        Skipped("lora", "fine-tune", "plan", "left out by --only"),
    ),
)
UNTESTED = Case({"zero_shot": 0.5}, untested=("zero_shot",))
EVERYTHING = Case(
    {"zero_shot": 0.02, "constrained": 0.1, "few_shot": 0.2, "rag": 0.45, "lora": 0.3, "rag_lora": 0.9},
    skipped=(),
    name="handbook",
    target=0.95,
)
GRADED = Case({"zero_shot": 0.31, "few_shot": 0.55, "lora": 0.58}, metric="token_f1", labels=())
UNFINISHED = Case(
    {"zero_shot": 0.03, "constrained": 0.13, "few_shot": 0.42},
    untested=("zero_shot", "constrained", "few_shot"),
    skipped=(
        Skipped("rag", "rag", "budget", "about 3.8 more minutes would pass the budget of 9", 3.8, True),
        Skipped("lora", "fine-tune", "fault", "its loss stopped being a number", None, True),
        Skipped("rag_lora", "rag+fine-tune", "gain", "it could gain 1.2 points on dev at most"),
    ),
    left_early=(LeftEarly("zero_shot", "after 30 of 60 dev examples few_shot was ahead by 37 points"),),
    failed=(3, 2),
    unfinished=True,
    name="a task with a rather long name",
)
WARNED = replace(
    FINE_TUNE,
    learner=0.8,
    skipped=(Skipped("rag", "rag", "memory", "its index needs more memory than there is", None, True),),
    failed=(4, 0),
    notes=(
        "This run was begun with rung 0.2.0 and finished with rung 0.3.0: answers of both stand beside each other.",
    ),
)
ALL = {
    "fine_tune": FINE_TUNE,
    "undecided": UNDECIDED,
    "none": NONE,
    "only_one": ONLY_ONE,
    "untested": UNTESTED,
    "everything": EVERYTHING,
    "graded": GRADED,
    "unfinished": UNFINISHED,
    "warned": WARNED,
}


def write_run(folder: Path, case: Case = FINE_TUNE, **words: str) -> dict[str, Example]:
    """Writes the folder and returns the examples. words: input, label, row, why: texts to put into the data."""
    labels = (words["label"], *case.labels[1:]) if "label" in words and case.labels else case.labels
    answers = labels or ("forty-eight hours", "Osric Bellamy", "on 6 November")
    examples = {
        f"{case.name}-{i:03}": Example(
            f"{case.name}-{i:03}",
            words.get("input", INPUTS[i % len(INPUTS)]),
            answers[i % len(answers)],
            (answers[i % len(answers)],),
        )
        for i in range(2 * case.n)
    }
    dev, test = list(examples.values())[: case.n], list(examples.values())[case.n :]
    scores = {
        (name, which): _outcomes(name, share - (0.02 if which == "dev" and share > 0.1 else 0), case, which)
        for name, share in case.right.items()
        for which in ("dev", "test")
    }
    for name in case.right:
        _write_solution(folder / "solutions" / name, name, answers, labels)
        for which, part in (("dev", dev), ("test", test)):
            if which == "dev" or name not in case.untested:
                rows = _predictions(part, scores[name, which], answers)
                append_lines(folder / "solutions" / name / f"predictions.{which}.jsonl", rows)
    tested = [name for name in case.right if name not in case.untested]
    skipped = tuple(replace(s, why=words.get("why", s.why)) for s in case.skipped)
    key = repr((case, skipped))
    if key not in _DECISIONS:  # bootstrap intervals take a while
        _DECISIONS[key] = _decision(case, scores, tested, skipped)
    write_json(folder / "decision.json", _DECISIONS[key])
    write_json(folder / "task.json", task_record(case, labels))
    write_json(folder / "plan.json", plan_record(case))
    write_json(folder / "checks.json", checks_record(case.findings, words.get("row", "examples.jsonl, line {}")))
    if not case.unfinished:
        _write_reading(folder, case, tested)
    stamp = "2026-11-23T18:{:02}:00.000+00:00"
    ended = "unfinished" if case.unfinished else "decided"
    rows = [{"time": stamp.format(1), "event": "started", "spent_s": 0.0}, {"time": stamp.format(9), "event": ended}]
    append_lines(folder / "events.jsonl", rows)
    return {e.id: e for e in test}


def _write_reading(folder: Path, case: Case, tested: list[str]) -> None:
    read = {"time": "2026-11-23T18:04:11+00:00", "read": 1, "solutions": tested, "why": "final comparison", "n": case.n}
    append_lines(folder / "test_reads.jsonl", [{**read, "digest": "ab", "continues": False}])


_DECISIONS: dict[str, dict[str, Any]] = {}


def _decision(
    case: Case, scores: dict[tuple[str, str], list[float]], tested: list[str], skipped: tuple[Skipped, ...]
) -> dict[str, Any]:
    on: SetName = "dev" if case.unfinished else "test"
    names = list(case.right) if case.unfinished else tested
    bases = {"most_frequent": case.floor, "tfidf_linear": case.learner}
    scores = scores | {
        (name, which): _outcomes(name, share, case, which) for name, share in bases.items() for which in ("dev", "test")
    }
    candidates = [_candidate(name, place, case, scores) for place, name in enumerate(case.right)]
    candidates += [_baseline(name, scores, sealed=case.unfinished) for name in bases]
    by_name = {name: scores[name, on] for name in (*names, *bases)}
    pairs: tuple[Comparison, ...] = ()
    if not case.unfinished:
        pairs = compare_all(list(itertools.combinations(names, 2)), by_name, "test", seed=0)
    against = [c for base in bases for c in compare_all([(base, n) for n in names], by_name, on, seed=0)]
    evidence = Evidence(
        metric=MetricInfo(case.metric, lambda answers: [0.0 for _ in answers], case.metric != "token_f1"),
        candidates=tuple(candidates),
        comparisons=tuple(pairs),
        against_floor=tuple(against),
        floors=("most_frequent",),
        n_dev=case.n,
        n_test=case.n,
        minimum_detectable_difference=minimum_detectable_difference(case.n),
        test_reads=0 if case.unfinished else 1,
        has_corpus=not case.skipped,
        has_labels=bool(case.labels),
        target=case.target,
        skipped=skipped,
        left_early=case.left_early,
        notes=case.notes,
    )
    if case.unfinished:
        return decision_record(unfinished(evidence, "rung run task.yaml --out runs/tickets --minutes 13"))
    return decision_record(decide(evidence))


def _baseline(name: str, scores: dict[tuple[str, str], list[float]], *, sealed: bool) -> Candidate:
    dev, test = (score(np.array(scores[name, which]), seed=0) for which in ("dev", "test"))
    return Candidate(name, "baseline", dev, None if sealed else test, 0, 0, None, None, None, 0, 0)


def task_record(case: Case = FINE_TUNE, labels: tuple[str, ...] = QUEUES) -> dict[str, Any]:
    return {
        "name": case.name,
        "path": f"/data/{case.name}/task.yaml",
        "instruction": "Route the customer message to one queue of the post boats. Answer with the queue code only.",
        "metric": case.metric,
        "labels": list(labels) or None,
        "right_or_wrong": case.metric != "token_f1",
        "model": "smollm2-135m-instruct",
        "model_version": "sha256:09c5e3",
        "target": case.target,
        "budget": {"minutes": 30, "usd": None},
        "seed": 0,
        "data": {"examples.jsonl": "5e1f" * 16},
        "identity": "77aa" * 16,
        "versions": {"rung": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "machine": {"system": "Linux", "cores": 2, "threads": 2, "device": "cpu"},
    }


def plan_record(case: Case = FINE_TUNE) -> dict[str, Any]:
    why = {s.name: s.why for s in case.skipped if s.reason == "plan"}
    steps = [
        {
            "name": name,
            "family": family,
            "applies": name not in why,
            "why": why.get(name, ""),
            "calls": 0 if name in why else 60 * place,
            "tokens": 0 if name in why else 14_000 * place,
            "seconds": 0.0 if name in why else 31.5 * place,
        }
        for place, (name, family) in enumerate(FAMILIES.items(), start=1)
        if name in case.right or name in why
    ]
    detectable = minimum_detectable_difference(case.n)
    return {
        "steps": steps,
        "seconds": 402.0,
        "usd": 0.0,
        "capped": {},
        "sizes": {"train": 120, "dev": case.n, "test": case.n},
        "minimum_detectable_difference": {"dev": detectable, "test": detectable},
    }


def checks_record(count: int = 3, row: str = "examples.jsonl, line {}") -> dict[str, Any]:
    message = "looks like line {} with another answer; they are kept in one set."
    return {
        "findings": [
            {
                "check": "near_duplicate",
                "severity": "warning",
                "row": row.format(7 + i) if "{}" in row else row,
                "message": message.format(70 + i),
                "ids": [],
            }
            for i in range(count)
        ]
    }


def _outcomes(name: str, share: float, case: Case, which: str) -> list[float]:
    draw = random.Random(f"{name} {which}")
    if case.metric == "token_f1":
        return [min(1.0, max(0.0, round(draw.gauss(share, 0.2), 2))) for _ in range(case.n)]
    outcomes = [1.0] * round(share * case.n) + [0.0] * (case.n - round(share * case.n))
    draw.shuffle(outcomes)
    return outcomes


def _predictions(part: list[Example], scores: list[float], answers: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for i, (example, value) in enumerate(zip(part, scores, strict=True)):
        text = example.output if value >= 1 else answers[(answers.index(example.output) + 1 + i % 2) % len(answers)]
        rows.append({"id": example.id, "text": text, "tokens_in": 110, "tokens_out": 5, "latency_s": 0.1})
        rows[-1] |= {"passages": [], "error": None, "score": value}
    return rows


def _candidate(name: str, place: int, case: Case, scores: dict[tuple[str, str], list[float]]) -> Candidate:
    tested = name not in case.untested
    return Candidate(
        name=name,
        family=FAMILIES.get(name, "prompt"),
        dev=score(np.array(scores[name, "dev"]), seed=0),
        test=score(np.array(scores[name, "test"]), seed=0) if tested else None,
        tokens_in=98.4 + 410 * (place % 3),
        tokens_out=5.2,
        latency_s_p50=0.083 + 0.2 * place if tested else None,
        latency_s_p95=0.12 + 0.3 * place if tested else None,
        cost_per_1k_usd=None,
        build_seconds=4.2 * 3**place,
        build_usd=0.0,
        failed_calls=case.failed[0] if place == len(case.right) - 1 else 0,
        unscored=case.failed[1] if place == len(case.right) - 1 else 0,
    )


def _write_solution(folder: Path, name: str, answers: tuple[str, ...], labels: tuple[str, ...]) -> None:
    trained = name in ("lora", "rag_lora")
    demos = tuple(Demo(text, answer) for text, answer in zip(INPUTS, answers, strict=False))
    solution = Solution(
        name,
        "Route the customer message to one queue of the post boats. Answer with the queue code only.",
        Decoding(12),
        demos=demos if name == "few_shot" else (),
        demo_selection=DemoSelection("nearest", 8) if name == "few_shot" else None,
        retriever=RetrieverSpec("bm25", 3, 600) if name.startswith("rag") else None,
        adapter="adapter" if trained else None,
    )
    constraint = {"kind": "labels", "value": list(labels)} if labels and name != "zero_shot" else None
    write_json(folder / "solution.json", {"format": 1, **asdict(solution), "constraint": constraint})
    if trained:
        epochs = [{"epoch": i, "dev": value} for i, value in enumerate((0.35, 0.62, 0.8, 0.78, 0.78), start=1)]
        write_json(
            folder / "training" / "history.json", {"learning_rate": 1e-3, "steps": 64, "epochs": epochs, "kept": 3}
        )
    if name == "lora":
        losses = {"0.0005": 1.412, "0.001": 1.107, "0.002": 1.365}
        write_json(folder / "training" / "sweep.json", {"dev_loss": losses, "chosen": 1e-3})
