"""The memory that vLLM takes beside a training: from need, within what is free.

vLLM takes its share when it starts and keeps it: weights, the KV cache, adapters, and what its kernels and graphs need.
"""

from __future__ import annotations

from dataclasses import dataclass

from rung.errors import OutOfMemory
from rung.models.sizes import as_size
from rung.models.vllm.base import BaseFolder
from rung.models.vllm.process import WITHOUT

SLOTS, ROWS = 4, 256
"""Adapters of one batch, and rows that are answered together."""
HOST_CACHE = 2_000_000_000
"""Bytes of the KV cache in the memory of a machine without a GPU, as `process` asks for it."""

_WANTED_TOKENS, _LEAST_TOKENS = 128 * 1024, 4 * 1024  # of the KV cache
_UNKNOWN_CACHE = 8_000_000_000  # bytes, where the shape of a network is not known
_BESIDE, _BESIDE_ON_HOST = 3_000_000_000, 1_500_000_000  # kernels, graphs, activations; Python and its libraries
_SCORES = 4 * 4  # bytes of a token's score while rows are chosen for: in float32, sorted, summed up
_SPARE = 0.97  # of free memory: others on the card come and go


@dataclass(frozen=True)
class VllmShare:
    """share: of the GPU's memory, in (0, 1]; None without a GPU. context: tokens of a prompt with its answer that fit.
    bytes: in all."""

    share: float | None
    context: int
    bytes: int


def share_of(
    base: BaseFolder, itemsize: int, context: int, rank: int, *, free: int, total: int | None, reserve: int = 0
) -> VllmShare:
    """What vLLM is started with. Raises OutOfMemory where not even a small KV cache fits what is free.

    itemsize: bytes of a float there. context: the model's own, in tokens. free, total: bytes of the GPU; total None: of
    a machine without one. reserve: bytes that are left for a training where vLLM can do without them.
    """
    shape = base.shape
    fixed = base.weight_bytes(itemsize) + (_BESIDE if total is not None else _BESIDE_ON_HOST)
    each = 0
    if shape is not None:
        each = shape.layers * 2 * shape.keys * itemsize
        sides = 4 * shape.width + 2 * shape.queries + 2 * shape.keys + 3 * (shape.width + shape.inner)
        fixed += SLOTS * max(rank, 16) * shape.layers * sides * itemsize
        fixed += ROWS * shape.vocabulary * _SCORES if total is not None else 0
    least = fixed + (each * min(context, _LEAST_TOKENS) or _UNKNOWN_CACHE // 8)
    if total is None:
        least = fixed + HOST_CACHE
    usable = int(free * _SPARE)
    if least > usable:
        where = "on the GPU" if total is not None else "in memory"
        raise OutOfMemory(
            f"model {base.spec}: vLLM needs {as_size(least)} to answer with it, and {as_size(free)} are free {where}. "
            f"Close other programs, use a smaller model, or {WITHOUT}."
        )
    wanted = fixed + (each * max(context, _WANTED_TOKENS) or _UNKNOWN_CACHE)
    taken = min(wanted, max(least, usable - reserve))
    if total is None:
        taken = fixed + HOST_CACHE
    fits = context if each == 0 else max(1, min(context, (taken - fixed) // each))
    return VllmShare(None if total is None else min(1.0, taken / total), fits, taken)
