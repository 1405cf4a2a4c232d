"""Small random networks of many architectures, made from transformers' configurations.

Weights are large enough that every part of a layer shows in the logits.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

VOCABULARY = 97
_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}
_MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
_LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("mamba", {"state_size": 8, "use_mambapy": False}),
    "jamba": ("jamba", {**_MAMBA, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
                        "use_mamba_kernels": False}),
    "falcon_h1": ("falcon_h1", {**_MAMBA, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16,
                                "mamba_chunk_size": 8}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "qwen3_next": ("qwen3_next", {**_LINEAR, **_EXPERTS, "head_dim": 16, "shared_expert_intermediate_size": 16,
                                  "layer_types": ["linear_attention", "full_attention"]}),
    "gpt_neo": ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
                            "window_size": 6, "resid_dropout": 0.0, "embed_dropout": 0.0}),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "bias": True}),
    "diffllama": ("diffllama", {}),
    "granite": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3}),
    "cohere": ("cohere", {"logit_scale": 0.25, "use_qk_norm": True}),
    "gemma2": ("gemma2", {"head_dim": 16, "sliding_window": 24, "final_logit_softcapping": 3.0}),
    "opt": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False, "dropout": 0.0}),
    "mistral": ("mistral", {"sliding_window": 100}),
    "llama": ("llama", {}),
}  # fmt: skip


def small_network(name: str, *, dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """The architecture of that name, with the same weights every time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, own = SHAPES[name]
    config = AutoConfig.for_model(kind, **{**_BASE, **own, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return network.to(dtype).eval()


def plain_copy(network: Any) -> Any:
    """The same network for transformers alone; taken before an engine has it."""
    return copy.deepcopy(network)


def plain_answer(network: Any, prompt: list[int], most: int, stop: int | None = None) -> list[int]:
    """Greedy, by transformers' own `generate`, a row by itself."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=stop, pad_token_id=0)
    ids = torch.tensor([prompt])
    network.generation_config = config
    found: list[int] = network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0].tolist()
    return found[len(prompt) :]
