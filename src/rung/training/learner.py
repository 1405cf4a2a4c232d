"""What a training changes: the weights that get gradients, and the numbers that the optimiser keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rung.engine.engine import Engine
from rung.records import write_json

BASE = "base.json"
"""A file beside what was learnt: the model as the user named it, what PEFT loads it from, and its version."""


def record_base(engine: Engine, folder: Path) -> None:
    """Says in a folder of what was learnt on which base that was, by which a moved one is known."""
    write_json(folder / BASE, {"model": engine.name, "base": engine.base, "version": engine.base_version})


class Learner:
    """Weights in training.

    weights: of the network; they get the gradients. parameters: what the optimiser changes. These are the weights
    themselves or, for weights in half precision, copies in float32: a step is often smaller than what half precision
    can tell apart. save: writes what was learnt into a folder.
    """

    def __init__(self, weights: Sequence[Any], save: Callable[[Path], None]) -> None:
        self.weights = list(weights)
        self.save = save
        self.parameters = [
            w if w.dtype == torch.float32 else torch.nn.Parameter(w.detach().float()) for w in self.weights
        ]
        self._copied = [(w, p) for w, p in zip(self.weights, self.parameters, strict=True) if w is not p]

    def drop_gradients(self) -> None:
        for parameter in (*self.weights, *self.parameters):
            parameter.grad = None

    def gather(self, scale: float = 1.0) -> None:
        """Hands the gradients of the weights to the optimiser's parameters, one by one, so that few stand twice.

        scale: of the loss whose gradients they are; they are divided by it.
        """
        for weight, parameter in self._copied:
            parameter.grad = weight.grad.float() if weight.grad is not None else None
            weight.grad = None
        if scale != 1.0:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(scale)

    @torch.no_grad()
    def spread(self) -> None:
        """Rounds the optimiser's parameters to the weights."""
        for weight, parameter in self._copied:
            weight.copy_(parameter)
