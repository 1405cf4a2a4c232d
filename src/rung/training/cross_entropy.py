"""The cross-entropy of answers straight from final hidden states: the scores of all tokens never stand in memory.

They are computed for some target tokens at a time, and so is the loss and at once its gradient towards the hidden
states, since the output layer is not trained. What would be (t, V) three times over is (t, C) once.
Source: Hsu et al., Liger Kernel (2024), section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch

from rung.engine.engine import Engine
from rung.engine.products import linear
from rung.engine.static_pass import NO_TARGET

_MOST_SCORES = {"cuda": 1 << 26}  # held at once: 256 MB in float32
_FEWER_SCORES = 1 << 24


def can_fuse(engine: Engine) -> bool:
    """Whether scores are those of the output layer alone, and it is not trained."""
    output = engine.network.get_output_embeddings()
    return engine.head_alone and not any(p.requires_grad for p in output.parameters())


def fused_cross_entropy(hidden: torch.Tensor, output: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """The cross-entropy, in nats, summed over target tokens; 0-dimensional, in float32.

    hidden: final hidden states (t, C). output: the output layer, not trained. targets: (t,), or NO_TARGET.
    Nothing waits for the device.
    """
    total: torch.Tensor = _CrossEntropy.apply(hidden, output.weight, output.bias, targets)
    return total


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        rows = max(1, _MOST_SCORES.get(hidden.device.type, _FEWER_SCORES) // len(weight))
        total = hidden.new_zeros((), dtype=torch.float32)
        grads = []
        for part, own in zip(hidden.split(rows), targets.split(rows), strict=True):
            part_loss, grad = _of_part(part.to(weight.dtype), weight, bias, own, wanted=wanted)
            total += part_loss
            if grad is not None:
                grads.append(grad.to(hidden.dtype))
        if wanted:
            ctx.save_for_backward(grads[0] if len(grads) == 1 else torch.cat(grads))
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (to_hidden,) = ctx.saved_tensors
        return to_hidden * grad, None, None, None


def _of_part(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, *, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The summed loss of some target tokens, and its gradient towards their hidden states, (n, C), where wanted."""
    known = targets != NO_TARGET
    places = targets.clamp(min=0)[:, None]
    logs = linear(hidden, weight, bias).float().log_softmax(-1)  # (n, V)
    loss = torch.where(known, -logs.gather(1, places)[:, 0], 0.0).sum()
    if not wanted:
        return loss, None
    to_scores = logs.exp_()  # the gradient of a token's loss: its probabilities, less 1 at the target
    to_scores.scatter_add_(1, places, to_scores.new_full((1, 1), -1.0).expand_as(places))
    return loss, linear(to_scores.to(weight.dtype), weight.T).masked_fill_(~known[:, None], 0.0)
