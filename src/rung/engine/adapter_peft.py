"""What PEFT says and makes: its remarks on adapters, and which of its layers add no more than two factors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rung.engine.packed import is_packed

_REMARKS: tuple[tuple[str, type[Warning]], ...] = (
    (".*is_gradient_checkpointing.*", FutureWarning),  # PEFT asks transformers for a property by its former name
    (".*fan_in_fan_out.*", UserWarning),  # PEFT sets it right by itself
    # It sets these itself for adapters of experts, applies them, and says that it does not.
    (".*_pattern keys did not match.*gate_up_proj.*", RuntimeWarning),
)


@contextmanager
def without_remarks() -> Iterator[None]:
    """Within: PEFT does not warn of what it settles by itself when it puts adapters into a network."""
    with warnings.catch_warnings():
        for message, kind in _REMARKS:
            warnings.filterwarnings("ignore", message, kind)
        yield


def _is_packed(layer: Any) -> bool:
    """Whether it is PEFT's layer around a packed one."""
    own = type(layer).__name__ == "Linear4bit" and type(layer).__module__.startswith("peft.")
    return own and is_packed(layer.base_layer)


def adds_factors_only(layer: Any, name: str) -> bool:
    """Whether an adapter adds no more than B A x alpha / rank to this layer."""
    from peft.tuners.lora.layer import Linear

    return (
        ((type(layer) is Linear and type(layer.base_layer) is torch.nn.Linear) or _is_packed(layer))
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
    )
