"""Runs rung over task folders, each in a process of its own, and prints what came out: verdict, scores, time, memory.

    python bench/tasks.py PATH [PATH …] [--out DIR] [--json FILE] [--repeat] [--kill N]

--repeat runs each task twice and says whether the two decision.json are equal, times aside.
--kill N kills each run with SIGKILL at N random moments, continues it with the same command, and says
whether it ends in the decision of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TIMES = ("latency_s_p50", "latency_s_p95", "build_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="where run folders go (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--kill", type=int, default=0, metavar="N")
    parser.add_argument("--only")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="rung-bench-"))
    rows = []
    for path in options.paths:
        task = path / "task.yaml" if path.is_dir() else path
        name = task.parent.name
        row = measure(task, out / name, options.only)
        if options.repeat:
            again = measure(task, out / f"{name}-again", options.only)
            row["same_twice"] = same(out / name, out / f"{name}-again")
            row["wall_s_again"] = again["wall_s"]
        if options.kill:
            row["kills"] = killed(task, out / f"{name}-killed", options.kill, row["wall_s"], options.only)
            row["same_after_kills"] = same(out / name, out / f"{name}-killed")
        rows.append(row)
        show(row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def command(task: Path, out: Path, only: str | None) -> list[str]:
    return [sys.executable, "-m", "rung", "run", str(task), "--out", str(out), *(["--only", only] if only else [])]


def measure(task: Path, out: Path, only: str | None) -> dict[str, Any]:
    """One undisturbed run: what it decided, wall seconds, peak memory of the process."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    process = subprocess.Popen(command(task, out, only), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{task}: rung exited with {os.waitstatus_to_exitcode(status)}")
    decision = json.loads((out / "decision.json").read_text("utf-8"))
    return {
        "task": task.parent.name,
        "choice": decision["choice"],
        "solution": decision["solution"],
        "headline": decision["headline"],
        "candidates": {c["name"]: {"dev": c["dev"], "test": c["test"]} for c in decision["candidates"]},
        "wall_s": round(wall, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(peak_kb(usage) / 1024),
    }


def killed(task: Path, out: Path, kills: int, wall_s: float, only: str | None) -> int:
    """Kills and continues until it is through. Returns how often it was killed."""
    shutil.rmtree(out, ignore_errors=True)
    chance = random.Random(0)
    done = 0
    while True:
        process = subprocess.Popen(command(task, out, only), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            patience = None if done >= kills else 10 + chance.random() * 2 * wall_s / (kills + 1)
            process.wait(timeout=patience)
            return done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1


def same(a: Path, b: Path) -> bool:
    return timeless(a) == timeless(b)


def timeless(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "decision.json").read_text("utf-8"))
    for candidate in record["candidates"]:
        for key in TIMES:
            del candidate[key]
    return record


def peak_kb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def show(row: dict[str, Any]) -> None:
    print(f"{row['task']}: {row['choice']} ({row['solution']})")
    for name, scores in row["candidates"].items():
        test = scores["test"]
        told = f"test {test['mean']:.3f} ({test['low']:.3f}-{test['high']:.3f})" if test else "not tested"
        print(f"  {name:<12} dev {scores['dev']['mean']:.3f}  {told}")
    print(f"  {row['wall_s']:.0f} s wall, {row['cpu_s']:.0f} s CPU, {row['peak_mb']} MB peak", end="")
    for key in ("same_twice", "kills", "same_after_kills"):
        if key in row:
            print(f", {key} {row[key]}", end="")
    print(flush=True)


if __name__ == "__main__":
    main()
