"""Whether rung names the right cause where retrieval fails: faults planted in documents and questions made here.

    python bench/search_failures.py [--each N] [--seed N] [--json FILE]
    python bench/search_failures.py --task TASK [--out FOLDER]

Every question asks for the code of a device at a site; one passage says it. Planted are, each in N questions: the
passage is removed from the corpus; it is written in words that the question does not share, so that the search does not
find it; it is buried at a low rank among passages that look more like the question; it is too long for the prompt and
has the fact at its end; the question has no answer in the documents, by its reference; the answer is right, and in the
wrong form; the passage is shown, and the model ignores it; it is led away by others beside it; the passage is shown,
and the model says that there is none. The model is scripted: it reads the prompt, and does wrong what is planted. It is
diagnosed with gold passages marked, without marks, and without marks where the questions share few answers, so that a
passage about something else holds one by chance.

Printed: what was planted against what was named, the share named right, and for each cause how many of the answers that
were asked again its experiment mended. With --task, the causes that a run of that task with the task's own model names.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rung.types import Document, Example, Request

ABSTAIN = "The documents do not say."
EXPECTED = {
    "removed": "absent",
    "other words": "missed",
    "buried": "cut",
    "too long": "cut",
    "unanswerable": "invented",
    "wrong form": "form",
    "ignored": "unused",
    "led away": "unused",
    "refused": "refused",
}
"""What is planted -> the cause that it has to be given."""

REPEATED = "unmarked, few answers"
KINDS = ("marked", "unmarked", REPEATED)
ANSWERS = 40
"""Different answers where they repeat: then a passage may hold an answer by chance."""

K, ROOM = 3, 120  # passages in a prompt, and words of them
_SYLLABLES = ("bar", "den", "fol", "gim", "har", "kel", "lor", "mun", "nes", "pol", "rik", "sul", "tor", "vik", "wen")
_DEVICES = ("boiler", "lift", "gate", "pump", "kiln", "crane", "turbine", "safe", "press", "oven")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--each", type=int, default=20, help="questions of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", type=Path, help="a task with a corpus, run with its own model")
    parser.add_argument("--out", type=Path, help="where that run goes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.task is not None:
        found = of_task(options.task, options.out)
    else:
        found = {kind: planted(options.each, options.seed, kind) for kind in KINDS}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


# ---- planted faults ---------------------------------------------------------------------------


def planted(each: int, seed: int, kind: str) -> dict[str, Any]:
    """The confusion of planted and named causes, and the experiments' rates. Prints them."""
    with tempfile.TemporaryDirectory() as folder:
        record, faults = diagnosed(Path(folder), each, seed, kind)
    named = {e["id"]: e["cause"] for e in record["examples"]}
    table: dict[str, Counter[str]] = {fault: Counter() for fault in EXPECTED}
    for name, fault in faults.items():
        if fault in EXPECTED:
            table[fault][named.get(name, "answered rightly")] += 1
    right = sum(table[fault][cause] for fault, cause in EXPECTED.items())
    total = sum(sum(row.values()) for row in table.values())
    unknown = sum(row["unknown"] for row in table.values())
    print(f"\n{kind}: {right} of {total} named right ({100 * right / total:.1f} %), {unknown} called unknown")
    for fault, row in table.items():
        said = ", ".join(f"{cause} {n}" for cause, n in row.most_common())
        print(f"  {fault:14} (expected {EXPECTED[fault]:8}) {said}")
    for cause in record["causes"]:
        if cause["tried"]:
            print(
                f"  {cause['cause']:8} {cause['experiment']}: mends {cause['rescued']} of {cause['tried']}, "
                f"the placebo {cause['by_chance']}; breaks {cause['broken']} of {cause['right']} right ones"
            )
    wrongly = sum(faults[name] not in EXPECTED for name in named)
    print(f"  questions without a fault that were answered wrongly: {wrongly}")
    return {
        "right": right,
        "unknown": unknown,
        "of": total,
        "table": {f: dict(row) for f, row in table.items()},
        "causes": record["causes"],
    }


def diagnosed(folder: Path, each: int, seed: int, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(what search_failures.json would hold, example id -> what is planted in it; "" for nothing)."""
    from rung.diagnosis.search_experiments import search_record, set_up_check
    from rung.evaluation.metrics import load_metric
    from rung.evaluation.scorer import Scorer
    from rung.retrieval.library import Library
    from rung.testing import FakeModel
    from rung.trials.trial import InOrder, attempt
    from rung.trials.workshop import Inputs, Limits, Tools, Workshop
    from rung.types import Decoding, ModelSpec, RetrieverSpec, Solution, Task

    rows, passages, faults = made(each, seed, kind)
    half = [name for name, fault in faults.items() if not fault][: 2 * each]
    train, dev = ([e for e in rows if (e.id in half) == known] for known in (True, False))
    spec = ModelSpec("scripted", "scripted")
    task = Task("planted", folder, "Say the code.", (), "exact_match", (spec,), seed=seed, abstain=ABSTAIN)
    model = FakeModel(answering({e.input: (faults[e.id], e.output) for e in rows}))
    tools = Tools(model, Scorer(load_metric("exact_match", Path())), InOrder())
    inputs = Inputs(task, tuple(train), tuple(dev), library=Library(passages))
    workshop = Workshop(inputs, tools, Limits(), folder, Decoding(12, seed=seed))
    solution = Solution("rag", task.instruction, workshop.decoding, retriever=RetrieverSpec("bm25", K, ROOM))
    answers = attempt(workshop, solution, dev, folder / "dev.jsonl")
    check = set_up_check(workshop, solution, answers, folder / "again")
    return search_record(check), {e.id: faults[e.id] for e in dev}


def made(each: int, seed: int, kind: str) -> tuple[list[Example], list[Document], dict[str, str]]:
    """Questions, documents, and example id -> what is planted. Two questions in three have no fault."""
    draw = random.Random(seed)
    names = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in ("ton", "by", "heim")]
    draw.shuffle(names)
    kinds = [*(fault for fault in EXPECTED for _ in range(each)), *[""] * (6 * each)]
    assert len(kinds) <= len(names), "so many names there are"
    rows, documents, faults = [], [], {}
    codes = draw.sample(range(10_000, 99_999), len(kinds))
    if kind == REPEATED:
        codes = [draw.choice(codes[:ANSWERS]) for _ in kinds]
    for place, (fault, name) in enumerate(zip(kinds, names, strict=False)):
        device, code = _DEVICES[place % len(_DEVICES)], f"K{codes[place]}"
        question = asked_of(device, name)
        own = _documents(fault, f"d{place}", name, device, code, draw)
        documents += own
        answer = ABSTAIN if fault == "unanswerable" else code
        gold = (f"d{place}",) if kind == "marked" and fault != "unanswerable" else ()
        rows.append(Example(f"q{place}", question, answer, (answer,), gold_ids=gold))
        faults[f"q{place}"] = fault
    order = draw.sample(range(len(rows)), len(rows))
    draw.shuffle(documents)
    return [rows[i] for i in order], documents, faults


def _documents(fault: str, id: str, name: str, device: str, code: str, draw: random.Random) -> list[Document]:
    """The document that holds the answer, as the fault has it, and what stands beside it."""
    fact = f"The {device} at {name} opens with the code {code}."
    beside = [Document(f"{id}-{i}", f"At {name} the {device} {text}") for i, text in enumerate(_BESIDE)]
    if fault in ("removed", "unanswerable"):
        return beside
    if fault == "other words":
        # No word of the question stands in it: only who knows the number of the site would find it.
        return [Document(id, f"Site no. {draw.randrange(10**6)}, unlocking sequence: {code}."), *beside]
    if fault == "buried":
        like = [
            Document(f"{id}-{i}", f"{asked_of(device, name)} At {name} {who} opens the {device}.")
            for i, who in enumerate(_PEOPLE)
        ]
        return [Document(id, f"{fact} {_filler(draw, 15)} Site: {name}."), *like]
    if fault == "too long":
        head = f"{asked_of(device, name)} Read on, {name}: the {device} at {name}. "
        return [Document(id, head + _filler(draw, 130) + fact)]
    return [Document(id, fact), *beside]


def asked_of(device: str, name: str) -> str:
    return f"Which code opens the {device} at {name}?"


_PEOPLE = ("the porter", "the warden", "the foreman", "security", "the office", "Mr Hale")
_BESIDE = ("was painted green last spring.", "is checked every second Monday by two people.")


def _filler(draw: random.Random, count: int) -> str:
    words = ("rust", "oil", "paint", "bolts", "cable", "valve", "hinge", "panel", "gauge", "sensor", "switch", "frame")
    return " ".join(draw.choice(words) for _ in range(count)) + ". "


def answering(planted_in: dict[str, tuple[str, str]]) -> Callable[[Request], str]:
    """A model that reads the code from its prompt, and does wrong what is planted. It knows no code by itself."""

    def answer(request: Request) -> str:
        text = request.messages[-1].content
        question = text.rpartition("\n\n")[2] or text
        fault, right = planted_in[question.strip()]
        passages = text.removesuffix(question)
        has = right in passages
        if fault == "unanswerable":
            told = "do not hold the answer" in request.messages[0].content
            return ABSTAIN if told else "K00000"
        if fault == "ignored" or not has:
            return "K00000"
        if fault == "refused":
            return ABSTAIN
        if fault == "led away" and passages.strip().count("\n"):
            return "K11111"
        if fault == "wrong form" and len(request.messages) < 3:
            return f"The code is {right}."
        return right

    return answer


# ---- a task and its model ---------------------------------------------------------------------


def of_task(task: Path, out: Path | None) -> dict[str, Any]:
    """Runs retrieval on the task, and prints the causes."""
    from rung.ladder import RunOptions, run
    from rung.testing import Silent

    folder = run(task, RunOptions(out=out, only=("zero_shot", "rag")), Silent())
    found = {}
    for path in sorted(folder.glob("solutions/*/search_failures.json")):
        record = json.loads(path.read_text("utf-8"))
        print(f"\n{path.parent.name}: {record['wrong']} of {record['answered']} wrong on dev")
        for row in record["causes"]:
            ends = f"{100 * row['low']:.0f}–{100 * row['high']:.0f} %"
            mended = f"{row['experiment']}: mends {row['rescued']} of {row['tried']}" if row["tried"] else ""
            print(f"  {row['cause']:8} {row['n']:4} {100 * row['share']:3.0f} % ({ends})  {mended}")
        found[path.parent.name] = record["causes"]
    return found


if __name__ == "__main__":
    main()
