"""Attention over a tree of rows. Decode steps have their own view, in `kv_cache`.

A token sees its own node causally and every node above it whole, under one softmax. The scores are computed block by
block, and the softmax is merged from each block's output and log-sum. This is exact and differentiable: the backward
pass computes the weights again from the stored log-sums. On a CPU a block is PyTorch's own flash kernel, which never
writes the scores to memory; on other devices the block is written out. Nodes of similar length are computed together:
padding behind them changes nothing, since no token sees later ones.
Sources: Juravsky et al., Hydragen (2024), for attention split into shared and own keys; Dao et al.,
FlashAttention (2022), for merging and for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rung.engine.prefix_tree import Node

NAME = "rung_tree"

KeysAndValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of some tokens in one layer."""

_BLOCK_SCORES = 1 << 20  # a head, computed together


class View(Protocol):
    """What the tokens of one forward pass see. Every attention layer calls it in turn.

    wanted: places of the tokens whose final hidden states are needed, (t,); None: all of them.
    """

    wanted: torch.Tensor | None

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query: (T, H, D); key, value: (T, Hkv, D), of the tokens of this pass. Returns (T, H, D)."""
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
    attention_mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers' layers. query: (1, H, T, D); key, value: (1, Hkv, T, D). Returns (1, T, H, D).

    softcap, s_aux: given by attention with capped scores or sinks, which is not implemented: raises RuntimeError.
    """
    if softcap is not None or s_aux is not None:
        raise RuntimeError("its attention caps its scores or has sinks")
    view = current_view()
    assert view is not None, "a pass of this engine sets the view"
    out = view.attend(
        module.layer_idx, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scaling
    )
    return out[None], None


# ---- a tree of rows ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Padded:
    """Stretches of packed tokens side by side, padded to one length.

    places: (n, length), the place of each token in the packed order, 0 for padding. padding: (n, length), true where
    padding is; None where there is none. to, taken: packed places of the real tokens and their places in (n * length).
    """

    places: torch.Tensor
    padding: torch.Tensor | None
    to: torch.Tensor
    taken: torch.Tensor | None

    @staticmethod
    def of(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Padded:
        first = torch.tensor(starts)[:, None]
        columns = torch.arange(max(lengths))[None]
        real = columns < torch.tensor(lengths)[:, None]
        places = torch.where(real, first + columns, 0)
        if bool(real.all()):
            return Padded(places.to(device), None, places.flatten().to(device), None)
        taken = real.flatten().nonzero()[:, 0]
        return Padded(places.to(device), ~real.to(device), places.flatten()[taken].to(device), taken.to(device))

    def gather(self, rows: torch.Tensor, *, padding: float | None = None) -> torch.Tensor:
        """(T, H, W) to (n, H, length, W). padding: the value that padding gets; None: any value will do."""
        taken = rows.index_select(0, self.places.flatten()).view(*self.places.shape, *rows.shape[1:])
        if padding is not None and self.padding is not None:
            taken.masked_fill_(self.padding[..., None, None], padding)
        return taken.transpose(1, 2)

    def scatter(self, target: torch.Tensor, found: torch.Tensor) -> None:
        """The inverse of `gather`: writes (n, H, length, W) without its padding to target (T, H, W)."""
        flat = found.transpose(1, 2).flatten(0, 1)
        target.index_copy_(0, self.to, flat if self.taken is None else flat.index_select(0, self.taken))


@dataclass(frozen=True)
class Blocks:
    """Which tokens see which. Queries are numbered from 0; keys are numbered with those of the past first.

    above: (first key, key behind the last, first query, query behind the last); all these queries see all these keys.
    alone: (first token, token behind the last) of each node that is computed by itself. own: the other nodes, those of
    similar length together. past: number of keys before those of the queries.
    """

    above: tuple[tuple[int, int, int, int], ...]
    alone: tuple[tuple[int, int], ...]
    own: tuple[Padded, ...]
    past: int


def blocks_of(
    nodes: Sequence[Node], ancestors: Sequence[tuple[int, int, int, int]], past: int, device: torch.device
) -> Blocks:
    """ancestors: (first key, number of keys, first query, query behind the last)."""
    parts = [[nodes[i] for i in part] for part in similar_in_length([node.length for node in nodes])]
    alone = [(node.start, node.start + node.length) for part in parts if len(part) == 1 for node in part]
    own = [Padded.of([n.start for n in part], [n.length for n in part], device) for part in parts if len(part) > 1]
    above = [(key, key + length, first, last) for key, length, first, last in ancestors if last > first]
    return Blocks(tuple(above), tuple(alone), tuple(own), past)


def similar_in_length(lengths: Sequence[int]) -> list[list[int]]:
    """Places in `lengths`, shortest first, in lists of stretches that are computed together.

    The number of scores grows with the square of the padded length. One more stretch joins a list while the padding
    adds less than half of the real scores and about the cost of starting another product.
    """
    parts: list[list[int]] = []
    real = 0
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        square = lengths[place] ** 2
        padded = (len(parts[-1]) + 1) * square if parts else 0
        if parts and padded <= min(1.5 * (real + square) + 10_000, _BLOCK_SCORES):
            parts[-1].append(place)
            real += square
        else:
            parts.append([place])
            real = square
    return parts


class _Attention(torch.autograd.Function):
    """query: (T, H, D); key, value: (past + T, Hkv, D). Returns (T, H, D)."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Blocks, scaling: float
    ) -> torch.Tensor:
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        given = query.dtype
        query, key, value = (rows.to(_block_type(rows)) for rows in (query, key, value))
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        for nodes in blocks.own:
            keys, values = (_for_each_query(nodes.gather(rows[blocks.past :]), group) for rows in (key, value))
            part, part_sum = attend(nodes.gather(query), keys, values, scaling=scaling, causal=True)
            nodes.scatter(out, part)
            nodes.scatter(logsum, part_sum)
        for first_key, last_key, first, last, causal in _slices(blocks):
            queries, keys, values = query[first:last], key[first_key:last_key], value[first_key:last_key]
            parts = (grouped(rows, heads) for rows in (queries, keys, values))
            part, part_sum = (ungrouped(rows) for rows in attend(*parts, scaling=scaling, causal=causal))
            if causal:
                out[first:last], logsum[first:last] = part, part_sum
            else:
                merge(out[first:last], logsum[first:last], part, part_sum)
        ctx.save_for_backward(query, key, value, out, logsum)
        ctx.blocks, ctx.scaling = blocks, scaling
        return out.to(given)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, out, logsum = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        given, grad = grad.dtype, grad.to(query.dtype).contiguous()
        grad_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        grad_key = torch.zeros(key.shape, dtype=key.dtype, device=key.device)
        grad_value = torch.zeros_like(grad_key)
        for nodes in blocks.own:
            # Padding has no effect: no gradient comes to it, and its weights are exp(-inf).
            upper, sums = nodes.gather(grad, padding=0.0), nodes.gather(logsum, padding=float("inf"))
            keys, values = (_for_each_query(nodes.gather(rows[blocks.past :]), group) for rows in (key, value))
            to_query, to_key, to_value = attend_back(
                upper, nodes.gather(query), keys, values, nodes.gather(out), sums, scaling=ctx.scaling, causal=True
            )
            nodes.scatter(grad_query, to_query)
            nodes.scatter(grad_key[blocks.past :], to_key.unflatten(1, (heads, group)).sum(2))
            nodes.scatter(grad_value[blocks.past :], to_value.unflatten(1, (heads, group)).sum(2))
        for first_key, last_key, first, last, causal in _slices(blocks):
            upper, queries, seen, sums = (grouped(rows[first:last], heads) for rows in (grad, query, out, logsum))
            keys, values = (grouped(rows[first_key:last_key], heads) for rows in (key, value))
            found = attend_back(upper, queries, keys, values, seen, sums, scaling=ctx.scaling, causal=causal)
            to_query = ungrouped(found[0])
            if causal:
                grad_query[first:last] = to_query
            else:
                grad_query[first:last] += to_query
            for target, part in zip((grad_key, grad_value), found[1:], strict=True):
                target[first_key:last_key] += part.sum(0).transpose(0, 1)
        return grad_query.to(given), grad_key.to(given), grad_value.to(given), None, None


def _slices(blocks: Blocks) -> list[tuple[int, int, int, int, bool]]:
    """(first key, key behind the last, first query, query behind the last, causal): nodes before those above them."""
    alone = [(blocks.past + first, blocks.past + last, first, last, True) for first, last in blocks.alone]
    return [*alone, *((*above, False) for above in blocks.above)]


# ---- one block of queries and keys --------------------------------------------------------------

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACK = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def _block_type(rows: torch.Tensor) -> torch.dtype:
    """The type of blocks: float32 on CPUs, since the flash kernel's backward pass is three times slower in bfloat16."""
    return torch.float32 if rows.device.type == "cpu" else rows.dtype


def _is_flash(query: torch.Tensor) -> bool:
    return query.device.type == "cpu" and _FLASH is not None and _FLASH_BACK is not None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scaling: float, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one block, and the log-sums of its scores.

    query: (N, H, Q, D); key, value: (N, H, K, D), or (1, H, K, D) for all.
    causal: Q = K, and no token sees a later one.
    Returns (N, H, Q, D) in query's type and (N, H, Q, 1) in float32.
    """
    key, value = (rows.expand(len(query), -1, -1, -1) for rows in (key, value))
    if _is_flash(query):
        out, logsum = _FLASH(query, key, value, 0.0, causal, scale=scaling)  # type: ignore[misc]
        return out, logsum[..., None]
    return softmax(_scores(query, key, scaling, causal), value)


def attend_back(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    logsum: torch.Tensor,
    *,
    scaling: float,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One block's part of the gradients towards query, key and value.

    grad, out: (N, H, Q, D) and logsum: (N, H, Q, 1), of the attention to all blocks together. The others are as in
    `attend`. Gradients towards keys and values are returned for each of the N.
    """
    key, value = (rows.expand(len(query), -1, -1, -1) for rows in (key, value))
    if _is_flash(query):
        sums = logsum[..., 0]
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _FLASH_BACK(  # type: ignore[misc]
            grad, query, key, value, out, sums, 0.0, causal, scale=scaling
        )
        return found
    weights = _scores(query, key, scaling, causal).sub_(logsum).exp_().to(query.dtype)
    delta = (grad * out).sum(-1, keepdim=True)
    to_scores = (grad @ value.mT).sub_(delta).mul_(weights).mul_(scaling)
    return to_scores @ key, to_scores.mT @ query, weights.mT @ grad


def _scores(query: torch.Tensor, key: torch.Tensor, scaling: float, causal: bool) -> torch.Tensor:
    scores: torch.Tensor = (query @ key.mT).float().mul_(scaling)
    if causal:
        length = scores.shape[-1]
        later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu_(1)
        scores.masked_fill_(later, float("-inf"))
    return scores


def merge(out: torch.Tensor, logsum: torch.Tensor, part: torch.Tensor, part_sum: torch.Tensor) -> None:
    """Takes one more block of keys into outputs (T, H, D) and their log-sums (T, H, 1), in place."""
    total = torch.logaddexp(logsum, part_sum)
    out.mul_((logsum - total).exp_().to(out.dtype))
    out.addcmul_(part, (part_sum - total).exp_().to(out.dtype))
    logsum.copy_(total)


def softmax(scores: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted values (…, Q, D) and log-sums (…, Q, 1). scores: (…, Q, K), float32, overwritten; values: (…, K, D)."""
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    return (weights.to(values.dtype) @ values).div_(total.to(values.dtype)), total.log_().add_(highest)


def _for_each_query(rows: torch.Tensor, group: int) -> torch.Tensor:
    """(n, Hkv, L, D) to (n, H, L, D): the query heads of a group read the same keys."""
    return rows if group == 1 else rows.repeat_interleave(group, 1)


def grouped(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, H, W) to (group, Hkv, T, W), without copying; keys have groups of one."""
    apart: torch.Tensor = rows.unflatten(1, (heads, -1))
    return apart.permute(2, 1, 0, 3)


def ungrouped(grouped: torch.Tensor) -> torch.Tensor:
    """(group, Hkv, T, W) to (T, H, W)."""
    return grouped.permute(2, 1, 0, 3).flatten(1, 2)


class TreeView:
    """The tokens of (a part of) a tree. past: keys and values before them, (P, Hkv, D) each, one pair a layer.

    kept: a list that receives the keys and values of this pass, one pair a layer; None: they are not needed.
    wanted: as in View.
    """

    def __init__(
        self,
        blocks: Blocks,
        past: Sequence[KeysAndValues] | None = None,
        kept: list[KeysAndValues] | None = None,
        wanted: torch.Tensor | None = None,
    ) -> None:
        self.wanted = wanted
        self._blocks = blocks
        self._past = past
        self._kept = kept

    def again(self) -> TreeView:
        """The same view for a layer that is computed a second time: keys and values are not kept twice."""
        same = copy(self)
        same._kept = None
        return same

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        if self._kept is not None:
            self._kept.append((key, value))
        if self._past is not None:
            before_key, before_value = self._past[layer]
            key, value = torch.cat([before_key, key]), torch.cat([before_value, value])
        out: torch.Tensor = _Attention.apply(query, key, value, self._blocks, scaling)
        return out
