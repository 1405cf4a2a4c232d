"""Train examples as rows to train on: rendered as answering renders them, without those that are too long.

Knows prompts and answers, nothing of steps and adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rung.errors import TrainingError
from rung.retrieval.gold import GoldIndex, WithGold, WithoutGold
from rung.solutions.answer import requests_for
from rung.solutions.prompt_rendering import within_budget
from rung.strategies.reading import Parted, learnt_answer, to_refuse
from rung.trials.workshop import Workshop
from rung.types import Document, Example, Preferring, RetrieverSpec, Solution, Trainable, TrainingRow

LONG_SHARE = 0.3
"""Share of the rows that may be left out because they are too long. Beyond it, an adapter would be trained for other
inputs than those it is to answer, and training is not tried."""

_NAMED = 10


def trainable(workshop: Workshop) -> Trainable:
    """The workshop's model, which can be trained. Raises TrainingError where it cannot."""
    model = workshop.tools.model
    if not isinstance(model, Trainable):
        raise TrainingError(f"{model.name} cannot be trained here. Name a local model.")
    return model


def preferring(workshop: Workshop) -> Preferring:
    """The workshop's model, which learns from pairs of answers. Raises TrainingError where it does not."""
    model = workshop.tools.model
    if not isinstance(model, Preferring):
        raise TrainingError(f"{model.name} does not learn from pairs of answers. Name a local model.")
    return model


def training_rows(
    workshop: Workshop, solution: Solution, examples: Sequence[Example], *, gold: bool = True
) -> list[TrainingRow]:
    """One row per example, in order, with the prompt that answering shows.

    For a solution with a retriever, the prompt shows what the search returns, wrong passages among it. Where that
    misses the passage that holds the answer, this passage takes the place of the last one: an answer that stands
    nowhere teaches to invent. Source: Zhang et al., RAFT (2024).
    Some prompts show no passage that holds the answer, and learn the task's `abstain` (`to_refuse`); a solution that
    cites learns the number of the passage that holds it. gold: False shows what the search returns and no more, as
    answering does.
    """
    abstain = workshop.inputs.task.abstain
    search = retriever = workshop.retriever_of(solution)
    refused: frozenset[str] = frozenset()
    index = gold_index(workshop, solution.retriever) if search is not None and (gold or solution.cite) else None
    if search is not None and index is not None and gold:
        retriever = WithGold(search, examples, index, fitting_into(workshop, solution))
        if refused := to_refuse(workshop, search, index, examples):
            retriever = Parted(refused, WithoutGold(search, examples, index), retriever)
    queries = [e.query for e in examples]
    requests, shown = requests_for(solution, workshop.tools.model, queries, retriever=retriever)
    answers = [e.output for e in examples]
    if index is not None and solution.cite:
        answers = [learnt_answer(e, solution, seen, index, abstain) for e, seen in zip(examples, shown, strict=True)]
    return [
        TrainingRow(example.row or example.id, request.messages, abstain or "" if example.id in refused else learnt)
        for example, request, learnt in zip(examples, requests, answers, strict=True)
    ]


class _MarkedOnly(GoldIndex):
    """Gold passages of a task with labels: that a passage contains "no" does not say that it holds the answer "no"."""

    def passage(self, example: Example, ranked: Sequence[Document] = ()) -> Document | None:
        return super().passage(example)


def gold_index(workshop: Workshop, spec: RetrieverSpec | None) -> GoldIndex:
    """The gold passages of the workshop's examples, cut as the spec says; of labels, only marked ones."""
    library = workshop.inputs.library
    if not workshop.inputs.task.labels:
        return library.gold(spec)
    return _MarkedOnly(library.passages(spec), library.passages())


def fitting_into(workshop: Workshop, solution: Solution) -> Callable[[Sequence[Document]], Sequence[Document]]:
    """Ranked passages -> those that a prompt of the solution shows."""
    spec, count_tokens = solution.retriever, workshop.tools.model.count_tokens
    assert spec is not None
    return lambda ranked: within_budget(spec, ranked, count_tokens)


def without_long(workshop: Workshop, rows: Sequence[TrainingRow]) -> tuple[list[TrainingRow], dict[str, Any]]:
    """The rows that fit the context whole, and a record of those that do not: {"count": n, "rows": [first names]}.

    Raises TrainingError when more than LONG_SHARE of the rows do not fit.
    """
    model = trainable(workshop)
    long = set(model.too_long(rows))
    names = [row.name for row in rows if row in long]
    named = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if len(names) > LONG_SHARE * len(rows):
        raise TrainingError(
            f"{len(names)} of {len(rows)} training examples do not fit {model.context_length} tokens with their "
            f"answers, more than {100 * LONG_SHARE:.0f} %: {named}. Shorten these inputs, show fewer passages, or use "
            "a model with a longer context."
        )
    if names:
        workshop.tools.tell(f"leaving out {len(names)} of {len(rows)} training examples that are too long: {named}", 0)
    return [row for row in rows if row not in long], {"count": len(names), "rows": names[:_NAMED]}
