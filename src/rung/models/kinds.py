"""Whether a folder holds a causal language model that transformers can compute, and whether its weights are whole.

What transformers itself would fill with random numbers, or leave out, is an error here that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rung.errors import ModelError, first_line
from rung.models.weights import Tensor, is_zero, named

_OTHER_BRANCHES = re.compile(
    r"(^|\.)(mtp\w*|nextn\w*|vision\w*|visual\w*|vit|audio\w*|image\w*|video\w*|speech\w*|multi_modal\w*|mm_\w+"
    r"|embed_vision|embed_audio|\w*projector|resampler|v_head|talker|token2wav|code2wav)\."
)
"""Towers and heads beside the decoder that answers in text: pictures, sound, extra predictions, a value head."""

_BUFFERS = re.compile(
    r"(inv_freq|(^|\.)position_ids|(^|\.)masked_bias|(^|\.)causal_mask|(cos|sin)_cached|\.(k|v|q|kv|qk)_scale)$"
)
"""What old checkpoints keep beside weights: tables that are computed anew, and scales of a quantised KV cache."""

_CAUSAL_MASK = re.compile(r"(attn|attention)\.bias$")  # of three dimensions or more; a bias of one is a weight
_LAYER = re.compile(r"(^|\.)(?:layers|h|blocks)\.(\d+)\.")
_WHOLE = "Copy or download the model again, or save it again with save_pretrained."


def read_config(name: str, folder: Path) -> Any:
    """The config of the causal language model in a folder, as transformers reads it.

    name: the model's, for messages. Raises ModelError for an architecture that transformers does not know, one that
    needs code of its own, and one that is no causal language model.
    """
    from transformers import AutoConfig

    written = _written_config(name, folder)
    kind, own_code = written.get("model_type"), bool(written.get("auto_map"))
    if kind not in known_architectures():
        raise ModelError(_unknown(name, kind, own_code))
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"model {name}: transformers cannot read {folder / 'config.json'} ({_fact(error)}). {_WHOLE}"
        ) from error
    _check_kind(name, config, written)
    return config


def check_loaded(name: str, folder: Path, config: Any, weights: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Raises ModelError when weights are missing, have another shape, or have no place in the network.

    found: what `from_pretrained(output_loading_info=True)` says. Output layers that are the embedding, buffers that are
    computed anew, biases of zeros alone, and towers beside the decoder are no fault.
    """
    missing, others = list(found["missing_keys"]), _without_a_place(folder, config, weights, found["unexpected_keys"])
    shapes = {
        key: f"{key} {tuple(there)} instead of {tuple(wanted)}" for key, there, wanted in found["mismatched_keys"]
    }
    facts = []
    if missing:
        facts.append(f"{len(missing)} weights of its network are missing: {named(missing)}")
    if shapes:
        facts.append(f"{len(shapes)} have another shape than config.json says: {named(shapes.values())}")
    if others:
        facts.append(f"{len(others)} have no place in the network that config.json describes: {named(others)}")
    if facts:
        raise ModelError(f"model {name}: {folder} does not hold the whole model. {'; '.join(facts)}. {_WHOLE}")


def known_architectures() -> Any:
    """The architectures that the installed transformers knows, by their `model_type`."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING


def _written_config(name: str, folder: Path) -> dict[str, Any]:
    try:
        written = json.loads((folder / "config.json").read_text("utf-8"))
        if not isinstance(written, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(f"model {name}: {folder / 'config.json'} cannot be read ({error}). {_WHOLE}") from None
    return written


def _unknown(name: str, kind: Any, own_code: bool) -> str:
    from transformers import __version__

    if own_code:
        return (
            f"model {name}: its architecture ({kind}) is code that the model brings along (auto_map in config.json), "
            "and rung runs no code of models. Name a model that transformers knows; `rung models` lists some."
        )
    if kind is None:
        return f"model {name}: its config.json names no model_type, so its architecture is unknown. {_WHOLE}"
    return (
        f"model {name}: transformers {__version__} does not know its architecture ({kind}). "
        "Update transformers, or name another model; `rung models` lists some."
    )


def _check_kind(name: str, config: Any, written: Mapping[str, Any]) -> None:
    """Refuses what reads before it answers (T5), what sees both sides of a token (BERT), and what writes no text."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as both_sides

    kind, other = config.model_type, "Name a decoder; `rung models` lists some."
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"model {name}: not a causal language model but an encoder with a decoder ({kind}). {other}")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        built = ", ".join(written.get("architectures") or ()) or "no class named"
        raise ModelError(
            f"model {name}: not a causal language model that transformers can load ({kind}, {built}). {other}"
        )
    causal = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    if kind in both_sides and not causal:
        raise ModelError(
            f"model {name}: not a causal language model but an encoder, whose tokens see what follows them ({kind}). "
            f"{other} A decoder of this kind has is_decoder: true in its config.json."
        )


def _without_a_place(folder: Path, config: Any, weights: Mapping[str, Tensor], names: Any) -> list[str]:
    """Of the weights that the network did not take, those that it should have taken.

    Some ways to quantise write a bias of zeros for every layer.
    """
    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 0) or 0)
    extra = int(getattr(text, "num_nextn_predict_layers", 0) or 0)  # layers that predict further tokens

    def is_harmless(key: str) -> bool:
        shape = weights[key].shape if key in weights else ()
        layer = _LAYER.search(key)
        return bool(
            _OTHER_BRANCHES.search(key)
            or _BUFFERS.search(key)
            or (_CAUSAL_MASK.search(key) and len(shape) >= 3)
            or (layer and layers <= int(layer[2]) < layers + extra)
            or (key.endswith(".bias") and len(shape) == 1 and is_zero(folder, key, weights[key]))
        )

    return [key for key in names if not is_harmless(key)]


def _fact(error: Exception) -> str:
    """What an exception says; with its kind, where that says more than the text."""
    plain = isinstance(error, OSError | ValueError | RuntimeError | ImportError)
    return first_line(error) if plain else f"{type(error).__name__}: {first_line(error)}"
