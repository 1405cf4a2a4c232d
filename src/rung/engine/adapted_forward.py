"""What stands before the forward pass of a linear layer, wrapped by PEFT or not, to add adapters in one step."""

from __future__ import annotations

from typing import Any

import torch

from rung.engine.factors import FusedLinear, flat


def adapted_forward(
    layer: Any, adapters: Any, otherwise: Any, x: torch.Tensor, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """The forward pass of a layer with what `adapters`, an `Adapters`, has applied. x: (..., in).

    otherwise: its own forward pass, for what needs PEFT's or PyTorch's code.
    """
    inner = getattr(layer, "base_layer", None)
    known = adapters.together([layer]) if inner is not None or adapters.is_beside else None
    result: torch.Tensor
    if known is not None:
        (result,) = FusedLinear.apply(x.reshape(-1, x.shape[-1]), adapters.mix, *flat(known))
        return result.view(*x.shape[:-1], -1)
    result = inner(x, *args, **kwargs) if inner is not None and adapters.is_base else otherwise(x, *args, **kwargs)
    return result
