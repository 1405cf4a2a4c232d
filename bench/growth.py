"""Processor time and peak memory of what rung does before any model is asked, for growing numbers of examples.

    python bench/growth.py [--sizes 1000 10000 100000 1000000]

The examples are synthetic: 5 to 25 words of 20,000, and one of 77 labels; one in 50 is a near-duplicate of an earlier
one, and one in 100 repeats one. Each size runs in a process of its own. A peak is that of the process up to the end of
the stage, so it never falls.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = ("load", "near-duplicates", "check", "split", "record", "plan", "demos")


def write_task(folder: Path, n: int) -> Path:
    """A classification task of n examples; returns its task.yaml."""
    draw = random.Random(0)
    vocabulary = [f"word{i}" for i in range(20_000)]
    recent: list[str] = []
    with (folder / "examples.jsonl").open("w", encoding="utf-8") as file:
        for i in range(n):
            kind = draw.random()
            if recent and kind < 0.03:
                text = draw.choice(recent) + (" thanks" if kind < 0.02 else "")
            else:
                text = " ".join(draw.choices(vocabulary, k=draw.randint(5, 25)))
                recent = [*recent[-999:], text]
            file.write(json.dumps({"input": text, "output": f"label {i % 77}"}) + "\n")
    task = folder / "task.yaml"
    task.write_text("name: growth\ninstruction: Classify.\nexamples: examples.jsonl\nmetric: label_accuracy\n")
    return task


def measure(path: Path) -> dict[str, dict[str, float]]:
    """Stage -> seconds of processor time and peak gigabytes so far; run in a fresh process."""
    from rung.data.checks import check_examples
    from rung.data.constraint import constraint_of
    from rung.data.examples import read_sets
    from rung.data.near_duplicates import near_duplicate_groups, near_duplicates
    from rung.data.split import split_examples, split_from_record, split_record
    from rung.data.task_file import read_task
    from rung.ladder.plan import make_plan
    from rung.ladder.plan_records import plan_record
    from rung.solutions.demos import covering
    from rung.testing import FakeTrainable
    from rung.trials.workshop import Inputs

    figures: dict[str, dict[str, float]] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        figures[name] = {"seconds": time.process_time() - started, "peak_gb": peak / 1e9}
        return result

    task = read_task(path)
    sets = stage("load", lambda: read_sets(task))
    examples = sets[None]
    pairs = stage("near-duplicates", lambda: near_duplicates(examples))
    stage("check", lambda: check_examples(examples, task, pairs))
    split = stage("split", lambda: split_examples(sets, near_duplicate_groups(examples, pairs), task))
    stage("record", lambda: split_from_record(examples, json.loads(json.dumps(split_record(split)))))
    model = FakeTrainable(lambda _: "label 0")
    inputs = Inputs(task, split.train, split.dev, constraint_of(task, split.train))
    stage("plan", lambda: plan_record({model.name: make_plan(inputs, split, model)}))
    stage("demos", lambda: covering(split.train, task.seed))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    print(f"{'examples':>10}  " + "  ".join(f"{name:>18}" for name in STAGES))
    for n in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            task = write_task(Path(folder), n)
            done = subprocess.run(
                [sys.executable, __file__, "--measure", str(task)], check=True, stdout=subprocess.PIPE, text=True
            )
        figures = json.loads(done.stdout)
        cells = (f"{figures[s]['seconds']:>8.1f} s {figures[s]['peak_gb']:>5.2f} GB" for s in STAGES)
        print(f"{n:>10,}  " + "  ".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
