"""Linear layers whose weights are packed in 4 bits by bitsandbytes, as the fused steps multiply with them.

The steps need x W' and grad W only. The first is the layer's own product; for the second the weight is unpacked for
the moment. Packed weights are not trained. Imports bitsandbytes where such a layer is used, so never without it.
Source: Dettmers et al., QLoRA (2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class PackedWeight:
    """The weight of a packed layer, (out, in), in the place of a tensor. module: the layer, with its bias."""

    module: Any

    @property
    def dtype(self) -> torch.dtype:
        """The type that the layer multiplies in."""
        dtype: torch.dtype = self.module.compute_dtype
        return dtype

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """x W' + bias, (T, out), in x's type. x: (T, in). Records no gradients."""
        with torch.no_grad():
            out: torch.Tensor = type(self.module).forward(self.module, x)  # not what may stand before it
        return out

    def back(self, grad: torch.Tensor) -> torch.Tensor:
        """grad W, (T, in), in grad's type. grad: (T, out)."""
        from bitsandbytes.functional import dequantize_4bit

        weight: torch.Tensor = dequantize_4bit(self.module.weight.detach(), self.module.weight.quant_state)
        return grad @ weight.to(grad.dtype)


def weight_of(module: Any) -> Any:
    """What the fused steps multiply with: the weight of a linear layer, or a PackedWeight; None for other layers."""
    if type(module) is torch.nn.Linear:
        return module.weight
    return PackedWeight(module) if is_packed(module) else None


def is_packed(module: Any) -> bool:
    """Whether it is bitsandbytes' own layer of 4 bits, with its weight packed and its type known."""
    return (
        type(module).__name__ == "Linear4bit"
        and type(module).__module__.startswith("bitsandbytes.")
        and getattr(module.weight, "quant_state", None) is not None
        and isinstance(module.compute_dtype, torch.dtype)
        and not getattr(module.weight.quant_state, "packing_format_for_cpu", False)
    )


def type_of(layer: Any) -> torch.dtype:
    """The type that a linear layer multiplies in; it may be wrapped by PEFT."""
    base = getattr(layer, "base_layer", layer)
    dtype: torch.dtype = base.compute_dtype if is_packed(base) else base.weight.dtype
    return dtype


@contextmanager
def packed_computing_in(network: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within: packed layers multiply in that type."""
    found: list[Any] = [module for module in network.modules() if is_packed(module)]
    own = [module.compute_dtype for module in found]
    for module in found:
        module.compute_dtype = dtype
    try:
        yield
    finally:
        for module, before in zip(found, own, strict=True):
            module.compute_dtype = before
