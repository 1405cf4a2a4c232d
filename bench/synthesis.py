"""Do synthetic rows help? A student trained without them, with them, and with as many real rows in their place.

    python bench/synthesis.py TASK… [--out DIR] [--real 60] [--more 120] [--tokens 15000]
                              [--teacher-tokens 40000] [--json FILE]

TASK: folders with a task.yaml, such as those of public tasks. The rows of a task are divided once, groups of
near-duplicates kept whole: held-out rows, dev, `real` rows that the student has, and `more` that it has not.

- The teacher is the embedded model with all of its weights trained on the real rows and those of `more`: on answering
  them, and on writing them from the very prompts of `rung synth`. Its folder is what `teacher:` names.
- `rung synth` asks it for as many new rows as there are in `more`, with the votes and the filters that everybody gets.
  copied: kept rows that nearly repeat one of `more`, which the teacher may know by heart.
- The student is the embedded model with the strategy `lora`, each time within the same number of training tokens.
  without: the real rows. with: these and the synthetic rows that were kept. answered: these and as many inputs of
  `more` with the teacher's answers; the difference to "with" is what the writing of inputs costs. real: these and as
  many rows of `more` themselves. Where no synthetic row was kept, the last two take all of `more`.

Every arm answers the same held-out rows, which nothing was chosen on. p: of the paired test against "without",
corrected by Holm over the arms of a task. Each stage leaves its record under --out and is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from picking import divided, row_of  # scripts beside this one
from teacher import near

ARMS = ("without", "with", "answered", "real")
HELD_OUT, DEV = 120, 60
WRITING = 3  # one row that teaches to write, for so many that teach to answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/synthesis"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--real", type=int, default=60, help="rows that the student has")
    parser.add_argument("--more", type=int, default=120, help="rows to be written, and real ones in their place")
    parser.add_argument("--tokens", type=int, default=15_000, help="of one training of the student")
    parser.add_argument("--teacher-tokens", type=int, default=40_000, help="of the training of the teacher")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        staged(options.tasks[0], options)
        return
    rows = []
    for task in options.tasks:
        rows.append(measure(task, options))
        show(rows[-1])
        if options.json:
            options.json.write_text(json.dumps({"synthesis": rows}, indent=1) + "\n", "utf-8")


def measure(task: Path, options: argparse.Namespace) -> dict[str, Any]:
    from rung.evaluation.statistics import compare_all, score

    found = {stage: stage_of(task, stage, options) for stage in ("teacher", "synth", "without")}
    for arm in ARMS[1:]:
        same = arm == "with" and not found["synth"]["kept"]  # no row came, so that nothing differs
        found[arm] = found["without"] | {"seconds": 0.0} if same else stage_of(task, arm, options)
    scores = {arm: found[arm]["scores"] for arm in ARMS}
    pairs = [("without", arm) for arm in ARMS[1:]]
    against = {c.b: c for c in compare_all(pairs, scores, "test", seed=options.seed)}
    return {
        "task": task.name,
        "teacher": asdict(score(found["teacher"]["scores"], seed=options.seed)),
        "seconds": {stage: round(record["seconds"], 1) for stage, record in found.items()},
        "synth": {key: found["synth"][key] for key in ("wanted", "kept", "copied", "calls", "why")},
        "arms": {
            arm: {
                "rows": found[arm]["rows"],
                **asdict(score(scores[arm], seed=options.seed)),
                "p": against[arm].p_corrected if arm in against else None,
            }
            for arm in ARMS
        },
    }


def show(row: dict[str, Any]) -> None:
    teacher, synth, seconds = row["teacher"], row["synth"], row["seconds"]
    print(f"{row['task']}: teacher {told(teacher)}, {seconds['teacher']:.0f} s to train")
    print(
        f"  rung synth: {synth['kept']} of {synth['wanted']} rows kept, {synth['copied']} of them copied, "
        f"{synth['calls']} calls, {seconds['synth']:.0f} s{synth['why']}"
    )
    for arm, found in row["arms"].items():
        p = "" if found["p"] is None else f"   p {found['p']:.3f} against without"
        print(f"  {arm:9} {found['rows']:4} rows   {told(found)}   {seconds[arm]:4.0f} s{p}")
    print(flush=True)


def told(score: dict[str, Any]) -> str:
    return f"{score['mean']:.3f} ({score['low']:.3f}-{score['high']:.3f}, n {score['n']})"


# ---- stages, each in a process of its own ------------------------------------------------------


def stage_of(task: Path, stage: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a stage, which is done now where there is none."""
    path = folder_of(task, options) / f"{stage}.json"
    if not path.exists():
        names = ("out", "model", "real", "more", "tokens", "teacher_tokens", "seed")
        given = [part for n in names for part in (f"--{n.replace('_', '-')}", str(getattr(options, n)))]
        subprocess.run([sys.executable, __file__, str(task), *given, "--stage", stage], check=True)
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def folder_of(task: Path, options: argparse.Namespace) -> Path:
    sizes = (options.real, options.more, options.tokens, options.teacher_tokens, options.seed)
    name = "-".join([task.name, *map(str, sizes)])
    return Path(options.out) / name


def staged(task: Path, options: argparse.Namespace) -> None:
    """Does one stage and writes its record, seconds included; a stage that was killed goes on from what it left."""
    started = time.monotonic()
    stages: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
        "teacher": train_teacher,
        "synth": synthesise,
    }
    stage, folder = options.stage, folder_of(task, options)
    folder.mkdir(parents=True, exist_ok=True)
    found = stages[stage](task, options) if stage in stages else train_student(task, options, stage)
    found["seconds"] = time.monotonic() - started
    scratch = folder / f"{stage}.json.part"
    scratch.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    scratch.replace(folder / f"{stage}.json")


def sets_of(task: Path, options: argparse.Namespace) -> dict[str, list[Any]]:
    """Set -> examples: test, dev, real, more. The same at each call."""
    from rung.data.examples import read_sets
    from rung.data.near_duplicates import near_duplicate_groups
    from rung.data.task_file import read_task

    examples = [e for part in read_sets(read_task(task / "task.yaml")).values() for e in part]
    taught, tested = divided(examples, near_duplicate_groups(examples), options.seed)
    order = random.Random(options.seed).sample(taught, len(taught))
    ends = (DEV, DEV + options.real, DEV + options.real + options.more)
    return {
        "test": tested[:HELD_OUT],
        "dev": order[: ends[0]],
        "real": order[ends[0] : ends[1]],
        "more": order[ends[1] : ends[2]],
    }


# ---- the teacher --------------------------------------------------------------------------------


def train_teacher(task: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All weights on rows to answer and rows to write. Leaves a folder that transformers loads."""
    from rung.strategies.course import lengths_of
    from rung.strategies.learning_rate import OF_WEIGHTS
    from rung.strategies.training_rows import training_rows
    from rung.trials.trial import attempt
    from rung.types import TrainingOptions

    sets, folder = sets_of(task, options), folder_of(task, options)
    known = [*sets["real"], *sets["more"]]
    shop = workshop_of(task, options, known, folder / "teacher")
    plain = shop.solution("teacher")
    rows = [*training_rows(shop, plain, known), *writing_rows(shop, known, options)]
    steps = max(8, int(options.teacher_tokens / lengths_of(shop, rows).step))
    learnt = TrainingOptions(OF_WEIGHTS.middle, steps=steps, seed=options.seed, full=True)
    place = shop.tools.model.train(rows, learnt, folder / "teacher" / "training")
    answers = attempt(
        shop, replace(plain, adapter=str(place)), sets["test"], folder / "teacher" / "predictions.test.jsonl"
    )
    return {"folder": str(place), "steps": steps, "rows": len(rows), "scores": [p.score or 0.0 for p in answers]}


def writing_rows(shop: Any, known: Sequence[Any], options: argparse.Namespace) -> list[Any]:
    """Rows that teach to write inputs: a prompt of `rung synth` that shows some, and others in the form of a reply."""
    from rung.teaching.synthesis.counts import WRITTEN
    from rung.teaching.synthesis.prompts import STYLES, new_inputs
    from rung.types import TrainingRow

    task, count, chance = shop.inputs.task, WRITTEN["new"], random.Random(options.seed)
    kinds: dict[str | None, list[Any]] = {}
    for example in known:
        kinds.setdefault(example.output if task.labels else None, []).append(example)
    rows = []
    for number in range(len(known) // WRITING):
        answer, some = chance.choice(sorted(kinds.items(), key=str))
        drawn = chance.sample(some, min(2 * count, len(some)))
        shown, wanted = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        if not shown or not wanted:
            continue
        style = STYLES[number % len(STYLES)]
        messages = new_inputs(task.instruction, None, [e.input for e in shown], answer, count, style)
        reply = json.dumps({"inputs": [e.input for e in wanted]}, ensure_ascii=False)
        rows.append(TrainingRow(f"writing {number}", messages, reply))
    return rows


# ---- synthetic rows -----------------------------------------------------------------------------


def synthesise(task: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`rung synth` on the student's task, with the folder of the teacher."""
    import rung
    from rung.errors import DataError, NoGain

    folder = folder_of(task, options)
    out, calls, why = folder / "synthetic.jsonl", 0, ""
    try:
        calls = rung.synth(task_file(task, options), rows=options.more, kinds=("new",), out=out, force=True).calls
    except (NoGain, DataError) as nothing:
        out.write_text("", "utf-8")
        why = f" ({nothing})"
    kept = synthetic_rows(folder)
    copied = near([e.input for e in kept], [e.input for e in sets_of(task, options)["more"]])
    return {"wanted": options.more, "kept": len(kept), "copied": len(copied), "calls": calls, "why": why}


# ---- the student --------------------------------------------------------------------------------


def train_student(task: Path, options: argparse.Namespace, arm: str) -> dict[str, Any]:
    """The strategy `lora` on the rows of an arm, and its scores on the held-out rows."""
    from rung.strategies.fine_tuning import lora
    from rung.trials.trial import attempt

    folder = folder_of(task, options) / arm
    rows = rows_of(task, options, arm)
    shop = workshop_of(task, options, rows, folder)
    solution = lora(shop)
    answers = attempt(shop, solution, sets_of(task, options)["test"], folder / "predictions.test.jsonl")
    return {"rows": len(rows), "scores": [p.score or 0.0 for p in answers]}


def rows_of(task: Path, options: argparse.Namespace, arm: str) -> list[Any]:
    """What an arm trains on."""
    sets, folder = sets_of(task, options), folder_of(task, options)
    if arm == "without":
        return sets["real"]
    kept = synthetic_rows(folder)
    if arm == "with":
        return [*sets["real"], *kept]
    others = sets["more"][: len(kept) or None]
    return [*sets["real"], *(others if arm == "real" else by_teacher(task, options, others))]


def synthetic_rows(folder: Path) -> list[Any]:
    from rung.types import Example

    lines = (folder / "synthetic.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Example(str(r["id"]), r["input"], r["output"], (r["output"],)) for r in rows]


def by_teacher(task: Path, options: argparse.Namespace, examples: Sequence[Any]) -> list[Any]:
    """The examples with the teacher's greedy answers in the place of their own."""
    from rung.models import open_model
    from rung.trials.trial import attempt

    folder = folder_of(task, options)
    place = json.loads((folder / "teacher.json").read_text("utf-8"))["folder"]
    shop = workshop_of(task, options, examples, folder / "answered")
    answers = attempt(
        shop,
        replace(shop.solution("teacher"), constraint=shop.inputs.constraint),
        examples,
        folder / "answered" / "answers.jsonl",
        model=open_model(place),
    )
    pairs = zip(examples, answers, strict=True)
    return [replace(e, output=a.text, references=(a.text,)) for e, a in pairs if a.error is None and a.text.strip()]


def workshop_of(task: Path, options: argparse.Namespace, train: Sequence[Any], folder: Path) -> Any:
    """A workshop with the embedded model, these rows to train on, and the task's dev."""
    from rung.data.constraint import constraint_of
    from rung.data.task_file import read_task
    from rung.evaluation.metrics import load_metric
    from rung.evaluation.scorer import Scorer
    from rung.models import open_model
    from rung.trials.trial import InOrder
    from rung.trials.workshop import Inputs, Limits, Tools, Workshop
    from rung.types import Decoding

    found = replace(read_task(task / "task.yaml"), seed=options.seed)
    model = open_model(options.model)
    dev = tuple(sets_of(task, options)["dev"])
    inputs = Inputs(found, tuple(train), dev, constraint=constraint_of(found, train))
    metric = load_metric(found.metric, found.path.parent)
    room = max(model.count_tokens(e.output) for e in (*train, *dev)) + 8
    tools = Tools(model, Scorer(metric), InOrder(), tell=tell)
    return Workshop(inputs, tools, Limits(training_tokens=options.tokens), folder, Decoding(room))


def tell(what: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{what[:60]:60} {share:4.0%}", end="", file=sys.stderr, flush=True)


def task_file(task: Path, options: argparse.Namespace) -> Path:
    """A task.yaml of the student's rows, dev and held-out rows, with the teacher."""
    import yaml

    folder, sets = folder_of(task, options) / "task", sets_of(task, options)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": sets["real"], "dev": sets["dev"], "test": sets["test"]}
    for name, examples in parts.items():
        lines = [json.dumps(row_of(e), ensure_ascii=False) + "\n" for e in examples]
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    own = yaml.safe_load((task / "task.yaml").read_text("utf-8"))
    kept = {key: own[key] for key in ("name", "instruction", "metric", "labels", "schema", "pattern") if key in own}
    place = json.loads((folder_of(task, options) / "teacher.json").read_text("utf-8"))["folder"]
    kept |= {"examples": {name: f"{name}.jsonl" for name in parts}, "model": options.model}
    kept |= {"teacher": str(Path(place).resolve()), "seed": options.seed}
    (folder / "task.yaml").write_text(yaml.safe_dump(kept, allow_unicode=True), "utf-8")
    return folder / "task.yaml"


if __name__ == "__main__":
    main()
