"""Attention over a tree of rows, and over the next tokens of rows that are being answered.

A token sees its own node causally and every node above it whole, under one softmax; the scores are
computed block by block and the softmax is merged from each block's output and log-sum. Exact, and
differentiable: the backward pass computes the weights again from the kept log-sums.
Sources: Juravsky et al., Hydragen (2024), for attention split into shared and own keys; Dao et al.,
FlashAttention (2022), for merging and for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from rung.models.tree import Node

NAME = "rung_tree"
_BLOCK_SCORES = 1 << 20  # a head, computed together


class View(Protocol):
    """What the tokens of one forward pass see. Every attention layer calls it in turn."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query: (T, H, D); key, value: (T, Hkv, D), of the tokens of this pass. Returns (T, H, D)."""
        ...


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    view: View,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers' layers. query: (1, H, T, D); key, value: (1, Hkv, T, D). Returns (1, T, H, D).

    softcap, s_aux: of attention with capped scores or sinks, which is not written here: raises RuntimeError.
    """
    if softcap is not None or s_aux is not None:
        raise RuntimeError("its attention caps its scores or has sinks")
    out = view.attend(
        module.layer_idx, query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), scaling
    )
    return out[None], None


# ---- a tree of rows ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Padded:
    """Stretches of packed tokens side by side, padded to one length.

    places: (n, length), where each token stands in the packed order, 0 for padding. real: (n, length), or
    None where nothing is padded. to, taken: packed places of the real tokens and their places in (n * length).
    """

    places: torch.Tensor
    real: torch.Tensor | None
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
        return Padded(places.to(device), real.to(device), places.flatten()[taken].to(device), taken.to(device))

    def gather(self, rows: torch.Tensor, heads: int) -> torch.Tensor:
        """(T, H, W) to (n * heads, length * group, W); heads of one group stand beside the queries."""
        count, length = self.places.shape
        taken = rows.index_select(0, self.places.flatten()).view(count, length, heads, -1, rows.shape[2])
        return taken.transpose(1, 2).reshape(count * heads, -1, rows.shape[2])

    def scatter(self, target: torch.Tensor, folded: torch.Tensor, heads: int) -> None:
        """The way back: writes (n * heads, length * group, W) to target (T, H, W), padding left out."""
        count, length = self.places.shape
        flat = folded.view(count, heads, length, -1, folded.shape[-1]).transpose(1, 2)
        flat = flat.reshape(count * length, -1, folded.shape[-1])
        target.index_copy_(0, self.to, flat if self.taken is None else flat.index_select(0, self.taken))


@dataclass(frozen=True)
class Blocks:
    """Which tokens see which. Queries are numbered from 0; keys are numbered with those of the past first.

    above: (first key, behind the last key, first query, behind the last query), all of which see all of those.
    own: nodes, those of similar length together. past: how many keys stand before those of the queries.
    """

    above: tuple[tuple[int, int, int, int], ...]
    own: tuple[Padded, ...]
    past: int


def blocks_of(
    nodes: Sequence[Node], ancestors: Sequence[tuple[int, int, int, int]], past: int, device: torch.device
) -> Blocks:
    """ancestors: (first key, how many, first query, behind the last query)."""
    parts = alike_in_length([node.length for node in nodes])
    own = [Padded.of([nodes[i].start for i in part], [nodes[i].length for i in part], device) for part in parts]
    above = tuple((key, key + length, first, last) for key, length, first, last in ancestors if last > first)
    return Blocks(above, tuple(own), past)


def alike_in_length(lengths: Sequence[int]) -> list[list[int]]:
    """Places in `lengths`, those that are computed together in one list, shortest first.

    Scores grow with the square of the length they are padded to. One more stretch joins while that
    wastes less than half of the real scores and about what it costs to begin another product.
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
        heads = key.shape[1]
        scaled = query * scaling
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        for nodes in blocks.own:
            keys, values = nodes.gather(key[blocks.past :], heads), nodes.gather(value[blocks.past :], heads)
            part, part_sum = _softmax(_hide_later(nodes.gather(scaled, heads) @ keys.mT), values)
            nodes.scatter(out, part, heads)
            nodes.scatter(logsum, part_sum, heads)
        for first_key, last_key, first, last in blocks.above:
            keys, values = key[first_key:last_key].transpose(0, 1), value[first_key:last_key].transpose(0, 1)
            part, part_sum = _softmax((_stack(scaled[first:last], heads) @ keys.mT).float(), values)
            merge(
                out[first:last], logsum[first:last], _unstack(part, query.shape[1]), _unstack(part_sum, query.shape[1])
            )
        ctx.save_for_backward(query, key, value, out, logsum)
        ctx.blocks, ctx.scaling = blocks, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, out, logsum = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        heads = key.shape[1]
        scaled = query * ctx.scaling
        grad_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        grad_key = torch.zeros(key.shape, dtype=key.dtype, device=key.device)
        grad_value = torch.zeros_like(grad_key)
        delta = (grad * out).sum(-1, keepdim=True)  # (T, H, 1)
        for nodes in blocks.own:
            keys, values = nodes.gather(key[blocks.past :], heads), nodes.gather(value[blocks.past :], heads)
            queries, upper = nodes.gather(scaled, heads), nodes.gather(grad, heads)
            sums = nodes.gather(logsum, heads)
            if nodes.real is not None:  # padding has no say: its weights are exp(-inf)
                count, length = nodes.places.shape
                sums.view(count, heads, length, -1).masked_fill_(~nodes.real[:, None, :, None], float("inf"))
            weights = _hide_later(queries @ keys.mT).sub_(sums).exp_().to(query.dtype)
            to_scores = (upper @ values.mT).sub_(nodes.gather(delta, heads)).mul_(weights)
            nodes.scatter(grad_query, to_scores @ keys, heads)
            nodes.scatter(grad_key[blocks.past :], to_scores.mT @ queries, heads)
            nodes.scatter(grad_value[blocks.past :], weights.mT @ upper, heads)
        for first_key, last_key, first, last in blocks.above:
            keys, values = key[first_key:last_key].transpose(0, 1), value[first_key:last_key].transpose(0, 1)
            queries, upper = _stack(scaled[first:last], heads), _stack(grad[first:last], heads)
            weights = (queries @ keys.mT).float().sub_(_stack(logsum[first:last], heads)).exp_().to(query.dtype)
            to_scores = (upper @ values.mT).sub_(_stack(delta[first:last], heads)).mul_(weights)
            grad_query[first:last] += _unstack(to_scores @ keys, query.shape[1])
            grad_key[first_key:last_key] += (to_scores.mT @ queries).transpose(0, 1)
            grad_value[first_key:last_key] += (weights.mT @ upper).transpose(0, 1)
        return grad_query.mul_(ctx.scaling), grad_key, grad_value, None, None


def merge(out: torch.Tensor, logsum: torch.Tensor, part: torch.Tensor, part_sum: torch.Tensor) -> None:
    """Takes one more block of keys into outputs (T, H, D) and their log-sums (T, H, 1), in place."""
    total = torch.logaddexp(logsum, part_sum)
    out.mul_((logsum - total).exp_().to(out.dtype))
    out.addcmul_(part, (part_sum - total).exp_().to(out.dtype))
    logsum.copy_(total)


def _softmax(scores: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted values (N, Q, D) and log-sums (N, Q, 1). scores: (N, Q, K), float32, overwritten; values: (N, K, D)."""
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    return (weights.to(values.dtype) @ values).div_(total.to(values.dtype)), total.log_().add_(highest)


def _hide_later(scores: torch.Tensor) -> torch.Tensor:
    """Causal scores in float32. scores: (N, length * group, length)."""
    length = scores.shape[2]
    columns = torch.arange(length, device=scores.device)
    later = (columns[None, :] > columns[:, None]).repeat_interleave(scores.shape[1] // length, 0)
    return scores.float().masked_fill_(later, float("-inf"))


def _stack(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, H, W) to (heads, T * group, W)."""
    return rows.reshape(len(rows), heads, -1, rows.shape[2]).transpose(0, 1).reshape(heads, -1, rows.shape[2])


def _unstack(stacked: torch.Tensor, heads: int) -> torch.Tensor:
    """(Hkv, T * group, W) to (T, H, W), group = heads / Hkv."""
    by_token = stacked.view(len(stacked), -1, heads // len(stacked), stacked.shape[2]).transpose(0, 1)
    return by_token.reshape(-1, heads, stacked.shape[2])


KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class TreeView:
    """The tokens of (a part of) a tree. past: keys and values before them, (P, Hkv, D) each, one pair a layer.

    kept: where to leave the keys and values of this pass, one pair a layer; None: they are not needed.
    """

    def __init__(
        self, blocks: Blocks, past: Sequence[KeysAndValues] | None = None, kept: list[KeysAndValues] | None = None
    ) -> None:
        self._blocks = blocks
        self._past = past
        self._kept = kept

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


# ---- rows that are being answered -------------------------------------------------------------


class RowCache:
    """Keys and values of rows that are being answered, a token or a few at a time, behind shared nodes.

    lengths: tokens each row holds of its own, (B,). shared: nodes that several neighbouring rows stand
    behind, as (keys and values a layer, (Hkv, L, D) each; first row; behind the last row).
    """

    def __init__(self, lengths: torch.Tensor, room: int, shared: list[tuple[list[KeysAndValues], int, int]]) -> None:
        self.lengths = lengths
        self._room = room
        self._shared = shared
        self._own: list[KeysAndValues] = []  # (B, Hkv, room, D) a layer

    def hold(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Takes in keys and values (N, Hkv, D) of tokens that stand in those rows and columns, (N,) each."""
        while layer >= len(self._own):
            shape = (len(self.lengths), key.shape[1], self._room, key.shape[2])
            self._own.append((key.new_zeros(shape), value.new_zeros(shape)))
        self._own[layer][0][rows, :, columns] = key
        self._own[layer][1][rows, :, columns] = value

    def expect(self, counts: Sequence[int]) -> None:
        """The next pass brings so many tokens of each row, packed row behind row; they then belong to the row."""
        device = self.lengths.device
        number = torch.tensor(counts, device=device)
        first = (number.cumsum(0) - number).tolist()
        self._padded = Padded.of(first, counts, device)
        self._first = [*first, sum(counts)]
        columns = self.lengths[:, None] + torch.arange(max(counts), device=device)  # (B, n)
        self._rows = torch.arange(len(counts), device=device).repeat_interleave(number)
        self._columns = columns.flatten() if self._padded.taken is None else columns.flatten()[self._padded.taken]
        width = int(self.lengths.max()) + max(counts)
        self._unseen = torch.arange(width, device=device) > columns[..., None]  # (B, n, width)
        self.lengths = self.lengths + number

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self.hold(layer, key, value, self._rows, self._columns)
        heads = key.shape[1]
        rows, _, width = self._unseen.shape
        query = query * scaling
        keys, values = (x[:, :, :width].flatten(0, 1) for x in self._own[layer])  # (B * Hkv, S, D)
        scores = (self._padded.gather(query, heads) @ keys.mT).float()  # (B * Hkv, n * group, S)
        unseen = self._unseen.repeat_interleave(query.shape[1] // heads, 1)  # (B, n * group, S)
        scores.view(rows, heads, -1, width).masked_fill_(unseen[:, None], float("-inf"))
        part, part_sum = _softmax(scores, values)
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        self._padded.scatter(out, part, heads)
        self._padded.scatter(logsum, part_sum, heads)
        for nodes, first_row, last_row in self._shared:
            node_keys, node_values = nodes[layer]
            first, last = self._first[first_row], self._first[last_row]
            part, part_sum = _softmax((_stack(query[first:last], heads) @ node_keys.mT).float(), node_values)
            merge(
                out[first:last], logsum[first:last], _unstack(part, query.shape[1]), _unstack(part_sum, query.shape[1])
            )
        return out

    def keep_rows(self, rows: list[int]) -> None:
        """Drops the other rows: finished answers leave the batch."""
        chosen = torch.tensor(rows, device=self.lengths.device)
        self.lengths = self.lengths[chosen]
        self._own = [(key[chosen], value[chosen]) for key, value in self._own]
        counts = [
            (nodes, sum(r < first for r in rows), sum(r < last for r in rows)) for nodes, first, last in self._shared
        ]
        self._shared = [(nodes, first, last) for nodes, first, last in counts if last > first]
