from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.target_modules import ALL_LINEAR, adaptable_layers
from small_architectures import OVERRIDES, small_config


def network_of(kind: str) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(small_config(CONFIG_MAPPING[kind], OVERRIDES.get(kind, {}), 64))


@pytest.mark.parametrize(("kind", "layer"), [("deepseek_v4", "o_a_proj"), ("llama4_text", "router")])
def test_a_layer_that_only_calls_itself_linear_gets_no_adapter(kind: str, layer: str) -> None:
    network = network_of(kind)
    kinds = {type(module) for name, module in network.named_modules() if name.endswith(layer)}
    assert any(issubclass(found, torch.nn.Linear) for found in kinds)
    targets = adaptable_layers(network)
    assert isinstance(targets, list) and targets
    assert not any(name.endswith(layer) for name in targets)


def test_a_layer_that_computes_its_product_in_its_own_words_gets_one() -> None:
    assert adaptable_layers(network_of("falcon")) == ALL_LINEAR


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_get_no_adapter_and_one_reloads_in_plain_peft(kind: str, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    network = network_of(kind).eval()
    plain = copy.deepcopy(network)
    targets = adaptable_layers(network)
    assert isinstance(targets, list) and "o_proj" in targets
    ids = torch.tensor([[5, 6, 7, 8]])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")
        warnings.filterwarnings("error", ".*_pattern keys did not match.*")
        trained = get_peft_model(network, LoraConfig(r=4, target_modules=targets))
        adapted = {name for name, module in trained.named_modules() if hasattr(module, "lora_A")}
        assert {name.rpartition(".")[2] for name in adapted} == set(targets), "PEFT put others in their place"
        for name, parameter in trained.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
        expected = trained(ids).logits
        trained.save_pretrained(str(tmp_path), save_embedding_layers=False)
        reloaded = PeftModel.from_pretrained(plain, str(tmp_path))
        torch.testing.assert_close(reloaded(ids).logits, expected)


def test_a_layer_that_peft_would_not_find_again_in_a_folder_gets_no_adapter() -> None:
    """PEFT takes `shared_experts` for a name of old checkpoints and renames it."""
    targets = adaptable_layers(network_of("laguna"))
    assert "g_proj" in targets and "model.layers.0.mlp.gate_proj" in targets
    assert not any("shared_experts" in name or name in ("gate_proj", "up_proj", "down_proj") for name in targets)
