"""A scripted teacher behind an endpoint, and rung killed again and again: what is paid twice, planned, and filtered.

    python bench/teacher.py [--only search,synthesis,distillation,judge] [--kills 10] [--latency 0.3] [--faults 0.05]
                            [--rows 150] [--seed 0] [--json FILE]

The teacher and the judge are those of `rung.testing`: they answer from a table, with errors that are planted and
counted. The task and its pupil are those of `taught_task.py`, whose training computes nothing, so that the time goes
into asking. Each work is done by a process of its own, first undisturbed, then, in another folder and with an empty
cache, killed (SIGKILL) at random moments and started again until it is through.

- search: stated_rules and optimised_prompt in a run. synthesis: `rung synth`. distillation: distilled_lora in a run.
  judge: a run whose metric is a judge.
- kept: answers in rung's own journals at the end. charged: by the endpoint, the calls by which its speed is measured
  among them, and those whose reply broke its form and that were asked for once more, killed or not.
- Charged again: the very same request. Paid twice are those whose answer lay in the call cache when an earlier process
  died; its files are copied at each kill, and the requests of their keys noted by the process itself. In flight at a
  kill were the others that an earlier process had asked. Anew: by the same process, whose reply broke its form.
- No reply: answers that the faults of the network kept out at the end, undisturbed and killed. One command leaves such
  an answer out, the next one asks for it again, so that results may differ by these, and by nothing else.
- planned: calls that the plan holds for what was done. For search and judge it is the most: a search ends where
  nothing is left to gain, and a judge is asked once for equal answers.
- recall: share of the planted faults that are in no row. precision: share of the dropped inputs that had a fault.
  leaked: rows that are near-duplicates of a row of dev or of the test, by a comparison of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import taught_task  # scripts beside this one
from paid import kept_records
from rung.types import Request

PROMPTS = ("zero_shot", "few_shot")
STRATEGIES_OF = {
    "search": ("stated_rules", "optimised_prompt"),
    "distillation": ("distilled_lora",),
    "judge": (),
}
WORKS = ("search", "synthesis", "distillation", "judge")
FAULTS = ("429-retry-after", "500", "503", "drop", "slow", "stall", "html")
WORKING = "working"
TIMEOUT_S = 10.0  # of a call; an attempt that stalls ends after half of it
KEYS = "keys.txt"
JUDGED = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default=",".join(WORKS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.3, help="seconds that the endpoint takes to answer")
    parser.add_argument("--faults", type=float, default=0.05, help="share of calls that get a fault")
    parser.add_argument("--rows", type=int, default=150, help="rows to write, and inputs without an answer")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills, and of what is planted")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        do(options.work, options.folder, options.rows)
        return
    rows = []
    for work in options.only.split(","):
        rows.append(measure(work, options))
        show(rows[-1])
        if options.json:
            options.json.write_text(json.dumps({"teacher": rows}, indent=1) + "\n", "utf-8")


def show(row: dict[str, Any]) -> None:
    print(
        f"{row['work']}: killed {row['kills']} times, the same result {row['same']}, "
        f"no reply to {row['no_reply'][0]} and {row['no_reply'][1]} requests"
    )
    print(f"  calls planned {row['planned']}, kept {row['kept']}, charged {row['charged']} undisturbed")
    print(
        f"  charged {row['charged_killed']} killed, of these again: anew {row['anew']}, in flight {row['in_flight']}, "
        f"paid twice {row['paid_twice']}"
    )
    if "recall" in row:
        print(f"  recall {row['recall']:.2f}, precision {row['precision']:.2f}, leaked {row['leaked']}")
        for plant, (planted, through) in row["plants"].items():
            print(f"    {plant:10} {planted:4} planted {through:4} in rows")
        for why, count in row["in_vain"].items():
            print(f"    {count} without a planted fault were left out: {why}")
    print(flush=True)


# ---- one work, done by the process that is killed ----------------------------------------------


def do(work: str, folder: Path, rows: int) -> None:
    """The work in a folder that holds the task, from where the last process stopped. Prints a line when it begins."""
    import rung
    import rung.ladder
    import rung.models.endpoint.endpoint
    import rung.teaching.synthesis

    taught_task.register()
    note_keys(folder)
    print(WORKING, flush=True)
    if work == "synthesis":
        if not (folder / "synthetic.jsonl").exists():
            rung.synth(folder / "task", rows=rows, out=folder / "synthetic.jsonl")
        return
    rung.run(folder / "task", out=folder / "run", only=(*PROMPTS, *STRATEGIES_OF[work]))


def note_keys(folder: Path) -> None:
    """Has each key of the call cache written down with the request that it stands for."""
    from rung.models.endpoint.protocol import Keys

    key_of: Callable[[Keys, Request], str] = Keys.of
    notes = (folder / KEYS).open("a", encoding="utf-8")

    def noted(keys: Keys, request: Request) -> str:
        key, decoding = key_of(keys, request), request.decoding
        turns = [{"role": m.role, "content": m.content} for m in request.messages]
        sampled = {"seed": decoding.seed} if decoding.temperature else {}
        notes.write(f"{key} {asked({'messages': turns, 'temperature': decoding.temperature, **sampled})}\n")
        notes.flush()
        return key

    Keys.of = noted  # type: ignore[method-assign]


def asked(body: Mapping[str, Any]) -> str:
    """A request, by what decides its answer."""
    said = json.dumps([body["messages"], body.get("temperature"), body.get("seed")])
    return hashlib.sha256(said.encode()).hexdigest()[:20]


# ---- measured ----------------------------------------------------------------------------------


@dataclass
class Done:
    """What several processes did, one after another. seconds: that the last one worked.

    killed: for each but the last, when it was, in seconds since 1970, and the requests whose answers were kept then.
    """

    killed: list[tuple[float, set[str]]] = field(default_factory=list)
    seconds: float = 0.0


def measure(work: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        plain, killed = Path(place, "plain"), Path(place, "killed")
        with endpoint_for(work, plain, options) as (endpoint, _):
            undisturbed = worked(work, plain, options, 0, 0.0)
            charged = endpoint.charged
        with endpoint_for(work, killed, options) as (endpoint, teacher):
            done = worked(work, killed, options, options.kills, undisturbed.seconds)
            found = {"charged_killed": endpoint.charged, **again(endpoint, done)}
        row = {
            "work": work,
            "kills": len(done.killed),
            "same": outcome(work, plain) == outcome(work, killed),
            "planned": planned(work, killed),
            "kept": kept_answers(killed),
            "charged": charged,
            "no_reply": [no_reply(plain), no_reply(killed)],
            "seconds": round(undisturbed.seconds, 1),
            **found,
        }
        return row | (filters(work, killed, teacher) if work in ("synthesis", "distillation") else {})


@contextmanager
def endpoint_for(work: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    """The endpoint of a work with its teacher, and the task in folder/task that names it."""
    from rung.testing import FakeEndpoint, ScriptedJudge, Shares

    task = taught_task.write(folder / "task", unlabelled=options.rows).parent
    sealed = [json.loads(line)["input"] for name in ("dev", "test") for line in lines_of(task / f"{name}.jsonl")]
    if work == "distillation":
        plant_repeats(task, sealed, options.seed)
    shares = Shares(wrong=0.03, wavering=0.1, off_label=0.03, broken=0.03, refused=0.03, near=0.15, bad_replies=0.1)
    teacher: Any = taught_task.teacher_of(task, near=sealed, shares=shares, seed=options.seed)
    if work == "judge":
        teacher = ScriptedJudge(quality, noise=0.05, unreadable=0.02, seed=options.seed)
    faults = dict.fromkeys(FAULTS, options.faults / len(FAULTS)) if options.faults else None
    switches = {"latency_s": options.latency, "slow_s": options.latency, "retry_after_s": 0.05}
    switches["response_format"] = "ignored"  # else it would repair what is planted
    with FakeEndpoint(teacher, faults=faults, seed=options.seed, **switches) as endpoint:
        named = {"endpoint": endpoint.url, "name": endpoint.model, "timeout": TIMEOUT_S}
        keys: dict[str, Any] = {"teacher": named}
        if work == "judge":
            keys = {"metric": "judge", "labels": None, "judged": "judged.jsonl"}
            keys["judge"] = {**named, "rubric": "The answer names the right colour."}
            write_judged(task)
        elif work == "distillation":
            keys["unlabelled"] = "unlabelled.jsonl"
        taught_task.rewrite(task, **keys)
        yield endpoint, teacher


def plant_repeats(task: Path, sealed: Sequence[str], seed: int) -> None:
    """Unlabelled inputs that nearly repeat rows of dev and of the test."""
    from rung.testing.endpoint.teaching import nearly

    chance = random.Random(seed)
    with (task / "unlabelled.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"input": nearly(text, chance)}) + "\n" for text in sealed[::4])


def write_judged(task: Path) -> None:
    """Answers that somebody scored, by what is right."""
    rows = taught_task.rows_of(JUDGED, 9)
    answers = [row["output"] if i % 2 else taught_task.COLOURS[i % 3] for i, row in enumerate(rows)]
    scored = [
        {"input": row["input"], "answer": answer, "score": quality(row["input"], answer)}
        for row, answer in zip(rows, answers, strict=True)
    ]
    taught_task.write_lines(task / "judged.jsonl", scored)


def quality(asked: str, answer: str) -> float:
    return float(taught_task.colour_of(asked) in answer)


def worked(work: str, folder: Path, options: argparse.Namespace, kills: int, seconds: float) -> Done:
    """Kills the work so many times, then lets it end. seconds: that it takes undisturbed."""
    command = [sys.executable, __file__, "--work", work, "--folder", str(folder), "--rows", str(options.rows)]
    environment = {**os.environ, "RUNG_CACHE": str(folder / "cache")}
    draw, done = random.Random(options.seed).random, Done()
    for left in range(kills, -1, -1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            if process.stdout.readline().strip() != WORKING:
                sys.exit(f"{work}: it did not start")
            begun = time.time()
            try:
                process.wait(timeout=2 * draw() * seconds / (kills + 1) if left else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done.killed.append((time.time(), kept_requests(folder)))
                continue
            if process.returncode:
                sys.exit(f"{work}: it failed")
            done.seconds = time.time() - begun
            return done
    raise AssertionError("the last process is not killed")


def kept_requests(folder: Path) -> set[str]:
    """The requests whose answers lie in the call cache."""
    notes = dict(line.split(" ") for line in lines_of(folder / KEYS))
    return {notes[key] for key in kept_records(folder / "cache") if key in notes}


def again(endpoint: Any, done: Done) -> dict[str, int]:
    """Charged calls for what had been charged before: anew, in_flight, paid_twice."""
    found = {"anew": 0, "in_flight": 0, "paid_twice": 0}
    asker: dict[str, int] = {}
    for call in endpoint.calls:
        if not call.charged or call.fault not in (None, "slow"):
            continue
        request, process = asked(call.body), sum(when < call.arrived for when, _ in done.killed)
        if any(request in kept for _, kept in done.killed[:process]):
            found["paid_twice"] += 1
        elif request in asker:
            found["anew" if asker[request] == process else "in_flight"] += 1
        asker[request] = process
    return found


# ---- what a folder holds -----------------------------------------------------------------------


def outcome(work: str, folder: Path) -> Any:
    """What came of the work, times aside."""
    if work == "synthesis":
        rows = [json.loads(line) for line in lines_of(folder / "synthetic.jsonl")]
        return [(row["id"], row["input"], row["output"], row["origin"]["votes"]) for row in rows]
    decision = json.loads((folder / "run" / "decision.json").read_text("utf-8"))
    tested = {c["name"]: (c["dev"]["mean"], c["test"] and c["test"]["mean"]) for c in decision["candidates"]}
    return decision["choice"], decision["solution"], tested


def planned(work: str, folder: Path) -> int:
    """Calls of the teacher, or of the judge, that the plan holds for what was done."""
    from rung.strategies import STRATEGIES, Texts, function_of

    if work == "synthesis":
        return int(json.loads((folder / "synthetic.work" / "plan.json").read_text("utf-8"))["calls"])
    plan = json.loads((folder / "run" / "plan.json").read_text("utf-8"))
    (basis,) = plan["models"].values()
    texts = Texts(**basis["texts"])
    built = [path.parent.name for path in (folder / "run" / "solutions").glob("*/built.json")]
    steps = [step for step in (*plan["steps"], *plan["experiments"]) if step["applies"]]
    if work == "judge":
        own = sum(function_of(STRATEGIES[name].cost)(texts).calls for name in built if name in STRATEGIES)
        beside = sum(step["calls"] for step in steps if step["kind"] == "judge")
        return int(own * plan["judge"]["calls"] + beside + plan["sizes"]["test"])
    taught = [STRATEGIES[name].taught for name in STRATEGIES_OF[work] if name in built]
    own = sum(function_of(where)(texts).calls for where in taught if where is not None)
    return int(own + sum(step["calls"] for step in steps if step["kind"] == "teacher"))


def kept_answers(folder: Path) -> int:
    """Answers of the teacher in journals, and to dev."""
    dev = folder / "run" / "teacher" / "predictions.dev.jsonl"
    return len(in_journals(folder)) + (len(lines_of(dev)) if dev.exists() else 0)


def no_reply(folder: Path) -> int:
    """How many of the answers in journals are none, because of a fault that may pass."""
    from rung.errors import may_pass

    return sum(may_pass(answer["error"]) for answer in in_journals(folder).values())


def in_journals(folder: Path) -> dict[str, dict[str, Any]]:
    """Journal and key -> the last answer that was kept."""
    found = {}
    for path in folder.rglob("*.jsonl"):
        for line in lines_of(path) if "task" not in path.parts else []:
            if '"key"' in line:
                answer = json.loads(line)
                found[f"{path} {answer['key']}"] = answer
    return found


def filters(work: str, folder: Path, teacher: Any) -> dict[str, Any]:
    """What became of what was planted, and how many rows nearly repeat dev or the test."""
    task = folder / "task"
    sealed = [json.loads(line)["input"] for name in ("dev", "test") for line in lines_of(task / f"{name}.jsonl")]
    why: dict[str, str] = {}
    if work == "distillation":
        path = folder / "run" / "solutions" / "distilled_lora" / "taught.jsonl"
        of = [json.loads(line)["input"] for line in lines_of(task / "unlabelled.jsonl")]
        teacher.written.update({text: "near" for text in near(of, sealed)})
    else:
        path = folder / "synthetic.jsonl"
        left_out = map(json.loads, lines_of(folder / "synthetic.work" / "rejected.jsonl"))
        why = {row["input"]: row["why"] for row in left_out}
        of = [*why, *(text for text, plant in teacher.written.items() if plant == "near")]
    kept = {row["input"]: row["output"] for row in map(json.loads, lines_of(path))}
    found = teacher.filtered(kept, {*of, *kept})
    return {
        "rows": len(kept),
        "recall": round(found.recall, 3),
        "precision": round(found.precision, 3),
        "plants": {plant: (n, found.through[plant]) for plant, n in found.planted.most_common()},
        "in_vain": dict(Counter(why.get(text, "no majority") for text in found.in_vain).most_common()),
        "leaked": len(near(list(kept), sealed)),
    }


def near(texts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of the texts that are near-duplicates of one of the others; compared here, whatever the fence said."""
    from rung.data.near_duplicates import near_duplicate_groups
    from rung.types import Example

    examples = [Example(f"t{i}", text, "", ()) for i, text in enumerate(texts)]
    examples += [Example(f"o{i}", text, "", ()) for i, text in enumerate(others)]
    groups = near_duplicate_groups(examples)
    theirs = {groups[f"o{i}"] for i in range(len(others))}
    return [text for i, text in enumerate(texts) if groups[f"t{i}"] in theirs]


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


if __name__ == "__main__":
    main()
