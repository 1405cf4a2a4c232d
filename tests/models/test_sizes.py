from __future__ import annotations

from typing import Any

import pytest
import torch

from rung.models.sizes import TRAINED_TOKENS, Shape, as_count, as_size, shape_of, training_bytes, working_bytes
from rung.models.suggestions import EMBEDDED, SUGGESTIONS, scaled
from rung.types import Speed, TrainingOptions


def sizes(shape: Shape) -> dict[str, Any]:
    """The same network for a config of transformers."""
    return {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head_width,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
    }


def network_of(kind: str, shape: Shape) -> Any:
    """The network of that kind, without memory for its weights."""
    import transformers

    made = {
        "gemma": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
        "Qwen": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }
    config, network = next(
        (found for part, found in made.items() if part in kind),
        (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    )
    with torch.device("meta"):
        built = network(config(**sizes(shape)))
    built.tie_weights()  # transformers 5.0 leaves a network without memory untied
    return built


@pytest.mark.parametrize("name", ["embedded", *(s.hub for s in SUGGESTIONS)])
def test_the_weights_of_a_suggestion_are_those_of_its_network(name: str) -> None:
    shape = next((s.shape for s in SUGGESTIONS if s.hub == name), EMBEDDED)
    network = network_of(name, shape)
    assert shape.parameters == sum(p.numel() for p in network.parameters())
    read = shape_of(network.config.to_dict())
    assert read is not None and sizes(read) == sizes(shape)


def test_published_sizes_are_met() -> None:
    """Millions of weights as the models' pages tell them."""
    told = [362, 596, 1000, 1721, 4022, 8030]
    assert [round(s.shape.parameters / 1e6) for s in SUGGESTIONS] == told
    assert round(EMBEDDED.parameters / 1e5) == 1345


def test_the_cache_is_that_of_transformers_and_scores_of_a_step_count_for_every_row() -> None:
    shape = Shape(4, 64, 128, 4, 2, 16, 1000)
    cache = 8 * 32 * 4 * 2 * 2 * 16 * 2  # rows, tokens, layers, keys and values, heads, width, bytes
    one = working_bytes(shape, 2, rows=8, tokens=32)
    assert one - cache - 8 * 1000 * 4 == 4 * 32 * (2 * 64 + 64 + 2 * 32 + 3 * 128) * 2


def test_what_a_training_keeps_is_about_what_autograd_saves() -> None:
    """Llama as transformers computes it, with attention that keeps no weights, and LoRA on all linear layers."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    shape = Shape(4, 256, 512, 8, 4, 32, 1000)
    network = network_of("llama", shape)
    network = LlamaForCausalLM._from_config(network.config, attn_implementation="sdpa")
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    network = get_peft_model(network, config)
    weights = {p.data_ptr() for p in network.parameters()}
    adapter = sum(p.numel() for p in network.parameters() if p.requires_grad)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = 128
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.base_model.model.model(torch.ones(1, tokens, dtype=torch.long))
    bare = training_bytes(shape, 4) - int(TRAINED_TOKENS / 4) * shape.vocabulary * 4 * 3
    estimated = (bare - adapter * 16) * tokens / TRAINED_TOKENS
    assert estimated == pytest.approx(sum(kept.values()), rel=0.5)


def test_figures_rest_on_the_batch_that_is_trained_by_default() -> None:
    assert TrainingOptions.micro_tokens == TRAINED_TOKENS


def test_a_config_without_usual_names_has_no_shape() -> None:
    assert shape_of({"model_type": "x"}) is None
    nested = shape_of({"text_config": sizes(EMBEDDED), "tie_word_embeddings": True})
    assert nested is not None and nested.layers == 30


def test_larger_models_are_slower_by_the_weights_a_token_meets() -> None:
    double = Shape(60, 576, 1536, 9, 3, 64, 98_304, norms=1152)
    assert scaled(Speed(100, 10, 50), double) == Speed(50, 5, 25)
    assert as_size(1.26e9) == "1.3 GB" and as_size(15.6e9) == "16 GB"


def test_what_is_small_is_told_in_megabytes_and_never_as_nothing() -> None:
    assert [as_size(n) for n in (538e6, 4.2e6, 2e3, 0)] == ["538 MB", "4.2 MB", "2 kB", "0 MB"]
    assert as_count(134_515_008) == "135 M" and as_count(37_000) == "37,000"
