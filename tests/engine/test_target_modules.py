from __future__ import annotations

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
