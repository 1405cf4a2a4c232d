"""Products of rows with a layer's weights, by the fastest of PyTorch's libraries. Records no gradients.

On CPUs PyTorch hands float32 products to MKL, which does not use the wide registers of AMD machines and packs the
weights again for every few rows. oneDNN comes with PyTorch too and does neither. Where it is missing, PyTorch's own
call is used.
"""

from __future__ import annotations

import contextlib

import torch

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x weight' + bias. x: (T, in); weight: (out, in), transposed views too. Returns (T, out), detached."""
    if _ONEDNN is not None and x.device.type == "cpu" and x.dtype == torch.float32:
        with contextlib.suppress(RuntimeError):  # it needs memory to work in; PyTorch's own call may need less
            out: torch.Tensor = _ONEDNN(x, weight, bias, "none", [], "")
            return out
    return torch.nn.functional.linear(x, weight, bias)
