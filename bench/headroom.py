"""Does the head-room test say beforehand where searched words help? Its number beside what a search then reached.

    python bench/headroom.py TASK… [--strategies optimised_prompt,stated_rules] [--train 120] [--dev 80]
        [--prompts zero_shot,constrained,few_shot] [--model SPEC] [--teacher SPEC] [--out DIR] [--json FILE]

TASK: task folders. Of each, the best of the plain prompts is chosen on dev and its wrong answers are diagnosed. The
head-room is the share of the failures whose cause is form or an unstated convention, with its upper end. From it the
ladder expects a gain; a search is worth beginning where the upper end of that reaches what matters. Here every task is
searched, so that both kinds of error are counted. The search works on train; what it reached is scored on dev, paired
with the prompt that it began with. `shown`: the paired test is below 0.05. The test was right where it said yes and the
gain on dev is what matters at least, or it said no and the gain is less. With --out everything is kept there, and the
same command continues.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.data.constraint import constraint_of
from rung.data.near_duplicates import near_duplicate_groups
from rung.data.split import split_examples
from rung.data.task_file import read_task
from rung.diagnosis.diagnose import diagnose
from rung.errors import NoGain
from rung.evaluation.scorer import Scorer
from rung.evaluation.statistics import compare, units_of
from rung.ladder.checking import read
from rung.ladder.gains import Known, Way, expected_gain, head_room, what_matters
from rung.models import open_model
from rung.records import read_json, write_json
from rung.strategies import STRATEGIES, function_of
from rung.teaching.search_log import search_log
from rung.trials.choose import screened
from rung.trials.trial import InOrder, attempt, mean_score
from rung.trials.workshop import Inputs, Limits, Tools, Workshop, sample_of
from rung.types import Decoding, Model, Prediction, Solution

PLAIN = ("zero_shot", "constrained", "few_shot")
_SPARE = 8  # tokens beside the longest right answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--strategies", default="optimised_prompt,stated_rules")
    parser.add_argument("--prompts", default=",".join(PLAIN), help="plain prompts; few_shot takes most of the time")
    parser.add_argument("--train", type=int, default=120)
    parser.add_argument("--dev", type=int, default=80)
    parser.add_argument("--model", help="instead of each task's own")
    parser.add_argument("--teacher", help="who proposes; default: the model itself")
    parser.add_argument("--out", type=Path, help="where answers are kept (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="rung-headroom-"))
    opened: dict[str, Model] = {}
    header = (
        "task",
        "strategy",
        "prompt",
        "head-room",
        "expected",
        "says",
        "tried",
        "gain (95 %)",
        "shown",
        "right",
        "s",
    )
    print(LINE.format(*header))
    rows: list[dict[str, Any]] = []
    for path in options.tasks:
        for row in measure(path, options, out, opened):
            rows.append(row)
            print(line(row), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    print(summary(rows))


def measure(path: Path, options: argparse.Namespace, out: Path, opened: dict[str, Model]) -> list[dict[str, Any]]:
    """One row a strategy."""
    shop = workshop(path, options, out / path.name, opened)
    began = time.monotonic()
    prompts = [
        built(shop, name) for name in options.prompts.split(",") if name != "constrained" or shop.inputs.constraint
    ]
    prompt, answers = max(prompts, key=lambda pair: mean_score(pair[1]))  # the cheapest of equals
    record = diagnosed(shop, prompt, answers)
    before = time.monotonic() - began
    found = []
    for name in options.strategies.split(","):
        began = time.monotonic()
        on = replace(shop, best_prompt=prompt, prompt_answers=tuple(answers), diagnosis=record)
        try:
            searched, after = built(on, name)
        except NoGain:
            searched, after = prompt, answers
        found.append(row_of(shop, name, (prompt, answers), (searched, after), record))
        found[-1] |= {"task": path.name, "seconds": round(before + time.monotonic() - began, 1)}
    return found


def workshop(path: Path, options: argparse.Namespace, folder: Path, opened: dict[str, Model]) -> Workshop:
    data = read(read_task(path / "task.yaml" if path.is_dir() else path))
    groups = near_duplicate_groups([e for part in data.sets.values() for e in part])
    split = split_examples(data.sets, groups, data.task)
    train, dev = (
        sample_of(part, most, data.task.seed) for part, most in ((split.train, options.train), (split.dev, options.dev))
    )
    specs = [spec for spec in (options.model or data.task.models[0].spec, options.teacher) if spec]
    for spec in specs:
        if spec not in opened:
            opened[spec] = open_model(spec)
    models = [opened[spec] for spec in specs]
    room = max(models[0].count_tokens(e.output) for e in train) + _SPARE
    tools = Tools(models[0], Scorer(data.metric), InOrder(), teacher=models[1] if options.teacher else None)
    inputs = Inputs(data.task, train, dev, constraint=constraint_of(data.task, train), groups=split.groups)
    decoding = Decoding(room, seed=data.task.seed, keep_space=data.task.whitespace == "counts")
    return Workshop(inputs, tools, Limits(), folder, decoding)


def built(shop: Workshop, name: str) -> tuple[Solution, list[Prediction]]:
    """The strategy's solution and its answers to dev."""
    own = shop.within(shop.folder / "solutions" / name)
    solution: Solution = function_of(STRATEGIES[name].build)(own)
    path = own.folder / "predictions.dev.jsonl"
    return solution, attempt(own, solution, shop.inputs.dev, path, known=screened(own.folder))


def diagnosed(shop: Workshop, prompt: Solution, answers: Sequence[Prediction]) -> dict[str, Any]:
    path = shop.folder / "diagnosis.json"
    record = read_json(path)
    if record is None:
        record = diagnose(shop, prompt, answers, shop.folder / "diagnosed")
        write_json(path, record)
    return record


def row_of(
    shop: Workshop,
    name: str,
    before: tuple[Solution, Sequence[Prediction]],
    after: tuple[Solution, Sequence[Prediction]],
    record: Mapping[str, Any],
) -> dict[str, Any]:
    cures, metric = STRATEGIES[name].cures, shop.tools.scorer.metric
    base = mean_score(before[1])
    share, high = head_room(record, cures) if record["failed"] else (0.0, 0.0)
    gain = expected_gain(Way(name, "prompt", cures=cures), Known(base, base, record))
    matters = what_matters(metric.right_or_wrong, len(before[1]))
    groups = units_of([e.id for e in shop.inputs.dev], shop.inputs.groups)
    scores = [[p.score or 0.0 for p in answers] for answers in (before[1], after[1])]
    found = compare("before", "after", *scores, "dev", groups=groups, seed=shop.inputs.task.seed)
    log = search_log(shop.folder / "solutions" / name)
    says = gain.high >= matters
    return {
        "strategy": name,
        "prompt": before[0].name,
        "base": base,
        "head_room": max(0.0, share),
        "head_room_high": high,
        "expected": gain.mean,
        "expected_high": gain.high,
        "matters": matters,
        "says": says,
        "proposals": len(log) - 1 if log else None,
        "accepted": sum(r["accepted"] for r in log) if log else None,
        "changed": after[0].instruction != before[0].instruction or after[0].demos != before[0].demos,
        "gain": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "shown": found.p < 0.05 and found.difference > 0,
        "right": says == (found.difference >= matters),
    }


LINE = "{:24} {:17} {:18} {:>12} {:>13} {:>5} {:>6} {:>20} {:>6} {:>6} {:>5}"


def line(row: Mapping[str, Any]) -> str:
    tried = "–" if row["proposals"] is None else f"{row['accepted']}/{row['proposals']}"
    return LINE.format(
        row["task"][:24],
        row["strategy"],
        f"{row['prompt']} {row['base']:.2f}",
        f"{row['head_room']:.0%} (≤{row['head_room_high']:.0%})",
        f"{row['expected']:+.2f} (≤{row['expected_high']:.2f})",
        "yes" if row["says"] else "no",
        tried,
        f"{row['gain']:+.3f} ({row['low']:+.2f} {row['high']:+.2f})",
        "yes" if row["shown"] else "no",
        "yes" if row["right"] else "no",
        f"{row['seconds']:.0f}",
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often the head-room test was right, what it would have saved, and what it would have lost."""
    if not rows:
        return "nothing was measured"
    no, yes = [r for r in rows if not r["says"]], [r for r in rows if r["says"]]
    lost = sum(r["shown"] for r in no)
    likely = [r for r in rows if r["expected"] >= r["matters"]]
    agree = sum((r in likely) == (r["gain"] >= r["matters"]) for r in rows)
    return (
        f"the head-room test was right in {sum(r['right'] for r in rows)} of {len(rows)} searches. It says no to "
        f"{len(no)}, of which {lost} gained (shown), and yes to {len(yes)}, of which {sum(r['shown'] for r in yes)} "
        f"gained (shown). {sum(r['gain'] < 0 for r in rows)} of {len(rows)} ended below the prompt they began with. "
        f"A test that asks for the expected gain, not for its upper end, would have been right in {agree}, and would "
        f"have begun {len(likely)}, of which {sum(r['shown'] for r in likely)} gained (shown)."
    )


if __name__ == "__main__":
    main()
