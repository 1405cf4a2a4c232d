"""Where other operations of PyTorch are taken on a GPU than on a CPU.

On a GPU each operation is a launch, and fewer are faster. A CPU computes the same by operations in place in one type,
which need less memory. And a GPU stands still where Python waits for it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rung.engine.out_of_memory import is_out_of_memory

_ops: Any = torch.ops.aten
_FEW = 64  # tokens; with more, reading them once more takes longer than a launch


def is_gpu(x: torch.Tensor) -> bool:
    """Whether operations that read one type and write another are faster than two of them."""
    return x.is_cuda


def on_device(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on the device, without waiting for what it computes: from memory that it reads by itself."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


def put(numbers: torch.Tensor, into: torch.Tensor) -> None:
    """Copies numbers into a tensor of any device, as `on_device` does."""
    into.copy_(numbers.pin_memory() if into.is_cuda else numbers, non_blocking=into.is_cuda)


def turns_together(query: torch.Tensor) -> bool:
    """Whether query and key are put side by side to be rotated at once. query: (T, H, D)."""
    return is_gpu(query) and len(query) <= _FEW


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    added: torch.Tensor,
    scaling: float,
    *,
    often: bool = False,
) -> torch.Tensor:
    """PyTorch's attention in one kernel. query: (B, H, Q, D); key, value: (B, H, K, D). added: to the scores.

    On a GPU by the kernel that takes masks on every GPU. cuDNN's, which newer versions prefer, makes a plan for each
    new shape, which takes longer than many passes (half a second each way). often: whether the shape is computed so
    often that the kernel which PyTorch prefers pays. Q and K are multiples of 128 then: with other lengths, cuDNN's
    gradients may be no numbers.
    """
    if often or not query.is_cuda:
        return scaled_dot_product_attention(query, key, value, added, scale=scaling)
    # Flash attention takes no mask: without cuDNN's, the efficient kernel is left, and plain formulas behind it.
    # Torch's own context manager sets every switch, which takes longer than the launch that it is for.
    switches = torch.backends.cuda
    before = switches.cudnn_sdp_enabled()
    switches.enable_cudnn_sdp(False)
    try:
        return scaled_dot_product_attention(query, key, value, added, scale=scaling)
    finally:
        switches.enable_cudnn_sdp(before)


def has_norm(x: torch.Tensor) -> bool:
    """Whether PyTorch computes root mean square norms of these rows in one kernel, and their backward pass."""
    return x.is_cuda and _computes_norms(x.device)


def norm(x: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x / sqrt(mean(x²) + epsilon), and 1 / sqrt(…), (…, 1). x: (…, W) in float32."""
    rows, factor = _ops._fused_rms_norm(x, [x.shape[-1]], None, epsilon)
    return rows, factor


def norm_back(grad: torch.Tensor, x: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Gradient towards x from that towards the normed rows times the weight, (W,). All in float32."""
    to_x: torch.Tensor = _ops._fused_rms_norm_backward(grad, x, [x.shape[-1]], factor, weight, [True, False])[0]
    return to_x


@lru_cache
def _computes_norms(device: torch.device) -> bool:
    """Tried once, since the names are private to PyTorch: a version without them, or with others, does without."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            draw = torch.Generator().manual_seed(0)
            x, grad, weight = (torch.randn(*shape, generator=draw).to(device) for shape in ((3, 64), (3, 64), (64,)))
            leaf = x.clone().requires_grad_()
            expected = leaf * (leaf.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
            (to_x,) = torch.autograd.grad(expected * weight, leaf, grad)
        rows, factor = norm(x, 1e-6)
        found = (rows, norm_back(grad, x, factor, weight))
        return factor.shape == (3, 1) and all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, (expected, to_x), strict=True)
        )
    except (AttributeError, RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
