from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from rung.engine import attention
from rung.engine.tree_engine import TreeEngine
from rung.training.batches import TokenRow
from rung.training.loop import _drop_in_adapters
from rung.training.loss import backward

SWITCH = 24


def networks() -> tuple[Any, TreeEngine]:
    """A tiny Phi-3 with two sets of rotary factors, as transformers computes it, and an engine with its weights."""
    from transformers import AttentionInterface, AutoModelForCausalLM, Phi3Config

    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    config = Phi3Config(
        vocab_size=120,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=SWITCH,
        rope_scaling={"rope_type": "longrope", "original_max_position_embeddings": SWITCH, **factors},
        pad_token_id=0,
        initializer_range=0.3,
    )
    AttentionInterface.register(attention.NAME, attention.attention)
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    network = copy.deepcopy(plain)
    network.set_attn_implementation(attention.NAME)
    return plain, TreeEngine(network, "tiny")


@pytest.mark.parametrize("lengths", [(3, 30, 5, 28), (30, 25, 40, 28), (3, 4, 5, 6)])
def test_gradients_of_long_and_short_rows_are_those_of_a_plain_loop(lengths: tuple[int, ...]) -> None:
    plain, engine = networks()
    begin = list(range(3, 14))
    prompts = [begin + [50 + (i * n) % 60 for i in range(n)] for n in lengths]
    rows = [TokenRow(str(i), tuple(prompt), (7 + i, 9, 2)) for i, prompt in enumerate(prompts)]
    found = {}
    for which, network in {"ours": engine.network, "plain": plain}.items():
        weights = network.get_input_embeddings().weight.requires_grad_(True)
        if which == "ours":
            loss, _ = backward(engine, rows, micro_tokens=40)
        else:
            losses = []
            for row in rows:
                logits = plain(torch.tensor([[*row.prompt, *row.target]])).logits[0, len(row.prompt) - 1 : -1]
                losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.target), reduction="sum"))
            whole = torch.stack(losses).sum() / 12
            whole.backward()
            loss = whole.item()
        found[which] = loss, weights.grad
    assert found["ours"][0] == pytest.approx(found["plain"][0], rel=1e-5)
    torch.testing.assert_close(found["ours"][1], found["plain"][1], rtol=1e-3, atol=1e-5)


def test_the_networks_own_dropout_is_off_in_training() -> None:
    _, engine = networks()
    for layer in engine.network.model.layers:
        layer.self_attn.attention_dropout = 0.5
        layer.resid_attn_dropout = torch.nn.Dropout(0.5).eval()
    rows = [TokenRow("a", tuple(range(3, 20)), (7, 9, 2))]
    from peft import LoraConfig

    network = engine.adapters.begin_training(LoraConfig(r=2, lora_dropout=0.5, target_modules=["o_proj"]), 0)
    _drop_in_adapters(network)
    dropped = [m for m in network.modules() if isinstance(m, torch.nn.Dropout) and m.training]
    assert len(dropped) == len(engine.network.model.layers)  # those of the adapters
    backward(engine, rows, micro_tokens=100)
