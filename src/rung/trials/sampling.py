"""Samples of one prompt: each with a seed of its own, and all of them drawn in one call.

A Solution has one seed. Rows that shared it would draw the same random numbers, and would not be independent, as
intervals assume. Samples of one prompt share its prefix when they are asked for in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from zlib import crc32

from rung.types import Constraint, Decoding, Generation, Model, Request

Siblings = Callable[[Decoding], Sequence[Decoding]]
"""How a prompt is decoded -> how all samples of that prompt are, this one among them."""


class DrawnTogether:
    """A model that samples each prompt with a seed of its own, and draws all samples of a prompt with the first."""

    def __init__(self, model: Model, siblings: Siblings) -> None:
        self.name = model.name
        self.version = model.version
        self.context_length = model.context_length
        self.price = model.price
        self.searching: Model = getattr(model, "searching", model)
        """What is asked while passages are looked for: the model itself, as nothing is sampled there."""
        self._model = model
        self._siblings = siblings
        self._drawn: dict[str, Generation] = {}

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        keys = [repr(_own_seed(r)) for r in requests]  # a request with a schema has no hash
        if not all(key in self._drawn for key in keys):
            asked = [
                _own_seed(replace(r, decoding=decoding)) for r in requests for decoding in self._siblings(r.decoding)
            ]
            self._drawn |= zip(map(repr, asked), self._model.generate(asked), strict=True)
        return [self._drawn[key] for key in keys]

    def forget(self) -> None:
        """Drops what was drawn; what is asked for again is drawn again."""
        self._drawn.clear()

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def check(self, constraint: Constraint) -> None:
        self._model.check(constraint)


def _own_seed(request: Request) -> Request:
    if request.decoding.temperature <= 0:
        return request
    turns = "\n".join(f"{m.role}: {m.content}" for m in request.messages)
    seed = crc32(f"{request.decoding.seed}\n{turns}".encode())
    return replace(request, decoding=replace(request.decoding, seed=seed))
