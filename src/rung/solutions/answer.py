"""One function answers for every Solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rung.solutions.citing import Cited, cited
from rung.solutions.demos import select_demos
from rung.solutions.prompt_rendering import numbered, render, within_budget
from rung.solutions.searching import FoundPassages, found
from rung.types import Document, Generation, Message, Model, Prediction, Query, Request, Retriever, Solution

BLOCK = 64
"""Inputs that are answered together, by a model that names no `block` of its own.

A caller that stores answers by blocks asks for none twice.
"""


def answer(
    solution: Solution, model: Model, queries: Sequence[Query], *, retriever: Retriever | None = None
) -> list[Prediction]:
    """Predictions in the order of the queries, not scored. retriever: needed when solution.retriever is set.

    Never raises for one bad input: its prediction is empty and carries the error. Raises ModelError when the model
    fails for all.
    """
    requests, shown = asked_for(solution, model, queries, retriever=retriever)
    generations = model.generate(requests)
    return [
        predicted(solution, query, generation, search)
        for query, generation, search in zip(queries, generations, shown, strict=True)
    ]


def asked_for(
    solution: Solution, model: Model, queries: Sequence[Query], *, retriever: Retriever | None = None
) -> tuple[list[Request], list[FoundPassages]]:
    """The requests that `answer` sends, and the passages that each one shows, with what it took to find them: where the
    solution says so, the model is asked for that first."""
    shown = _shown(solution, model, queries, retriever, asking=True)
    return _requests(solution, queries, [search.passages for search in shown]), shown


def requests_for(
    solution: Solution, model: Model, queries: Sequence[Query], *, retriever: Retriever | None = None
) -> tuple[list[Request], list[tuple[Document, ...]]]:
    """The requests, and the passages that each one shows, as far as the model is not asked for them.

    Prompts are counted and trained on so. Where the model writes queries or orders passages, they may show others than
    those of `answer`.
    """
    passages = [search.passages for search in _shown(solution, model, queries, retriever, asking=False)]
    return _requests(solution, queries, passages), passages


def without_marks(solution: Solution, said: str, passages: Sequence[Document]) -> Cited:
    """What an answer says, and what it names where the solution cites. passages: those of its prompt, best first."""
    if not solution.cite or solution.retriever is None:
        return Cited(said)
    return cited(said, {n: p.id for n, p in numbered(passages).items()})


def _shown(
    solution: Solution, model: Model, queries: Sequence[Query], retriever: Retriever | None, *, asking: bool
) -> list[FoundPassages]:
    """For each query the passages that its prompt shows."""
    spec = solution.retriever
    if spec is None:
        return [FoundPassages()] * len(queries)
    assert retriever is not None, "a solution with a retriever needs passages to search"
    ranked = found(solution, model, queries, retriever, spec.k, asking=asking)
    return [replace(row, passages=within_budget(spec, row.passages, model.count_tokens)) for row in ranked]


def _requests(solution: Solution, queries: Sequence[Query], passages: Sequence[Sequence[Document]]) -> list[Request]:
    demos = select_demos(solution, queries)
    return [
        Request(
            render(solution, query, demos=chosen, passages=shown),
            solution.decoding,
            solution.constraint,
            solution.adapter,
        )
        for query, chosen, shown in zip(queries, demos, passages, strict=True)
    ]


def shared_turns(prompts: Sequence[Sequence[Message]]) -> int:
    """How many whole turns all prompts have in common at their start. The last turn of a prompt is never counted."""
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == prompts[0][shared] for p in prompts):
        shared += 1
    return shared


def shared_prefix_tokens(requests: Sequence[Request], model: Model) -> int:
    """Tokens that all prompts have in common at their start; 0 for fewer than two requests.

    Counts the text of the shared turns and the words that the next turns share. The marks that a chat template puts
    around turns are not counted, so this is a lower bound.
    """
    if len(requests) < 2:
        return 0
    prompts = [r.messages for r in requests]
    turns = shared_turns(prompts)
    tokens = sum(model.count_tokens(m.content) for m in prompts[0][:turns])
    following = [p[turns] for p in prompts]
    if len({m.role for m in following}) == 1:
        first, last = min(m.content for m in following), max(m.content for m in following)  # these share what all do
        alike = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        words = first[: max((i for i in range(alike) if first[i].isspace()), default=0)].rstrip()
        tokens += model.count_tokens(words) if words else 0
    return tokens


def predicted(solution: Solution, query: Query, generation: Generation, search: FoundPassages) -> Prediction:
    """What an answer says. search: what it was asked with; what that took of the model is part of what the answer took.
    keep_space of the solution's decoding: the space that an answer begins with is part of it."""
    said = generation.text.rstrip() if solution.decoding.keep_space else generation.text.strip()
    read = without_marks(solution, said, search.passages)
    return Prediction(
        id=query.id,
        text=read.text,
        tokens_in=search.tokens_in + generation.tokens_in,
        tokens_out=search.tokens_out + generation.tokens_out,
        latency_s=search.latency_s + generation.latency_s,
        tokens_cached=search.tokens_cached + generation.tokens_cached,
        passages=tuple(p.id for p in search.passages),
        error=generation.error,
        finish=generation.finish,
        citations=read.ids,
        bad_citations=read.bad,
    )
