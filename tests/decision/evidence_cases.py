"""Evidence made by hand: candidates with given means, every comparison present, p-values as a test wants them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from rung.decision import Evidence
from rung.types import Candidate, Comparison, Family, MetricInfo, Score, SetName

N = 200
RIGHT_OR_WRONG = MetricInfo("label_accuracy", lambda answers: [1.0 for _ in answers], right_or_wrong=True)
GRADED = MetricInfo("token_f1", lambda answers: [1.0 for _ in answers])


def candidate(name: str, family: Family, mean: float, *, tokens_in: float = 100, half: float = 0.05) -> Candidate:
    test = Score(mean, max(0.0, mean - half), min(1.0, mean + half), N)
    return Candidate(name, family, test, test, tokens_in, 5, 0.1, 0.2, None, 10, 0)


def baseline(name: str, mean: float) -> Candidate:
    score = Score(mean, mean, mean, N)
    return Candidate(name, "baseline", score, score, 0, 0, None, None, None, 0, 0)


def of(model: str, strategy: str, family: Family, mean: float, *, usd: float | None = None, **more: Any) -> Candidate:
    """A candidate of a run of several models. usd: for 1,000 requests."""
    made = candidate(f"{strategy}@{model}", family, mean, **more)
    return replace(made, model=model, cost_per_1k_usd=usd)


def comparison(a: Candidate, b: Candidate, p: float, *, half: float = 0.05, on: SetName = "test") -> Comparison:
    one, other = (c.dev if on == "dev" else c.test for c in (a, b))
    assert one is not None and other is not None
    d = other.mean - one.mean
    return Comparison(a.name, b.name, on, d, d - half, d + half, p, p, N, standard_error=half / 1.959964)


def evidence(
    candidates: list[Candidate],
    p: dict[tuple[str, str], float] | None = None,
    half: float = 0.05,
    *,
    floor: float = 0.12,
    learner: float | None = None,
    on: SetName = "test",
    **changes: Any,
) -> Evidence:
    """Every pair compared; p is 1 where not given.

    floor: mean of a baseline "most_frequent", which a candidate is shown to beat where its interval lies above it (or
    as p says). learner: the same for a baseline "tfidf_linear", which is no floor.
    """
    p = p or {}
    bases = [baseline("most_frequent", floor)] + ([baseline("tfidf_linear", learner)] if learner is not None else [])
    rated = [c for c in candidates if on == "dev" or c.test]

    def value(a: Candidate, b: Candidate, otherwise: float) -> float:
        return p.get((a.name, b.name), p.get((b.name, a.name), otherwise))

    pairs = [comparison(a, b, value(a, b, 1.0), half=half, on=on) for a, b in itertools.combinations(rated, 2)]
    against = []
    for base, c in itertools.product(bases, rated):
        score = c.dev if on == "dev" else c.test
        assert score is not None
        above = score.low > base.dev.mean
        against.append(comparison(base, c, value(base, c, 1e-9 if above else 1.0), half=half, on=on))
    known: dict[str, Any] = {
        "metric": RIGHT_OR_WRONG,
        "floors": ("most_frequent",),
        "n_dev": N,
        "n_test": N,
        "minimum_detectable_difference": 0.09,
        "test_reads": 1 if on == "test" else 0,
    }
    if on == "dev":
        candidates = [replace(c, test=None) for c in candidates]
    return Evidence(
        candidates=(*candidates, *bases), comparisons=tuple(pairs), against_floor=tuple(against), **(known | changes)
    )


ZERO = candidate("zero_shot", "prompt", 0.40)
LORA = candidate("lora", "fine-tune", 0.81)
CLEAR = {("zero_shot", "lora"): 1e-9}
