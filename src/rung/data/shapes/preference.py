"""Rows of a chosen and a rejected answer, with a prompt or as whole conversations. The chosen one is the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.shapes.conversation import is_conversation, transcript
from rung.data.shapes.seam import BY_STRUCTURE, Claim, Fields, RowShape, Sample, Values


def _recognise(sample: Sample) -> Sequence[Claim]:
    chosen = sample.chosen.get("output") or sample.column("chosen", "preferred_output")
    rejected = sample.column("rejected", "non_preferred_output")
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


def _flatten(values: Values) -> Iterator[Values] | None:
    """OpenAI's rows, whose input holds messages and tools."""
    asked = values.get("input")
    if "preferred_output" not in values or not isinstance(asked, dict) or "messages" not in asked:
        return None
    rest = {name: value for name, value in values.items() if name != "input"}
    return iter([{"input": asked["messages"], **{k: v for k, v in asked.items() if k != "messages"}, **rest}])


SHAPE = RowShape(_recognise, flatten=_flatten)
