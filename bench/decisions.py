"""How good rung's decisions are over a folder of tasks: regret, compute, and whether it names the right cause.

    python bench/decisions.py PATH… [--exhaustive] [--json FILE] [--out DIR] [--no-rival] [--simulations N]

PATH: a task folder, or a folder of task folders. Every task is run as a user would; with --exhaustive a second time
with every strategy built in full, against which regret and compute are counted. At the end come the simulated runs of
simulation.py. Results are kept in --out, so that the same command continues. A task folder may hold truth.json,
{"kind": "format" | "knowledge" | "reasoning" | …}, read by this script alone. The rival, trainjudge, is asked the same
question in an environment of its own.

regret: the best test score of any strategy minus that of the chosen one (the floor's, where none was chosen), in
points. compute: tokens put through the network, those trained on counted twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

MEETS = {
    "format": {"format", "convention", "inconsistency"},
    "knowledge": {"knowledge", "retrieval"},
    "reasoning": {"reasoning"},
}
"""Kind of gap -> causes that name it; other kinds are not scored."""

RIVAL_MEETS = {"format": {"format"}, "knowledge": {"knowledge"}, "reasoning": {"reasoning"}}
RIVAL = "trainjudge"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--exhaustive", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/decisions"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--simulations", type=int, default=2000, help="of each kind; 0: none")
    options = parser.parse_args()
    tasks = [t for path in options.paths for t in task_folders(path)]
    if not tasks:
        sys.exit("no task.yaml in " + ", ".join(map(str, options.paths)))
    rival = None if options.no_rival else rival_command(options.out / "rival")
    rows = []
    print(
        f"{'task':26} {'choice':14} {'chosen':>7} {'best':>6} {'regret':>7} {'compute':>8} {'minutes':>8}  "
        f"{'leading cause':14} {'truth':10} rival"
    )
    for task in tasks:
        row = measure(task, options.out / task.name, exhaustive=options.exhaustive)
        row["rival"] = ask_rival(rival, task, options.out / task.name) if rival else None
        rows.append(row)
        show(row)
        if options.json:
            options.json.write_text(json.dumps({**summed_up(rows), "tasks": rows}, indent=1) + "\n", "utf-8")
    summary = {**summed_up(rows), **simulated(options.out / "simulation.json", options.simulations)}
    if options.json:
        options.json.write_text(json.dumps({**summary, "tasks": rows}, indent=1) + "\n", "utf-8")
    print("\n".join(f"{name}: {value}" for name, value in flat(summary)))


def task_folders(path: Path) -> list[Path]:
    if (path / "task.yaml").is_file():
        return [path.resolve()]
    return sorted(p.parent.resolve() for p in path.glob("*/task.yaml"))


def measure(task: Path, out: Path, *, exhaustive: bool) -> dict[str, Any]:
    ladder = run(task, out / "ladder", [])
    full = run(task, out / "exhaustive", ["--exhaustive"]) if exhaustive else None
    decision = ladder["decision"]
    scores = tested(decision)
    floor = decision["floor"]
    chosen = scores.get(decision["solution"], floor) if decision["solution"] else floor
    best = max([*scores.values(), *(tested(full["decision"]).values() if full else ())])
    causes = decision["diagnosis"]
    truth = json.loads((task / "truth.json").read_text("utf-8"))["kind"] if (task / "truth.json").is_file() else None
    lead = causes[0]["cause"] if causes else None
    return {
        "task": task.name,
        "choice": decision["choice"],
        "solution": decision["solution"],
        "headline": decision["headline"],
        "chosen": chosen,
        "best": best,
        "regret": round(100 * max(0.0, best - chosen), 2),
        "compute_share": round(ladder["tokens"] / full["tokens"], 3) if full else None,
        "minutes": round(ladder["seconds"] / 60, 1),
        "exhaustive_minutes": round(full["seconds"] / 60, 1) if full else None,
        "cause": lead,
        "causes": causes,
        "truth": truth,
        "agrees": None if truth not in MEETS else bool(lead and MEETS[truth] & set(lead.split("+"))),
        "peak_mb": ladder["peak_mb"],
    }


def run(task: Path, folder: Path, more: list[str]) -> dict[str, Any]:
    """A run of rung in a process of its own, or what an earlier call left of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    kept = folder.parent / f"{folder.name}.json"
    if not kept.is_file():
        command = [sys.executable, "-m", "rung", "run", str(task / "task.yaml"), "--out", str(folder), *more]
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            sys.exit(f"{task.name}: rung exited with {code}; see {folder.parent / folder.name}.log")
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
        times = [time.mktime(time.strptime(e["time"][:19], "%Y-%m-%dT%H:%M:%S")) for e in events]
        # Of a run that was interrupted, the time between its commands is not counted, but what was under way is.
        starts = [i for i, e in enumerate(events) if e["event"] == "started"]
        pauses = sum(times[i] - times[i - 1] for i in starts if i)
        record = {
            "seconds": times[-1] - times[0] - pauses + under_way(events),
            "tokens": sum(e.get("tokens", 0) for e in events),
            "peak_mb": round(usage.ru_maxrss / 1024),
        }
        kept.write_text(json.dumps(record) + "\n", "utf-8")
    decision = json.loads((folder / "decision.json").read_text("utf-8"))
    return {**json.loads(kept.read_text("utf-8")), "decision": decision}


def tested(decision: dict[str, Any]) -> dict[str, float]:
    """Test means of the candidates that use a language model."""
    return {c["name"]: c["test"]["mean"] for c in decision["candidates"] if c["test"] and c["family"] != "baseline"}


def under_way(events: list[dict[str, Any]]) -> float:
    """Seconds of stages that were begun when a command was killed: in no event but the next command's first."""
    lost = before = done = 0.0
    for event in events:
        if event["event"] == "started":
            begun = event["spent_s"] - done
            lost, before = lost + max(0.0, begun - before), begun
        elif "seconds" in event:
            done, before = done + event["seconds"], 0.0
    return lost


def simulated(kept: Path, runs: int) -> dict[str, Any]:
    """False claims and power of simulated runs; both None where none are asked for."""
    found: dict[str, Any] = {"false_claim_rate": None, "power": None}
    if runs:
        if not kept.is_file() or json.loads(kept.read_text("utf-8"))["runs"] < runs:
            script = Path(__file__).with_name("simulation.py")
            subprocess.run([sys.executable, str(script), "--runs", str(runs), "--json", str(kept)], check=True)
        record = json.loads(kept.read_text("utf-8"))
        found = {key: record[key] for key in found}
    return found


# ---- the rival ----------------------------------------------------------------------------------


def rival_command(folder: Path) -> Path | None:
    command = folder / "bin" / RIVAL
    if not command.is_file():
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", RIVAL]
        if subprocess.run(pip, capture_output=True).returncode:
            print(f"{RIVAL} could not be installed; its column stays empty", file=sys.stderr)
            return None
    return command


def ask_rival(command: Path, task: Path, out: Path) -> dict[str, Any] | None:
    """What the rival calls the gap, from the same instruction as its goal and the same examples."""
    from rung.data.examples import read_sets
    from rung.data.task_file import read_task

    loaded = read_task(task / "task.yaml")
    rows = [e for part in read_sets(loaded).values() for e in part]
    data = out / "rival.jsonl"
    turns = [[("user", f"{e.context or ''}\n{e.input}".strip()), ("assistant", e.output)] for e in rows]
    lines = [json.dumps({"messages": [{"role": r, "content": c} for r, c in turn]}) for turn in turns]
    data.write_text("\n".join(lines) + "\n", "utf-8")
    asked = [str(command), "diagnose", "--dataset", str(data), "--model", loaded.model, "--goal", loaded.instruction]
    done = subprocess.run([*asked, "--json"], capture_output=True, text=True)
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    kind = json.loads((task / "truth.json").read_text("utf-8"))["kind"] if (task / "truth.json").is_file() else None
    agrees = None if kind not in RIVAL_MEETS else found["classification"] in RIVAL_MEETS[kind]
    return {"cause": found["classification"], "agrees": agrees}


# ---- the table ----------------------------------------------------------------------------------


def show(row: dict[str, Any]) -> None:
    share = f"{row['compute_share']:.0%}" if row["compute_share"] is not None else "–"
    agrees = {True: " +", False: " -", None: ""}
    rival = f"{row['rival']['cause']}{agrees[row['rival']['agrees']]}" if row["rival"] else "–"
    print(
        f"{row['task'][:26]:26} {row['choice']:14} {row['chosen']:7.3f} {row['best']:6.3f} {row['regret']:7.1f} "
        f"{share:>8} {row['minutes']:8.1f}  {(row['cause'] or '–') + agrees[row['agrees']]:14} "
        f"{row['truth'] or '–':10} {rival}",
        flush=True,
    )


def summed_up(rows: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [r["compute_share"] for r in rows if r["compute_share"] is not None]
    judged = [r["agrees"] for r in rows if r["agrees"] is not None]
    theirs = [r["rival"]["agrees"] for r in rows if r["rival"] and r["rival"]["agrees"] is not None]
    return {
        "regret": {
            "mean": round(statistics.mean(r["regret"] for r in rows), 2),
            "max": max(r["regret"] for r in rows),
        },
        "compute_share": {"mean": round(statistics.mean(shares), 3) if shares else None},
        "cause_agreement": {
            "rung": round(statistics.mean(judged), 3) if judged else None,
            RIVAL: round(statistics.mean(theirs), 3) if theirs else None,
            "tasks": len(judged),
        },
        "minutes": {"median": statistics.median(r["minutes"] for r in rows)},
    }


def flat(record: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in record.items():
        rows += flat(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]
    return rows


if __name__ == "__main__":
    main()
