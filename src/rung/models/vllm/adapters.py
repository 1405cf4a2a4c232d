"""Which adapters vLLM takes, as far as their configuration says it. Reads no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.engine.whole_weights import is_whole
from rung.models.vllm.process import RANKS

_UNSERVED = (
    *("use_dora", "modules_to_save", "lora_bias", "alora_invocation_tokens"),
    *("layer_replication", "use_bdlora", "use_qalora"),
)
_UNREAD = ("rank_pattern", "alpha_pattern")  # vLLM scales all layers alike, and says nothing


def unserved_key(config: Mapping[str, Any]) -> str | None:
    """The key of adapter_config.json by which vLLM does not serve an adapter; None where it serves it."""
    if config.get("bias", "none") != "none":
        return "bias"
    return next((key for key in _UNSERVED if config.get(key)), None)


def why_not(adapter: Path) -> str | None:
    """Why vLLM cannot answer with this folder as rung's own engine does, in words; None where it can."""
    if is_whole(adapter):
        return "all weights were trained, and vLLM takes adapters"
    config = _config(adapter)
    key = unserved_key(config) or next((key for key in _UNREAD if config.get(key)), None)
    if key is not None:
        return f"vLLM takes no adapter with {key}"
    return f"vLLM takes rank {RANKS[-1]} at most" if rank_of(adapter) > RANKS[-1] else None


def rank_of(adapter: Path) -> int:
    """The highest rank that an adapter's configuration names; 0 where there is none to read."""
    config = _config(adapter)
    try:
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0


def _config(adapter: Path) -> Mapping[str, Any]:
    """Empty where it cannot be read: whoever loads the adapter says what is wrong."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
