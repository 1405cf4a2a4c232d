"""How often rung claims a difference that does not exist, and detects one that does: simulated runs on the real path.

    python bench/simulation.py [--models N] [--runs N] [--processes N] [--examples N] [--json FILE]

With one model, every run climbs, takes interim looks, is killed and continued, opens the sealed test and decides with
the product's own code. Only the model is synthetic: whether it answers an example rightly was drawn beforehand, once
without and once with passages. Where both are right equally often, a false claim is the verdict that retrieval is worth
having, or any test comparison of the two that calls one of them better. Power: where passages help by the smallest
difference that the run prints as detectable, how often the verdict is retrieval.

With several models (`--models 3`) only the end of a run is simulated: finalists of every model (a prompt, retrieval,
fine-tuning), right or wrong on dev and on test, more alike within a model than across models. Dev names the contenders
and so the pairs to compare, the test decides; beside it stands the same with all pairs compared. Five kinds of truth:
all are equal; a dear one is equal to the cheapest and all others are worse; one dear candidate is better than all
others, which are equal, by what the run prints as detectable for one pair, or by half of that; the same where the
others are ever worse. A false claim is a verdict that ships something dearer than the cheapest and in truth no better,
or a comparison that calls two different which are not. Power: how often one of the best is shipped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

DISCORDANCE = 0.2  # share of examples that exactly one of the two answers rightly, as the printed difference assumes
BASE_RATE = 0.5
KILLED = 0.5  # share of runs that are killed once and continued
BY_EXAMPLE, BY_MODEL = 0.75, 0.1  # shares of the variance of what decides an answer: the example, and the model with it
STEP = 0.03  # how much worse each next one is, where the others are ever worse
KINDS = ("all_equal", "two_best_equal", "one_a_little_better", "one_better", "one_better_of_a_slope")
LABELS = tuple(f"answer {i}" for i in range(8))


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2000, help="of each kind")
    parser.add_argument("--models", type=int, default=1, help="more than 1: the final comparison alone")
    parser.add_argument("--examples", type=int, default=100, help="in dev and in test")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = several_models(options) if options.models > 1 else one_model(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def one_model(options: argparse.Namespace) -> dict[str, Any]:
    from rung.evaluation.statistics import minimum_detectable_difference

    difference = minimum_detectable_difference(options.examples)
    found: dict[str, Any] = {"runs": options.runs, "examples": options.examples, "difference": round(difference, 4)}
    for kind, gain in (("false_claim_rate", 0.0), ("power", difference)):
        jobs = [(seed, gain, options.examples) for seed in range(options.runs)]
        with ProcessPoolExecutor(options.processes) as pool:
            choices, claims = [], []
            for choice, differs in pool.map(simulate, jobs, chunksize=10):
                choices.append(choice)
                claims.append(choice == "rag" or (differs and not gain))
                if len(choices) % 100 == 0:
                    print(f"{kind}: {len(choices)} runs, {sum(claims) / len(claims):.3f}", file=sys.stderr)
        found[kind] = sum(claims) / len(claims)
        found[f"{kind}_choices"] = {c: choices.count(c) for c in sorted(set(choices))}
        error = math.sqrt(found[kind] * (1 - found[kind]) / len(choices))
        print(f"{kind:18} {found[kind]:.3f} (standard error {error:.3f})   {found[f'{kind}_choices']}", flush=True)
    return found


def simulate(job: tuple[int, float, int]) -> tuple[str, bool]:
    """One run from nothing to its verdict: (choice, whether a test comparison calls one better).

    job: (seed, how much passages help, examples in dev and in test).
    """
    seed, gain, examples = job
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kills = random.Random(f"kill {seed}").random() < KILLED
        for attempt in range(2):
            model = Synthetic(seed, gain, fails_after=random.Random(seed).randrange(2, 12) if kills else None)
            try:
                return one_run(place, model, seed, examples)
            except Killed:
                kills = False
                assert attempt == 0
    raise AssertionError("a continued run ends")


def one_run(folder: Path, model: Any, seed: int, examples: int) -> tuple[str, bool]:
    from rung.evaluation.metrics import load_metric
    from rung.evaluation.scorer import Scorer
    from rung.evaluation.statistics import ALPHA
    from rung.ladder import verdict
    from rung.ladder.climbing import climb
    from rung.ladder.final_test import test_and_decide
    from rung.ladder.finalists import name_finalists, named
    from rung.ladder.ledger import Ledger
    from rung.ladder.options import Quiet
    from rung.ladder.plan import Plan, Step
    from rung.ladder.state import RunState, WholeRun
    from rung.models.metering import metered
    from rung.retrieval.library import SearchedBy
    from rung.strategies.registry import Texts
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Inputs, Tools
    from rung.types import Decoding, ModelSpec, SealedTest, Speed, Task

    rows, passages, retriever = data(examples)
    task = Task(
        "simulated",
        folder / "task.yaml",
        "Answer.",
        (),
        "exact_match",
        (ModelSpec("synthetic", "synthetic"),),
        seed=seed,
    )
    counted = metered(model)
    plan = Plan(
        steps=(Step("zero_shot", "prompt", True, ""), Step("rag", "rag", True, "", tokens=1)),
        diagnosis=Step("diagnosis", "prompt", False, ""),
        pilot=Step("pilot", "fine-tune", False, ""),
        decoding=Decoding(8, seed=seed),
        texts=Texts(4, 2, 8, 1, 0, 4, train=40, dev=examples, screen=48, training_tokens=0),
        speed=Speed(1e6, 1e6, 1e6),
        sizes={"train": 40, "dev": examples, "test": examples},
        capped={},
        detectable={"dev": 0.0, "test": 0.0},
    )
    state = RunState(
        folder=folder,
        inputs=Inputs(task, rows[:40], rows[40 : 40 + examples], library=SearchedBy(passages, retriever)),
        test=SealedTest(rows[40 + examples :]),
        tools=Tools(counted, Scorer(load_metric("exact_match", folder)), InOrder()),
        model=counted,
        plan=plan,
        ledger=Ledger(task.budget, (counted,)),
        listener=Quiet(),
        spec=task.models[0],
    )
    run = WholeRun((state,))
    finalists = named(run) or name_finalists(run, climb(run))
    decision = verdict(run.files) or test_and_decide(run, finalists)
    solutions = set(finalists["finalists"])
    return decision.choice, any(
        c.set == "test" and {c.a, c.b} <= solutions and c.p_corrected < ALPHA for c in decision.comparisons
    )


# ---- several models ---------------------------------------------------------------------------


def several_models(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of each kind of truth, with the named pairs and with all pairs."""
    found: dict[str, Any] = {"models": options.models, "runs": options.runs, "examples": options.examples}
    for kind in KINDS:
        jobs = [(seed, kind, options.models, options.examples) for seed in range(options.runs)]
        with ProcessPoolExecutor(options.processes) as pool:
            ends = list(pool.map(simulate_final, jobs, chunksize=25))
        for pairs in ("named", "all"):
            for what in ("false_claim", "shipped_best", "pairs"):
                values = [end[pairs][what] for end in ends]
                mean = sum(values) / len(values)
                error = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) / len(values))
                found[f"{kind}.{pairs}.{what}"] = round(mean, 4)
                print(f"{kind:22} {pairs:6} {what:13} {mean:7.3f} (standard error {error:.3f})", flush=True)
    return found


def simulate_final(job: tuple[int, str, int, int]) -> dict[str, dict[str, float]]:
    """One final comparison: with the named pairs and with all, what was claimed falsely, whether the best of the truth
    was shipped, and how many pairs were compared.

    job: (seed, kind of truth, models, examples in dev and in test).
    """
    from rung.evaluation.contenders import contenders, named_pairs

    seed, kind, models, examples = job
    families = ("prompt", "rag", "fine-tune")
    names = [f"{family}@m{model}" for model in range(models) for family in families]
    rates = truth(kind, len(names), examples, seed)
    dev, test = (answers(rates, len(families), examples, seed, on) for on in (0, 1))
    among = contenders(dict(zip(names, dev, strict=True)), names, seed=seed)
    ends = {}
    for label, kept in (("named", among), ("all", ())):
        found = compared(named_pairs(names, kept), dict(zip(names, test, strict=True)))
        shipped = verdict_over(names, dev, test, found, kept)
        rate = dict(zip(names, rates, strict=True))
        wrong = any(c.p_corrected < 0.05 and rate[c.a] == rate[c.b] for c in found)
        claimed = shipped not in ("", names[0]) and rate[shipped] <= rate[names[0]]
        best = shipped != "" and rate[shipped] == max(rates)
        ends[label] = {"false_claim": float(wrong or claimed), "shipped_best": float(best), "pairs": float(len(found))}
    return ends


def truth(kind: str, n: int, examples: int, seed: int) -> list[float]:
    """How often each of n candidates is right, cheapest first. Which dear one is good is drawn."""
    from rung.evaluation.statistics import minimum_detectable_difference

    good = random.Random(f"truth {seed}").randrange(1, n)
    if kind == "all_equal":
        return [0.7] * n
    if kind == "two_best_equal":
        return [0.7 if i in (0, good) else 0.6 for i in range(n)]
    better = 0.6 + minimum_detectable_difference(examples) / (2 if kind == "one_a_little_better" else 1)
    if kind != "one_better_of_a_slope":
        return [better if i == good else 0.6 for i in range(n)]
    return [better if i == good else 0.6 - STEP * i for i in range(n)]


def answers(rates: Sequence[float], of_model: int, examples: int, seed: int, on: int) -> list[list[float]]:
    """Right or wrong of each candidate: the example, the model with it, and chance add up (a Gaussian copula)."""
    import numpy as np
    from scipy.special import ndtri

    draw = np.random.default_rng([seed, on])
    easy, own = draw.standard_normal(examples), draw.standard_normal((len(rates), examples))
    of_models = np.repeat(draw.standard_normal((-(-len(rates) // of_model), examples)), of_model, axis=0)[: len(rates)]
    felt = BY_EXAMPLE**0.5 * easy + BY_MODEL**0.5 * of_models + (1 - BY_EXAMPLE - BY_MODEL) ** 0.5 * own
    right: list[list[float]] = (felt < ndtri(np.asarray(rates))[:, None]).astype(float).tolist()
    return right


def compared(pairs: Sequence[tuple[str, str]], scores: dict[str, list[float]]) -> tuple[Any, ...]:
    """As `compare_all`, whose intervals take most of its time: the same p-values and correction, and no intervals."""
    from rung.evaluation.paired_tests import paired_test
    from rung.evaluation.statistics import holm
    from rung.types import Comparison

    p = [paired_test(scores[a], scores[b]).p for a, b in pairs]
    n = len(next(iter(scores.values())))
    gaps = [(sum(scores[b]) - sum(scores[a])) / n for a, b in pairs]
    return tuple(
        Comparison(a, b, "test", gap, gap, gap, raw, corrected, n)
        for (a, b), gap, raw, corrected in zip(pairs, gaps, p, holm(p), strict=True)
    )


def verdict_over(
    names: Sequence[str],
    dev: Sequence[Sequence[float]],
    test: Sequence[Sequence[float]],
    comparisons: Sequence[Any],
    among: Sequence[str],
) -> str:
    """What the verdict ships; empty where it is undecided."""
    from rung.decision import Evidence, decide
    from rung.evaluation.metrics import load_metric
    from rung.types import Candidate, Score

    def mean(values: Sequence[float]) -> Score:
        return Score(sum(values) / len(values), 0.0, 1.0, len(values))

    candidates = []
    for name, on_dev, on_test in zip(names, dev, test, strict=True):
        family, _, model = name.partition("@")
        costs: tuple[Any, ...] = (100, 5, None, None, None, 0, 0)
        candidates.append(Candidate(name, family, mean(on_dev), mean(on_test), *costs, model=model))  # type: ignore[arg-type]
    decision = decide(
        Evidence(
            metric=load_metric("exact_match", Path()),
            candidates=tuple(candidates),
            comparisons=tuple(comparisons),
            against_floor=(),
            floors=(),
            n_dev=len(dev[0]),
            n_test=len(test[0]),
            minimum_detectable_difference=0.0,
            test_reads=1,
            models=tuple(dict.fromkeys(c.model for c in candidates)),
            contenders=tuple(among),
        )
    )
    return decision.solution or "" if decision.choice != "undecided" else ""


# ---- one model --------------------------------------------------------------------------------


@cache
def data(examples: int) -> Any:
    """Examples, a passage for each, and the search over them; the same for all runs."""
    from rung.retrieval.bm25 import BM25
    from rung.types import Document, Example

    rows = tuple(
        Example(f"e{i}", f"question number{i}", LABELS[i % 8], (LABELS[i % 8],), gold_ids=(f"p{i}",))
        for i in range(40 + 2 * examples)
    )
    passages = tuple(Document(f"p{i}", f"About number{i}: {e.output}.") for i, e in enumerate(rows))
    return rows, passages, BM25(passages)


class Synthetic:
    """A model whose rightness was drawn beforehand. fails_after: the call at which the process dies."""

    def __init__(self, seed: int, gain: float, fails_after: int | None = None) -> None:
        self.name, self.version, self.context_length, self.price = "synthetic", "0", 10_000, None
        self._seed, self._gain, self._left = seed, gain, fails_after

    def generate(self, requests: Any) -> list[Any]:
        from rung.types import Generation

        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise Killed
        return [Generation(self._text(r), 10, 2, 0.0) for r in requests]

    def _text(self, request: Any) -> str:
        turn = request.messages[-1].content
        number = int(turn.rpartition("number")[2].split()[0])
        right = LABELS[number % 8]
        both = random.Random(f"{self._seed} {number}")
        if both.random() < DISCORDANCE:
            with_passages = both.random() < (1 + self._gain / DISCORDANCE) / 2 if self._gain < DISCORDANCE else True
            good = with_passages == ("About number" in turn)
        else:
            good = both.random() < BASE_RATE
        return right if good else "no idea"

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def check(self, constraint: Any) -> None: ...


if __name__ == "__main__":
    main()
