"""What a candidate costs: latency of one request at a time, tokens, dollars, and when building a dearer one pays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rung.ladder.plan import LATENCY_INPUTS
from rung.ladder.state import Built, RunState
from rung.resume import once, record_of
from rung.strategies import REPAIRED, STRATEGIES
from rung.types import BreakEven, Candidate, Prediction

_ENOUGH_SECONDS = 10.0  # stop timing after so long once at least _LEAST_LATENCIES answers are timed
_LEAST_LATENCIES = 4


def measure_latency(run: RunState, built: Built) -> None:
    """Times one request at a time on a few dev inputs, and counts the tokens that all prompts begin with. Once."""
    once(run.files.solution(built.solution.name) / "latency.json", lambda: _latency(run, built))


def _latency(run: RunState, built: Built) -> dict[str, Any]:
    import numpy as np

    from rung.solutions.answer import answer, requests_for, shared_prefix_tokens

    solution, model = built.solution, run.model
    retriever = run.inputs.open_index(solution.retriever) if solution.retriever is not None else None
    run.listener.progress(f"timing {solution.name}", 0.0, None)
    some = [example.query for example in run.inputs.dev[: LATENCY_INPUTS + 1]]
    seconds: list[float] = []
    for query in some:
        started = time.perf_counter()
        answer(solution, model, [query], retriever=retriever)
        seconds.append(time.perf_counter() - started)
        if len(seconds) > _LEAST_LATENCIES and sum(seconds) > _ENOUGH_SECONDS:
            break
    seconds = seconds[1:] or seconds  # the first one warms up
    requests, _ = requests_for(solution, model, some, retriever=retriever)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "n": len(seconds),
        "p50": round(float(p50), 4),
        "p95": round(float(p95), 4),
        "seconds": [round(s, 4) for s in seconds],
        "tokens_cached": shared_prefix_tokens(requests, model) if len(requests) > 1 else 0,
    }


def candidate_of(run: RunState, built: Built) -> Candidate:
    """The candidate as dev and its costs describe it; not tested yet."""
    from rung.evaluation.costs import build_usd, request_usd

    solution, price = built.solution, run.inputs.task.price
    folder = run.files.solution(solution.name)
    latency = record_of(folder / "latency.json")
    seconds = sum(_building_s(run, name) for name in (solution.name, _begun_from(solution.name)) if name)
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
        family=built.family,
        dev=built.dev,
        test=None,
        tokens_in=round(tokens_in, 2),
        tokens_out=round(tokens_out, 2),
        tokens_cached=cached,
        latency_s_p50=latency.get("p50"),
        latency_s_p95=latency.get("p95"),
        cost_per_1k_usd=usd,
        build_seconds=round(seconds, 2),
        build_usd=round(build_usd(price, seconds), 6),
        failed_calls=sum(p.error is not None for p in built.predictions),
        unscored=sum(p.metric_error is not None for p in built.predictions),
        cut=built.cut,
    )


def _building_s(run: RunState, name: str) -> float:
    return float(record_of(run.files.solution(name) / "built.json").get("seconds", 0.0))


def _begun_from(name: str) -> str | None:
    """The solution that a repaired one was trained on from: it has to be built first."""
    return next((known for known, s in STRATEGIES.items() if s.repair and name == REPAIRED.format(known)), None)


def break_evens(
    run: RunState, answers: Mapping[str, Sequence[Prediction]], candidates: Mapping[str, Candidate]
) -> tuple[BreakEven, ...]:
    """For each fine-tuned finalist that costs less per request than the best prompt: from how many requests it pays.

    answers: of the finalists to the test. candidates: the finalists by name.
    """
    from rung.evaluation.costs import break_even, request_usd

    price = run.inputs.task.price
    prompts = [name for name in answers if candidates[name].family == "prompt"]
    if price is None or not prompts:
        return ()

    def each(name: str) -> list[float]:
        if price.usd_per_hour is not None:
            latency = record_of(run.files.solution(name) / "latency.json")
            return [s / 3600 * price.usd_per_hour for s in latency.get("seconds", ())]
        cached = candidates[name].tokens_cached
        return [
            request_usd(price, tokens_in=p.tokens_in, tokens_cached=cached, tokens_out=p.tokens_out, seconds=0.0)
            for p in answers[name]
        ]

    found = []
    for name in answers:
        if candidates[name].family not in ("fine-tune", "rag+fine-tune"):
            continue
        # The same inputs in the same order; of slow answers fewer are timed.
        a, b = each(name), each(prompts[0])
        n = min(len(a), len(b))
        costs = candidates[name].build_usd, candidates[prompts[0]].build_usd
        pays = break_even(name, prompts[0], *costs, a[:n], b[:n])
        if pays is not None:
            found.append(pays)
    return tuple(found)
