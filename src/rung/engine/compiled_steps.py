"""The steps of a fused layer as plain formulas under torch.compile: a few kernels each, forward and backward.

They compute what `fused_steps` computes, in the same types, and PyTorch derives their backward passes. Weights, norms
and factors of adapters are arguments, and all else that a formula needs is numbers and names, so that one compiled
variant serves all layers of a kind. A new shape takes 10 to 30 s to compile: whoever knows that many passes of one
shape are to come takes these steps, by `taken`. Bases are not trained. Knows no module names.
Sources: as in `fused_steps`; Ansel et al., PyTorch 2 (2024), for the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import linear

from rung.engine.compiling import compiled
from rung.engine.factors import Factors
from rung.engine.fused_steps import ACTIVATIONS, EnterParts, FeedForwardParts, LeaveParts, Norm
from rung.engine.masked_mix import MaskedMix

How = tuple[Any, ...]
"""What decides a formula beside its tensors: numbers, names and tuples of them."""
Tensors = tuple[Any, ...]
"""Tensors, None, and tuples of them."""

_taken: ContextVar[bool] = ContextVar("compiled_steps", default=False)


@contextmanager
def taken(on: bool = True) -> Iterator[None]:
    """Within: fused layers run their compiled steps. A pass that is checkpointed computes its layers again in them."""
    token = _taken.set(on)
    try:
        yield
    finally:
        _taken.reset(token)


def are_taken(mix: Any = None, factors: Sequence[Sequence[Factors]] = ()) -> bool:
    """Whether compiled steps are to run for layers with these factors.

    mix: several adapters at once; only a MaskedMix can be compiled. Packed weights are not compiled.
    """
    if not _taken.get() or not (mix is None or isinstance(mix, MaskedMix)):
        return False
    return all(isinstance(f.weight, torch.Tensor) for group in factors for f in group)


# ---- the steps of a layer --------------------------------------------------------------------------


def enter(
    parts: EnterParts, x: torch.Tensor, cos: Any, sin: Any, mix: Any, factors: Sequence[Factors]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `fused_steps.Enter`: x (T, C) in float32 to query (T, H, D), key and value (T, Hkv, D)."""
    norms = (parts.norm, parts.query_norm, parts.key_norm)
    how = (*map(_how, norms), parts.whole, parts.sizes, parts.width, parts.rotation, _scalings(factors))
    weights = tuple(map(_weight, norms))
    query, key, value = _compiled(entered)(x, cos, sin, weights, _linears(factors), _of_mix(mix, factors), how)
    return query.view(len(x), -1, parts.width), key.view(len(x), -1, parts.width), value.view(len(x), -1, parts.width)


def leave(
    parts: LeaveParts,
    feed: FeedForwardParts | None,
    x: torch.Tensor,
    seen: torch.Tensor,
    mix: Any,
    factors: Sequence[Sequence[Factors]],
) -> torch.Tensor:
    """As `fused_steps.Leave` and then `FeedForward`, which is left out where `feed` is None. All (T, C) in float32.

    factors: of the projection out of attention; of gate and up, or of both in one; of the one down.
    """
    norms = [parts.behind]
    how: list[How] = [(_how(parts.behind), parts.multiplier, _scalings(factors[0]))]
    if feed is not None:
        norms += [feed.norm, feed.behind]
        of_feed = (_how(feed.norm), feed.activation, _how(feed.behind), feed.multiplier)
        how.append((*of_feed, _scalings(factors[1]), _scalings(factors[2])))
    weights = tuple(map(_weight, norms))
    linears = tuple(_linears(group) for group in factors)
    mixes = tuple(_of_mix(mix, group) for group in factors)
    out: torch.Tensor = _compiled(left)(x, seen, weights, linears, mixes, tuple(how))
    return out


@lru_cache
def _compiled(formula: Callable[..., Any]) -> Callable[..., Any]:
    return compiled(formula)


def _how(norm: Norm | None) -> How | None:
    return None if norm is None else (norm.epsilon, norm.offset)


def _weight(norm: Norm | None) -> Any:
    return None if norm is None else norm.module.weight


def _scalings(factors: Sequence[Factors]) -> How:
    return tuple(f.scaling for f in factors)


def _linears(factors: Sequence[Factors]) -> Tensors:
    """The a of all layers side by side, where it is stored and not trained; weight, bias, a and b of each."""
    trained = any(f.a is not None and f.a.requires_grad for f in factors)
    side = factors[0].side if isinstance(factors[0].side, torch.Tensor) and not trained else None
    return side, tuple((f.weight, f.bias, f.a, f.b) for f in factors)


def _of_mix(mix: Any, factors: Sequence[Factors]) -> Any:
    """The tensors of a mix for these layers; None where it adds nothing to them."""
    return None if mix is None else mix.tensors(factors[0].side)


# ---- the formulas ---------------------------------------------------------------------------------


def entered(
    x: torch.Tensor, cos: Any, sin: Any, norms: Tensors, linears: Tensors, mix: Any, how: How
) -> tuple[torch.Tensor, ...]:
    """Query, key and value of x, (T, H, D) or (T, H * D) each: none is a view, which the compiler would copy."""
    norm, query_norm, key_norm, whole, sizes, width, rotation, scalings = how
    normed = _normed(x, norms[0], norm).to(linears[1][0][0].dtype)
    outs = _projected(normed, linears, mix, scalings)
    if len(outs) == 1:
        outs = [part.contiguous() for part in outs[0].split(sizes, dim=1)]
    found = []
    for rows, weight, of_heads in ((outs[0], norms[1], query_norm), (outs[1], norms[2], key_norm)):
        if of_heads is not None:
            apart = rows if whole else rows.view(rows.shape[0], -1, width)
            rows = _normed(apart.float(), weight, of_heads).to(rows.dtype)
        if cos is not None:
            rows = _rotated(rows.reshape(rows.shape[0], -1, width), cos, sin, rotation == "neighbours")
        found.append(rows)
    return found[0], found[1], outs[2]


def left(
    x: torch.Tensor, seen: torch.Tensor, norms: Tensors, linears: Tensors, mixes: Tensors, how: How
) -> torch.Tensor:
    """The layer's output, (T, C), from its input and the output of attention."""
    behind, multiplier, scalings = how[0]
    (out,) = _projected(seen, linears[0], mixes[0], scalings)
    x = _added(x, out, norms[0], behind, multiplier)
    if len(how) == 1:
        return x
    norm, activation, behind, multiplier, to_inner, to_down = how[1]
    inner, down = linears[1], linears[2]
    outs = _projected(_normed(x, norms[1], norm).to(down[1][0][0].dtype), inner, mixes[1], to_inner)
    gated, upper = outs if len(outs) == 2 else outs[0].chunk(2, dim=1)
    (out,) = _projected(ACTIVATIONS[activation][0](gated) * upper, down, mixes[2], to_down)
    return _added(x, out, norms[2], behind, multiplier)


def _normed(x: torch.Tensor, weight: Any, how: Any) -> torch.Tensor:
    """x behind the norm, in float32; x itself without one."""
    if how is None:
        return x
    epsilon, offset = how
    scale: torch.Tensor = weight.float() + offset if offset else weight
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * scale


def _projected(x: torch.Tensor, linears: Tensors, mix: Any, scalings: How) -> list[torch.Tensor]:
    """x (T, in) through linear layers with the same input."""
    side, layers = linears
    outs = [linear(x, weight, bias) for weight, bias, _, _ in layers]
    if mix is not None:
        return _mixed(x, outs, mix)
    adapted = [a for _, _, a, _ in layers if a is not None]
    if not adapted:
        return outs
    if side is None:
        side = adapted[0] if len(adapted) == 1 else torch.cat(adapted)
    narrow, first = linear(x, side.to(x.dtype)), 0
    for i, (_, _, a, b) in enumerate(layers):
        if a is not None:
            part = narrow[:, first : first + a.shape[0]]
            outs[i] = outs[i] + (part @ b.to(x.dtype).T) * scalings[i]
            first += a.shape[0]
    return outs


def _mixed(x: torch.Tensor, outs: list[torch.Tensor], mix: Tensors) -> list[torch.Tensor]:
    """outs, with what several adapters add. mix: as `MaskedMix.tensors` returns it."""
    a, bs, others = mix
    narrow, first = linear(x, a.to(x.dtype)), 0
    for place, b in enumerate(bs):
        if b is not None:
            part = narrow[:, first : first + b.shape[0]]
            part = part if others is None else part.masked_fill(others, 0.0)
            outs[place] = outs[place] + part @ b.to(x.dtype)
            first += b.shape[0]
    return outs


def _added(x: torch.Tensor, out: torch.Tensor, weight: Any, behind: Any, multiplier: float) -> torch.Tensor:
    rows = _normed(out.float(), weight, behind)
    return x + (rows * multiplier if multiplier != 1.0 else rows)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, neighbours: bool) -> torch.Tensor:
    """As `fused_steps.rotate`."""
    given, width = x.dtype, cos.shape[-1]
    half = width // 2
    rows = x.to(torch.promote_types(given, cos.dtype))
    turned = rows[..., :width]
    if neighbours:
        cos, sin = (part[:, :half].repeat_interleave(2, dim=-1) for part in (cos, sin))
        crossed = torch.stack((-turned[..., 1::2], turned[..., ::2]), dim=-1).flatten(-2)
    else:
        crossed = torch.cat((-turned[..., half:], turned[..., :half]), dim=-1)
    out = turned * cos[:, None] + crossed * sin[:, None]
    if width < x.shape[-1]:
        out = torch.cat((out, rows[..., width:]), dim=-1)
    return out.to(given)
