"""The fused step of linear layers with LoRA adapters in them: two products that add in place, forward and backward.

What several adapters in one batch add is an `AdapterMix`'s matter. Knows nothing of PEFT, files and which adapter is
applied.
Source: Hu et al., LoRA (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rung.engine import gpu_kernels
from rung.engine.adapter_mix import AdapterMix
from rung.engine.adapter_plain import Names, PlainAdapter
from rung.engine.packed import PackedWeight, weight_of
from rung.engine.products import linear

_FIELDS = 7  # of Factors


@dataclass(frozen=True)
class Factors:
    """A linear layer with its adapter: x W' + bias + scaling x A' B'.

    weight: (out, in), or a PackedWeight, which has the bias in it. a: (rank, in), b: (out, rank), or None where no
    adapter is applied, or several at once. side: of the first of several layers with the same input, the a of all of
    them side by side, where that is stored; with several adapters at once, the names of these layers; None elsewhere.
    stored: b in the type of the products, where that is stored too.
    """

    weight: Any
    bias: torch.Tensor | None
    a: Any = None
    b: Any = None
    scaling: float = 1.0
    side: Any = None
    stored: Any = None


def unadapted(module: Any) -> Factors | None:
    """A linear layer without an adapter; None for a layer of another kind."""
    weight = weight_of(module)
    bias = None if weight is None or isinstance(weight, PackedWeight) else module.bias
    return Factors(weight, bias) if weight is not None else None


def flat(factors: Sequence[Factors]) -> list[Any]:
    """As arguments of an autograd function."""
    return [field for f in factors for field in (f.weight, f.bias, f.a, f.b, f.scaling, f.side, f.stored)]


def unflat(fields: Sequence[Any]) -> list[Factors]:
    return [Factors(*fields[i : i + _FIELDS]) for i in range(0, len(fields), _FIELDS)]


def with_plain(known: list[Factors], adapter: PlainAdapter, names: Names) -> list[Factors]:
    """Layers with a plain adapter in them."""
    sides, rank = [], adapter.layout.rank
    for a, bs in adapter.blocks(names):
        sides.append(a)
        for number, (place, b) in enumerate(bs):
            known[place] = replace(known[place], a=a[number * rank : (number + 1) * rank], b=b.T)
    if len(sides) == 1:
        known[0] = replace(known[0], side=sides[0])
    return known


def project(
    x: torch.Tensor, factors: Sequence[Factors], mix: AdapterMix | None
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """x (T, in) through linear layers with the same input. Also returns x A' of all their adapters, (T, all ranks).

    mix: of the pass, where several adapters are applied.
    """
    outs = [f.weight.times(x) if isinstance(f.weight, PackedWeight) else linear(x, f.weight, f.bias) for f in factors]
    if mix is not None:
        mix.add(x, outs, factors[0].side)
        return outs, None
    adapted = [(out, f) for out, f in zip(outs, factors, strict=True) if f.a is not None]
    if not adapted:
        return outs, None
    narrow = linear(x, side_by_side(factors, x.dtype))
    first = 0
    for out, f in adapted:
        part = narrow[:, first : first + len(f.a)]
        out.addmm_(part, _b_of(f, x.dtype).T, alpha=f.scaling)
        first += len(f.a)
    return outs, narrow


def project_back(
    x: torch.Tensor,
    grads: Sequence[torch.Tensor],
    factors: Sequence[Factors],
    narrow: torch.Tensor | None,
    *,
    wanted: bool = True,
) -> tuple[Any, list[Any]]:
    """Gradients towards x (None unless wanted) and towards the adapters, in the order of `flat`."""
    grad_x = None
    if wanted:
        grad_x = _times_weight(grads[0], factors[0].weight)
        for grad, f in zip(grads[1:], factors[1:], strict=True):
            _add_times_weight(grad_x, grad, f.weight)
    fields: list[Any] = [None] * (_FIELDS * len(factors))
    if narrow is None:
        return grad_x, fields
    adapted = [i for i, f in enumerate(factors) if f.a is not None]
    scalings = [factors[i].scaling for i in adapted]
    parts = [grads[i] @ _b_of(factors[i], x.dtype) for i in adapted]
    alike = gpu_kernels.is_gpu(x) and len(set(scalings)) == 1  # then the products below scale for themselves
    through, scaling = (_side_by_side(parts), scalings[0]) if alike else (_scaled(parts, scalings), 1.0)
    if grad_x is not None:
        grad_x.addmm_(through, side_by_side(factors, x.dtype), alpha=scaling)
    dtype = factors[adapted[0]].a.dtype  # PEFT gives all of an adapter one type
    to_a = _times(through.T @ x, scaling, dtype) if alike else (through.T @ x).to(dtype)
    first = 0
    for i, grad_a in zip(adapted, to_a.split([len(factors[i].a) for i in adapted]), strict=True):
        f = factors[i]
        fields[_FIELDS * i + 2] = grad_a
        fields[_FIELDS * i + 3] = _times(grads[i].T @ narrow[:, first : first + len(f.a)], f.scaling, f.b.dtype)
        first += len(f.a)
    return grad_x, fields


def _scaled(parts: Sequence[torch.Tensor], scalings: Sequence[float]) -> torch.Tensor:
    """Each part times its scaling, side by side. May overwrite the parts."""
    if len(set(scalings)) == 1:
        return _side_by_side(parts).mul_(scalings[0])
    return torch.cat([part.mul_(scaling) for part, scaling in zip(parts, scalings, strict=True)], dim=1)


def _side_by_side(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), dim=1)


def _times(rows: torch.Tensor, scaling: float, dtype: torch.dtype) -> torch.Tensor:
    """The rows times the scaling in that type; may overwrite them."""
    if gpu_kernels.is_gpu(rows) and dtype != rows.dtype:
        return torch.mul(rows, scaling, out=torch.empty_like(rows, dtype=dtype))
    return rows.mul_(scaling).to(dtype)


def _times_weight(grad: torch.Tensor, weight: Any) -> torch.Tensor:
    return weight.back(grad) if isinstance(weight, PackedWeight) else linear(grad, weight.T)


def _add_times_weight(into: torch.Tensor, grad: torch.Tensor, weight: Any) -> None:
    """Adds what `_times_weight` returns. On a GPU the product itself adds, in its own float32 sums."""
    if gpu_kernels.is_gpu(grad) and not isinstance(weight, PackedWeight):
        into.addmm_(grad, weight)
    else:
        into.add_(_times_weight(grad, weight))


def _b_of(factors: Factors, dtype: torch.dtype) -> torch.Tensor:
    """The b of a layer that has an adapter, (out, rank), in that type."""
    found: torch.Tensor = factors.b.to(dtype) if factors.stored is None else factors.stored
    return found


def side_by_side(factors: Sequence[Factors], dtype: torch.dtype) -> torch.Tensor:
    """The a of the layers that have an adapter, (all ranks, in)."""
    if factors[0].side is not None:
        kept: torch.Tensor = factors[0].side
        return kept
    parts = [f.a for f in factors if f.a is not None]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


class FusedLinear(torch.autograd.Function):
    """x: (T, in); the mix of the pass; one layer's fields. Returns a tuple that holds the layer's output, (T, out)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mix: AdapterMix | None, *fields: Any) -> tuple[torch.Tensor, ...]:
        outs, narrow = project(x, unflat(fields), mix)
        ctx.save_for_backward(x, narrow)
        ctx.fields = fields
        return tuple(outs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, narrow = ctx.saved_tensors
        grad_x, fields = project_back(x, grads, unflat(ctx.fields), narrow, wanted=ctx.needs_input_grad[0])
        return grad_x, None, *fields
