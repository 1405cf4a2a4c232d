"""The optimiser of a training. bitsandbytes is played by a class of its interface; its steps count in plain numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from rung.errors import OutOfMemory, TrainingError
from rung.testing import tiny_model
from rung.training import loop, optimisers, whole
from rung.training.batches import TokenRow
from rung.training.loop import train
from rung.training.optimisers import ADAMW, IN_8_BITS, allocate_moments, optimiser_for, optimiser_of
from rung.types import TrainingOptions

OPTIONS = TrainingOptions(learning_rate=1e-3, steps=4, batch_size=2, seed=3, full=True)
ROWS = [TokenRow(str(i), tuple(range(5 + i, 15 + i)), (7, 8 + i)) for i in range(4)]


class AdamW8bit(torch.optim.Optimizer):
    """Moments of one byte each, as bitsandbytes keeps them: a step more coarse than float32 knows."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, state1=torch.zeros_like(p, dtype=torch.uint8))
                state["step"] += 1
                state["state1"] = (state["state1"].float() / 2 + p.grad.abs() * 100).clamp(0, 255).to(torch.uint8)
                p.add_(p.grad.sign() * (1 + state["state1"] / 255) / state["step"], alpha=-group["lr"])


@pytest.fixture
def bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = AdamW8bit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", fake)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    monkeypatch.setattr(optimisers, "is_installed", lambda: True)


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> Any:
    """An engine whose training needs 16 bytes with moments in float32, and 10 in 8 bits."""
    monkeypatch.setattr(whole, "bytes_needed", lambda engine, in_8_bits=False: 10 if in_8_bits else 16)
    monkeypatch.setattr(optimisers, "free_bytes", lambda device: free)
    return SimpleNamespace(device=torch.device("cuda"), make_room=lambda: None)


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize(("free", "kind"), [(16, ADAMW), (15, IN_8_BITS), (10, IN_8_BITS), (9, ADAMW)])
def test_moments_take_8_bits_where_those_in_float32_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, kind: str
) -> None:
    engine = on_a_gpu(monkeypatch, free)
    assert optimiser_of(engine, OPTIONS, tmp_path) == kind
    assert optimiser_of(engine, replace(OPTIONS, full=False), tmp_path) == ADAMW, "an adapter's moments are small"
    engine.device = torch.device("cpu")
    assert optimiser_of(engine, OPTIONS, tmp_path) == ADAMW
    monkeypatch.setattr(optimisers, "is_installed", lambda: False)
    engine.device = torch.device("cuda")
    assert optimiser_of(engine, OPTIONS, tmp_path) == ADAMW


@pytest.mark.usefixtures("bitsandbytes")
def test_a_training_goes_on_with_the_optimiser_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tiny_model()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimiser_of", lambda *_: IN_8_BITS)
        expected = train(model.engine, ROWS, OPTIONS, tmp_path / "whole")
        train(model.engine, ROWS, OPTIONS, tmp_path / "parts", until=2)
    assert json.loads((tmp_path / "parts" / "training.json").read_text())["optimiser"] == IN_8_BITS
    again = train(model.engine, ROWS, OPTIONS, tmp_path / "parts")  # there is memory enough for the other one now
    assert (again / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    plain = train(model.engine, ROWS, OPTIONS, tmp_path / "plain")
    assert (plain / "model.safetensors").read_bytes() != (expected / "model.safetensors").read_bytes()
    assert "optimiser" not in json.loads((tmp_path / "plain" / "training.json").read_text())
    (tmp_path / "parts" / "step-4" / "config.json").unlink()
    monkeypatch.setattr(optimisers, "is_installed", lambda: False)
    with pytest.raises(TrainingError, match="adamw_8bit, which needs the package bitsandbytes"):
        optimiser_of(model.engine, OPTIONS, tmp_path / "parts")


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("kind", [ADAMW, IN_8_BITS])
def test_moments_take_their_memory_before_the_first_batch_and_change_no_weight(kind: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimiser = optimiser_for(kind, [parameter], OPTIONS, torch.device("cpu"))
    parameter.grad = torch.zeros(3)
    allocate_moments(optimiser)
    assert parameter.tolist() == [1, 1, 1] and optimiser.state[parameter]["step"] == 0
    assert optimiser.param_groups[0]["lr"] == OPTIONS.learning_rate


def test_where_bitsandbytes_would_help_the_error_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(whole, "bytes_needed", lambda engine, in_8_bits=False: 10**9 * (10 if in_8_bits else 16))
    monkeypatch.setattr(whole, "free_bytes", lambda device: 12 * 10**9)
    monkeypatch.setattr(whole, "others_bytes", lambda device: 7 * 10**9)
    engine: Any = SimpleNamespace(device=torch.device("cuda"), make_room=lambda: None, name="m")
    with pytest.raises(OutOfMemory, match=r"other processes hold 7\.0 GB\. With moments in 8 bits it would take 10"):
        whole.check_room(engine, tmp_path)
    with pytest.raises(OutOfMemory, match=r"12\.0 GB are free"):
        monkeypatch.setattr(optimisers, "is_installed", lambda: True)
        whole.check_room(engine, tmp_path)


def test_moments_in_8_bits_need_two_bytes_a_weight() -> None:
    engine = tiny_model().engine
    numbers = sum(p.numel() for p in engine.network.parameters())
    assert whole.bytes_needed(engine) == 16 * numbers
    assert 10 * numbers < whole.bytes_needed(engine, in_8_bits=True) < 10.1 * numbers
