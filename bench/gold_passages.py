"""How right gold passages are that nobody marked: tasks that mark them, with the marks hidden.

    python bench/gold_passages.py TASK … [--model SPEC] [--questions 60] [--json FILE]

For each task (a folder with task.yaml and a corpus): for how many rows `rung init` would mark a document, how many of
these are the marked one, and how often the answer of another row is found by chance. The same for the passages that
measuring a search takes for relevant. --model asks a model, too, on some questions, half of which keep their marks: how
often it errs on pairs that are known, what its word adds to the other half and whether that is right.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.data.task_file import read_task
from rung.evaluation.scorer import Scorer
from rung.ladder.checking import read
from rung.models import open_model
from rung.retrieval.chunk import document_id
from rung.retrieval.library import Library
from rung.retrieval.marking import POOL, mark
from rung.trials.sufficiency import gold_of
from rung.trials.trial import InOrder
from rung.trials.workshop import Inputs, Limits, Tools, Workshop
from rung.types import Decoding, Document, Example, MetricInfo, RetrieverSpec, Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tasks", nargs="+", type=Path)
    parser.add_argument("--model", help="what open_model takes")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for path in options.tasks:
        data = read(read_task(path))
        name = data.task.name
        assert data.documents, f"{name} has no corpus"
        examples = [e for e in data.examples if e.gold_ids]
        found[name] = measured(data.task, examples, data.documents, options.model, options.questions)
        print(name, json.dumps(found[name], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def measured(
    task: Task, examples: Sequence[Example], documents: Sequence[Document], model: str | None, questions: int
) -> dict[str, Any]:
    marks = mark([replace(e, gold_ids=()) for e in examples], documents)
    known = {e.id: set(e.gold_ids) for e in examples}
    result: dict[str, Any] = {
        "rows": marks.n,
        "marked": len(marks.gold),
        "marked_right": sum(id_ in known[name] for name, id_ in marks.gold.items()),
        "by_chance": [marks.by_chance, marks.drawn],
    }
    library, spec = Library(documents), RetrieverSpec("bm25", POOL, 0)
    hits = library.search(spec).search([e.query for e in examples], POOL)
    pools = {e.id: row for e, row in zip(examples, hits, strict=True)}
    index = library.gold()
    relevant = {e.id: index.relevant(replace(e, gold_ids=()), pools[e.id]) for e in examples if not task.labels}
    result["relevant"] = counted(relevant, known)
    if model is not None:
        some = [e if i % 2 else replace(e, gold_ids=()) for i, e in enumerate(examples[:questions])]
        workshop = Workshop(
            Inputs(task, tuple(some), (), library=library),
            Tools(open_model(model), Scorer(MetricInfo("none", lambda answers: [0.0] * len(answers))), InOrder()),
            Limits(),
            Path(tempfile.mkdtemp()),
            Decoding(32),
        )
        gold = gold_of(workshop, some, pools, workshop.folder)
        by_model = {i: ids for i, ids in gold.passages.items() if gold.how[i] == "model"}
        result["model"] = {"name": model, **gold.record, "pointed_out": counted(by_model, known)}
    return result


def counted(found: dict[str, frozenset[str]], known: dict[str, set[str]]) -> dict[str, int]:
    """questions: with any passage. with_marked: those whose passages hold the marked one. passages, right: of all."""
    documents = {name: {document_id(i) for i in ids} for name, ids in found.items() if ids}
    return {
        "questions": len(documents),
        "with_marked": sum(bool(ids & known[name]) for name, ids in documents.items()),
        "passages": sum(map(len, documents.values())),
        "right": sum(len(ids & known[name]) for name, ids in documents.items()),
    }


if __name__ == "__main__":
    main()
