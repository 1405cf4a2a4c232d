"""Small random models of every causal architecture that the installed transformers knows, as Hugging Face folders.

A configuration is made from the fields of its own class: sizes shrink, dropouts are off, windows and chunks are shorter
than the prompts that are tried, and every kind of layer the class has occurs. `OVERRIDES` holds what single
architectures need beyond that, `VARIANTS` other configurations of widely used ones, `OUT_OF_SCOPE` what is left out
and why. Knows nothing of rung. `tests/engine/test_architectures.py` builds a sample of ten.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

LAYERS = 4
WINDOW = 24
POSITIONS = 2048
PEAK = 15.0  # the largest logit: as a trained model's, so that the two likeliest tokens are seldom nearly equal
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
WORDS = ("the", " the", "ing", " a", " of", "card", " card", "answer", " answer", "user", " is", " not", "er", "on")

SIZES: dict[str, Any] = {
    # width
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "lru_width", "mlp_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_inner"), 128),
    **dict.fromkeys(("dense_intermediate_size", "intermediate_size_mlp", "ffn_hidden_size"), 128),
    **dict.fromkeys(("shared_intermediate_size", "shared_expert_intermediate_size", "moe_intermediate_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size", "router_hidden_size"), 32),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "gated_norm_rank", "adapter_rank"), 16),
    # depth
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers", "num_encoder_layers"), LAYERS),
    # attention
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "kv_channels"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim"), 16),
    "v_head_dim": 24,
    **dict.fromkeys(
        ("sliding_window", "sliding_window_size", "window_size", "attention_window_size", "local_attention"), WINDOW
    ),
    **dict.fromkeys(("attention_chunk_size", "floor_scale", "log_scaling_n_floor"), 32),
    **dict.fromkeys(("index_topk",), 16),
    **dict.fromkeys(("index_head_dim",), 32),
    **dict.fromkeys(("index_n_heads",), 16),
    "query_pre_attn_scalar": 24,
    # experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 8),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "num_experts_per_token"), 2),
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "zero_expert_num": 2,
    # states
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 16),
    **dict.fromkeys(("mamba_n_groups", "mamba_ngroups", "n_groups"), 1),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size", "block_size"), 16),
    "mamba_d_ssm": 128,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    "linear_head_dim": 16,
    "linear_num_heads": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    # positions and tokens
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "context_length"), POSITIONS),
    **dict.fromkeys(("model_max_length", "max_target_positions"), POSITIONS),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # first weights: a layer neither fades nor explodes at this width
    **dict.fromkeys(("initializer_range", "init_std", "initializer_factor", "embed_init_std"), 0.15),
}
VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size")
EVEN_IF_NONE = ("num_key_value_heads", "num_kv_heads", "pad_token_id", "bos_token_id", "eos_token_id")
DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_KEPT = object()  # a field's default is small enough
KINDS = ("layer_types", "layers_block_type", "mlp_layer_types", "block_types")  # lists with one entry a layer

LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=256,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=128)


def longrope(pairs: int, original: int = 1024) -> dict[str, Any]:
    """pairs: rotated pairs of a head, half its rotated width. original: prompts beyond it turn by the long factors."""
    return dict(
        rope_type="longrope",
        rope_theta=10000.0,
        short_factor=[1.0 + 0.03 * i for i in range(pairs)],
        long_factor=[1.0 + 0.8 * i for i in range(pairs)],
        factor=POSITIONS / original,
        original_max_position_embeddings=original,
    )


SLIDING_FULL = ["sliding_attention", "full_attention"] * 2
LINEAR_FULL = ["linear_attention", "full_attention"] * 2
CONV_FULL = ["conv", "full_attention"] * 2
SHARED = dict(num_hidden_layers=6, num_kv_shared_layers=2, layer_types=["sliding_attention", "full_attention"] * 3)
MULTIPLIERS = dict(embedding_multiplier=6.0, logits_scaling=4.0, residual_multiplier=0.5, attention_multiplier=0.1)
DENSE_SPARSE = ["dense", "sparse"] * 2

OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": dict(attn_layer_indices=[1, 3]),
    "blt": dict(
        encoder_config=dict(hidden_size_global=64, num_key_value_heads=4),
        decoder_config=dict(hidden_size_global=64, num_key_value_heads=4),
        encoder_hash_byte_group_vocab=500,
        num_hidden_layers=LAYERS,
        patching_threshold=5.0,
    ),
    "codegen": dict(rotary_dim=8),
    "cohere_compass_text": dict(
        layer_types=SLIDING_FULL,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
            "full_attention": None,
        },
    ),
    "dbrx": dict(
        attn_config=dict(kv_n_heads=2, rope_theta=10000.0, clip_qkv=8.0),
        ffn_config=dict(moe_num_experts=8, moe_top_k=2),
    ),
    "deepseek_v2": dict(num_experts_per_tok=2),
    "deepseek_v4": dict(
        compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
        layer_types=["heavily_compressed_attention", "compressed_sparse_attention"] + SLIDING_FULL[:1] * 2,
        o_groups=2,
        o_lora_rank=16,
        num_key_value_heads=1,
    ),
    "dots3_note_text": {
        f"swa_{name}": SIZES[name]
        for name in (
            "num_attention_heads",
            "q_lora_rank",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "qk_rope_head_dim",
            "v_head_dim",
            "head_dim",
        )
    }
    | dict(swa_num_key_value_heads=4, sliding_window=WINDOW),
    "dots1": dict(
        n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1, layer_types=SLIDING_FULL
    ),
    "exaone4": dict(layer_types=SLIDING_FULL),
    "gemma3n_text": SHARED | dict(activation_sparsity_pattern=[0.9, 0.9, 0.0, 0.0, 0.0, 0.0]),
    "gemma4_text": SHARED,
    "gemma4_unified_text": SHARED,
    "gpt_neo": dict(attention_types=[[["global", "local"], 2]]),
    "gptj": dict(rotary_dim=8),
    "granite": MULTIPLIERS,
    "granite_swa": MULTIPLIERS | dict(layer_types=SLIDING_FULL),
    "granitemoe": MULTIPLIERS,
    "granitemoe_swa": MULTIPLIERS | dict(layer_types=SLIDING_FULL),
    "granitemoehybrid": MULTIPLIERS | dict(layer_types=LINEAR_FULL),
    "granitemoeshared": MULTIPLIERS | dict(shared_intermediate_size=32),
    "hunyuan_v1_dense": dict(head_dim=32),
    "hunyuan_v1_moe": dict(head_dim=32),
    "helium": dict(head_dim=16),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1, mamba_dt_rank=8),
    "laguna": dict(layer_types=SLIDING_FULL, num_attention_heads_per_layer=[4, 2, 4, 2]),
    "lfm2": dict(layer_types=CONV_FULL, block_multiple_of=32),
    "lfm2_moe": dict(layer_types=CONV_FULL),
    "longcat_flash": dict(num_layers=2, head_dim=16),
    "mamba2": dict(num_heads=8, head_dim=16),
    "mellum": dict(layer_types=SLIDING_FULL, mlp_layer_types=DENSE_SPARSE),
    "minimax_m3_vl_text": dict(
        layer_types=["full_attention", "minimax_m3_sparse"] * 2,
        mlp_layer_types=DENSE_SPARSE,
        index_block_size=8,
        index_topk_blocks=3,
        num_key_value_heads=2,
        index_n_heads=2,
        rotary_dim=16,
    ),
    "ministral": dict(head_dim=32, layer_types=SLIDING_FULL),
    "ministral3": dict(
        rope_parameters=YARN
        | dict(
            original_max_position_embeddings=32,
            llama_4_scaling_beta=0.5,
            mscale=1.0,
            mscale_all_dim=1.0,
            beta_fast=32.0,
            beta_slow=1.0,
        ),
    ),
    "moshi": dict(sliding_window=POSITIONS),
    "mpt": dict(attn_config=dict(attn_pdrop=0)),
    "olmo": dict(clip_qkv=2.0),
    "olmoe": dict(clip_qkv=2.0),
    "phi3": dict(sliding_window=WINDOW),
    "phimoe": dict(attention_bias=True, lm_head_bias=True),
    "qwen2": dict(tie_word_embeddings=True),
    "qwen2_moe": dict(mlp_only_layers=[1]),
    "qwen3": dict(tie_word_embeddings=True),
    "qwen4_exp_text": dict(
        indexer_n_heads=2,
        indexer_kv_heads=1,
        indexer_head_dim=32,
        indexer_budget=16,
        indexer_compress_ratio=4,
        hc_count=2,
        hc_lowrank=16,
        ple_layer_ids=[1],
        ple_embed_dim=64,
        ngram_vocab_size_base=500,
        make_ngram_vocab_size_divisible_by=8,
        split_ngram_parts=4,
        heads_per_ngram=2,
    ),
    "recurrent_gemma": dict(head_dim=16, block_types=["recurrent", "attention"], num_hidden_layers=LAYERS),
    "roc_bert": dict(pronunciation_vocab_size=30, shape_vocab_size=30),
    "xlstm": dict(num_heads=4, qk_dim_factor=1.0),
    "xmod": dict(default_language="en_XX"),
    "zaya": dict(num_experts_per_tok=1, sliding_window=WINDOW, layer_types=["hybrid_sliding", "hybrid"] * 2),
    "zamba": dict(n_mamba_heads=2),
}
OVERRIDES["qwen4_exp"] = dict(text_config=OVERRIDES["qwen4_exp_text"])
OVERRIDES["dots3_note"] = dict(
    text_config=OVERRIDES["dots3_note_text"],
    vision_config=dict(adapter_in_dim=64, adapter_out_dim=64),
    audio_config=dict(adapter_input_size=64, adapter_out_dim=64),
)
OVERRIDES["gemma3n"] = dict(text_config=OVERRIDES["gemma3n_text"])
OVERRIDES["gemma4"] = dict(text_config=OVERRIDES["gemma4_text"])
OVERRIDES["gemma4_unified"] = dict(text_config=OVERRIDES["gemma4_unified_text"])

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, llama3 rope, tied": ("llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "llama, yarn, wide heads": ("llama", dict(rope_parameters=YARN, head_dim=32)),
    "llama, dynamic rope, one key head": (
        "llama",
        dict(
            rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0),
            num_key_value_heads=1,
            max_position_embeddings=128,
        ),
    ),
    "llama, linear rope, biases": (
        "llama",
        dict(
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0), attention_bias=True, mlp_bias=True
        ),
    ),
    "mistral, no window": ("mistral", dict(sliding_window=None, head_dim=32)),
    "qwen2, untied, window in upper layers": (
        "qwen2",
        dict(
            use_sliding_window=True,
            sliding_window=WINDOW,
            layer_types=["full_attention"] * 2 + ["sliding_attention"] * 2,
        ),
    ),
    "qwen3, untied": ("qwen3", dict(tie_word_embeddings=False)),
    "phi3, longrope, short": (
        "phi3",
        dict(sliding_window=None, rope_parameters=longrope(8), original_max_position_embeddings=1024),
    ),
    "phi3, longrope, prompts on both sides": (
        "phi3",
        dict(sliding_window=None, rope_parameters=longrope(8, 128), original_max_position_embeddings=128),
    ),
    "phi4, grouped heads, partial rope": (
        "phi3",
        dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
    ),
    "falcon, many key heads": ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2, bias=False)),
    "falcon_h1, multipliers": (
        "falcon_h1",
        dict(
            key_multiplier=0.7,
            attention_out_multiplier=0.8,
            attention_in_multiplier=1.1,
            ssm_in_multiplier=1.2,
            ssm_out_multiplier=0.9,
            embedding_multiplier=2.0,
            lm_head_multiplier=0.5,
            mlp_multipliers=[0.8, 1.2],
            ssm_multipliers=[0.9, 1.1, 0.8, 1.2, 0.7],
        ),
    ),
    "hunyuan_v1_dense, rope by length": (
        "hunyuan_v1_dense",
        dict(head_dim=16, rope_parameters=dict(rope_type="dynamic", alpha=1000.0, factor=1.0, rope_theta=10000.0)),
    ),
    "phi, norms on queries": ("phi", dict(qk_layernorm=True)),
    "gpt2, scaled by layer": ("gpt2", dict(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True)),
    "inkling_text, positions scaled": ("inkling_text", dict(log_scaling_n_floor=32)),
    "llama4_text, no chunks": ("llama4_text", dict(no_rope_layers=[0] * 4, layer_types=["full_attention"] * 4)),
    "olmo2, one key head": ("olmo2", dict(num_key_value_heads=1)),
    "mixtral, window": ("mixtral", dict(sliding_window=WINDOW)),
    "starcoder2, window": ("starcoder2", dict(sliding_window=WINDOW)),
    "phimoe, longrope": (
        "phimoe",
        dict(
            rope_parameters=longrope(8, 128) | dict(short_mscale=1.1, long_mscale=1.3),
            original_max_position_embeddings=128,
        ),
    ),
    "falcon, alibi": ("falcon", dict(alibi=True, multi_query=False, num_kv_heads=4, parallel_attn=False, bias=True)),
    "gpt_neox, one after the other": ("gpt_neox", dict(use_parallel_residual=False)),
    "gpt_bigcode, many key heads": ("gpt_bigcode", dict(multi_query=False)),
    "opt-350m": ("opt", dict(word_embed_proj_dim=32, do_layer_norm_before=False)),
    "gemma2, no caps": ("gemma2", dict(attn_logit_softcapping=None, final_logit_softcapping=None)),
    "gemma3_text, caps": ("gemma3_text", dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0)),
    "gemma4_text, keys are values, experts": (
        "gemma4_text",
        dict(
            attention_k_eq_v=True,
            enable_moe_block=True,
            num_experts=8,
            top_k_experts=2,
            moe_intermediate_size=32,
            hidden_size_per_layer_input=0,
        ),
    ),
    "stablelm 2": ("stablelm", dict(qk_layernorm=True, use_parallel_residual=True, use_qkv_bias=True)),
    "cohere, norms on queries": ("cohere", dict(use_qk_norm=True, logit_scale=0.25)),
    "granite, multipliers 1": ("granite", dict(attention_multiplier=0.25)),
    "granitemoehybrid, no experts": (
        "granitemoehybrid",
        MULTIPLIERS | dict(layer_types=LINEAR_FULL, num_local_experts=0, num_experts_per_tok=0),
    ),
    "deepseek_v2, groups": (
        "deepseek_v2",
        dict(
            num_experts_per_tok=2,
            topk_method="group_limited_greedy",
            n_group=2,
            topk_group=1,
            q_lora_rank=None,
            first_k_dense_replace=1,
        ),
    ),
    "deepseek_v3, yarn": (
        "deepseek_v3",
        dict(rope_parameters=YARN | dict(mscale=1.0, mscale_all_dim=1.0), q_lora_rank=None),
    ),
    "gpt_oss, yarn": ("gpt_oss", dict(rope_parameters=YARN | dict(truncate=False, beta_fast=32.0, beta_slow=1.0))),
    "exaone4, no window": ("exaone4", dict(sliding_window=None, layer_types=["full_attention"] * 4)),
    "glm4_moe, norms on queries": ("glm4_moe", dict(use_qk_norm=True, attention_bias=True)),
    "smollm3, window": ("smollm3", dict(use_sliding_window=True, sliding_window=WINDOW, layer_types=SLIDING_FULL)),
    "zamba2, two blocks, rope": (
        "zamba2",
        dict(num_mem_blocks=2, use_mem_rope=True, use_shared_attention_adapter=True, num_key_value_heads=4),
    ),
    "mpt, no alibi": ("mpt", dict(attn_config=dict(alibi=False, attn_pdrop=0, clip_qkv=2.0, qk_ln=False))),
}

OUT_OF_SCOPE: dict[str, str] = {
    "cpmant": "not causal: the prompt is read in both directions",
    "xlm": "not causal: a word is predicted at a mask token",
    "xlnet": "not causal: words are predicted in permuted orders",
    "reformer": "random by design: attention hashes tokens into random buckets, and lengths must fill them",
    "musicgen": "answers in audio codes",
    "musicgen_melody": "answers in audio codes",
    "emu3": "AutoModelForCausalLM does not know its text part",
    "mllama": "AutoModelForCausalLM does not know its text part",
    "gemma3n": "its vision tower needs timm",
    "gemma4_assistant": "drafts for another model and reads that model's hidden states",
    "gemma4_unified_assistant": "drafts for another model and reads that model's hidden states",
}


def architectures() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name to model type and overrides: one entry for each causal model type in scope, then the variants."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    plain = {kind: (kind, OVERRIDES.get(kind, {})) for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    known = {name: entry for name, entry in VARIANTS.items() if entry[0] in plain}
    return {name: entry for name, entry in plain.items() if name not in OUT_OF_SCOPE} | known


def save_small(name: str, folder: Path, seed: int = 0) -> Path:
    """Writes the architecture of that name with random weights, and its tokenizer. Equal seeds give equal weights."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = small_tokenizer()
    model_type, overrides = architectures()[name]
    config = small_config(CONFIG_MAPPING[model_type], overrides, len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        vary_constants(network)
        enliven(network, len(tokenizer))
        raise_logits(network, len(tokenizer))
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small_config(kind: Any, overrides: dict[str, Any], vocabulary: int) -> Any:
    """A small configuration of that class; its parts (a text or a vision model) are made small likewise.

    overrides: fields that are set as given, whatever the class declares; a dict for a part is overrides of the part.
    """
    native: dict[str, str] = dict(getattr(kind, "attribute_map", {}) or {})
    fields = _fields(kind)
    given: dict[str, Any] = {}
    for field, default in fields.items():
        if native.get(field) not in fields:
            value = _small(field, default, vocabulary)
            if value is not _KEPT:
                given[field] = value
    if "kv_lora_rank" in fields and "num_key_value_heads" in given:
        given["num_key_value_heads"] = given.get("num_attention_heads", 4)  # compressed keys have one head a query
    overrides = {
        native.get(field, field) if native.get(field) in fields else field: v for field, v in overrides.items()
    }
    default = _default(kind)
    for part, known in getattr(kind, "sub_configs", {}).items():
        if (own := overrides.get(part, {})) is not None:
            of = type(getattr(default, part)) if getattr(default, part, None) is not None else known
            overrides[part] = small_config(of, own, vocabulary).to_dict() if hasattr(of, "model_type") else None
    given |= overrides
    given |= _layer_kinds(default, given, fields, overrides)
    return kind(**given)


def _default(kind: Any) -> Any:
    try:
        return kind()
    except Exception:
        return None


def _fields(kind: Any) -> dict[str, Any]:
    """Name and default of each field of a configuration class; those of every model's configuration are left out."""
    from transformers import PreTrainedConfig

    if dataclasses.is_dataclass(kind):
        found = {f.name: None if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(kind)}
        common = (
            {f.name for f in dataclasses.fields(PreTrainedConfig)}
            if dataclasses.is_dataclass(PreTrainedConfig)
            else set()
        )
        own = {
            name
            for base in kind.__mro__
            if base.__module__.startswith("transformers.models")
            for name in vars(base).get("__annotations__", {})
        }
        return {name: default for name, default in found.items() if name in own or name not in common}
    signature = inspect.signature(kind.__init__).parameters
    return {
        name: None if p.default is inspect.Parameter.empty else p.default
        for name, p in signature.items()
        if name not in ("self", "kwargs")
    }


def _small(field: str, default: Any, vocabulary: int) -> Any:
    """The small value of a field, or _KEPT."""
    if any(part in field for part in ("dropout", "pdrop", "layerdrop", "jitter")) and "classifier" not in field:
        return 0.0
    if field == "is_decoder":
        return True
    if field.startswith("forced_"):
        return None
    if field.endswith("token_id") and field not in SIZES:
        return 3 if isinstance(default, int) else _KEPT
    if default is None and field not in EVEN_IF_NONE:
        return _KEPT  # what is off stays off
    if field in VOCABULARIES:
        return vocabulary
    if field in ("n_group", "topk_group"):
        return min(default, 2 if field == "n_group" else 1)
    return SIZES.get(field, _KEPT)


def _layer_kinds(default: Any, given: dict[str, Any], fields: dict[str, Any], overrides: dict[str, Any]) -> Any:
    """Lists of layer kinds in which every kind of the default configuration occurs, in turn."""
    depth = next((given[name] for name in DEPTHS if name in given), LAYERS)
    found: dict[str, Any] = {}
    for field in KINDS:
        kinds = list(dict.fromkeys(getattr(default, field, None) or []))
        if kinds and field in fields and field not in overrides:
            found[field] = [kinds[i % len(kinds)] for i in range(depth)]
    return found


def small_tokenizer() -> Any:
    """Byte-level BPE: every byte, a few longer tokens, four special tokens; it puts none of them before a text."""
    from rung.testing import byte_level_bpe

    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return byte_level_bpe(SPECIAL, WORDS, **names)


def vary_constants(network: Any) -> None:
    """Random values in whatever starts constant: biases, norms, sinks, corrections of routers."""
    import torch

    with torch.no_grad():
        for name, tensor in network.state_dict(keep_vars=True).items():
            if not tensor.is_floating_point() or "inv_freq" in name or "embed_scale" in name:
                continue
            if tensor.numel() == 1 or bool(tensor.min() == tensor.max()):
                tensor.add_(torch.randn(tensor.shape) * 0.1)
        for module in network.modules():
            if getattr(module, "scaling", None) == 1.0 and hasattr(module, "q_norm"):
                # Scores are not divided by the root of the head's width: a trained norm does it.
                module.q_norm.weight.mul_(module.head_dim**-0.5)


def enliven(network: Any, vocabulary: int) -> None:
    """Scales layers up, and a tied embedding down, until answers depend on the context and not on the last token alone.

    With first weights as they are, a tied output layer repeats the last token, and then every engine is right.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    output, embedding = network.get_output_embeddings(), network.get_input_embeddings()
    linear = [m for m in network.modules() if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not output]
    ids = torch.randint(4, vocabulary, (2, 48))
    ids[1, 24:] = ids[0, 24:]
    with torch.no_grad():
        for _ in range(5):
            chosen = network(input_ids=ids, use_cache=False).logits[..., :vocabulary].argmax(-1)
            repeats = float((chosen == ids).float().mean())
            depends = float((chosen[0, 24:] != chosen[1, 24:]).float().mean())
            if repeats <= 0.1 and depends >= 0.3 and len(chosen.unique()) >= 16:
                return
            if repeats > 0.1 and output.weight is embedding.weight:
                embedding.weight.mul_(0.4)
            for module in linear:
                module.weight.mul_(1.25)


def raise_logits(network: Any, vocabulary: int) -> None:
    """Scales the output layer until the largest logit of a random prompt is about PEAK.

    Where its weights are the embedding's too, scales the last norm instead: a larger embedding would drown the layers.
    """
    import torch

    output = network.get_output_embeddings()
    tied = output.weight is network.get_input_embeddings().weight
    norms: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: norms.append(module))
        for module in network.modules()
        if "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None
    ]
    ids = torch.randint(4, vocabulary, (1, 48))
    with torch.no_grad():
        for _ in range(6):
            norms.clear()
            peak = float(network(input_ids=ids, use_cache=False).logits.abs().max())
            (norms[-1] if tied and norms else output).weight.mul_(min(max(PEAK / peak, 0.05), 20.0))
    for hook in hooks:
        hook.remove()
