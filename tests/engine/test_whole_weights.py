"""Weights of a network in a folder, and exchanged in place: tied, renamed and joined ones, with PEFT and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.adapters import Adapters
from rung.engine.whole_weights import is_whole, save_weights, weights_of

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}


def network_of(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    more: dict[str, Any] = {
        "llama": {"intermediate_size": 24, "tie_word_embeddings": True},
        "mixtral": {"intermediate_size": 24, "num_key_value_heads": 2, "num_local_experts": 3},
        "gpt2": {"n_positions": 32},
        "mamba": {"state_size": 4},
        "gemma3_text": {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8},
    }[kind]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **more)).eval()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2", "mamba", "gemma3_text"])
def test_weights_are_written_as_transformers_reads_them_and_exchanged_exactly(
    kind: str, wrapped: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    network = network_of(kind)
    adapters = Adapters(network, kind)
    if wrapped:
        _ = adapters.wrapper
    base = {name: p.detach().clone() for name, p in weights_of(network).items()}
    trained = adapters.begin_whole_training(0)
    assert trained.keys() == base.keys() and not any(".lora_" in name for name in trained)
    with torch.no_grad():
        for p in trained.values():
            p.add_(0.01 * torch.randn(p.shape))
    changed = {name: p.detach().clone() for name, p in trained.items()}
    ids = torch.tensor([[3, 4, 5, 6]])
    expected = network(ids).logits.detach()
    save_weights(network, tmp_path / "folder")
    adapters.end_training()
    assert is_whole(tmp_path / "folder")
    assert all(torch.equal(p, base[name]) and not p.requires_grad for name, p in weights_of(network).items())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "folder").eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(ids).logits, expected)
        with adapters.using(str(tmp_path / "folder")):
            assert all(torch.equal(p, changed[name]) for name, p in weights_of(network).items())
            torch.testing.assert_close(network(ids).logits, expected)
    assert all(torch.equal(p, base[name]) for name, p in weights_of(network).items())
    assert not adapters.mixable(str(tmp_path / "folder"))


def test_one_folder_is_kept_in_memory_and_a_rewritten_one_is_read_afresh(tmp_path: Path) -> None:
    network = network_of("llama")
    adapters = Adapters(network, "llama")
    folder = str(tmp_path / "folder")

    def written(value: float) -> None:
        trained = adapters.begin_whole_training(0)
        for p in trained.values():
            p.data.fill_(value)
        save_weights(network, tmp_path / "folder")
        adapters.end_training()

    def read() -> float:
        with adapters.using(folder):
            return float(next(iter(weights_of(network).values())).flatten()[0])

    written(1.0)
    assert read() == 1.0
    written(2.0)
    assert read() == 2.0, "training frees what was loaded"
    save_weights(network, tmp_path / "folder")
    assert read() == 2.0, "it is kept"
    adapters.forget(folder)
    assert read() != 2.0


@pytest.mark.parametrize("template", ["ChatML", "none"])
def test_whole_weights_answer_with_their_own_output_layer(template: str, tmp_path: Path) -> None:
    from rung.models.loading import load_model
    from rung.testing.fakes import TINY_TEMPLATE, save_tiny_model
    from rung.types import Decoding, Message, Request

    shape = TINY_TEMPLATE if template == "ChatML" else None
    folders = [save_tiny_model(tmp_path / f"{seed}", seed, template=shape) for seed in (0, 3)]
    base, other = (load_model(str(folder), dtype=torch.float32) for folder in folders)
    asked = [(Message("system", "Answer."), Message("user", text)) for text in ("What is a card?", "no", "a use")]
    expected = [g.text for g in other.generate([Request(turns, Decoding(8)) for turns in asked])]
    assert [
        g.text for g in base.generate([Request(turns, Decoding(8), None, str(folders[1])) for turns in asked])
    ] == expected
