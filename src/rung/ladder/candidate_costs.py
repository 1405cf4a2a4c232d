"""What a candidate costs: latency as a client sees it, tokens, dollars, and when building a dearer one pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rung.errors import BudgetSpent, came
from rung.ladder.climbed import Built
from rung.ladder.plan import LATENCY_INPUTS, timed_requests
from rung.ladder.state import RunState, WholeRun
from rung.resume import once, record_of
from rung.strategies.course import made_from
from rung.types import BreakEven, Candidate, Generation, Prediction, Request

_ENOUGH_SECONDS = 10.0  # stop timing after so long once at least _LEAST_LATENCIES answers are timed
_LEAST_LATENCIES = 4

Timed = Callable[[Sequence[Request], int], Sequence[Generation]]
"""Fresh answers to requests, with so many in flight."""


def measure_latency(run: RunState, built: Built) -> None:
    """Times requests on dev inputs as a client sees them, as many at once as the task names. Once for that number."""
    record, wanted = run.files.solution(built.solution.name) / "latency.json", run.inputs.task.concurrency
    if record_of(record).get("concurrency", wanted) not in (wanted, min(wanted, len(run.inputs.dev))):
        record.unlink()  # of an earlier command, which named another number
    once(record, lambda: _latency(run, built))


def _latency(run: RunState, built: Built) -> dict[str, Any]:
    """What latency.json holds, in seconds; no percentiles where no answer came.

    n: answers that were timed, as listed in seconds. failed: those that did not come. concurrency: requests at once.
    tokens_cached: a mean for an endpoint, else of the prefix that all prompts share. first_token: where replies are
    streamed.
    """
    run.listener.progress(f"timing {built.solution.name}", 0.0, None)
    timed = getattr(run.model, "timed", None)
    record = _timed_here(run, built) if timed is None else _timed_elsewhere(run, built, timed)
    seconds, first_tokens = record.pop("seconds"), record.pop("first_tokens", [])
    return {
        "n": len(seconds),
        **_percentiles("", seconds),
        **_percentiles("first_token_", first_tokens),
        **record,
        "seconds": [round(s, 4) for s in seconds],
    }


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    import numpy as np

    return {f"{name}p{q}": round(float(np.percentile(seconds, q)), 4) for q in (50, 95) if seconds}


def _timed_here(run: RunState, built: Built) -> dict[str, Any]:
    """Of a model on this machine: requests that come at once are answered in one batch, and each takes as long."""
    from rung.retrieval.shared import forget_queries
    from rung.solutions.answer import answer, requests_for, shared_prefix_tokens
    from rung.solutions.searching import forget

    solution, model = built.solution, run.model
    retriever = run.inputs.library.search(solution.retriever) if solution.retriever is not None else None
    queries = [example.query for example in run.inputs.dev]
    size = max(1, min(run.inputs.task.concurrency, len(queries)))
    batches = LATENCY_INPUTS + 1 if size > 1 else min(LATENCY_INPUTS + 1, len(queries))
    seconds: list[float] = []
    for place in range(batches):
        some = [queries[i % len(queries)] for i in range(place * size, (place + 1) * size)]
        forget(model)  # each request is to be searched for afresh
        if retriever is not None:
            forget_queries(retriever)
        started = time.perf_counter()
        try:
            answer(solution, model, some, retriever=retriever)
        except BudgetSpent:  # what is left is for the test
            break
        seconds.append(time.perf_counter() - started)
        if len(seconds) > _LEAST_LATENCIES and sum(seconds) > _ENOUGH_SECONDS:
            break
    seconds = seconds[1:] or seconds  # the first one warms up
    requests, _ = requests_for(solution, model, queries[: LATENCY_INPUTS + 1], retriever=retriever)
    return {
        "seconds": [s for s in seconds for _ in range(size)],
        "concurrency": size,
        "failed": 0,
        "tokens_cached": shared_prefix_tokens(requests, model) if len(requests) > 1 else 0,
    }


def _timed_elsewhere(run: RunState, built: Built, timed: Timed) -> dict[str, Any]:
    """Of an endpoint: fresh, streamed requests, at most as many as half of the dollars that are left allow.

    Where the model is asked for the search, too, those seconds are as they were when it was first asked.
    """
    from rung.solutions.answer import asked_for

    solution, concurrency = built.solution, run.inputs.task.concurrency
    retriever = run.inputs.library.search(solution.retriever) if solution.retriever is not None else None
    queries = [example.query for example in run.inputs.dev]
    n = _affordable(run, built, timed_requests(run.model, concurrency))
    some = [queries[i % len(queries)] for i in range(n)]
    waited: list[float] = []
    try:
        requests, searches = asked_for(solution, run.model, some, retriever=retriever)
        waited = [search.latency_s for search in searches]
        answers = timed(requests, concurrency) if requests else []
    except BudgetSpent:  # calls had to be asked again, so that they cost more than on dev
        answers = []
    read = [(answer, s) for answer, s in zip(answers, waited, strict=False) if came(answer.error)]
    return {
        "seconds": [answer.latency_s + s for answer, s in read],
        "first_tokens": [answer.first_token_s + s for answer, s in read if answer.first_token_s is not None],
        "concurrency": concurrency,
        "failed": len(answers) - len(read),
        "tokens_cached": round(built.tokens_cached, 2),
    }


def _affordable(run: RunState, built: Built, wanted: int) -> int:
    left, each = run.ledger.purse.left if run.ledger.purse is not None else None, built.usd_per_answer
    return wanted if left is None or not each else min(wanted, int(left / (2 * each)))


def candidate_of(run: RunState, built: Built) -> Candidate:
    """The candidate as dev and its costs describe it; not tested yet."""
    from rung.evaluation.costs import build_usd, request_usd

    solution, price = built.solution, run.price
    folder = run.files.solution(solution.name)
    latency = record_of(folder / "latency.json")
    took = [_building(run, name) for name in _made_of(run, solution.name)]
    seconds, paid = sum(float(t.get("seconds", 0.0)) for t in took), sum(float(t.get("usd", 0.0)) for t in took)
    tokens_in, tokens_out = built.tokens
    cached = _cached(run, built, latency)
    usd = None
    machine_s = machine_seconds(latency)
    if price is not None and (price.usd_per_hour is None or machine_s):
        mean = sum(machine_s) / len(machine_s) if machine_s else 0.0
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
        first_token_s_p50=latency.get("first_token_p50"),
        first_token_s_p95=latency.get("first_token_p95"),
        cost_per_1k_usd=usd,
        build_seconds=round(seconds, 2),
        build_usd=round(build_usd(price, seconds) + paid, 6),
        failed_calls=sum(p.error is not None for p in built.predictions),
        unscored=sum(p.metric_error is not None for p in built.predictions),
        unscored_why=next((p.metric_error for p in built.predictions if p.metric_error is not None), None),
        cut=built.cut,
        model=solution.model,
    )


def machine_seconds(latency: Mapping[str, Any]) -> list[float]:
    """Seconds of the machine for each request that was timed: requests at once share it. latency: latency.json."""
    return [s / latency.get("concurrency", 1) for s in latency.get("seconds", ())]


def _cached(run: RunState, built: Built, latency: Mapping[str, Any]) -> float:
    """Input tokens a request that are cheaper, a mean: as an endpoint reported them, else those all prompts share."""
    if run.model.timed is not None:
        return built.tokens_cached
    return float(latency.get("tokens_cached", 0.0))


def _building(run: RunState, name: str) -> dict[str, Any]:
    return record_of(run.files.solution(name) / "built.json")


def _made_of(run: RunState, name: str) -> list[str]:
    """The solution, and those that it was repaired, shortened or trained on from: they have to be built first."""
    before = made_from(run.files.solution(name))
    return [name, *(_made_of(run, before) if before is not None else ())]


def break_evens(
    run: WholeRun, answers: Mapping[str, Sequence[Prediction]], candidates: Mapping[str, Candidate]
) -> tuple[BreakEven, ...]:
    """For each fine-tuned finalist that costs less per request than a prompt: from how many requests it pays.

    It is set beside the best prompt of its own model and the best prompt of all, by dev. answers: of the finalists to
    the test. candidates: the finalists by name. Each request costs what its own model's price says. The building that
    has to pay is the fine-tuned one's own: the machine's time and its dollars for API calls (`Candidate.build_usd`).
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
            # Those paid alike are of the same inputs in the same order; of slow answers fewer are timed.
            paired = len({_by_the_hour(run, candidates[n]) for n in (name, prompt)}) == 1
            n = min(len(a), len(b))
            a, b = (a[:n], b[:n]) if paired else (a, b)
            pays = break_even(name, prompt, tuned.build_usd, a, b, paired=paired) if n else None
            if pays is not None:
                found.append(pays)
    return tuple(found)


def _by_the_hour(run: WholeRun, candidate: Candidate) -> bool:
    price = run.of(candidate.model).price
    return price is not None and price.usd_per_hour is not None


def _usd_each(run: WholeRun, candidate: Candidate, answers: Sequence[Prediction]) -> list[float]:
    """Dollars of each request at the price of the candidate's model; empty without one."""
    from rung.evaluation.costs import request_usd

    state = run.of(candidate.model)
    price = state.price
    if price is None:
        return []
    if price.usd_per_hour is not None:
        latency = record_of(state.files.solution(candidate.name) / "latency.json")
        return [s / 3600 * price.usd_per_hour for s in machine_seconds(latency)]
    return [
        request_usd(
            price, tokens_in=p.tokens_in, tokens_cached=candidate.tokens_cached, tokens_out=p.tokens_out, seconds=0.0
        )
        for p in answers
    ]
