"""The placebo and the samples: the same prompt, sampled instead of greedy.

The placebo changes nothing that could be a cause, so what it rescues is rescued by chance. The samples vote; a
majority that is right where the greedy answer is wrong shows inconsistency.
Source: Wang et al., Self-consistency improves chain of thought reasoning (2023), for the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

from rung.types import Constraint, Generation, Model, Request, Solution

PLACEBO = "placebo"
"""Its name in files and records."""

SAMPLES = 5
PLACEBO_TEMPERATURE = 0.3
SAMPLE_TEMPERATURE = 0.7

_PLACEBO_SEED = 900_001
_SAMPLE_SEED = 100_003


def placebo(base: Solution) -> Solution:
    """The same prompt, sampled once at a low temperature."""
    return _sampled(base, PLACEBO, PLACEBO_TEMPERATURE, _PLACEBO_SEED)


def samples(base: Solution) -> list[Solution]:
    """The same prompt, sampled `SAMPLES` times at a higher temperature."""
    return [_sampled(base, f"sample-{i}", SAMPLE_TEMPERATURE, _SAMPLE_SEED * i) for i in range(1, SAMPLES + 1)]


def _sampled(base: Solution, name: str, temperature: float, seed: int) -> Solution:
    decoding = replace(base.decoding, temperature=temperature, seed=base.decoding.seed + seed)
    return replace(base, name=name, decoding=decoding)


class OwnSeeds:
    """A model that samples each prompt with a seed of its own, and draws all samples of a prompt together.

    A Solution has one seed. Rows that shared it would draw the same random numbers, and would not be independent, as
    the intervals assume. Samples of one prompt share a prefix when they are asked for in one call, so all of them are
    drawn with the first and kept for the others.
    """

    def __init__(self, model: Model, seed: int) -> None:
        """seed: of the Solution that is sampled."""
        self.name = model.name
        self.version = model.version
        self.context_length = model.context_length
        self.price = model.price
        self._model = model
        self._seed = seed
        self._drawn: dict[str, Generation] = {}

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        keys = [repr(_own_seed(r)) for r in requests]  # a request with a schema has no hash
        if not all(key in self._drawn for key in keys):
            asked = [s for r in requests for s in self._siblings(r)]
            self._drawn |= zip(map(repr, asked), self._model.generate(asked), strict=True)
        return [self._drawn[key] for key in keys]

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def check(self, constraint: Constraint) -> None:
        self._model.check(constraint)

    def _siblings(self, request: Request) -> list[Request]:
        """The request; if it is a sample, all samples of its prompt."""
        if request.decoding.temperature != SAMPLE_TEMPERATURE:
            return [_own_seed(request)]
        seeds = [self._seed + _SAMPLE_SEED * i for i in range(1, SAMPLES + 1)]
        return [_own_seed(replace(request, decoding=replace(request.decoding, seed=seed))) for seed in seeds]


def _own_seed(request: Request) -> Request:
    if request.decoding.temperature <= 0:
        return request
    turns = "\n".join(f"{m.role}: {m.content}" for m in request.messages)
    seed = crc32(f"{request.decoding.seed}\n{turns}".encode())
    return replace(request, decoding=replace(request.decoding, seed=seed))
