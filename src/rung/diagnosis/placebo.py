"""The placebo and the samples: the same prompt, sampled instead of greedy.

The placebo changes nothing that could be a cause, so what it rescues is rescued by chance. The samples vote; a
majority that is right where the greedy answer is wrong shows inconsistency.
Source: Wang et al., Self-consistency improves chain of thought reasoning (2023), for the samples.
"""

from __future__ import annotations

from dataclasses import replace

from rung.trials.sampling import DrawnTogether
from rung.types import Decoding, Model, Solution

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


class OwnSeeds(DrawnTogether):
    """A model for the placebo and the samples: each row has a seed of its own, and samples are drawn together."""

    def __init__(self, model: Model, seed: int) -> None:
        """seed: of the Solution that is sampled."""

        def siblings(decoding: Decoding) -> list[Decoding]:
            """The decoding; of a sample, that of all samples."""
            if decoding.temperature != SAMPLE_TEMPERATURE:
                return [decoding]
            return [replace(decoding, seed=seed + _SAMPLE_SEED * i) for i in range(1, SAMPLES + 1)]

        super().__init__(model, siblings)
