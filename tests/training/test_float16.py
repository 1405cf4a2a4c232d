"""Training in float16, as GPUs without units for bfloat16 compute: small gradients count, and large ones do no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rung.engine.whole_weights import weights_of
from rung.models.loading import load_model
from rung.testing import save_tiny_model
from rung.training import loop
from rung.training.batches import TokenRow
from rung.training.loop import train
from rung.types import TrainingOptions

OPTIONS = TrainingOptions(learning_rate=1e-4, steps=1, batch_size=1, full=True)
LONG = [TokenRow("long", tuple(range(3, 20)), tuple(3 + (7 * i) % 200 for i in range(1200)))]


@pytest.fixture(scope="module")
def quiet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an output layer that passes little of a gradient on."""
    folder = save_tiny_model(tmp_path_factory.mktemp("quiet"))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def gradients(folder: Path, dtype: torch.dtype, place: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The gradients of the layers' weights in the first step on a row of so many tokens that each counts little."""
    model = load_model(str(folder), device="cpu", dtype=dtype)
    names, kept, clip = list(weights_of(model.network)), list[torch.Tensor](), torch.nn.utils.clip_grad_norm_

    def keep(parameters: Any, most: float) -> Any:
        kept[:] = [p.grad.flatten().clone() for name, p in zip(names, parameters, strict=True) if ".layers." in name]
        return clip(parameters, most)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", keep)
        train(model.engine, LONG, OPTIONS, place)
    return torch.cat(kept)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_small_gradients_are_not_lost(quiet_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gradients(quiet_folder, torch.float32, tmp_path / "a", monkeypatch)
    scaled = gradients(quiet_folder, torch.float16, tmp_path / "b", monkeypatch)
    monkeypatch.setattr(loop, "_LOSS_SCALE", 1.0)
    plain = gradients(quiet_folder, torch.float16, tmp_path / "c", monkeypatch)
    assert error(scaled, exact) < 0.02 and error(plain, exact) > 0.2


def test_gradients_that_are_too_large_with_a_scale_are_computed_without_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales: list[float] = []
    plain = loop.add_gradients

    def counted(*given: Any, scale: float, **more: Any) -> tuple[float, int]:
        scales.append(scale)
        return plain(*given, scale=scale, **more)

    monkeypatch.setattr(loop, "add_gradients", counted)
    monkeypatch.setattr(loop, "_LOSS_SCALE", 2.0**40)
    found = gradients(tiny_folder, torch.float16, tmp_path / "a", monkeypatch)
    assert scales == [2.0**40, 1.0] and found.isfinite().all()
