"""Models whose weights are kept in 4 bits: how they are named, and how bitsandbytes is told to make them.

A spec that ends in ":4bit" names the model before it with its linear layers in 4 bits. The quantised model answers
otherwise than the whole one, so it has a version of its own.
Source: Dettmers et al., QLoRA (2023): NF4 with double quantisation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rung.errors import ModelError
from rung.models.weights import Tensor

if TYPE_CHECKING:
    import torch

SUFFIX = ":4bit"
"""`rung.data.task_keys` writes the same for `model: {name: …, load_in_4bit: true}`."""

_KIND = "nf4-double"
_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight's half byte, a scale for 64 weights, a float for 256 scales
_WHOLE = ("embed", "wte", "wpe", "lm_head", "norm", "experts.")  # parts of names of what stays as it is


def split_spec(spec: str) -> tuple[str, bool]:
    """(the name of the model, whether in 4 bits)."""
    return spec.removesuffix(SUFFIX), spec.endswith(SUFFIX)


def version_in_4_bits(version: str) -> str:
    """The version of the quantised model, from that of the whole one."""
    return hashlib.sha256(f"{version} {_KIND}".encode()).hexdigest()[:16]


def can_quantise() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def is_quantised(config: Any) -> bool:
    """Whether the weights in the files are quantised already, in whatever way."""
    return bool(_given(config))


def is_unpacked(config: Any, device: str) -> bool:
    """Whether transformers makes quantised weights whole while it loads, as it does where no kernel computes them."""
    method = str(_given(config).get("quant_method", ""))
    if method == "fp8":
        import torch

        return not device.startswith("cuda") or torch.cuda.get_device_capability(device) < (8, 9)
    return method == "mxfp4" and (not device.startswith("cuda") or find_spec("kernels") is None)


def quantisation(name: str, config: Any, dtype: torch.dtype, *, four_bit: bool) -> Any:
    """The config that makes transformers quantise while it loads; None where nothing is to be quantised.

    dtype: to compute in. four_bit: whether 4 bits are asked for.
    Raises ModelError where bitsandbytes is needed and missing, and for 4 bits of a model quantised in another way.
    """
    given = _given(config)
    ours = bool(given.get("load_in_4bit") or given.get("load_in_8bit"))
    if (four_bit or ours) and not can_quantise():
        raise ModelError(
            f"model {name}: in so few bits it needs the package bitsandbytes. Install it: pip install bitsandbytes."
        )
    if not four_bit or given.get("load_in_4bit"):
        return None
    if given:
        raise ModelError(
            f"model {name}: its weights are quantised already ({given.get('quant_method', 'unknown')}). "
            f"Name it without {SUFFIX}, or name the model that it was made from."
        )
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it speaks of kernels that it does without
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _given(config: Any) -> Mapping[str, Any]:
    """The quantisation that a config.json describes; empty without one."""
    given = getattr(config, "quantization_config", None) or {}
    return given if isinstance(given, Mapping) else given.to_dict()


def keep_trainable(network: Any) -> None:
    """Keeps bitsandbytes from repacking weights for a CPU's own products, which training does not know."""
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def bytes_in_4_bits(weights: Mapping[str, Tensor], itemsize: int) -> int:
    """Memory of the quantised network: matrices of linear layers in 4 bits, all else in floats of `itemsize` bytes."""
    small = sum(t.count for name, t in weights.items() if _is_quantised(name, t))
    rest = sum(t.count for t in weights.values()) - small
    return int(small * _BYTES) + rest * itemsize


def _is_quantised(name: str, tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and not any(part in name for part in _WHOLE)
