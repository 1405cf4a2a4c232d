"""Rows of a chosen and a rejected answer, with a prompt or as whole conversations. The chosen one is the answer."""

from __future__ import annotations

from collections.abc import Sequence

from rung.data.shapes.conversation import is_conversation, transcript
from rung.data.shapes.seam import BY_STRUCTURE, Claim, Fields, RowShape, Sample


def _recognise(sample: Sample) -> Sequence[Claim]:
    chosen, rejected = sample.chosen.get("output") or sample.column("chosen"), sample.column("rejected")
    if rejected is None or not isinstance(chosen, str):
        return ()
    whole = sample.mostly(chosen, lambda value: is_conversation(value) or transcript(value) is not None)
    asked: str | tuple[str, ...] | None = sample.chosen.get("input") or sample.column(
        "prompt", "question", "instruction", "input", "query"
    )
    if asked is None and not whole:
        return ()
    fields: Fields = {"output": chosen} if asked is None else {"input": asked, "output": chosen}
    why = f'the column "{chosen}" is the answer; "{rejected}" is left out'
    return [Claim(BY_STRUCTURE, fields, why)]


SHAPE = RowShape(_recognise)
