"""How many tokens a model takes: prompt and answer together."""

from __future__ import annotations

from typing import Any

# Names that configurations have for it, the usual one first.
_NAMES = (
    "max_position_embeddings",
    "n_positions",  # GPT-2
    "max_seq_len",  # MPT
    "seq_length",  # BLOOM, ChatGLM
    "n_ctx",
    "context_length",
    "max_sequence_length",
    "max_seq_length",
)
_RECURRENT = ("mamba", "rwkv", "xlstm", "recurrent")  # parts of model types
_RECURRENT_LENGTH = 32_768  # a state has no end; this bounds what one prompt may cost
_UNKNOWN_LENGTH = 4096
_LEAST_PLAUSIBLE = 512  # of a tokenizer's own limit; smaller ones are left over from other models


def context_length(config: Any, tokenizer: Any = None) -> int:
    """Positions that the configuration names, whatever windows single layers have.

    config: of the text part. The tokenizer's own limit counts where it is smaller, and is not absurdly small.
    """
    length = next((int(n) for name in _NAMES if isinstance(n := getattr(config, name, None), int) and n > 0), 0)
    kind = str(getattr(config, "model_type", ""))
    if not getattr(config, "max_position_embeddings", 0) and any(part in kind for part in _RECURRENT):
        return _RECURRENT_LENGTH
    length = length or _UNKNOWN_LENGTH
    limit = getattr(tokenizer, "model_max_length", None)
    return min(length, int(limit)) if limit is not None and limit >= _LEAST_PLAUSIBLE else length
