"""Layers divided over two processes by FSDP2, on the CPU with gloo. On GPUs nothing of it is measured."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import in_processes

from rung.engine.checkpointing import checkpointing
from rung.engine.layers import decoder_layers, fused_layers
from rung.errors import TrainingError
from rung.models.in_group import load_sharded, train_sharded
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.testing import save_tiny_model
from rung.training import lora
from rung.training.batches import TokenRow
from rung.training.loss import backward
from rung.types import Message, TrainingRow
from trained import OPTIONS, weights

CPU = torch.device("cpu")
TOKENS = [TokenRow(f"row-{i}", (5, 6, 7, *range(8, 9 + i)), (20 + i, 21, 2)) for i in range(4)]
ROWS = [TrainingRow(f"row-{i}", (Message("user", f"number {i}"),), f"answer {i}") for i in range(6)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def sharded_model(base: Path) -> LocalModel:
    warnings.simplefilter("ignore")  # of torch itself
    return load_sharded(str(base), CPU, dtype=torch.float32)


def gradients(model: LocalModel, *, again: bool = False) -> tuple[float, list[torch.Tensor]]:
    """The loss of a batch, and the gradients of an adapter that adds something. again: layers are computed twice."""
    lora.fresh_adapter(model.engine, OPTIONS)
    draw = torch.Generator().manual_seed(1)
    trainable = [p for p in model.network.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trainable:
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    with checkpointing(model.network, on=again):
        loss, _ = backward(model.engine, TOKENS, micro_tokens=1024)
    return loss, [p.grad for p in trainable]


def held(model: LocalModel) -> int:
    """Numbers of the layers' weights in this process."""
    named = [each for layer in decoder_layers(model.network) for each in layer.named_parameters()]
    own: list[Any] = [p for name, p in named if ".lora_" not in name]
    return sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in own)


def test_divided_layers_give_the_loss_and_gradients_of_whole_ones(base: Path) -> None:
    whole = load_model(str(base), device="cpu", dtype=torch.float32, threads=1)
    numbers = held(whole)
    loss, expected = gradients(whole)

    def work(rank: int) -> Any:
        model = sharded_model(base)
        before = held(model)
        results = [gradients(model, again=again) for again in (False, True)]
        after = held(model)
        found = [(loss, [g.numpy() for g in grads]) for loss, grads in results]
        return before, after, len(fused_layers(model.network)), found

    for before, after, fused, found in in_processes(2, work):
        assert fused == 2
        assert before == numbers // 2
        assert after == before, "a layer is not given back after it ran"
        for own_loss, own in found:
            assert own_loss == pytest.approx(loss, abs=1e-5)
            assert all(torch.allclose(torch.tensor(a), b, atol=1e-5) for a, b in zip(own, expected, strict=True))


def test_all_processes_divide_the_same_weights_though_one_alone_checks_adapters(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))  # what one found out before, the other reads there

    def work(rank: int) -> list[str]:
        return [name for name, _ in sharded_model(base).network.named_parameters()]

    first, second = in_processes(2, work)
    assert first == second
    assert not any("lora_" in name for name in first), "an adapter is whole in every process"


def test_a_divided_model_trains_the_adapter_that_a_whole_one_trains(base: Path, tmp_path: Path) -> None:
    whole = load_model(str(base), device="cpu", dtype=torch.float32, threads=1)
    whole.train(ROWS, OPTIONS, tmp_path / "whole")

    def work(rank: int) -> str:
        model = sharded_model(base)
        with pytest.raises(TrainingError, match="all weights are to be trained"):
            train_sharded(model, ROWS, replace(OPTIONS, full=True), tmp_path / "none")
        with pytest.raises(TrainingError, match="a batch has 1 rows"):
            train_sharded(model, ROWS, replace(OPTIONS, batch_size=1), tmp_path / "none")
        return str(train_sharded(model, ROWS, OPTIONS, tmp_path / "divided"))

    folders = in_processes(2, work)
    assert folders == [str(tmp_path / "divided" / "step-6")] * 2
    first, second = weights(tmp_path / "whole" / "step-6"), weights(tmp_path / "divided" / "step-6")
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[k], second[k], atol=1e-5) for k in first)
