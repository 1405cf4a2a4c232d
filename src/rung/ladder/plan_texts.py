"""Token counts of a task with one model, which the costs of strategies are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rung.strategies import Texts
from rung.types import THE_MODEL, Decoding, Document, Example, Model, Request, Solution, Split, Task

if TYPE_CHECKING:
    from rung.trials.workshop import Inputs

_SAMPLED = 32  # train examples and passages whose tokens are counted
_MOST_CHARACTERS = 50  # of a text that may fit, for each token of the context


def texts_of(task: Task, split: Split, model: Model, passages: Sequence[Document], training_tokens: int) -> Texts:
    from rung.data.constraint import form_in_words
    from rung.models.speed import count_error, thought_tokens
    from rung.solutions.answer import requests_for
    from rung.trials.workshop import SCREEN

    rows = _usual_rows(split.train, model)
    sample = rows[:_SAMPLED]
    requests, _ = requests_for(Solution("plan", task.instruction, Decoding(1)), model, [e.query for e in sample])
    prompt = sum(min(_tokens(r, model), model.context_length) for r in requests) / len(sample)
    instruction = model.count_tokens(task.instruction)
    lengths = [model.count_tokens(e.output) + 1 for e in sample]
    longest = model.count_tokens(max((e.output for e in rows), key=len)) + 1
    room = min(round(max(longest, *lengths) * count_error(model)), model.context_length)
    form = form_in_words(task, split.train)
    some = passages[: 2 * _SAMPLED]
    return Texts(
        own=max(8.0, prompt - instruction),
        answer=sum(lengths) / len(lengths),
        room=room + max(4, room // 4),  # a quarter more than the longest answer
        instruction=instruction,
        forms=float(model.count_tokens(form)) if form else 0.0,
        passage=sum(model.count_tokens(p.text) for p in some) / max(1, len(some)),
        train=len(split.train),
        dev=len(split.dev),
        screen=min(SCREEN, len(split.dev)),
        training_tokens=training_tokens,
        thought=thought_tokens(model),
    )


def as_asked(inputs: Inputs) -> dict[str, Any]:
    """Fields of Texts that the task says, whatever an earlier command counted."""
    keys, talk = inputs.task.retrieval, any(e.turns for e in inputs.dev)
    return {
        "unlabelled": len(inputs.unlabelled),
        "preferences": len(inputs.preferences),
        "synthetic": len(inputs.synthetic),
        "rewrites": talk if keys.rewrite is None else keys.rewrite,
        "judges": THE_MODEL in keys.rerankers,
    }


def _usual_rows(train: Sequence[Example], model: Model) -> list[Example]:
    """The rows that estimates rest on. One that is far longer than the others, or that surely exceeds the context, is
    left out of training, and is answered with an error."""
    from rung.data.lengths import of_usual_length

    most = _MOST_CHARACTERS * model.context_length
    return of_usual_length([e for e in train if len(e.query.text) + len(e.output) <= most] or train)


def _tokens(request: Request, model: Model) -> int:
    return sum(model.count_tokens(m.content) for m in request.messages)
