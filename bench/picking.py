"""Does a picked subset teach more than a random one of its size, and how near does it come to all rows?

    python bench/picking.py [TASK…] [--size 200] [--seeds 3] [--noise 0.05] [--json FILE]
    python bench/picking.py [TASK…] --model SPEC [--only lora] [--minutes 20] [--out DIR]

TASK: task folders; default: the packaged demos. For each task and seed a quarter of the rows is tested and the others
are taught, groups of near-duplicates kept whole: a picked part (`rung.data.picking.pick`), a random part, all.
Without --model the learner is rung's own baseline (a linear classifier on TF-IDF, or the nearest neighbour's answer),
which takes seconds; answers that no baseline gets exactly right are scored by token F1. With --model rung itself trains
on each part (`train_size` for the picked one), in run folders under --out, so that the same command continues.
--noise exchanges so many answers of the taught rows. Intervals are of the difference to the random part, in points:
paired by tested row, rows as units over all seeds.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rung.data.checks.material import Material
from rung.data.checks.wrong_labels import wrong_labels
from rung.data.examples import read_sets
from rung.data.near_duplicates import near_duplicate_groups
from rung.data.picking import doubtful, pick
from rung.data.task_file import read_task
from rung.evaluation.baselines import baselines
from rung.evaluation.metrics import load_metric
from rung.evaluation.scorer import Scorer
from rung.evaluation.statistics import compare
from rung.types import Example, Task

PARTS = ("picked", "random", "all")
DEMOS = Path(__file__).parent.parent / "src" / "rung" / "demos"
TESTED, MOST_TESTED = 0.25, 1_000
GRADED = "token_f1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", help="what rung's `model:` takes; trains instead of the baseline")
    parser.add_argument("--only", default="lora", help="strategies, with --model")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each run, with --model")
    parser.add_argument("--out", type=Path, default=Path("runs/picking"))
    options = parser.parse_args()
    paths = options.tasks or [DEMOS / name for name in ("tickets", "reviews")]
    print(f"{'task':26} {'learner':18} " + " ".join(f"{part:>8}" for part in PARTS) + "   picked - random")
    rows = []
    for path in paths:
        row = measure(path, options)
        rows.append(row)
        show(row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    task = read_task(path / "task.yaml")
    examples = [e for part in read_sets(task).values() for e in part]
    groups = near_duplicate_groups(examples)
    scores: dict[str, list[float]] = {part: [] for part in PARTS}
    rows: list[str] = []
    learner = options.only if options.model else ""
    for seed in range(options.seeds):
        taught, tested = divided(examples, groups, seed)
        taught = exchanged(taught, options.noise, seed)
        rows += [e.id for e in tested]
        for part in PARTS:
            if options.model:
                folder = options.out / f"{path.name}-{options.size}-{options.noise:g}-{seed}-{part}"
                scores[part] += trained(task, taught, tested, part, folder, options)
            else:
                learner, found = learnt(task, part_of(part, task, taught, options.size, seed), tested)
                scores[part] += found
    against = {p: compare("random", p, scores["random"], scores[p], "test", groups=rows) for p in ("picked", "all")}
    return {
        "task": path.name,
        "learner": learner,
        "size": options.size,
        "rows": len(examples),
        "seeds": options.seeds,
        "noise": options.noise,
        **{part: sum(values) / len(values) for part, values in scores.items()},
        **{f"{p}_minus_random": [c.difference, c.low, c.high] for p, c in against.items()},
    }


def divided(examples: Sequence[Example], groups: Mapping[str, str], seed: int) -> tuple[list[Example], list[Example]]:
    """(taught, tested): random, groups kept whole."""
    sizes = Counter(groups.values())
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    room = min(MOST_TESTED, int(TESTED * len(examples)))
    chosen: set[str] = set()
    for name in names:
        if sizes[name] <= room:
            chosen.add(name)
            room -= sizes[name]
    return [e for e in examples if groups[e.id] not in chosen], [e for e in examples if groups[e.id] in chosen]


def exchanged(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The examples, a share of them with the answer of another."""
    rng = random.Random(seed)
    wrong = set(rng.sample(range(len(examples)), round(share * len(examples))))
    others = [rng.choice([e.output for e in examples if e.output != own.output]) for own in examples] if wrong else []
    return [replace(e, output=others[n], references=(others[n],)) if n in wrong else e for n, e in enumerate(examples)]


def part_of(part: str, task: Task, taught: Sequence[Example], size: int, seed: int) -> Sequence[Example]:
    if part == "all":
        return taught
    if part == "random":
        return random.Random(1000 + seed).sample(list(taught), min(size, len(taught)))
    findings = wrong_labels(Material(task, {"train": tuple(taught)}, tuple(taught)))
    return pick(taught, size, seed=seed, doubted=doubtful(findings))


def learnt(task: Task, taught: Sequence[Example], tested: Sequence[Example]) -> tuple[str, list[float]]:
    """(baseline, its scores on the tested rows)."""
    metric = task.metric if task.metric != "exact_match" else GRADED
    found = baselines(taught, tested, Scorer(load_metric(metric, task.path.parent)), labels=task.labels or ())
    name = "tfidf_linear" if "tfidf_linear" in found else "nearest_neighbour"
    return name, [float(p.score or 0) for p in found[name]]


# ---- training -----------------------------------------------------------------------------------


def trained(
    task: Task,
    taught: Sequence[Example],
    tested: Sequence[Example],
    part: str,
    folder: Path,
    options: argparse.Namespace,
) -> list[float]:
    """Scores of a run of rung on the tested rows, in their order; a run that is done is only read.

    A fifth of what is taught is dev, the same rows for every part.
    """
    import rung

    seed = int(folder.name.rsplit("-", 2)[1])
    order = random.Random(seed).sample(list(taught), len(taught))
    dev, train = order[: len(order) // 5], order[len(order) // 5 :]
    if part == "random":
        train = list(part_of(part, task, train, options.size, seed))
    strategy = options.only.split(",")[0]
    written = write_task(task, {"train": train, "dev": dev, "test": tested}, folder, options)
    if part == "picked":
        written |= {"train_size": options.size}
    (folder / "task.yaml").write_text(yaml.safe_dump({**written, "seed": seed}, allow_unicode=True), "utf-8")
    run = rung.run(
        folder / "task.yaml",
        out=folder / "run",
        only=tuple(options.only.split(",")),
        minutes=options.minutes,
        finish=True,
    )
    scores = {p.id: float(p.score or 0) for p in run.predictions(strategy)}
    return [scores[e.id] for e in tested]


def write_task(
    task: Task, sets: Mapping[str, Sequence[Example]], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Writes the sets as JSONL and returns what task.yaml is to hold: the task's own keys, but for data and models."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in sets.items():
        lines = [json.dumps(row_of(e), ensure_ascii=False) for e in examples]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    own = yaml.safe_load(task.path.read_text("utf-8"))
    kept = {key: own[key] for key in ("name", "instruction", "metric", "labels", "schema", "pattern") if key in own}
    corpus = {"corpus": str(task.corpus)} if task.corpus else {}
    return {**kept, **corpus, "examples": {name: f"{name}.jsonl" for name in sets}, "model": options.model}


def row_of(example: Example) -> dict[str, Any]:
    row = {"id": example.id, "input": example.input, "output": example.output, "references": list(example.references)}
    more = {"context": example.context, "group": example.group, "gold_ids": list(example.gold_ids)}
    return row | {key: value for key, value in more.items() if value}


def show(row: dict[str, Any]) -> None:
    difference, low, high = (100 * x for x in row["picked_minus_random"])
    parts = " ".join(f"{row[part]:8.3f}" for part in PARTS)
    print(
        f"{row['task'][:26]:26} {row['learner'][:18]:18} {parts}   {difference:+.1f} [{low:+.1f}, {high:+.1f}]",
        flush=True,
    )


if __name__ == "__main__":
    main()
