"""How often rung claims a difference that is not there, and finds one that is: simulated runs through the real path.

    python bench/simulation.py [--runs N] [--processes N] [--examples N] [--json FILE]

Every run climbs, looks early, is killed and continued, opens the sealed test and decides with the product's own code;
only the model is synthetic: whether it answers an example rightly was drawn beforehand, once without and once with
passages. Where both are right equally often, a false claim is the verdict that retrieval is worth having, or any test
comparison that calls one of them better. Power: where passages help by the smallest difference that the run prints as
detectable, how often the verdict is retrieval.
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
from types import SimpleNamespace
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
    from rung.decision import ALPHA
    from rung.evaluation.metrics import load_metric
    from rung.ladder.climbing import climb
    from rung.ladder.closing import decide_and_hand_over
    from rung.ladder.state import Run
    from rung.ladder.plan import Plan, Step
    from rung.records import read_json
    from rung.testing import Silent
    from rung.types import Decoding, SealedTest, Split, Task

    rows, passages, retriever = data(examples)
    split = Split(rows[:40], rows[40 : 40 + examples], SealedTest(rows[40 + examples :]), {e.id: e.id for e in rows})
    nothing = Step("", "prompt", False, "")
    plan = Plan(
        steps=(Step("zero_shot", "prompt", True, ""), Step("rag", "rag", True, "", tokens=1)),
        experiments=(nothing, nothing),
        decoding=Decoding(8, seed=seed),
        compute_tokens=10**9,
        test_seconds=0.0,
        sizes={},
        detectable={},
    )
    task = Task("simulated", folder / "task.yaml", "Answer.", (), "exact_match", "synthetic", seed=seed)
    metric = load_metric("exact_match", folder)
    run = Run(folder, task, split, model, metric, passages, retriever, plan, Silent())
    built, skipped = climb(run)
    decide_and_hand_over(run, built, skipped)
    decision = read_json(folder / "decision.json") or {}
    return str(decision["choice"]), any(
        c["set"] == "test" and c["p_corrected"] < ALPHA for c in decision["comparisons"]
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
        self.name, self.version, self._seed, self._gain = "synthetic", "0", seed, gain
        self._left = fails_after
        self.engine = SimpleNamespace(computed_tokens=0)
        self.answered = 0

    def generate(self, requests: Any) -> list[Any]:
        from rung.types import Generation

        self.answered += len(requests)
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

    def encode(self, messages: Any) -> list[int]:
        return [len(word) for m in messages for word in m.content.split()]


if __name__ == "__main__":
    main()
