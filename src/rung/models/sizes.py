"""What a network takes: memory to answer and to train, and how much it computes for a token.

Figures are computed from a network's measurements, so that they hold for models that are not on this machine. They
count weights, the KV cache, what a training keeps for its way back, and one layer's intermediate values; not what torch
and Python take themselves (about 0.5 GB).
Sources: Hu et al., LoRA (2021), for an adapter's weights; Korthikanti et al., Reducing Activation Recomputation (2022),
section 4, for what a layer keeps. Here its attention weights are computed again, so that they count for nothing.
"""

from __future__ import annotations

import math

from rung.engine import training_memory
from rung.engine.shapes import Shape as Shape
from rung.engine.shapes import shape_of as shape_of

ANSWERED_ROWS, ROW_TOKENS = 16, 512
"""The batch for which the memory to answer is told: so many rows of so many tokens."""
TRAINED_TOKENS = 1024
"""Tokens of training rows that go through the network at once; as `TrainingOptions.micro_tokens`."""

_RANK = 16  # of the adapter, as in `TrainingOptions`
_TARGET_SHARE = 1 / 4  # of trained tokens that belong to answers, and so have scores of all tokens


def working_bytes(shape: Shape, itemsize: int, *, rows: int = ANSWERED_ROWS, tokens: int = ROW_TOKENS) -> int:
    """Memory beside the weights to answer `rows` prompts of `tokens` tokens: keys, values, a layer at work, scores."""
    cache = rows * tokens * shape.layers * 2 * shape.keys * itemsize
    read_at_once = min(rows, 4) * tokens
    layer = read_at_once * (2 * shape.width + shape.queries + 2 * shape.keys + 3 * shape.inner) * itemsize
    return cache + layer + rows * shape.vocabulary * 4


def training_bytes(shape: Shape, itemsize: int) -> int:
    """Memory beside the weights to train LoRA on all linear layers of the decoder, as rung does by default."""
    steps = training_memory.Steps(itemsize, _RANK)
    activations = TRAINED_TOKENS * training_memory.bytes_per_token(shape, steps)
    scores = int(TRAINED_TOKENS * _TARGET_SHARE) * training_memory.bytes_per_target(shape)
    return training_memory.fixed_bytes(shape, _RANK) + activations + scores


def as_count(weights: int) -> str:
    """A number of weights, in millions from one million on."""
    return f"{weights / 1e6:,.0f} M" if weights >= 1e6 else f"{weights:,}"


def as_size(count: float) -> str:
    """Bytes in MB, from 1 GB on in GB, below 0.1 MB in kB; with a decimal below 10 MB, so that what is there is never
    told as none."""
    if 0 < count < 1e5:
        return f"{math.ceil(count / 1e3)} kB"
    if count < 1e9:
        mb = count / 1e6
        return f"{mb:.0f} MB" if mb >= 10 or not mb else f"{mb:.1f} MB"
    gb = count / 1e9
    return f"{gb:.1f} GB" if gb < 10 else f"{gb:.0f} GB"
