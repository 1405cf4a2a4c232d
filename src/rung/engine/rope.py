"""Rotary embeddings whose factors depend on how long a row is (longrope).

transformers chooses the long or the short factors for a whole pass, by its furthest position. Here each row's factors
depend on that row alone: rows that may grow beyond the switch are long from their first token on, and never share a
pass with others. Knows the rotary modules of transformers.
Source: Ding et al., LongRoPE (2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch

_long: ContextVar[bool] = ContextVar("long", default=False)


def prepare_rope(network: Any) -> int | None:
    """Number of tokens up to which a row has the short factors; None where the network has no such factors.

    From here on `long_factors` works on the network.
    """
    switch = None
    for module in network.modules():
        kind = getattr(module, "rope_type", None)
        if "longrope" not in (kind.values() if isinstance(kind, dict) else [kind]):
            continue
        switch = _switch_of(module.config)
        if getattr(vars(module).get("forward"), "func", None) is not _forward:
            module.forward = partial(_forward, module.forward, switch)
    return switch


@contextmanager
def long_factors(wanted: bool) -> Iterator[None]:
    """Within: passes use the long factors, however near their positions are. wanted: False changes nothing."""
    token = _long.set(wanted)
    try:
        yield
    finally:
        _long.reset(token)


def _switch_of(config: Any) -> int:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for given in (found, *(part for part in found.values() if isinstance(part, dict))):
        if "original_max_position_embeddings" in given:
            return int(given["original_max_position_embeddings"])
    return int(getattr(config, "original_max_position_embeddings", config.max_position_embeddings))


def _forward(
    otherwise: Any, switch: int, x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """position_ids: (…, T). With the long factors, one more token stands at a far position and is cut off again."""
    if not _long.get():
        found: tuple[torch.Tensor, torch.Tensor] = otherwise(x, position_ids, *args, **kwargs)
        return found
    far = position_ids.new_full((*position_ids.shape[:-1], 1), switch)
    cos, sin = otherwise(x, torch.cat([position_ids, far], -1), *args, **kwargs)
    return cos[..., :-1, :], sin[..., :-1, :]
