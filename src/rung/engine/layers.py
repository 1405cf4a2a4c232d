"""Decoder layers of the Llama kind in two fused steps, each with a backward pass of its own.

transformers writes such a layer as some fifty operations, each of which is recorded and keeps its tensors. Here a layer
is one step into attention (norm, three projections, rotation) and one step out of it (projection, residual, norm, gated
feed-forward, residual), adapters included. There are fewer operations, they add in place, and they need less than half
of the memory, because the backward pass computes cheap values again. Layers of any other kind run as transformers wrote
them. `loading_check` compares both with transformers.
Sources: Touvron et al., LLaMA (2023), for the layer; Su et al., RoFormer (2021), for the rotation;
Hsu et al., Liger Kernel (2024), for fusing and recomputing in training.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import silu

from rung.engine.adapters import Adapters, flat, project, project_back, unflat
from rung.engine.attention import current_view

_CHILDREN = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def fuse_layers(network: Any, adapters: Adapters) -> bool:
    """Puts the fused steps into every layer of the Llama kind. Returns whether all layers are of that kind.

    If they are, the last layer is computed to its end for the wanted tokens only, and returns only those.
    """
    layers = [module for module in network.modules() if _is_of_the_kind(module)]
    whole: bool = len(layers) == network.config.get_text_config().num_hidden_layers
    for layer in layers:
        layer.forward = partial(_forward, layer, adapters, layer.forward, whole and layer is layers[-1])
    return whole


def unfuse_layers(network: Any) -> None:
    """Takes the fused steps out again."""
    for module in network.modules():
        if getattr(vars(module).get("forward"), "func", None) is _forward:
            del module.forward


def _is_of_the_kind(layer: Any) -> bool:
    if {name for name, _ in layer.named_children()} != _CHILDREN:
        return False
    projections = {name for name, _ in layer.self_attn.named_children()}
    feed_forward = {name for name, _ in layer.mlp.named_children()}
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    return (
        projections == _PROJECTIONS
        and feed_forward == _FEED_FORWARD
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
        and type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
    )


def _forward(
    layer: Any,
    adapters: Adapters,
    otherwise: Any,
    narrows: bool,
    hidden_states: torch.Tensor,
    *args: Any,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """hidden_states: (1, T, C). narrows: whether only the wanted tokens are returned."""
    view = current_view()
    wanted = view.wanted if narrows and view is not None else None
    attention, mlp = layer.self_attn, layer.mlp
    inner = (attention.q_proj, attention.k_proj, attention.v_proj)
    groups = (inner, (attention.o_proj,), (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,))
    known = [factors for group in groups if (factors := adapters.together(group)) is not None]
    trained = layer.input_layernorm.weight.requires_grad or layer.post_attention_layernorm.weight.requires_grad
    if position_embeddings is None or view is None or trained or len(known) < len(groups):
        given = hidden_states.to(layer.input_layernorm.weight.dtype)
        result: torch.Tensor = otherwise(given, *args, position_embeddings=position_embeddings, **kwargs)
        return result if wanted is None else result[:, wanted]
    x = hidden_states[0].float()  # the residual stream is summed in float32, whatever type the layers multiply in
    cos, sin = (part[0] for part in position_embeddings)  # (T, D)
    norm = layer.input_layernorm
    query, key, value = _Enter.apply(
        x, norm.weight, norm.variance_epsilon, cos, sin, attention.head_dim, adapters.mask, *flat(known[0])
    )
    seen = view.attend(attention.layer_idx, query, key, value, attention.scaling)
    seen, mask, norm = seen.flatten(1), adapters.mask, layer.post_attention_layernorm
    if wanted is not None:
        x, seen, mask = x[wanted], seen[wanted], mask[wanted] if mask is not None else None
    out: torch.Tensor = _Leave.apply(
        x, seen, norm.weight, norm.variance_epsilon, mask, *flat([f for group in known[1:] for f in group])
    )
    return out[None]


# ---- norm and rotation ------------------------------------------------------------------------


def _norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Root-mean-square norm of x (T, C), in the weight's type, and the factor of each row, (T, 1). x: in float32."""
    factor = x.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
    return _scaled(x, weight, factor), factor


def _scaled(x: torch.Tensor, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (x * factor).to(weight.dtype).mul_(weight)


def _norm_back(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Gradient towards x, in float32; overwrites grad."""
    grad = grad.mul_(weight).float()
    along = (grad * x).mean(-1, keepdim=True).mul_(factor.pow(3))
    return (grad * factor).addcmul_(x, along, value=-1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, back: bool = False) -> torch.Tensor:
    """x: (T, H, D); cos, sin: (T, D), equal in both halves. back: the inverse rotation."""
    half = x.shape[-1] // 2
    out = x * cos[:, None]
    turn = sin[:, None, :half]
    out[..., :half].addcmul_(x[..., half:], turn, value=1 if back else -1)
    out[..., half:].addcmul_(x[..., :half], turn, value=-1 if back else 1)
    return out


# ---- the two steps ----------------------------------------------------------------------------


class _Enter(torch.autograd.Function):
    """x: (T, C) in float32 to query (T, H, D), key and value (T, Hkv, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        cos: torch.Tensor,
        sin: torch.Tensor,
        width: int,
        mask: torch.Tensor | None,
        *fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed, factor = _norm(x, weight, epsilon)
        outs, narrow = project(normed, unflat(fields), mask)
        query, key, value = (out.view(len(x), -1, width) for out in outs)
        ctx.save_for_backward(x, factor, narrow)
        ctx.rest = (weight, cos, sin, fields)
        return _rotate(query, cos, sin), _rotate(key, cos, sin), value

    @staticmethod
    def backward(ctx: Any, to_query: torch.Tensor, to_key: torch.Tensor, to_value: torch.Tensor) -> Any:
        x, factor, narrow = ctx.saved_tensors
        weight, cos, sin, fields = ctx.rest
        turned = [_rotate(to_query, cos, sin, back=True), _rotate(to_key, cos, sin, back=True), to_value]
        grads = [grad.reshape(len(x), -1) for grad in turned]
        wanted = ctx.needs_input_grad[0]
        grad, to_flat = project_back(_scaled(x, weight, factor), grads, unflat(fields), narrow, wanted=wanted)
        return _norm_back(grad, x, weight, factor) if grad is not None else None, *[None] * 6, *to_flat


class _Leave(torch.autograd.Function):
    """x: (T, C) in float32, the input of the layer; seen: (T, H * D), the output of attention. Returns (T, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        seen: torch.Tensor,
        weight: torch.Tensor,
        epsilon: float,
        mask: torch.Tensor | None,
        *fields: Any,
    ) -> torch.Tensor:
        out, gate, up, down = ([f] for f in unflat(fields))
        (middle,), narrow_out = project(seen, out, mask)
        middle = middle.float().add_(x)
        normed, factor = _norm(middle, weight, epsilon)
        (gated, upper), narrow_up = project(normed, [*gate, *up], mask)
        (result,), narrow_down = project(silu(gated).mul_(upper), down, mask)
        ctx.save_for_backward(seen, middle, factor, gated, upper, narrow_out, narrow_up, narrow_down)
        ctx.rest = (weight, fields)
        return result.float().add_(middle)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        seen, middle, factor, gated, upper, narrow_out, narrow_up, narrow_down = ctx.saved_tensors
        weight, fields = ctx.rest
        out, gate, up, down = ([f] for f in unflat(fields))
        active = silu(gated)
        to_product, flat_down = project_back(active * upper, [grad.to(seen.dtype)], down, narrow_down)
        to_upper = active.mul_(to_product)
        to_gated = torch.ops.aten.silu_backward(to_product.mul_(upper), gated)
        normed = _scaled(middle, weight, factor)
        to_normed, flat_up = project_back(normed, [to_gated, to_upper], [*gate, *up], narrow_up)
        to_middle = _norm_back(to_normed, middle, weight, factor).add_(grad)
        to_seen, flat_out = project_back(
            seen, [to_middle.to(seen.dtype)], out, narrow_out, wanted=ctx.needs_input_grad[1]
        )
        return to_middle, to_seen, None, None, None, *flat_out, *flat_up, *flat_down
