"""What small trainings leave behind, as tests compare it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from rung.types import TrainingOptions

OPTIONS = TrainingOptions(learning_rate=5e-3, steps=6, batch_size=3, rank=4, alpha=8, seed=3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of an adapter, or of a whole model, in that folder."""
    (file,) = folder.glob("*model.safetensors")
    return dict(load_file(file))


def same(a: Path, b: Path) -> bool:
    """Whether the weights in both folders are equal, bit by bit."""
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
