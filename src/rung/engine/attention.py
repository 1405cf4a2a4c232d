"""Attention over a tree of rows. Decode steps have their own view, in `kv_cache`.

A token sees its own node causally and every node above it whole, or of both what its sliding window holds, under one
softmax. `blocks` says which blocks of queries and keys that makes; `attention_kernels` computes them and merges the
softmax from each block's output and log-sum. This is exact and differentiable: the backward pass computes the weights
again from the stored log-sums.
Sources: Juravsky et al., Hydragen (2024), for attention split into shared and own keys; Dao et al.,
FlashAttention (2022), for merging and for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any, Protocol, Self

import torch

from rung.engine.attention_kernels import (
    attend,
    attend_back,
    block_type,
    grouped,
    is_flash,
    merge,
    merge_sinks,
    sinks_back,
    ungrouped,
)
from rung.engine.blocks import Block, Blocks, windowed

NAME = "rung_tree"

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of some tokens in one layer."""

_MOST_SCORES = 1 << 22  # a head, held at once where scores are written out
_HARMLESS = {
    "position_ids",
    "cache_position",
    "position_embeddings",
    "use_cache",
    "return_dict",
    "logits_to_keep",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "deterministic",
}
"""Keyword arguments that layers pass on to attention, though none changes its output."""


class View(Protocol):
    """What the tokens of one forward pass see. Every attention layer calls it in turn.

    wanted: places of the tokens whose final hidden states are needed, (t,); None: all of them. long: whether the rows
    are long, which changes the rotation in some models (`rope`).
    """

    wanted: torch.Tensor | None
    long: bool

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        *,
        window: int | None = None,
        cap: float | None = None,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """query: (T, H, D); key, value: (T, Hkv, D), of the tokens of this pass. Returns (T, H, D).

        window: the token at position p sees keys from position p - window + 1 on; None: from 0 on. cap: scores are
        cap * tanh(scaled product / cap). sinks: a score per head, (H,), that only adds to the softmax's denominator.
        """
        ...


_current: ContextVar[View] = ContextVar("view")


@contextmanager
def viewing(view: View) -> Iterator[None]:
    """Within: attention layers ask this view. A context, because some layers pass no arguments on to attention."""
    token = _current.set(view)
    try:
        yield
    finally:
        _current.reset(token)


def current_view() -> View | None:
    """The view of the pass that is being computed; None outside any."""
    return _current.get(None)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers' layers. query: (1, H, T, D); key: (1, Hkv, T, D), value: (1, Hkv, T, W).

    Returns (1, T, H, W). scaling None: 1 / sqrt(D). sliding_window, softcap, s_aux: window, cap and sinks of View.
    Raises RuntimeError where a layer asks for attention of another kind.
    """
    _refuse_unknown(module, attention_mask, dropout, more)
    if len(query) != 1 or query.shape[2] != key.shape[2]:
        raise RuntimeError("its attention has other keys than those of the tokens of the pass")
    if sliding_window is not None and sliding_window < 1:
        raise RuntimeError(f"its attention has a window of {sliding_window} tokens")
    view = current_view()
    assert view is not None, "a pass of this engine sets the view"
    width, wide = value.shape[3], max(query.shape[3], value.shape[3])
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    # (T, H, wide). Gradients of a squeezed dimension are views; those of [0] would be copied into zeros.
    q, k, v = (_widened(states.squeeze(0).transpose(0, 1), wide) for states in (query, key, value))
    out = view.attend(module.layer_idx, q, k, v, scaling, window=sliding_window, cap=softcap, sinks=s_aux)
    return out[None, ..., :width], None


def _widened(rows: torch.Tensor, width: int) -> torch.Tensor:
    """(T, H, W) with zeros up to the width: they change no score, and are cut off the output."""
    missing = width - rows.shape[2]
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows


def _refuse_unknown(module: Any, mask: torch.Tensor | None, dropout: float, more: dict[str, Any]) -> None:
    """Raises RuntimeError for attention that a View cannot express: nothing that changes it is passed over."""
    if not isinstance(getattr(module, "layer_idx", None), int):
        raise RuntimeError("its attention layers have no numbers")
    if dropout:
        raise RuntimeError("its attention drops weights at random")
    if mask is not None and mask.numel() != 1:  # the engine's own has one element
        raise RuntimeError("its layers change the attention mask")
    if more.pop("is_causal", None) is False:
        raise RuntimeError("its attention sees later tokens")
    for name, given in more.items():
        if name not in _HARMLESS and given is not None and given is not False:
            raise RuntimeError(f"its attention takes {name}, which is not known here")


# ---- a tree of rows ---------------------------------------------------------------------------


class _Attention(torch.autograd.Function):
    """query: (T, H, D); key, value: (past + T, Hkv, D); sinks: (H,) or None. Returns (T, H, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        blocks: Blocks,
        scaling: float,
        cap: float | None,
    ) -> torch.Tensor:
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        given = query.dtype
        query, key, value = (rows.to(block_type(rows)) for rows in (query, key, value))
        out = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        for nodes, unseen in blocks.together:
            keys, values = (_for_each_query(nodes.gather(rows[blocks.past :]), group) for rows in (key, value))
            part, part_sum = attend(
                nodes.gather(query), keys, values, scaling=scaling, causal=unseen is None, unseen=unseen, cap=cap
            )
            nodes.scatter(out, part)
            nodes.scatter(logsum, part_sum)
        for block in _pieces(blocks, query, cap):
            first, last = block.first, block.last
            keys, values = (grouped(rows[block.first_key : block.last_key], heads) for rows in (key, value))
            found = attend(
                grouped(query[first:last], heads),
                keys,
                values,
                scaling=scaling,
                causal=block.causal,
                unseen=block.unseen,
                cap=cap,
            )
            part, part_sum = (ungrouped(rows) for rows in found)
            if block.own:
                out[first:last], logsum[first:last] = part, part_sum
            else:
                merge(out[first:last], logsum[first:last], part, part_sum)
        if sinks is not None:
            merge_sinks(out, logsum, sinks)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, logsum, sinks)
        ctx.blocks, ctx.scaling, ctx.cap = blocks, scaling, cap
        return out.to(given)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, out, logsum, sinks = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        given, grad = grad.dtype, grad.to(query.dtype).contiguous()
        grad_query = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        grad_key = torch.zeros(key.shape, dtype=torch.float32, device=key.device)
        grad_value = torch.zeros_like(grad_key)
        how: dict[str, Any] = {"scaling": ctx.scaling, "cap": ctx.cap}
        for nodes, unseen in blocks.together:
            # Padding has no effect: no gradient comes to it, and its weights are exp(-inf).
            upper, sums = nodes.gather(grad, padding=0.0), nodes.gather(logsum, padding=float("inf"))
            keys, values = (_for_each_query(nodes.gather(rows[blocks.past :]), group) for rows in (key, value))
            mask: dict[str, Any] = {"causal": unseen is None, "unseen": unseen}
            to_query, to_key, to_value = attend_back(
                upper, nodes.gather(query), keys, values, nodes.gather(out), sums, **how, **mask
            )
            nodes.scatter(grad_query, to_query)
            nodes.scatter(grad_key[blocks.past :], to_key.unflatten(1, (heads, group)).sum(2))
            nodes.scatter(grad_value[blocks.past :], to_value.unflatten(1, (heads, group)).sum(2))
        for block in _pieces(blocks, query, ctx.cap):
            part = slice(block.first, block.last)
            upper, queries, seen, sums = (grouped(rows[part], heads) for rows in (grad, query, out, logsum))
            keys, values = (grouped(rows[block.first_key : block.last_key], heads) for rows in (key, value))
            mask = {"causal": block.causal, "unseen": block.unseen}
            found = attend_back(upper, queries, keys, values, seen, sums, **how, **mask)
            to_query = ungrouped(found[0])
            if block.own:
                grad_query[part] = to_query
            else:
                grad_query[part] += to_query
            for target, to_rows in zip((grad_key, grad_value), found[1:], strict=True):
                target[block.first_key : block.last_key] += to_rows.sum(0).transpose(0, 1)
        to_sinks = sinks_back(grad, out, logsum, sinks) if ctx.needs_input_grad[3] else None
        return grad_query.to(given), grad_key.to(given), grad_value.to(given), to_sinks, None, None, None


def _pieces(blocks: Blocks, query: torch.Tensor, cap: float | None) -> Iterator[Block]:
    """Single blocks in order; those whose scores are written out are cut, so that memory holds them."""
    for block in blocks.single:
        if block.unseen is None and cap is None and is_flash(query):
            yield block
        else:
            yield from block.pieces(_MOST_SCORES)


def _for_each_query(rows: torch.Tensor, group: int) -> torch.Tensor:
    """(n, Hkv, L, D) to (n, H, L, D): the query heads of a group read the same keys."""
    return rows if group == 1 else rows.repeat_interleave(group, 1)


class TreePass:
    """What every view of (a part of) a tree keeps.

    past: keys and values before the tokens of the pass, (P, Hkv, D) each, one pair a layer. kept: a list that receives
    the keys and values of the pass, one pair a layer; None: they are not needed. wanted, long: as in View. calls:
    layers that have called, in order. places: `wanted` in Python, where whoever made the view says it.
    """

    def __init__(
        self,
        past: Sequence[KeysAndValues] | None,
        kept: list[KeysAndValues] | None,
        wanted: torch.Tensor | None,
        *,
        long: bool,
    ) -> None:
        self.wanted, self.long = wanted, long
        self.places: Sequence[int] | None = None
        self.calls: list[int] = []
        self._past, self._kept = past, kept

    def again(self) -> Self:
        """The same view for a layer that is computed a second time: keys and values are not kept twice."""
        same = copy(self)
        same._kept, same.calls = None, []
        return same

    def _called(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """A layer gives its keys and values. Raises RuntimeError where they cannot be kept by number of layer."""
        self.calls.append(layer)
        if self._kept is not None:
            if layer != len(self._kept):
                raise RuntimeError("its layers do not call attention once each, in order")
            self._kept.append((key, value))


class TreeView(TreePass):
    """The tokens of (a part of) a tree, block by block.

    positions: of the keys of the past in their rows, then of the tokens of this pass. The others: as in TreePass.
    """

    def __init__(
        self,
        blocks: Blocks,
        positions: Sequence[int],
        past: Sequence[KeysAndValues] | None = None,
        kept: list[KeysAndValues] | None = None,
        wanted: torch.Tensor | None = None,
        *,
        long: bool = False,
    ) -> None:
        super().__init__(past, kept, wanted, long=long)
        self._blocks = blocks
        self._positions = positions
        self._furthest = max(positions, default=0)
        self._windowed: dict[int, Blocks] = {}

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        *,
        window: int | None = None,
        cap: float | None = None,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As in View. Raises RuntimeError where keys and values could not be kept by number of layer."""
        if len(query) != len(self._positions) - self._blocks.past:
            raise RuntimeError("its layers do not give all tokens to attention")
        self._called(layer, key, value)
        if self._past is not None:
            before_key, before_value = self._past[layer]
            key, value = torch.cat([before_key, key]), torch.cat([before_value, value])
        out: torch.Tensor = _Attention.apply(query, key, value, sinks, self._seen(window, query.device), scaling, cap)
        return out

    def _seen(self, window: int | None, device: torch.device) -> Blocks:
        """The blocks under a window, made once for all layers that have it."""
        if window is None or self._furthest < window:
            return self._blocks
        if window not in self._windowed:
            positions = torch.tensor(self._positions)
            self._windowed[window] = windowed(self._blocks, positions, window, device)
        return self._windowed[window]
