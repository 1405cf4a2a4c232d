"""The optimiser of a training: AdamW with moments in float32, or in 8 bits where memory is short.

Eight bits are for all weights on a GPU alone: an adapter's moments are small. Which one a training has is decided once
and stands in its claim, so that it goes on with the same. The 8-bit one is bitsandbytes' AdamW8bit. Its paged form is
not taken: memory that it has paged is never freed within the process.
Sources: Loshchilov & Hutter, AdamW (2019); Dettmers et al., 8-bit Optimizers via Block-wise Quantization (2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from rung.engine.engine import Engine
from rung.engine.memory import free_bytes
from rung.errors import TrainingError
from rung.records import read_json
from rung.training import whole
from rung.types import TrainingOptions

ADAMW, IN_8_BITS = "adamw", "adamw_8bit"
_CLAIM = "training.json"  # as `checkpoints.claim` writes it


def is_installed() -> bool:
    """Whether bitsandbytes is there."""
    return find_spec("bitsandbytes") is not None


def optimiser_of(engine: Engine, options: TrainingOptions, folder: Path) -> str:
    """ADAMW or IN_8_BITS: what the training in that folder began with, or what fits the memory that is free now.

    Raises TrainingError where it began with 8 bits and bitsandbytes is not installed any more.
    """
    written = read_json(folder / _CLAIM)
    if written is not None:
        kind = str(written.get("optimiser", ADAMW))
        if kind != ADAMW and (kind != IN_8_BITS or not is_installed()):
            raise TrainingError(
                f"{folder}: this training began with the optimiser {kind}, which needs the package bitsandbytes. "
                "Install it: pip install bitsandbytes. Or name another folder."
            )
        return kind
    if not options.full or engine.device.type != "cuda" or not is_installed():
        return ADAMW
    engine.make_room()
    free = free_bytes(engine.device)
    short = whole.bytes_needed(engine) > free
    return IN_8_BITS if short and whole.bytes_needed(engine, in_8_bits=True) <= free else ADAMW


def recorded(kind: str) -> Mapping[str, Any]:
    """What the claim of a training says of its optimiser: nothing of the usual one."""
    return {"optimiser": kind} if kind != ADAMW else {}


def optimiser_for(
    kind: str, parameters: Sequence[torch.Tensor], options: TrainingOptions, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of that kind, with no memory of its own yet. kind: as `optimiser_of` returns it."""
    rates: dict[str, Any] = {"lr": options.learning_rate, "betas": (0.9, 0.999), "weight_decay": options.weight_decay}
    if kind == IN_8_BITS:
        found: torch.optim.Optimizer = import_module("bitsandbytes.optim").AdamW8bit(list(parameters), **rates)
        return found
    return torch.optim.AdamW(parameters, fused=device.type in ("cpu", "cuda"), **rates)


def allocate_moments(optimiser: torch.optim.Optimizer) -> None:
    """Makes it take its memory before the first batch, whose parts then fit into what remains. Changes no weight.

    The gradients of its parameters are zeros.
    """
    rates = [group["lr"] for group in optimiser.param_groups]
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.step()
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate
    for moments in optimiser.state.values():
        if isinstance(moments["step"], torch.Tensor):
            moments["step"].zero_()
        else:
            moments["step"] = 0
