"""What a device can do at most: its matrix rate and its bandwidth, measured; and the operations of a training step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpu_shapes import RANK
from rung.engine.devices import synchronize
from rung.engine.prefix_tree import grow
from rung.models.sizes import Shape
from rung.training.batches import TokenRow


def best_seconds(work: Callable[[], Any], device: torch.device, *, times: int = 10, tries: int = 3) -> float:
    """Seconds of one call of `work`: the best of several tries of `times` calls each, after a warm-up."""
    for _ in range(2):
        work()
    best = float("inf")
    for _ in range(tries):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(times):
            work()
        synchronize(device)
        best = min(best, (time.perf_counter() - started) / times)
    return best


def matrix_rates(device: torch.device, dtype: torch.dtype, shapes: Sequence[Shape], tokens: int) -> dict[str, Any]:
    """TFLOP/s of matrix products: `best` of large ones, and `own` of each shape's feed-forward layer at `tokens`."""
    large = device.type == "cuda"
    sizes = [(8192, 8192, 8192), (16_384, 8192, 8192)] if large else [(512, 512, 512)]
    rates = {f"{m}x{k}x{n}": _rate(device, dtype, m, k, n) for m, k, n in sizes}
    own = {f"{tokens}x{s.width}x{s.inner}": _rate(device, dtype, tokens, s.width, s.inner) for s in shapes}
    return {"matrix_tflops": max([*rates.values(), *own.values()]), "large": rates, "own": own}


def _rate(device: torch.device, dtype: torch.dtype, m: int, k: int, n: int) -> float:
    a = torch.randn(m, k, device=device, dtype=dtype)
    b = torch.randn(n, k, device=device, dtype=dtype)  # as the weight of a linear layer lies
    out = torch.empty(m, n, device=device, dtype=dtype)
    seconds = best_seconds(lambda: torch.matmul(a, b.t(), out=out), device)
    return 2.0 * m * k * n / seconds / 1e12


def bandwidths(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """GB/s: `copy` counts what is read and written; `read` that of a matrix that a vector is multiplied with.

    `bandwidth_gb_s` is the largest.
    """
    side = 32_768 if device.type == "cuda" else 2048  # 2 GB of bfloat16 on a GPU
    matrix = torch.empty(side, side, device=device, dtype=dtype).fill_(0.01)
    other = torch.empty_like(matrix)
    vector = torch.ones(side, device=device, dtype=dtype)
    copy = 2 * matrix.nbytes / best_seconds(lambda: other.copy_(matrix), device, times=5) / 1e9
    read = matrix.nbytes / best_seconds(lambda: torch.mv(matrix, vector), device, times=5) / 1e9
    return {"copy_gb_s": copy, "read_gb_s": read, "bandwidth_gb_s": max(copy, read)}


def operations(shape: Shape, batch: Sequence[TokenRow]) -> tuple[float, int]:
    """Floating-point operations of a step that trains an adapter on the tree of a batch, and its number of tokens.

    Counted are tokens that are computed once for all rows that share them, forward and backward towards activations
    (the base gets no gradients), the adapter both ways, attention (two products forward, four backward), and scores of
    target tokens. The last layer ends with these tokens alone. What is padded or computed again counts for nothing.
    """
    tree = grow([[*row.prompt, *row.target[:-1]] for row in batch])
    tokens, targets = len(tree.ids), sum(len(row.target) for row in batch)
    s = shape
    attention_weights = 2 * s.width * (s.queries + s.keys)
    layers = s.layers * (attention_weights + 3 * s.width * s.inner)
    ends = s.queries * s.width + 3 * s.width * s.inner
    sides = 4 * s.width + 2 * s.queries + 2 * s.keys + 3 * (s.width + s.inner)  # in and out of seven linear layers
    pairs = sum(n.length * (n.length + 1) / 2.0 + n.length * (n.end - n.start - n.length) for n in tree.nodes)
    attention = 2 * s.layers * pairs * s.queries
    return (
        4.0 * layers * tokens
        - 4.0 * ends * (tokens - targets)
        + 6.0 * RANK * s.layers * sides * tokens
        + 4.0 * s.vocabulary * s.width * targets
        + 6.0 * attention
    ), tokens
