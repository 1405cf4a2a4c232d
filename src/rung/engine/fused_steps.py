"""The three steps of a fused decoder layer, each with a backward pass of its own. Which layers have them: `layers`.

*Enter* goes from the residual stream to queries, keys and values; *Leave* from the output of attention back to the
residual stream; *FeedForward* through the gated feed-forward network. Adapters are included. There are fewer operations
than transformers records, they add in place, and they need less than half of the memory, because the backward pass
computes cheap values again. The residual stream and all norms are computed in float32, whatever type the layers
multiply in. Weights are read when they are used, and nothing derived from them is kept. Knows no module names.
Sources: Touvron et al., LLaMA (2023), and Gemma Team, Gemma 3 (2025), for the layers; Su et al., RoFormer (2021), for
the rotation; Henry et al., Query-Key Normalization (2020); Hsu et al., Liger Kernel (2024), for fusing and recomputing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import gelu, silu

from rung.engine import gpu_kernels
from rung.engine.adapter_mix import AdapterMix
from rung.engine.factors import project, project_back, unflat

_ops = torch.ops.aten

ACTIVATIONS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "silu": (silu, _ops.silu_backward),
    "gelu_tanh": (partial(gelu, approximate="tanh"), partial(_ops.gelu_backward, approximate="tanh")),
    "gelu": (gelu, _ops.gelu_backward),
}
"""Each activation, and its backward pass: (gradient, input) to the gradient towards the input."""

ROTATIONS = ("halves", "neighbours", "none")
"""Which columns of queries and keys are rotated together."""


# ---- norm and rotation ------------------------------------------------------------------------


@dataclass(frozen=True)
class Norm:
    """x / sqrt(mean(x²) + epsilon) × (offset + weight). module: has the weight, (W,), which is not trained."""

    module: Any
    offset: float
    epsilon: float

    def factor(self, x: torch.Tensor) -> torch.Tensor:
        """1 / sqrt(mean(x²) + epsilon) of each row, (…, 1). x: (…, W), in float32."""
        return x.square().mean(-1, keepdim=True).add_(self.epsilon).rsqrt_()

    def scaled(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The normed rows, in float32. factor: as `factor` returns it."""
        return (x * factor).mul_(self._scale())

    def normed(self, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The normed rows in that type, and the factor. x: in float32. Records no gradients."""
        if gpu_kernels.has_norm(x):
            rows, factor = gpu_kernels.norm(x, self.epsilon)
            return self._weighted(rows, dtype), factor
        factor = self.factor(x)
        return self.again(x, factor, dtype), factor

    def again(self, x: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The normed rows in that type. Records no gradients."""
        return self._weighted(x * factor, dtype)

    def back(self, grad: torch.Tensor, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Gradient towards x, in float32, from the gradient towards the normed rows."""
        if gpu_kernels.has_norm(x):
            return gpu_kernels.norm_back(grad.float(), x, factor, self._scale().float())
        grad = grad * self._scale()
        along = (grad * x).mean(-1, keepdim=True).mul_(factor.pow(3))
        return grad.mul_(factor).addcmul_(x, along, value=-1)

    def _weighted(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """rows × (offset + weight) in that type. rows: in float32; they may be overwritten."""
        if gpu_kernels.is_gpu(rows) and dtype != rows.dtype:
            return torch.mul(rows, self._scale(), out=torch.empty_like(rows, dtype=dtype))
        return rows.mul_(self._scale()).to(dtype)

    def _scale(self) -> torch.Tensor:
        """offset + weight, in float32 or, where there is no offset, in the weight's type."""
        weight: torch.Tensor = self.module.weight.detach()
        return weight.float() + self.offset if self.offset else weight


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, neighbours: bool, back: bool = False
) -> torch.Tensor:
    """Rotary position embeddings. x: (T, H, D); cos, sin: (T, R), equal in both halves; R <= D columns are rotated.

    neighbours: columns 2i and 2i + 1 are rotated together, else i and i + R / 2. back: the transpose, which the
    backward pass needs. Returns x's type, also where the rotation has a wider one.
    """
    given, x = x.dtype, x.to(torch.promote_types(x.dtype, cos.dtype))
    width, half = cos.shape[-1], cos.shape[-1] // 2
    first, second = (slice(0, width, 2), slice(1, width, 2)) if neighbours else (slice(half), slice(half, width))
    if neighbours:
        cos = cos[:, :half].repeat_interleave(2, dim=-1)
    if width == x.shape[-1]:
        out = x * cos[:, None]
    else:
        out = x.clone()
        out[..., :width].mul_(cos[:, None])
    turn = sin[:, None, :half]
    out[..., first].addcmul_(x[..., second], turn, value=1 if back else -1)
    out[..., second].addcmul_(x[..., first], turn, value=-1 if back else 1)
    return out.to(given)


def _both_rotated(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, **how: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    if not gpu_kernels.turns_together(query):
        return rotate(query, cos, sin, **how), rotate(key, cos, sin, **how)
    both = rotate(torch.cat((query, key), dim=1), cos, sin, **how)
    return both[:, : query.shape[1]], both[:, query.shape[1] :]


# ---- into attention ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EnterParts:
    """norm: before the projections. query_norm, key_norm: of each head, (D,), or with `whole` of all heads, (H * D,).

    sizes: columns of query, key and value; one projection may hold all three side by side. width: D, of one head.
    rotation: one of ROTATIONS.
    """

    norm: Norm | None
    query_norm: Norm | None
    key_norm: Norm | None
    whole: bool
    sizes: tuple[int, int, int]
    width: int
    rotation: str = "halves"


class Enter(torch.autograd.Function):
    """x: (T, C) in float32 to query (T, H, D), key and value (T, Hkv, D). cos, sin: (T, R); None without rotation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        parts: EnterParts,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
        mix: AdapterMix | None,
        *fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        factors = unflat(fields)
        normed, factor = _normed(x, parts.norm, factors[0].weight.dtype)
        outs, narrow = project(normed, factors, mix)
        if len(outs) == 1:
            outs = [out.contiguous() for out in outs[0].split(parts.sizes, dim=1)]
        query, query_factor = _of_heads(outs[0], parts.query_norm, parts)
        key, key_factor = _of_heads(outs[1], parts.key_norm, parts)
        before_query = outs[0] if parts.query_norm is not None else None
        before_key = outs[1] if parts.key_norm is not None else None
        ctx.save_for_backward(x, factor, narrow, before_query, query_factor, before_key, key_factor)
        ctx.rest = (parts, cos, sin, fields)
        if cos is not None and sin is not None:
            query, key = _both_rotated(query, key, cos, sin, neighbours=parts.rotation == "neighbours")
        return query, key, outs[2].view(len(x), -1, parts.width)

    @staticmethod
    def backward(ctx: Any, to_query: torch.Tensor, to_key: torch.Tensor, to_value: torch.Tensor) -> Any:
        x, factor, narrow, before_query, query_factor, before_key, key_factor = ctx.saved_tensors
        parts, cos, sin, fields = ctx.rest
        if cos is not None:
            turned = parts.rotation == "neighbours"
            to_query, to_key = _both_rotated(to_query, to_key, cos, sin, neighbours=turned, back=True)
        grads = [
            _of_heads_back(to_query, before_query, query_factor, parts.query_norm, parts),
            _of_heads_back(to_key, before_key, key_factor, parts.key_norm, parts),
            to_value.reshape(len(x), -1),
        ]
        factors = unflat(fields)
        if len(factors) == 1:
            grads = [torch.cat(grads, dim=1)]
        normed = _normed_again(x, parts.norm, factor, grads[0].dtype)
        grad, to_fields = project_back(normed, grads, factors, narrow, wanted=ctx.needs_input_grad[0])
        return _norm_back(grad, x, parts.norm, factor), None, None, None, None, *to_fields


def _of_heads(rows: torch.Tensor, norm: Norm | None, parts: EnterParts) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows (T, H * D), normed where there is a norm, as (T, H, D); and the norm's factors."""
    if norm is None:
        return rows.view(len(rows), -1, parts.width), None
    normed, factor = norm.normed(_apart(rows, parts).float(), rows.dtype)
    return normed.view(len(rows), -1, parts.width), factor


def _of_heads_back(grad: torch.Tensor, rows: torch.Tensor, factor: Any, norm: Norm | None, parts: EnterParts) -> Any:
    """Gradient towards the rows, (T, H * D), from that towards (T, H, D)."""
    flat = grad.reshape(len(grad), -1)
    if norm is None:
        return flat
    return norm.back(_apart(flat, parts), _apart(rows, parts).float(), factor).to(flat.dtype).view(flat.shape)


def _apart(rows: torch.Tensor, parts: EnterParts) -> torch.Tensor:
    return rows if parts.whole else rows.view(len(rows), -1, parts.width)


# ---- out of attention ---------------------------------------------------------------------------


@dataclass(frozen=True)
class LeaveParts:
    """behind: norm of the projection's output. multiplier: of what is added to the residual stream."""

    behind: Norm | None
    multiplier: float


class Leave(torch.autograd.Function):
    """x: (T, C) in float32, the residual stream; seen: (T, H * D), the output of attention. Returns (T, C)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, seen: torch.Tensor, parts: LeaveParts, mix: AdapterMix | None, *fields: Any
    ) -> torch.Tensor:
        (out,), narrow = project(seen, unflat(fields), mix)
        result, out, factor = _added(x, out, parts.behind, parts.multiplier)
        ctx.save_for_backward(seen, narrow, out, factor)
        ctx.rest = (parts, fields)
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        seen, narrow, out, factor = ctx.saved_tensors
        parts, fields = ctx.rest
        to_out = _added_back(grad, out, factor, parts.behind, parts.multiplier).to(seen.dtype)
        to_seen, to_fields = project_back(seen, [to_out], unflat(fields), narrow, wanted=ctx.needs_input_grad[1])
        return grad, to_seen, None, None, *to_fields


# ---- feed-forward -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeedForwardParts:
    """down(activation(gate(norm(x))) × up(norm(x))), normed by `behind` and times the multiplier, added to x.

    activation: a name in ACTIVATIONS. One projection may hold gate and up side by side.
    """

    norm: Norm | None
    activation: str
    behind: Norm | None
    multiplier: float


class FeedForward(torch.autograd.Function):
    """x: (T, C) in float32, the residual stream. Returns (T, C). fields: of gate and up, or of both in one; of down."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, parts: FeedForwardParts, mix: AdapterMix | None, *fields: Any
    ) -> torch.Tensor:
        *inner, down = unflat(fields)
        activation, _ = ACTIVATIONS[parts.activation]
        normed, factor = _normed(x, parts.norm, down.weight.dtype)
        outs, narrow_up = project(normed, inner, mix)
        gated, upper = outs if len(outs) == 2 else outs[0].chunk(2, dim=1)
        (out,), narrow_down = project(activation(gated).mul_(upper), [down], mix)
        result, out, out_factor = _added(x, out, parts.behind, parts.multiplier)
        ctx.save_for_backward(x, factor, gated, upper, narrow_up, narrow_down, out, out_factor)
        ctx.rest = (parts, fields)
        return result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, factor, gated, upper, narrow_up, narrow_down, out, out_factor = ctx.saved_tensors
        parts, fields = ctx.rest
        *inner, down = unflat(fields)
        activation, activation_back = ACTIVATIONS[parts.activation]
        to_out = _added_back(grad, out, out_factor, parts.behind, parts.multiplier).to(gated.dtype)
        active = activation(gated)
        to_product, to_down = project_back(active * upper, [to_out], [down], narrow_down)
        to_upper = active.mul_(to_product)
        to_gated = activation_back(to_product.mul_(upper), gated)
        grads = [to_gated, to_upper] if len(inner) == 2 else [torch.cat([to_gated, to_upper], dim=1)]
        normed = _normed_again(x, parts.norm, factor, gated.dtype)
        to_normed, to_inner = project_back(normed, grads, inner, narrow_up, wanted=ctx.needs_input_grad[0])
        to_x = _norm_back(to_normed, x, parts.norm, factor)
        return to_x.add_(grad) if to_x is not None else None, None, None, *to_inner, *to_down


# ---- shared by the steps --------------------------------------------------------------------------


def _normed(x: torch.Tensor, norm: Norm | None, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    """x behind the norm, in the type of the products, and the norm's factors."""
    return norm.normed(x, dtype) if norm is not None else (x.to(dtype), None)


def _normed_again(x: torch.Tensor, norm: Norm | None, factor: Any, dtype: torch.dtype) -> torch.Tensor:
    return norm.again(x, factor, dtype) if norm is not None else x.to(dtype)


def _norm_back(grad: torch.Tensor | None, x: torch.Tensor, norm: Norm | None, factor: Any) -> torch.Tensor | None:
    """The gradient towards x, in float32 and in memory of its own; None for None."""
    if grad is None or norm is None:
        return None if grad is None else grad.float()
    return norm.back(grad, x, factor)


def _added(x: torch.Tensor, out: torch.Tensor, behind: Norm | None, multiplier: float) -> tuple[torch.Tensor, Any, Any]:
    """x + multiplier × norm(out), in float32; then what the backward pass of the norm needs. May overwrite out."""
    factor = None
    rows = out.float() if behind is not None or not gpu_kernels.is_gpu(out) else out
    if behind is not None:
        rows, factor = behind.normed(rows, rows.dtype)
    kept = out if behind is not None else None
    if gpu_kernels.is_gpu(out):
        return torch.add(x, rows, alpha=multiplier), kept, factor
    return _times(rows, multiplier).add_(x), kept, factor


def _added_back(grad: torch.Tensor, out: Any, factor: Any, behind: Norm | None, multiplier: float) -> torch.Tensor:
    """The gradient towards out, in float32; may be grad itself."""
    if behind is not None:
        to_out = behind.back(grad, out.float(), factor)
        return _times(to_out, multiplier)
    return grad * multiplier if multiplier != 1.0 else grad


def _times(rows: torch.Tensor, multiplier: float) -> torch.Tensor:
    """In place."""
    return rows.mul_(multiplier) if multiplier != 1.0 else rows
