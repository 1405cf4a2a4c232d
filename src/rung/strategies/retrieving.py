"""Retrieval: facts put in front of the model when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rung.retrieval.chunk import document_id
from rung.solutions.prompt_rendering import passage_text
from rung.trials.workshop import Materials, choose
from rung.strategies.prompting import covering, demo
from rung.types import Demo, DemoSelection, Document, Example, RetrieverSpec, Solution

PASSAGES = (1, 3, 5)
PASSAGE_TOKENS = 600
_DEMOS = 4


def rag(materials: Materials) -> Solution:
    """The instruction and the passages that BM25 finds for the input.

    Chosen on dev: no worked examples, plain ones, or ones that show their own passages; then how many passages.
    """
    plain = replace(materials.solution("rag"), retriever=spec(3), constraint=materials.constraint)
    fixed = DemoSelection("fixed", _DEMOS)
    variants = [
        replace(plain, name="passages-3"),
        replace(plain, name="passages-3-demos", demos=covering(materials.train, materials.task.seed)[:_DEMOS]),
        replace(plain, name="passages-3-shown", demos=demos_with_passages(materials, _DEMOS)),
    ]
    variants = [replace(v, demo_selection=fixed) if v.demos else v for v in variants]
    best = choose(materials, variants)
    counts = [replace(best, name=best.name.replace("-3", f"-{k}", 1), retriever=spec(k)) for k in PASSAGES]
    return replace(choose(materials, counts), name="rag")


def spec(k: int) -> RetrieverSpec:
    return RetrieverSpec("bm25", k, PASSAGE_TOKENS)


def demos_with_passages(materials: Materials, count: int) -> tuple[Demo, ...]:
    """Worked examples whose input shows one passage: the marked one, else one that contains the answer."""
    rows = rows_with_evidence(materials, materials.train)
    shown = sorted(rows, key=lambda row: len(row[1].text))[: count * 8 : 8] or rows[:count]
    return tuple(replace(demo(e), input=f"{passage_text(passage)}\n\n{demo(e).input}") for e, passage in shown[:count])


def rows_with_evidence(materials: Materials, examples: Sequence[Example]) -> list[tuple[Example, Document]]:
    """Examples with the passage that holds their answer; those for which none is known or found are left out."""
    assert materials.retriever is not None
    by_id = {p.id: p for p in materials.passages}
    found = materials.retriever.search([e.input for e in examples], 5)
    rows = []
    for example, ranked in zip(examples, found, strict=True):
        gold = gold_passage(example, by_id, ranked)
        if gold is not None:
            rows.append((example, gold))
    return rows


def gold_passage(example: Example, by_id: dict[str, Document], ranked: Sequence[Document]) -> Document | None:
    """The passage that holds the answer: a marked one, else the best-ranked one that contains an accepted answer."""
    answers = [r.casefold() for r in example.references if r.strip()]
    marked = [by_id[i] for i in example.gold_ids if i in by_id]
    marked += [p for p in by_id.values() if document_id(p.id) in example.gold_ids] if not marked else []
    holding = [p for p in marked or ranked if any(a in p.text.casefold() for a in answers)]
    return next(iter(holding or marked), None)
