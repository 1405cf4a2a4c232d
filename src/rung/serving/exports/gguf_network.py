"""A network's shape and weights, and an adapter's, as GGUF.

Architectures are those whose conversion is written out here and checked in llama.cpp; any other is refused.
Source: llama.cpp, src/llama-model.cpp (which keys and tensors an architecture reads) and its note that q and k of the
llama architecture are stored with the two halves of each head interleaved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatRows = npt.NDArray[np.float32]

TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
"""Types of weights, most exact first. Those of llama.cpp's k-quants are made with its own llama-quantize."""
WHOLE = ("f32", "f16", "bf16")
"""Of these, the ones that count as no less exact than the base."""

_FEW_BITS = ("q5_1", "q5_0", "q4_1", "q4_0")
_OUTER = (
    "token_embd.weight",
    "output.weight",
)  # 8 bits where the others have fewer: each answer's token depends on them
_F16_LARGEST = 65504.0
_ELSEWHERE = "Write it with --to merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py."


@dataclass(frozen=True)
class GgufArchitecture:
    """name: in llama.cpp. interleaved: q and k are stored interleaved. norm_offset: is added to the weights of norms.
    windowed: keys of sliding windows are written; elsewhere the context ends where a window would. activation: the
    only one that llama.cpp computes."""

    name: str
    interleaved: bool = False
    norm_offset: float = 0.0
    windowed: bool = False
    activation: str = "silu"


_ARCHITECTURES: dict[str, GgufArchitecture] = {
    "llama": GgufArchitecture("llama", interleaved=True),
    "mistral": GgufArchitecture("llama", interleaved=True),
    "qwen2": GgufArchitecture("qwen2"),
    "qwen3": GgufArchitecture("qwen3"),
    "gemma3_text": GgufArchitecture("gemma3", norm_offset=1.0, windowed=True, activation="gelu_pytorch_tanh"),
}
"""model_type of config.json -> architecture."""


def architecture_of(config: Mapping[str, Any]) -> GgufArchitecture:
    """Raises ExportError for a network whose conversion is not known here."""
    found = _ARCHITECTURES.get(str(config.get("model_type")))
    if found is None:
        known = ", ".join(_ARCHITECTURES)
        raise ExportError(f"gguf: {config.get('model_type')!r} is not written here; {known} are. {_ELSEWHERE}")
    if config.get("final_logit_softcapping") or config.get("attn_logit_softcapping"):
        raise ExportError(f"gguf: this network caps its logits, which is not written here. {_ELSEWHERE}")
    for key in ("hidden_act", "hidden_activation"):
        if config.get(key) not in (None, found.activation):
            raise ExportError(f"gguf: llama.cpp computes {config[key]!r} otherwise for this network. {_ELSEWHERE}")
    if found.windowed and not _every_sixth(config.get("layer_types") or ()):
        raise ExportError(f"gguf: llama.cpp has its windows on other layers. {_ELSEWHERE}")
    if config.get("query_pre_attn_scalar") not in (None, _head_width(config)):
        raise ExportError(f"gguf: this network scales its attention otherwise, which is not written here. {_ELSEWHERE}")
    return found


def add_shape(writer: Any, config: Mapping[str, Any], architecture: GgufArchitecture, file_type: int) -> None:
    """Writes the network's dimensions, norms and positions."""
    heads, head_width = int(config["num_attention_heads"]), _head_width(config)
    theta, scaling = _positions(config)
    context = int(config["max_position_embeddings"])
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window and not architecture.windowed:
        context = min(context, int(window))
    writer.add_context_length(context)
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_dimension_count(head_width)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_file_type(file_type)
    if scaling.get("rope_type") == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(scaling["factor"]))
    if window and architecture.windowed:
        writer.add_sliding_window(int(window))


def _every_sixth(kinds: Sequence[str]) -> bool:
    """Whether each sixth layer reads the whole context, and the others a window, as llama.cpp has it for gemma3."""
    return all((kind == "full_attention") == (place % 6 == 0) for place, kind in enumerate(kinds, 1))


def _head_width(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def _positions(config: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
    """The base of rotary positions, and how they are scaled. Raises ExportError where llama.cpp would not do so.

    Newer configs have `rope_parameters`, of one kind of layer or of each; older ones `rope_theta` and `rope_scaling`.
    """
    given = config.get("rope_parameters") or {}
    own = given.get("full_attention", given)
    if (local := given.get("sliding_attention")) is not None and local.get("rope_theta") not in (
        None,
        10_000,
        10_000.0,
    ):
        raise ExportError(f"gguf: positions of its windows have another base than 10,000. {_ELSEWHERE}")
    if config.get("rope_local_base_freq") not in (None, 10_000, 10_000.0):
        raise ExportError(f"gguf: positions of its windows have another base than 10,000. {_ELSEWHERE}")
    scaling = own or {**(config.get("rope_scaling") or {})}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ("default", "linear", "llama3") or float(scaling.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ExportError(f"gguf: positions of kind {kind!r} are not written here. {_ELSEWHERE}")
    theta = own.get("rope_theta") or config.get("rope_theta") or 10_000.0
    return float(theta), {**scaling, "rope_type": kind}


# ---- weights --------------------------------------------------------------------------------


@dataclass(frozen=True)
class GgufTensor:
    """shape: in rows. read: gives the values in float32, when they are written."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], FloatRows]


def tensors_of(
    folder: Path, config: Mapping[str, Any], architecture: GgufArchitecture, stack: ExitStack
) -> list[GgufTensor]:
    """All weights of a folder under llama.cpp's names; their files stay open as long as the stack.

    Raises ExportError for weights that llama.cpp has no place for.
    """
    from safetensors import safe_open

    names = _name_map(config, architecture)
    found: list[GgufTensor] = []
    for path in sorted(folder.glob("*.safetensors")):
        opened = stack.enter_context(safe_open(path, framework="pt"))
        for key in opened.keys():  # noqa: SIM118 - no mapping
            if key.endswith("rotary_emb.inv_freq"):
                continue
            name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ExportError(f"gguf: llama.cpp has no place for the weight {key}. {_ELSEWHERE}")
            if name == "output.weight" and config.get("tie_word_embeddings"):
                continue
            shape = tuple(opened.get_slice(key).get_shape())
            found.append(GgufTensor(name, shape, _reader(opened, key, config, architecture)))
    if (factors := _frequency_factors(config)) is not None:
        found.append(GgufTensor("rope_freqs.weight", factors.shape, lambda: factors))
    return found


def _reader(
    opened: Any, key: str, config: Mapping[str, Any], architecture: GgufArchitecture
) -> Callable[[], FloatRows]:
    def read() -> FloatRows:
        import torch

        values: FloatRows = opened.get_tensor(key).to(torch.float32).numpy()
        if architecture.norm_offset and key.endswith("norm.weight"):
            values = values + architecture.norm_offset
        return interleaved(values, key, config) if architecture.interleaved else values

    return read


def interleaved(rows: FloatRows, key: str, config: Mapping[str, Any]) -> FloatRows:
    """Rows of q and k, (heads x width, …), with the two halves of each head's rows taken in turn; others unchanged."""
    heads = int(config["num_attention_heads"])
    if ".k_proj." in key:
        heads = int(config.get("num_key_value_heads") or heads)
    elif ".q_proj." not in key:
        return rows
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _name_map(config: Mapping[str, Any], architecture: GgufArchitecture) -> Any:
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    by_name = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    arch: MODEL_ARCH = by_name[architecture.name]
    return get_tensor_name_map(arch, int(config["num_hidden_layers"]))


def _frequency_factors(config: Mapping[str, Any]) -> FloatRows | None:
    """By what each frequency is divided where positions are scaled as in Llama 3; None where they are not.

    Source: transformers, modeling_rope_utils.py, _compute_llama3_parameters.
    """
    import numpy as np

    theta, scaling = _positions(config)
    if scaling["rope_type"] != "llama3":
        return None
    width, factor = _head_width(config), float(scaling["factor"])
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    before = float(scaling["original_max_position_embeddings"])
    factors = []
    for place in range(0, width, 2):
        wave = 2 * math.pi * theta ** (place / width)
        smooth = min(1.0, max(0.0, (before / wave - low) / (high - low)))
        factors.append(1.0 / ((1 - smooth) / factor + smooth))
    return np.asarray(factors, dtype=np.float32)


def write_tensors(writer: Any, tensors: Sequence[GgufTensor], kind: str) -> None:
    """Writes header, keys and weights; one weight is in memory at a time. kind: one of TYPES."""
    from gguf import GGMLQuantizationType, quantize
    from gguf.quants import quant_shape_to_byte_shape

    chosen = [GGMLQuantizationType[_type_of(tensor, kind).upper()] for tensor in tensors]
    for tensor, type_ in zip(tensors, chosen, strict=True):
        import numpy as np

        plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(type_)
        if plain is not None:
            size = math.prod(tensor.shape) * np.dtype(plain).itemsize
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(plain), size)
        else:
            packed = quant_shape_to_byte_shape(tensor.shape, type_)
            writer.add_tensor_info(tensor.name, packed, np.dtype(np.uint8), math.prod(packed), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, type_ in zip(tensors, chosen, strict=True):
        values = tensor.read()
        if type_ == GGMLQuantizationType.F16 and float(abs(values).max()) > _F16_LARGEST:
            raise ExportError(f"gguf: {tensor.name} has values beyond float16. Use --quantise f32 or bf16.")
        writer.write_tensor_data(quantize(values, type_))


def _type_of(tensor: GgufTensor, kind: str) -> str:
    """Vectors stay float32; rows that a block does not divide are float16; the outer weights have 8 bits at least."""
    if len(tensor.shape) < 2:
        return "f32"
    if kind in WHOLE:
        return kind
    if tensor.shape[-1] % 32:
        return "f16"
    return "q8_0" if kind in _FEW_BITS and tensor.name in _OUTER else kind


# ---- adapters -------------------------------------------------------------------------------


def adapter_tensors(
    adapter: Path, says: Mapping[str, Any], config: Mapping[str, Any], architecture: GgufArchitecture
) -> Iterator[GgufTensor]:
    """The adapter's factors under llama.cpp's names. says: adapter_config.json.

    A module with a rank or alpha of its own has its B scaled, because GGUF has one alpha. The rows of B of q and k are
    interleaved as the weights are. Raises ExportError for what GGUF adapters cannot hold.
    """
    from safetensors import safe_open

    if says.get("use_dora") or says.get("bias", "none") != "none" or says.get("modules_to_save"):
        raise ExportError("gguf: adapters with DoRA, biases or whole modules have no GGUF form. Add --merged.")
    if any(says.get(key) for key in ("layer_replication", "use_qalora")) or not says["lora_alpha"]:
        raise ExportError("gguf: llama.cpp would apply this adapter otherwise than PEFT. Add --merged.")
    names = _name_map(config, architecture)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as opened:
        loaded = {key: opened.get_tensor(key).float().numpy() for key in opened.keys()}  # noqa: SIM118
    for key, values in sorted(loaded.items()):
        module, _, rest = key.removeprefix("base_model.model.").partition(".lora_")
        which = rest.removesuffix(".weight")
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if which not in ("A", "B") or name is None:
            raise ExportError(f"gguf: llama.cpp has no place for the adapter's {key}. Add --merged.")
        if which == "B":
            values = values * _own_scale(says, module, rank=values.shape[1])
            values = interleaved(values, f"{module}.", config) if architecture.interleaved else values
        ready = values
        yield GgufTensor(f"{name}.lora_{which.lower()}", ready.shape, lambda ready=ready: ready)  # type: ignore[misc]


def alpha_of(says: Mapping[str, Any]) -> float:
    """The alpha that llama.cpp divides by the rank."""
    rank, alpha = float(says["r"]), float(says["lora_alpha"])
    return alpha * math.sqrt(rank) if says.get("use_rslora") else alpha


def _own_scale(says: Mapping[str, Any], module: str, rank: int) -> float:
    """By what B is multiplied so that the adapter's one alpha gives this module's scale; 1 where it has the same."""
    patterns = (says.get("alpha_pattern") or {}).items()
    alpha = next((v for k, v in patterns if re.fullmatch(rf"(.*\.)?({k})", module)), says["lora_alpha"])
    wanted = float(alpha) / (math.sqrt(rank) if says.get("use_rslora") else rank)
    return wanted / (alpha_of(says) / rank)
