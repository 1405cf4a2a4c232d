"""One function answers for every Solution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rung.solutions.prompt_rendering import input_text, render, within_budget
from rung.types import Demo, Document, Generation, Model, Prediction, Query, Request, Retriever, Solution

BLOCK = 64
"""Inputs that are answered together. A caller that stores results by blocks repeats none and changes none."""


def answer(
    solution: Solution, model: Model, queries: Sequence[Query], *, retriever: Retriever | None = None
) -> list[Prediction]:
    """Predictions in the order of the queries. retriever: needed when solution.retriever is set.

    Never raises for one bad input: its prediction is empty and carries the error.
    """
    requests, shown = requests_for(solution, model, queries, retriever=retriever)
    generations = model.generate(requests)
    return [
        _prediction(query, generation, passages)
        for query, generation, passages in zip(queries, generations, shown, strict=True)
    ]


def requests_for(
    solution: Solution, model: Model, queries: Sequence[Query], *, retriever: Retriever | None = None
) -> tuple[list[Request], list[tuple[Document, ...]]]:
    """The requests that `answer` sends, and the passages each one shows. Training renders its prompts with it too."""
    demos = select_demos(solution, queries)
    passages: list[tuple[Document, ...]] = [()] * len(queries)
    if solution.retriever is not None:
        assert retriever is not None, "a solution with a retriever needs passages to search"
        spec = solution.retriever
        ranked = retriever.search([q.input for q in queries], spec.k)
        passages = [within_budget(spec, row, model.count_tokens) for row in ranked]
    requests = [
        Request(
            render(solution, query, demos=chosen, passages=found),
            solution.decoding,
            solution.constraint,
            solution.adapter,
        )
        for query, chosen, found in zip(queries, demos, passages, strict=True)
    ]
    return requests, passages


def select_demos(solution: Solution, queries: Sequence[Query]) -> list[tuple[Demo, ...]]:
    """The demos each prompt shows. nearest: the most similar input stands last, beside the question."""
    selection = solution.demo_selection
    if selection is None or not solution.demos:
        return [()] * len(queries)
    if selection.kind == "fixed":
        return [solution.demos[: selection.k]] * len(queries)
    # All are ranked, because a pool that holds the input itself, once or often, must not show its answer.
    found = _demo_index(solution.demos).search([input_text(q) for q in queries], len(solution.demos))
    rows = []
    for query, hits in zip(queries, found, strict=True):
        others = [solution.demos[int(hit.id)] for hit in hits if _words(hit.text) != _words(input_text(query))]
        rows.append(tuple(reversed(others[: selection.k])))
    return rows


@lru_cache(maxsize=2)
def _demo_index(demos: tuple[Demo, ...]) -> Retriever:
    """An index over the demos' inputs; kept, because every block of inputs and every single request searches it."""
    from rung.retrieval.bm25 import BM25

    return BM25([Document(str(i), demo.input) for i, demo in enumerate(demos)])


def _words(text: str) -> list[str]:
    """What makes two inputs the same: their words, whatever their case and spacing."""
    return text.casefold().split()


def _prediction(query: Query, generation: Generation, passages: Sequence[Document]) -> Prediction:
    return Prediction(
        id=query.id,
        text=generation.text.strip(),
        tokens_in=generation.tokens_in,
        tokens_out=generation.tokens_out,
        latency_s=generation.latency_s,
        passages=tuple(p.id for p in passages),
        error=generation.error,
    )
