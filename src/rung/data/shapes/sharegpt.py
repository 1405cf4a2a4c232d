"""ShareGPT's chat rows: {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rung.data.shapes.messages import claim, conversations
from rung.data.shapes.seam import BY_STRUCTURE, Claim, RowShape, Sample
from rung.data.shapes.writing import asked, beside
from rung.types import Example, Message

_FROM = {"system": "system", "user": "human", "assistant": "gpt"}


def _recognise(sample: Sample) -> Sequence[Claim]:
    if "output" in sample.chosen:
        return ()
    found = [c for c in conversations(sample) if sample.mostly(c, _says_from)]
    claims = [claim(sample, c, BY_STRUCTURE) for c in found]
    system = sample.column("system", "system_prompt")
    if system is None:
        return claims
    return [replace(c, fields={**c.fields, "instruction": system}) for c in claims]


def _says_from(value: object) -> bool:
    return '"from"' in value if isinstance(value, str) else isinstance(value, list) and "from" in value[0]


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    for e in examples:
        said = (*asked(e), Message("assistant", e.output))
        yield {"conversations": [{"from": _FROM[m.role], "value": m.content} for m in said], **beside(e)}


SHAPE = RowShape(_recognise, _rows)
