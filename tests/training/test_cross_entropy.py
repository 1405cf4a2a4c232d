from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rung.engine.static_pass import NO_TARGET
from rung.training import cross_entropy
from rung.training.cross_entropy import fused_cross_entropy


def case(*, bias: bool, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    """An output layer of 31 tokens, hidden states of 23 tokens of which two have no target, and the targets."""
    draw = torch.Generator().manual_seed(0)
    output = torch.nn.Linear(8, 31, bias=bias, dtype=dtype).requires_grad_(False)
    output.weight.copy_(torch.randn(31, 8, generator=draw))
    targets = torch.randint(31, (23,), generator=draw)
    targets[[4, 22]] = NO_TARGET
    return output, torch.randn(23, 8, generator=draw, dtype=torch.float32).to(dtype), targets


@pytest.mark.parametrize("scores", [31, 5 * 31, 1 << 24])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, scores: int, bias: bool
) -> None:
    monkeypatch.setattr(cross_entropy, "_FEWER_SCORES", scores)
    output, hidden, targets = case(bias=bias)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    loss = fused_cross_entropy(ours, output, targets)
    expected = torch.nn.functional.cross_entropy(output(theirs), targets, ignore_index=NO_TARGET, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    (loss * 0.5).backward()
    (expected * 0.5).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    assert ours.grad is not None and not ours.grad[[4, 22]].any()


def test_in_half_precision_the_loss_is_summed_in_float32() -> None:
    output, hidden, targets = case(bias=False, dtype=torch.bfloat16)
    loss = fused_cross_entropy(hidden.requires_grad_(), output, targets)
    expected = torch.nn.functional.cross_entropy(output(hidden).float(), targets, reduction="sum")
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that is made within."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_scores_of_all_target_tokens_never_stand_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "_FEWER_SCORES", 5 * 31)
    output, hidden, targets = case(bias=False)
    hidden.requires_grad_()
    with Largest() as largest:
        fused_cross_entropy(hidden, output, targets).backward()
    assert largest.numbers <= max(hidden.numel(), output.weight.numel()) < targets.numel() * 31


def test_without_gradients_none_are_computed() -> None:
    output, hidden, targets = case(bias=False)
    with torch.inference_mode(), Largest() as largest:
        fused_cross_entropy(hidden, output, targets)
    assert largest.numbers == targets.numel() * 31
