"""How much of what is wrong with data do rung's checks find, and how much of what they find is wrong?

    python bench/checks.py [--data TASK …] [--only FAULT …] [--share 0.05] [--seeds 1] [--json [FILE]] [--write]
                           [--show] [--peers VENV]

Faults (`planting.py`) are planted into the rows of task folders, one kind at a time, into a copy; default: the packaged
demos and made rows (`made_rows.py`). `rung.api.check` reads the copy. Recall: the share of planted rows that a finding
of a check meant for them names. Precision: the share of findings of these checks that name a planted row; where they
name pairs, a pair of the same words (case, accents, punctuation and order aside) counts as right, too, since clean data
hold such pairs. All other findings in the clean rows count as wrong, although public data are not clean.
wrong_labels, wrong_answers: recall counts exchanged answers among the first tenth of the rows, in the order listed.
--json: prints {"checks": {FAULT: {"recall", "precision", "n"}}}. --write: into rung's own record, which its page shows;
a share that differs by more than MOST_APART between two data sets says nothing of other data, and is left out.
--show: the planted rows that were missed, and the findings that count as wrong. --peers: a virtual environment that
holds trainjudge, modelbrew-cleaner and wana, which read the same rows; every flag of theirs of that kind counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import sys
import tempfile
import time
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from made_rows import MADE, made
from peers import PEERS, asked
from planting import FAULTS, Fault, Planted, Row, count
from rung import api
from rung.data.examples import read_sets
from rung.data.task_file import read_task
from rung.errors import RungError
from rung.types import Finding

ROOT = Path(__file__).parent.parent / "src" / "rung"
DEMOS = ("tickets", "reviews", "handbook")
MEASURED = ROOT / "data" / "checks" / "measured.json"
VARIANTS = 12
TENTH = 0.1
LEAST_MEASURED = 5  # planted rows, or findings, from which a share is written
MOST_APART = 0.3  # of a share on two data sets, up to which one figure speaks for all data


@dataclass
class Tally:
    """Counts over all data. variants and checks: name -> (right, all), and the same by (data set, name)."""

    found: int = 0
    planted: int = 0
    right: int = 0
    named: int = 0
    seconds: float = 0.0
    variants: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    checks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    own: dict[str, dict[tuple[str, str], list[int]]] = field(
        default_factory=lambda: {"variants": defaultdict(lambda: [0, 0]), "checks": defaultdict(lambda: [0, 0])}
    )
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        return {
            "recall": round(self.found / self.planted, 3) if self.planted else None,
            "precision": round(self.right / self.named, 3) if self.named else None,
            "n": self.planted,
            "findings": self.named,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", nargs="+", type=Path, help="task folders, or " + " and ".join(MADE))
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in FAULTS])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", nargs="?", type=Path, const=Path("-"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--peers", type=Path)
    options = parser.parse_args()
    say = sys.stderr if options.json == Path("-") else sys.stdout
    faults = [fault for fault in FAULTS if not options.only or fault.name in options.only]
    tallies = {fault.name: Tally() for fault in faults}
    peers: dict[str, dict[str, Tally]] = {fault.name: defaultdict(Tally) for fault in faults}
    data = options.data or [*(ROOT / "demos" / name for name in DEMOS), *map(Path, MADE)]
    for task, rows in map(base, data):
        for fault in faults:
            if fault.name == ("wrong_answers" if "labels" in task else "wrong_labels"):
                continue
            for seed in range(options.seeds):
                measure(task, rows, fault, seed, options, tallies[fault.name], peers[fault.name])
    show(faults, tallies, peers, options, say)
    record = {"checks": {name: tally.record for name, tally in tallies.items()}}
    if options.peers:
        record["peers"] = {f: {peer: tally.record for peer, tally in own.items()} for f, own in peers.items()}
    if options.json is not None:
        text = json.dumps(record, indent=1) + "\n"
        print(text, end="") if options.json == Path("-") else options.json.write_text(text, "utf-8")
    if options.write:
        write(tallies)


def base(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """(keys of task.yaml, rows) of a task folder, ids made plain, or of made rows."""
    if str(path) in MADE:
        return made(str(path))
    task = read_task(path / "task.yaml")
    rows: list[Row] = []
    for example in (e for part in read_sets(task).values() for e in part):
        row: Row = {"id": f"row-{len(rows)}", "input": example.input, "output": example.output}
        rows.append(row | ({"context": example.context} if example.context else {}))
    keys: dict[str, Any] = {"name": path.name, "instruction": task.instruction, "model": "smollm2-135m-instruct"}
    return keys | ({"labels": list(task.labels)} if task.labels else {}), rows


def measure(
    task: dict[str, Any],
    rows: Sequence[Row],
    fault: Fault,
    seed: int,
    options: argparse.Namespace,
    tally: Tally,
    peers: dict[str, Tally],
) -> None:
    name = task["name"]
    rng = random.Random(f"{name} {fault.name} {seed}")
    own = rows
    if fault.form == "json":
        own = [{**r, "output": json.dumps({"answer": r["output"], "words": len(r["input"].split())})} for r in rows]
    labels = {"labels": task["labels"], "metric": "label_accuracy"} if fault.form == "own" and "labels" in task else {}
    metric = {"metric": "json_match"} if fault.form == "json" else {"metric": "exact_match"}
    planted = fault.plant(own, rng, count(own, options.share, 1 if fault.name.startswith("wrong_") else VARIANTS))
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": planted.rows, "test": planted.test} if planted.test else {"": planted.rows}
        kept = {key: task[key] for key in ("name", "instruction", "model")} | metric | labels
        write_task(Path(folder), kept, files)
        start = time.perf_counter()
        found = findings(Path(folder), planted)
        tally.seconds += time.perf_counter() - start
        score(tally, fault, planted, found, name)
        if options.peers:
            for peer, flags in asked(options.peers, Path(folder), planted, fault.name).items():
                score(peers[peer], fault, planted, flags, name)


def write_task(folder: Path, keys: Mapping[str, Any], files: Mapping[str, Sequence[Row]]) -> None:
    names = {name: f"{name or 'examples'}.jsonl" for name in files}
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / names[name]).write_text(lines, "utf-8")
    examples = names.get("", names)
    (folder / "task.yaml").write_text(yaml.safe_dump({**keys, "examples": examples}, allow_unicode=True), "utf-8")


def findings(folder: Path, planted: Planted) -> list[tuple[str, tuple[str, ...]]]:
    """(check, ids of the rows that it names) of each finding about rows, in the order of listing."""
    try:
        found: Iterable[Finding] = api.check(folder / "task.yaml").findings
    except RungError as error:
        found = [Finding("unusable_row", "error", line, line) for line in str(error).splitlines()]
    named = []
    for finding in found:
        ids = finding.ids
        if not ids and (line := re.search(r"line (\d+)", finding.row)):
            with contextlib.suppress(IndexError):
                ids = (str(planted.rows[int(line[1]) - 1]["id"]),)
        if ids:
            named.append((finding.check, ids))
    return named


# ---- scores -------------------------------------------------------------------------------------


def score(
    tally: Tally, fault: Fault, planted: Planted, found: Sequence[tuple[str, tuple[str, ...]]], name: str
) -> None:
    text = {row["id"]: row["input"] for row in [*planted.rows, *(planted.test or ())]}
    meant = [(check, ids) for check, ids in found if check in fault.checks or check == "*"]
    counted = meant
    if fault.name.startswith("wrong_"):
        counted = meant[: round(TENTH * len(planted.rows))]
    hit = {i for _, ids in counted for i in ids}
    single = planted.test is not None or any(check == "*" for check, _ in meant)  # a flag names one row of the two
    sources = set(planted.like.values()) if single else set()
    hit |= {copy for copy, source in planted.like.items() if single and source in hit}
    tally.planted += len(planted.variants)
    tally.found += len(hit & planted.variants.keys())
    for i, variant in planted.variants.items():
        tally.variants[variant][0] += i in hit
        tally.variants[variant][1] += 1
        tally.own["variants"][name, variant][0] += i in hit
        tally.own["variants"][name, variant][1] += 1
        if i not in hit:
            tally.missed.append(f"{name}, {variant}: {text[i]!r}")
    for check, ids in meant:
        right = any(i in planted.variants for i in ids)
        if fault.pairs and not right:
            right = len({same_words(text[i]) for i in ids if i in text}) < len(ids) or bool(sources & set(ids))
        tally.named += 1
        tally.right += right
        tally.checks[check][0] += right
        tally.checks[check][1] += 1
        tally.own["checks"][name, check][0] += right
        tally.own["checks"][name, check][1] += 1
        if not right:
            tally.wrong.append(f"{name}, {check}: " + " | ".join(repr(text.get(i, i)) for i in ids[:3]))


def same_words(text: str) -> tuple[str, ...]:
    """The words of a text, whatever their case, accents, punctuation and order."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Cf"))
    return tuple(sorted(re.findall(r"\w+", plain)))


def show(
    faults: Sequence[Fault],
    tallies: Mapping[str, Tally],
    peers: Mapping[str, Mapping[str, Tally]],
    options: argparse.Namespace,
    say: Any,
) -> None:
    names = PEERS if options.peers else ()
    head = "".join(f"{name:>20}" for name in names)
    print(f"{'fault':14} {'planted':>7} {'recall':>7} {'precision':>9} {'seconds':>8}{head}", file=say)
    for fault in faults:
        own = tallies[fault.name]
        cells = "".join(f"{cell(peers[fault.name].get(name)):>20}" for name in names)
        recall, precision = (share(own.record[key]) for key in ("recall", "precision"))
        print(f"{fault.name:14} {own.planted:7} {recall:>7} {precision:>9} {own.seconds:8.1f}{cells}", file=say)
    for fault in faults:
        own = tallies[fault.name]
        variants = ", ".join(f"{name} {got}/{n}" for name, (got, n) in own.variants.items())
        print(f"\n{fault.name}: {variants}", file=say)
        print(
            "  right of named: " + ", ".join(f"{c} {got}/{n}" for c, (got, n) in sorted(own.checks.items())), file=say
        )
        if options.show:
            print("\n".join([*(f"  missed {x}" for x in own.missed), *(f"  wrong {x}" for x in own.wrong)]), file=say)


def cell(tally: Tally | None) -> str:
    return "–" if tally is None else f"{share(tally.record['recall'])} / {share(tally.record['precision'])}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def write(tallies: Mapping[str, Tally]) -> None:
    """Shares by rung's check names. Recall is that of the variants that a check is meant for, whichever found them."""
    record: dict[str, dict[str, float]] = {}
    for name, tally in tallies.items():
        for check, (right, named) in tally.checks.items():
            if name == "duplicates" and check == "conflicting_answers":
                continue
            meant = MEANT.get(check) or tuple(tally.variants)
            got, n = (sum(tally.variants[v][k] for v in meant if v in tally.variants) for k in (0, 1))
            steady = alike(tally.own["variants"], meant)
            own = {"recall": round(got / n, 2)} if n >= LEAST_MEASURED and steady else {}
            if named >= LEAST_MEASURED and (steady or right == named) and alike(tally.own["checks"], (check,)):
                own["precision"] = round(right / named, 2)
            if own:
                record[check] = own
    MEASURED.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n", "utf-8")
    print(f"wrote {MEASURED}")


def alike(counts: Mapping[tuple[str, str], Sequence[int]], names: Sequence[str]) -> bool:
    """Whether the shares of right ones do not differ much between data sets. counts: (data set, name) -> right, all."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (data, name), (right, n) in counts.items():
        if name in names:
            sums[data][0] += right
            sums[data][1] += n
    shares = [right / n for right, n in sums.values() if n >= LEAST_MEASURED]
    return not shares or max(shares) - min(shares) <= MOST_APART


def _meant() -> dict[str, tuple[str, ...]]:
    """Check -> the variants that it is meant to find, where it is not all of a fault's."""
    from planting import BEHAVIOURS, FORMS, HIDDEN, VALUES

    found: dict[str, list[str]] = defaultdict(list)
    for variant, (check, _) in [*VALUES.items(), *HIDDEN.items()]:
        found[check].append(variant)
    by_name = {"as an AI": "as_an_ai", "missing": "looks_missing", "cut off": "truncated_answer", "prefix": "prefixed",
               "fence": "fenced", "quotes": "quoted", "capitals": "casing", "full stop": "closing_punctuation",
               "space": "whitespace"}  # fmt: skip
    for variant in [*BEHAVIOURS, *FORMS]:
        found[by_name.get(variant, variant)].append(variant)
    return {check: tuple(variants) for check, variants in found.items()}


MEANT = _meant()


if __name__ == "__main__":
    main()
