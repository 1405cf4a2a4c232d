"""What a candidate costs: latency of one request at a time, tokens, dollars, and when building a dearer one pays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rung.ladder.plan import LATENCY_INPUTS
from rung.ladder.state import Built, RunState, WholeRun
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

    solution, price = built.solution, run.price
    folder = run.files.solution(solution.name)
    latency = record_of(folder / "latency.json")
    took = [_building(run, name) for name in (solution.name, _begun_from(run, solution.name)) if name]
    seconds, paid = sum(float(t.get("seconds", 0.0)) for t in took), sum(float(t.get("usd", 0.0)) for t in took)
    tokens_in, tokens_out = built.tokens
    cached = _cached(run, built, latency)
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
        build_usd=round(build_usd(price, seconds) + paid, 6),
        failed_calls=sum(p.error is not None for p in built.predictions),
        unscored=sum(p.metric_error is not None for p in built.predictions),
        cut=built.cut,
        model=solution.model,
    )


def _cached(run: RunState, built: Built, latency: Mapping[str, Any]) -> float:
    """Input tokens a request that are cheaper, a mean: as an endpoint reported them, else those all prompts share."""
    if hasattr(run.model.inner, "timed"):
        return sum(p.tokens_cached for p in built.predictions) / max(1, len(built.predictions))
    return float(latency.get("tokens_cached", 0.0))


def _building(run: RunState, name: str) -> dict[str, Any]:
    return record_of(run.files.solution(name) / "built.json")


def _begun_from(run: RunState, name: str) -> str | None:
    """The solution that a repaired one was trained on from: it has to be built first."""
    repaired = {run.named(REPAIRED.format(kind)): run.named(kind) for kind, s in STRATEGIES.items() if s.repair}
    return repaired.get(name)


def break_evens(
    run: WholeRun, answers: Mapping[str, Sequence[Prediction]], candidates: Mapping[str, Candidate]
) -> tuple[BreakEven, ...]:
    """For each fine-tuned finalist that costs less per request than a prompt: from how many requests it pays.

    It is set beside the best prompt of its own model and the best prompt of all, by dev. answers: of the finalists to
    the test. candidates: the finalists by name. Each request costs what its own model's price says.
    """
    from rung.evaluation.costs import break_even

    prompts = [candidates[name] for name in answers if candidates[name].family == "prompt"]
    found = []
    for name in answers:
        tuned = candidates[name]
        if tuned.family not in ("fine-tune", "rag+fine-tune"):
            continue
        own = [c for c in prompts if c.model == tuned.model]
        beside = [max(some, key=lambda c: c.dev.mean) for some in (own, prompts) if some]
        for prompt in dict.fromkeys(c.name for c in beside):
            a, b = (_usd_each(run, candidates[n], answers[n]) for n in (name, prompt))
            # The same inputs in the same order; of slow answers fewer are timed.
            n = min(len(a), len(b))
            costs = tuned.build_usd, candidates[prompt].build_usd
            pays = break_even(name, prompt, *costs, a[:n], b[:n]) if n else None
            if pays is not None:
                found.append(pays)
    return tuple(found)


def _usd_each(run: WholeRun, candidate: Candidate, answers: Sequence[Prediction]) -> list[float]:
    """Dollars of each request at the price of the candidate's model; empty without one."""
    from rung.evaluation.costs import request_usd

    state = run.of(candidate.model)
    price = state.price
    if price is None:
        return []
    if price.usd_per_hour is not None:
        latency = record_of(state.files.solution(candidate.name) / "latency.json")
        return [s / 3600 * price.usd_per_hour for s in latency.get("seconds", ())]
    return [
        request_usd(
            price, tokens_in=p.tokens_in, tokens_cached=candidate.tokens_cached, tokens_out=p.tokens_out, seconds=0.0
        )
        for p in answers
    ]
