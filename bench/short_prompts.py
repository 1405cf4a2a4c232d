"""How short a prompt may be after fine-tuning: tokens, scores and break-even of the shortest that holds up.

    python bench/short_prompts.py PATH [PATH …] [--out DIR] [--json FILE] [--usd-per-hour 0.4] [--minutes N]
                                  [--model NAME] [--examples N]

Each task is run whole (`rung run`) with few-shot prompts and a LoRA adapter, in a process of its own, in a copy of its
folder that states the price. Printed: every length of the prompt with its tokens, its score on dev and the difference
from the prompt as it is, with 95 % intervals; the tested candidates with tokens, latency, price and their score on the
sealed test; and from how many requests on each fine-tuned one has paid for its training against the best prompt, with
the interval, at that price. --examples takes the first N rows, to try it out. A run folder that is there goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ONLY = "zero_shot,few_shot,lora"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="where tasks and run folders go (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--usd-per-hour", type=float, default=0.4)
    parser.add_argument("--minutes", type=float, help="budget of each run")
    parser.add_argument("--model")
    parser.add_argument("--examples", type=int)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="rung-bench-"))
    found = {}
    for path in options.paths:
        name = path.name if path.is_dir() else path.parent.name
        task = priced_copy(path if path.is_dir() else path.parent, out / "tasks" / name, options)
        found[name] = measured(task, out / "runs" / name)
        show(name, found[name])
        if options.json:
            options.json.write_text(json.dumps({"short_prompts": found}, indent=1) + "\n", "utf-8")


def priced_copy(folder: Path, place: Path, options: argparse.Namespace) -> Path:
    """The task in another folder, with a price by the hour, and perhaps another model and fewer rows."""
    if not place.exists():
        shutil.copytree(folder, place)
    for path in (place, *place.iterdir()):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    path = place / "task.yaml"
    keys = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
    keys["price"] = {"usd_per_hour": options.usd_per_hour}
    keys |= {"model": options.model} if options.model else {}
    keys |= {"budget": {"minutes": options.minutes}} if options.minutes else {}
    path.write_text(yaml.safe_dump(keys, allow_unicode=True, sort_keys=False), "utf-8")
    if options.examples:
        rows = (folder / keys["examples"]).read_text("utf-8").splitlines(keepends=True)
        (place / keys["examples"]).write_text("".join(rows[: options.examples]), "utf-8")
    return path


def measured(task: Path, folder: Path) -> dict[str, Any]:
    """What one run found."""
    command = [sys.executable, "-m", "rung", "run", str(task), "--out", str(folder), "--only", ONLY]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{task}: rung exited with {done.returncode}\n{done.stderr[-2000:]}")
    decision = json.loads((folder / "decision.json").read_text("utf-8"))
    shortened = {
        path.parent.name: json.loads(path.read_text("utf-8")) for path in folder.glob("solutions/*/shortening.json")
    }
    skills = {s["candidate"]: s for s in json.loads((folder / "finalists.json").read_text("utf-8"))["skills"]}
    return {
        "choice": decision["choice"],
        "solution": decision["solution"],
        "headline": decision["headline"],
        "said": [
            reason for reason in decision["reasons"] if "shorter prompt" in reason or "tokens a request" in reason
        ],
        "skipped": {s["name"]: s["why"] for s in decision["skipped"] if s["name"].endswith("_short")},
        "shortened": shortened,
        "candidates": [c for c in decision["candidates"] if c["test"] and c["family"] != "baseline"],
        "comparisons": decision["comparisons"],
        "break_even": decision["break_even"],
        "skills": skills,
    }


def show(name: str, row: dict[str, Any]) -> None:
    print(f"\n{name}: {row['choice']} ({row['solution']})")
    for short, record in row["shortened"].items():
        print(f"  {record['from']} made shorter{'' if record['taken'] is not None else ': nothing held up'}")
        for place, length in enumerate(record["lengths"]):
            versus = length["versus"]
            against = "" if versus is None else f"  {points(versus['difference'])} ({ends(versus)})"
            said = length["length"] + (", trained on" if length["trained"] else "")
            taken = f"  <- {short}" if place == record["taken"] else ""
            where = f"{length['set']} {percent(length['score'])}"
            print(f"    {said:<42} {length['tokens_in']:7.1f} tokens  {where}{against}{taken}")
    for short, why in row["skipped"].items():
        print(f"  {short} was not tried: {why}")
    for c in row["candidates"]:
        usd = "" if c["cost_per_1k_usd"] is None else f"  {c['cost_per_1k_usd']:.4f} USD per 1,000"
        latency = f"  p50 {c['latency_s_p50']:.3f} s" if c["latency_s_p50"] is not None else ""
        lost = row["skills"].get(c["name"])
        kept = f"  skills {points(lost['difference'])}" if lost else ""
        print(f"    {c['name']:<18} {c['tokens_in']:7.1f} tokens  test {percent(c['test'])}{latency}{usd}{kept}")
    for b in row["break_even"]:
        high = f"{b['high']:,.0f}" if b["high"] is not None else "no number"
        print(
            f"    {b['fine_tuned']} against {b['prompt']}: pays after {b['requests']:,.0f} requests "
            f"({b['low']:,.0f} to {high})"
        )
    sys.stdout.flush()


def percent(score: dict[str, float]) -> str:
    return f"{100 * score['mean']:.1f} ({100 * score['low']:.1f}-{100 * score['high']:.1f})"


def points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def ends(versus: dict[str, float]) -> str:
    return f"{100 * versus['low']:+.1f} to {100 * versus['high']:+.1f}"


if __name__ == "__main__":
    main()
