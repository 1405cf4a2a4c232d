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
from rung.models.file_faults import fault_of
from rung.models.four_bit import SUFFIX
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
            f"model {name}: transformers cannot read the config.json{inside(name, folder)} ({_fact(error)}). {_WHOLE}"
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
    facts, held = [], inside(name, folder)
    if missing:
        facts.append(f"{_weights(missing)} of its network {_are(missing)} missing{held}: {named(missing)}")
    if shapes:
        have = "has" if len(shapes) == 1 else "have"
        facts.append(f"{_weights(shapes)} {have} another shape than config.json says: {named(shapes.values())}")
    if others:
        have = "has" if len(others) == 1 else "have"
        facts.append(
            f"{_weights(others)}{held} {have} no place in the network that config.json describes: {named(others)}"
        )
    if facts:
        told = "; ".join(facts)
        raise ModelError(f"model {name}: {told}. {_what_to_do(missing, others, mismatched=bool(shapes))}")


def inside(name: str, folder: Path) -> str:
    """Where a model's files are, for a message that has named it: nothing where its name is that folder."""
    own = Path(name.removesuffix(SUFFIX)).expanduser()
    return "" if own.is_dir() and own.resolve() == folder.resolve() else f" in {folder}"


def _what_to_do(missing: list[str], others: list[str], *, mismatched: bool) -> str:
    renamed = _renamed(missing, others)
    if renamed is not None:
        return (
            f"They look renamed: {renamed[1]} stands for {renamed[0]}. Give them the names that transformers uses, or "
            "export the model in Hugging Face format again with the program that wrote it."
        )
    if missing and not others and not mismatched:
        return _WHOLE
    if missing or mismatched:
        return "Take config.json and weights from one and the same model."
    return (
        "Take config.json and weights from one and the same model. Where these weights are not wanted, load it with "
        "transformers and save it again with save_pretrained, which leaves them out."
    )


def _renamed(missing: list[str], others: list[str]) -> tuple[str, str] | None:
    """A missing weight and the one that stands for it, where most missing ones end as another one does."""
    ends: dict[str, str] = {}
    for other in sorted(others, reverse=True):
        ends[_end(other)] = other
    pairs = [(name, ends[_end(name)]) for name in sorted(missing) if _end(name) in ends]
    return pairs[0] if pairs and 2 * len(pairs) >= len(missing) else None


def _end(name: str) -> str:
    """What renaming leaves of a weight's name: its number of a layer, its module and its kind."""
    layer = _LAYER.search(name)
    return ".".join([layer[2] if layer else "", *name.split(".")[-2:]])


def _weights(names: Any) -> str:
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def known_architectures() -> Any:
    """The architectures that the installed transformers knows, by their `model_type`."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING


def _written_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if (fault := fault_of(path)) is not None:
        raise ModelError(f"model {name}: {fault}{inside(name, folder)}. {_WHOLE}")
    written = json.loads(path.read_text("utf-8", "replace"))
    if not isinstance(written, dict):
        raise ModelError(f"model {name}: config.json is no JSON object{inside(name, folder)}. {_WHOLE}")
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
