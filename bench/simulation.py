"""How often rung claims a difference that does not exist, and detects one that does: simulated runs on the real path.

    python bench/simulation.py [--runs N] [--processes N] [--examples N] [--json FILE]

Every run climbs, takes interim looks, is killed and continued, opens the sealed test and decides with the product's
own code. Only the model is synthetic: whether it answers an example rightly was drawn beforehand, once without and once
with passages. Where both are right equally often, a false claim is the verdict that retrieval is worth having, or any
test comparison of the two that calls one of them better. Power: where passages help by the smallest difference that the
run prints as detectable, how often the verdict is retrieval.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

DISCORDANCE = 0.2  # share of examples that exactly one of the two answers rightly, as the printed difference assumes
BASE_RATE = 0.5
KILLED = 0.5  # share of runs that are killed once and continued
LABELS = tuple(f"answer {i}" for i in range(8))


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=2000, help="of each kind")
    parser.add_argument("--examples", type=int, default=100, help="in dev and in test")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
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
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


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
    from rung.ladder.state import RunState
    from rung.models.metering import metered
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
        inputs=Inputs(task, rows[:40], rows[40 : 40 + examples], passages=passages, open_index=lambda spec: retriever),
        test=SealedTest(rows[40 + examples :]),
        tools=Tools(counted, Scorer(load_metric("exact_match", folder)), InOrder()),
        model=counted,
        plan=plan,
        ledger=Ledger(task.budget, None, counted),
        listener=Quiet(),
    )
    finalists = named(state) or name_finalists(state, climb(state))
    decision = verdict(state.files) or test_and_decide(state, finalists)
    solutions = set(finalists["finalists"])
    return decision.choice, any(
        c.set == "test" and {c.a, c.b} <= solutions and c.p_corrected < ALPHA for c in decision.comparisons
    )


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
