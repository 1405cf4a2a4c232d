"""What a folder must hold to be loaded as an adapter, checked before any of its weights is read.

Only safetensors are read, never pickles. What the configuration and the headers say bounds what is read and made later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.engine.adapter_header import TensorShape, read_header
from rung.engine.whole_weights import is_whole, weight_files
from rung.errors import ModelError

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
"""Files of an adapter's folder: its configuration, its weights, and which base it was trained on."""

MOST_RANK = 512
"""Rank of an adapter at most. PEFT makes the tensors of a layer by the rank that the configuration names."""

_LONGEST_JSON = 8 << 20  # bytes
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.pkl")
_OF_ADAPTERS = ("lora_", "token_adapter", "trainable_tokens")
_CHANGES_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


@dataclass(frozen=True)
class AdapterFolder:
    """What an adapter's folder says of itself: its configuration as PEFT wrote it, and its tensors by name."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorShape]


def check_adapter(folder: Path, base_version: str = "") -> None:
    """Raises ModelError unless the folder holds a LoRA adapter in PEFT's format, or a network's own weights.

    base_version: of the network that it is for; empty where that is not known. Reads no weights. May be called from any
    thread.
    """
    if is_whole(folder):
        if not weight_files(folder):
            raise ModelError(f"weights {folder}: no model.safetensors in this folder.")
        return
    read_folder(folder, base_version)


def read_folder(folder: Path, base_version: str = "") -> AdapterFolder:
    """As `check_adapter`, of an adapter; returns what it says of itself."""
    pickled = next((name for name in _PICKLES if (folder / name).exists()), None)
    if pickled is not None and not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"adapter {folder}: its weights are a pickle ({pickled}), which can run any code when it is read. "
            f"Save them as {WEIGHTS} (PEFT does so by itself) on a machine where you trust the file."
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"adapter {folder}: no {name} in this folder.")
    try:
        config = _json(folder / CONFIG)
        _check_config(config)
        _check_base(folder, base_version)
        tensors = read_header(folder / WEIGHTS)
        _check_tensors(config, tensors)
    except OSError as error:
        raise ModelError(f"adapter {folder}: it cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise ModelError(f"adapter {folder}: {error}.") from error
    return AdapterFolder(folder, config, tensors)


def _json(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _LONGEST_JSON:
        raise ValueError(f"{path.name} has {size:,} bytes, and may have {_LONGEST_JSON:,}")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return content


def _check_config(config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"its peft_type is {str(kind)[:40]}, and only LORA is loaded")
    patterns = config.get("rank_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError("its rank_pattern is no table of ranks")
    for rank in (config.get("r", 8), *patterns.values()):
        if type(rank) is not int or rank < 1:
            raise ValueError(f"its rank is {str(rank)[:40]}, and must be a number from 1 to {MOST_RANK}")
        _check_rank(rank)
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(_CHANGES_BASE):
        raise ValueError(f"init_lora_weights {start} changes the base network; convert it to plain LoRA when saving")
    if (bias := config.get("bias", "none")) != "none":
        raise ValueError(f"bias {bias} changes the base network; train it with bias none")


def _check_rank(rank: int) -> None:
    if rank > MOST_RANK:
        raise ValueError(f"its rank is {rank:,}, and ranks up to {MOST_RANK} are loaded")


def _check_base(folder: Path, base_version: str) -> None:
    """Where the folder records which base it was trained on, that is the base that is loaded."""
    if not base_version or not (folder / BASE).is_file():
        return
    record = _json(folder / BASE)
    version = record.get("version")
    if isinstance(version, str) and version and version != base_version:
        name = str(record.get("model", "another model"))[:80]
        raise ValueError(
            f"it was trained on {name}, version {version[:16]}, and the base here has version {base_version[:16]}. "
            "Load it with the base that it was trained on"
        )


def _check_tensors(config: dict[str, Any], tensors: dict[str, TensorShape]) -> None:
    """Ranks are within bounds, and nothing is there that would change the base network for all who share it."""
    saved = config.get("modules_to_save") or []
    own = tuple(str(name) for name in saved) if isinstance(saved, list) else ()
    for name, tensor in tensors.items():
        parts = name.split(".")
        whole = any(".".join(parts[:stop]).endswith(own) for stop in range(1, len(parts)))  # as PEFT matches them
        if not whole and not any(part.startswith(_OF_ADAPTERS) for part in parts):
            raise ValueError(
                f"it holds {name[:200]}, which is no part of a LoRA adapter and may be a weight of the base. "
                "Save it without the base's weights (in PEFT: save_embedding_layers=False)"
            )
        if "experts" not in parts and len(tensor.shape) > 1:  # factors of all experts stand one behind the other
            if {"lora_A", "lora_embedding_A"} & set(parts):
                _check_rank(tensor.shape[0])
            elif {"lora_B", "lora_embedding_B"} & set(parts):
                _check_rank(tensor.shape[1])
