"""Rows of a prompt and its completion, as texts or as lists of turns (TRL's conversational form)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rung.data.shapes.seam import BY_STRUCTURE, Claim, RowShape, Sample
from rung.data.shapes.writing import asked, beside, turn
from rung.types import Example, Message


def _recognise(sample: Sample) -> Sequence[Claim]:
    if {"input", "output"} & set(sample.chosen):
        return ()
    prompt, completion = sample.column("prompt"), sample.column("completion")
    if prompt is None or completion is None:
        return ()
    why = f'the columns "{prompt}" and "{completion}", by their names'
    found = Claim(BY_STRUCTURE, {"input": prompt, "output": completion}, why)
    judged = sample.column("label")
    if judged is None or not sample.mostly(judged, lambda value: isinstance(value, bool)):
        return [found]
    # Rows for KTO: where the label is false, the completion is one that nobody wants.
    wanted = Claim(BY_STRUCTURE, {"input": (prompt, completion), "output": judged}, f'"{judged}" judges the completion')
    return [replace(found, why=f'{why}, also those with a "{judged}" of false'), wanted]


def plain(examples: Sequence[Example]) -> bool:
    """Whether texts can hold all that is asked: no row has earlier turns or an instruction of its own."""
    return not any(e.turns or e.instruction for e in examples)


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    texts = plain(examples)
    for e in examples:
        if texts:
            yield {"prompt": e.input, "completion": e.output, **beside(e)}
        else:
            yield {
                "prompt": [turn(m) for m in asked(e)],
                "completion": [turn(Message("assistant", e.output))],
                **beside(e),
            }


SHAPE = RowShape(_recognise, _rows)
