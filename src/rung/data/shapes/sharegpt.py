"""ShareGPT's chat rows: {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rung.data.shapes.messages import claim, conversations, says_from
from rung.data.shapes.seam import BY_STRUCTURE, Claim, RowShape, Sample
from rung.data.shapes.writing import asked, beside
from rung.types import Example, Message

_FROM = {"system": "system", "user": "human", "assistant": "gpt"}


def _recognise(sample: Sample) -> Sequence[Claim]:
    if "output" in sample.chosen:
        return ()
    return [claim(c, BY_STRUCTURE) for c in conversations(sample) if sample.mostly(c, says_from)]


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    for e in examples:
        said = (*asked(e), Message("assistant", e.output))
        yield {"conversations": [{"from": _FROM[m.role], "value": m.content} for m in said], **beside(e)}


SHAPE = RowShape(_recognise, _rows)
