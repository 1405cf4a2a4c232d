"""The folder of a run with two models on this machine and one endpoint, written by hand, without a model."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from run_folders import FAMILIES, INPUTS, QUEUES, checks_record

from rung.decision import decision_record
from rung.records import append_lines, write_json
from rung.types import (
    BreakEven,
    Candidate,
    Comparison,
    Decision,
    Decoding,
    Demo,
    DemoSelection,
    Diagnosis,
    Example,
    Score,
    Skipped,
    Solution,
)

SPEC = '{"endpoint": "https://api.openai.com/v1", "name": "gpt-5-mini", "params": {"reasoning_effort": "minimal"}}'
MODELS = ("smollm2", "gemma3-270m", "gpt-5-mini")
N = 200
SCORES = {  # name -> right on dev, right on the test (None: not tested), USD per 1,000
    "zero_shot@smollm2": (0.03, None, 0.0021),
    "few_shot@smollm2": (0.41, 0.42, 0.0078),
    "lora@smollm2": (0.81, 0.80, 0.0021),
    "few_shot@gemma3-270m": (0.36, 0.35, 0.012),
    "lora@gemma3-270m": (0.78, 0.77, 0.0034),
    "zero_shot@gpt-5-mini": (0.71, None, 0.031),
    "constrained@gpt-5-mini": (0.74, None, 0.034),
    "few_shot@gpt-5-mini": (0.83, 0.82, 0.084),
}
FINALISTS = tuple(name for name, (_, test, _) in SCORES.items() if test is not None)
CONTENDERS = ("lora@smollm2", "lora@gemma3-270m", "few_shot@gpt-5-mini")
NO_CORPUS = "the task has no corpus"


def write_models_run(folder: Path) -> dict[str, Example]:
    """Writes the folder and returns the test examples."""
    ids = [f"t-{i:03}" for i in range(N)]
    examples = {i: Example(i, INPUTS[k % 4], QUEUES[k % 8], (QUEUES[k % 8],)) for k, i in enumerate(ids)}
    for name, (_, test, _) in SCORES.items():
        _write_solution(folder / "solutions" / name, name)
        if test is not None:
            rows = _predictions(name, list(examples.values()), test)
            append_lines(folder / "solutions" / name / "predictions.test.jsonl", rows)
            at_once = 8 if name.endswith("gpt-5-mini") else 1
            write_json(folder / "solutions" / name / "latency.json", {"n": 8, "p50": 0.1, "concurrency": at_once})
    write_json(folder / "decision.json", decision_record(decision()))
    write_json(folder / "task.json", models_task())
    write_json(folder / "plan.json", models_plan())
    write_json(folder / "checks.json", checks_record())
    write_json(folder / "models.json", {"gpt-5-mini": FACTS})
    named = {"finalists": FINALISTS, "contenders": CONTENDERS, "diagnosed": "few_shot@gpt-5-mini"}
    write_json(folder / "finalists.json", named)
    points = [{"examples": 0, "mean": 0.1}, {"examples": 100, "mean": 0.6}, {"examples": 400, "mean": 0.81}]
    more = {"examples": 400, "mean": 0.05, "low": 0.0, "high": 0.1}
    write_json(folder / "curve.json", {"points": points, "screen": N, "more": more, "model": "smollm2"})
    read = {"time": "2026-11-26T18:04:11+00:00", "read": 1, "solutions": FINALISTS, "why": "final comparison", "n": N}
    append_lines(folder / "test_reads.jsonl", [{**read, "digest": "ab", "continues": False}])
    stamp = "2026-11-26T18:{:02}:00.000+00:00"
    rows = [{"time": stamp.format(1), "event": "started"}, {"time": stamp.format(9), "event": "decided"}]
    append_lines(folder / "events.jsonl", rows)
    return examples


FACTS: dict[str, Any] = {
    "served": {"gpt-5-mini-2026-08-07": 1180, "gpt-5-mini-2026-11-20": 24},
    "fingerprints": {"fp_3a1": 1180, "fp_7c2": 24},
    "response_format": {"json_schema": 1196, "none": 8},
    "faults": {"429": 31, "500": 2, "closed": 4},
    "endpoint": "https://api.openai.com/v1",
    "model": "gpt-5-mini",
    "server": None,
    "doubtful_usd": 0.0,
    "in_flight": 64,
    "shutdown_date": "2027-06-30",
    "price": {"usd_per_million_in": 0.25, "usd_per_million_cached": 0.025, "usd_per_million_out": 2.0},
    "price_source": "genai-prices 0.2.3",
    "price_dated": "2026-11-09",
    "price_note": None,
    "from_cache": 312,
    "calls": 1204,
    "usd": 0.0912,
}
"""What models.json holds of the endpoint."""


def models_task(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tickets",
        "path": "/data/tickets/task.yaml",
        "instruction": "Route the customer message to one queue of the post boats.",
        "metric": "label_accuracy",
        "labels": list(QUEUES),
        "right_or_wrong": True,
        "models": [
            {"name": "smollm2", "spec": "smollm2-135m-instruct", "price": {"usd_per_hour": 0.08}},
            {"name": "gemma3-270m", "spec": "/models/gemma3-270m", "price": {"usd_per_hour": 0.08}},
            {"name": "gpt-5-mini", "spec": SPEC, "price": None},
        ],
        "concurrency": 8,
        "budget": {"minutes": 30, "usd": 1.0},
        "seed": 0,
        "data": {"examples.jsonl": "5e1f" * 16},
        "identity": "77aa" * 16,
        "versions": {"rung": "0.3.0", "python": "3.11.9"},
        "machine": {"system": "Linux", "cores": 2, "threads": 2, "device": "cpu", "dtype": "float32"},
        **changes,
    }


def models_plan(models: tuple[str, ...] = MODELS, *, corpus: bool = False) -> dict[str, Any]:
    """As plan.json holds it: every strategy with every model, the last of which is an endpoint."""
    steps, experiments = [], []
    for model in models:
        for place, (kind, family) in enumerate(FAMILIES.items(), start=1):
            why = "the model cannot be trained from here" if "lora" in kind and model == models[-1] else ""
            why = NO_CORPUS if "rag" in kind and not corpus else why
            steps.append(_step(model, kind, family, place, why, models[-1]))
        for kind in ("diagnosis", "pilot", "skills"):
            why = "no fine-tuning is tried" if model == models[-1] and kind != "diagnosis" else ""
            experiments.append(_step(model, kind, "prompt", 1, why, models[-1]))
    return {
        "steps": steps,
        "experiments": experiments,
        "calls": 7200,
        "tokens": 2_400_000,
        "seconds": 1260.0,
        "usd": 0.4231,
        "sizes": {"train": 400, "dev": N, "test": N},
        "capped": {},
        "minimum_detectable_difference": {"dev": 0.094, "test": 0.094},
    }


def _step(model: str, kind: str, family: str, place: int, why: str, priced: str) -> dict[str, Any]:
    spent = {"calls": 60 * place, "tokens": 14_000 * place, "seconds": 31.5 * place}
    spent["usd"] = 0.0206 * place if model == priced else 0.0
    return {
        "name": f"{kind}@{model}",
        "family": family,
        "applies": not why,
        "why": why,
        "kind": kind,
        "model": model,
        **(dict.fromkeys(spent, 0) if why else spent),
    }


def decision() -> Decision:
    return Decision(
        choice="fine-tune",
        solution="lora@smollm2",
        headline=(
            "Fine-tune: lora@smollm2 answers 80 % right (74–85) on the sealed test, 2 points below "
            "few_shot@gpt-5-mini, at a 40th of the price. It pays for itself after 61,000 requests (48,000 to 90,000)."
        ),
        reasons=(
            "few_shot@gpt-5-mini minus lora@smollm2: 2 points (-3.5 to +7.5, p = 0.84), which is within the margin.",
            "lora@smollm2 minus few_shot@smollm2: 38 points (+29 to +46, p < 0.001).",
            "lora@smollm2 costs 0.0021 USD per 1,000 requests, few_shot@gpt-5-mini 0.084 USD.",
        ),
        next=("Ship lora@smollm2.", "Keep few_shot@gpt-5-mini as what to compare with."),
        warnings=("gpt-5-mini ends on 2027-06-30, as api.openai.com says.",),
        candidates=(*(_candidate(name) for name in SCORES), *map(_baseline, ("most_frequent", "tfidf_linear"))),
        comparisons=(*_comparisons(), *_against_baselines()),
        diagnosis=(
            Diagnosis("convention", 0.44, 0.3, 0.58, "fine-tuning fixed 44 % of what it got wrong"),
            Diagnosis("knowledge", 0.2, 0.1, 0.3, "nothing that was tried fixed it", False),
        ),
        minimum_detectable_difference=0.094,
        test_reads=1,
        break_even=(
            BreakEven("lora@smollm2", "few_shot@gpt-5-mini", 0.0819, 61_000, 48_000, 90_000),
            BreakEven("lora@gemma3-270m", "few_shot@gpt-5-mini", 0.0806, 88_000, 70_000, None),
        ),
        frontier=("lora@smollm2", "few_shot@gpt-5-mini"),
        skipped=(
            *(
                Skipped(f"{k}@{m}", FAMILIES[k], "plan", NO_CORPUS, model=m)
                for m in MODELS
                for k in ("rag", "rag_lora")
            ),
            Skipped(
                "lora@gpt-5-mini", "fine-tune", "plan", "the model cannot be trained from here", model="gpt-5-mini"
            ),
        ),
        floor=0.125,
        n_dev=N,
        n_test=N,
        models=MODELS,
    )


def _candidate(name: str) -> Candidate:
    kind, _, model = name.partition("@")
    dev, test, usd = SCORES[name]
    place = list(SCORES).index(name)
    remote = model == "gpt-5-mini"
    return Candidate(
        name=name,
        family=FAMILIES[kind],
        dev=_score(dev),
        test=None if test is None else _score(test),
        tokens_in=512.4 if kind == "few_shot" else 98.4,
        tokens_out=5.2,
        latency_s_p50=None if test is None else 0.083 + 0.2 * place,
        latency_s_p95=None if test is None else 0.12 + 0.3 * place,
        cost_per_1k_usd=usd,
        build_seconds=184.0 if kind == "lora" else 21.0,
        build_usd=0.0041,
        failed_calls=3 if name == "few_shot@gpt-5-mini" else 0,
        model=model,
        first_token_s_p50=0.31 if remote and test is not None else None,
        first_token_s_p95=0.62 if remote and test is not None else None,
    )


def _baseline(name: str) -> Candidate:
    score = Score(0.125, 0.125, 0.125, N) if name == "most_frequent" else _score(0.31)
    return Candidate(name, "baseline", score, score, 0, 0, None, None, None, 0, 0)


def _score(mean: float) -> Score:
    half = 1.96 * (mean * (1 - mean) / N) ** 0.5
    return Score(mean, max(0.0, mean - half), min(1.0, mean + half), N)


def _comparisons() -> list[Comparison]:
    """Every pair of finalists of which at least one is a contender."""
    pairs = [(a, b) for place, a in enumerate(FINALISTS) for b in FINALISTS[place + 1 :]]
    return [_comparison(a, b) for a, b in pairs if {a, b} & set(CONTENDERS)]


def _against_baselines() -> list[Comparison]:
    return [replace(_comparison(b, n), level=0.99) for b in ("most_frequent", "tfidf_linear") for n in FINALISTS]


def _comparison(a: str, b: str) -> Comparison:
    means = {"most_frequent": 0.125, "tfidf_linear": 0.31}
    one, other = (means.get(n) or SCORES[n][1] or 0.0 for n in (a, b))
    apart = round(other - one, 4)
    p = 0.84 if abs(apart) < 0.06 else 0.0001
    return Comparison(a, b, "test", apart, apart - 0.055, apart + 0.055, p / 4, p, N, 0.99, 0.02)


def _predictions(name: str, examples: list[Example], share: float) -> list[dict[str, Any]]:
    draw = random.Random(name)
    right = [True] * round(share * N) + [False] * (N - round(share * N))
    draw.shuffle(right)
    rows = []
    for example, good in zip(examples, right, strict=True):
        text = example.output if good else QUEUES[(QUEUES.index(example.output) + draw.randint(1, 2)) % 8]
        row = {
            "id": example.id,
            "text": text,
            "tokens_in": 110,
            "tokens_out": 5,
            "latency_s": 0.1,
            "score": float(good),
        }
        rows.append({**row, "passages": [], "error": None})
    return rows


def _write_solution(folder: Path, name: str) -> None:
    kind, _, model = name.partition("@")
    few = kind == "few_shot"
    solution = Solution(
        name,
        "Route the customer message to one queue of the post boats.",
        Decoding(12),
        demos=tuple(Demo(text, answer) for text, answer in zip(INPUTS, QUEUES, strict=False)) if few else (),
        demo_selection=DemoSelection("nearest", 4) if few else None,
        adapter="adapter" if kind == "lora" else None,
        model=model,
    )
    write_json(folder / "solution.json", {"format": 1, **asdict(solution)})
    if kind == "lora":
        epochs = [{"epoch": i, "dev": value} for i, value in enumerate((0.35, 0.62, 0.81), start=1)]
        history = {"learning_rate": 1e-3, "steps": 64, "epochs": epochs, "kept": 3}
        write_json(folder / "training" / "history.json", history)
