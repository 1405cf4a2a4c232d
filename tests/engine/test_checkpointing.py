"""Gradient checkpointing: the same losses and gradients with fewer tensors kept, on both paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.checkpointing import checkpointing, layers_of
from rung.engine.padded_engine import PaddedEngine
from rung.testing import tiny_model
from rung.training import lora, whole
from rung.training.batches import TokenRow
from rung.training.loss import backward
from rung.types import TrainingOptions

OPTIONS = TrainingOptions(1e-3, steps=2, rank=4, alpha=8, seed=1)
ROWS = [
    TokenRow(str(i), (*range(3, 40), *range(50, 53 + 4 * i)), tuple(range(60, 63 + i)))
    for i in range(3)  # a shared prefix of 37 tokens
]


def engine_of(path: str, folder: Path) -> Any:
    if path == "tree":
        return tiny_model().engine
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    engine = PaddedEngine(network, "tiny")
    engine.pads_right = True
    return engine


def trained(engine: Any, full: bool, dropout: float = 0.0) -> None:
    options = TrainingOptions(1e-3, steps=2, rank=4, alpha=8, seed=1, dropout=dropout)
    (whole if full else lora).begin(engine, options, None)
    with torch.no_grad():
        for name, p in engine.network.named_parameters():
            if ".lora_B" in name and p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    engine.network.train()


def loss_and_gradients(engine: Any, micro_tokens: int, *, on: bool) -> tuple[float, dict[str, Any]]:
    engine.network.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    with checkpointing(engine.network, on=on):
        loss, _ = backward(engine, ROWS, micro_tokens=micro_tokens)
    found = {n: p.grad.clone() for n, p in engine.network.named_parameters() if p.grad is not None}
    return loss, found


@pytest.mark.parametrize("path", ["tree", "padded"])
@pytest.mark.parametrize(("full", "dropout"), [(False, 0.0), (False, 0.3), (True, 0.0)])
@pytest.mark.parametrize("micro_tokens", [1, 1000])
def test_losses_and_gradients_are_the_same_with_and_without(
    path: str, full: bool, dropout: float, micro_tokens: int, tiny_folder: Path
) -> None:
    engine = engine_of(path, tiny_folder)
    trained(engine, full, dropout)
    loss, expected = loss_and_gradients(engine, micro_tokens, on=False)
    again, found = loss_and_gradients(engine, micro_tokens, on=True)
    assert again == loss and found.keys() == expected.keys() and len(found) > 10
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    assert any(gradient.abs().max() > 0 for gradient in expected.values())


@pytest.mark.parametrize("path", ["tree", "padded"])
def test_fewer_numbers_are_kept_for_the_backward_pass(path: str, tiny_folder: Path) -> None:
    engine = engine_of(path, tiny_folder)
    trained(engine, full=False)
    weights = {p.untyped_storage().data_ptr() for p in engine.network.parameters()}

    def kept(on: bool) -> int:
        numbers: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                numbers[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), checkpointing(engine.network, on=on):
            logits, _ = engine.scores([(row.prompt, row.target) for row in ROWS])
        del logits
        return sum(numbers.values())

    assert kept(True) < 0.5 * kept(False)


def test_keys_and_values_are_collected_once_where_a_layer_is_computed_twice() -> None:
    engine = tiny_model().engine
    trained(engine, full=False)
    ids = list(range(3, 30))
    kept: list[Any] = []
    from rung.engine.prefix_tree import grow

    with checkpointing(engine.network):
        hidden = engine.hidden_of(grow([ids]), kept=kept)
        assert len(kept) == len(layers_of(engine.network)) == 2
        hidden.sum().backward()
    assert len(kept) == 2


def test_layers_are_as_before_afterwards_and_answering_is_not_touched() -> None:
    engine = tiny_model().engine
    before = [vars(layer).get("forward") for layer in layers_of(engine.network)]
    expected = engine.scores([((3, 4, 5), (6, 7))])[0]
    with pytest.raises(KeyboardInterrupt), checkpointing(engine.network):
        with torch.inference_mode():
            assert torch.equal(engine.scores([((3, 4, 5), (6, 7))])[0], expected)
        raise KeyboardInterrupt
    assert [vars(layer).get("forward") for layer in layers_of(engine.network)] == before


def test_a_network_that_marks_no_layers_has_its_longest_list_of_equal_ones() -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(3))
            self.others = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)] * 3)

    network = Plain()
    assert layers_of(network) == list(network.blocks)
