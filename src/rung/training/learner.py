"""What a training changes: the weights that get gradients, and the numbers that the optimiser keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


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

    def gather(self) -> None:
        """Hands the gradients of the weights to the optimiser's parameters, one by one, so that few stand twice."""
        for weight, parameter in self._copied:
            parameter.grad = weight.grad.float() if weight.grad is not None else None
            weight.grad = None

    @torch.no_grad()
    def spread(self) -> None:
        """Rounds the optimiser's parameters to the weights."""
        for weight, parameter in self._copied:
            weight.copy_(parameter)
