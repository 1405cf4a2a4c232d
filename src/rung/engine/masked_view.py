"""The tokens of a tree, each layer's attention in one fused kernel: PyTorch's own with a mask, or FlexAttention.

The mask of a short tree is written out. That of a long one is told to FlexAttention, which skips blocks that no token
sees, and so is that of a training with capped scores or sinks. Made for GPUs, where a kernel for each block costs more
than what it saves.
Source: Dong et al., FlexAttention (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch.nn.functional import pad

from rung.engine import gpu_kernels
from rung.engine.attention import KeysAndValues, TreePass
from rung.engine.buckets import bucket
from rung.engine.tree_mask import BLOCK, TreeMask

MOST_DENSE = 1 << 24
"""Queries times keys up to which the mask is written out: of 4,096 tokens, 32 MB in half precision."""

_ALIGNED = 16  # keys
_UNSEEN = -30_000.0
"""Added to the scores of unseen keys where cuDNN may compute them: infinities may become no numbers there, so that
PyTorch gives it none either. The weights are 0 all the same, since every query sees a key, padding itself."""
_MOST_SCORES = 1 << 27  # that are written out at once: 512 MB in float32, a few times


class MaskedView(TreePass):
    """The tokens of (a part of) a tree, in one kernel a layer; some at the end may be padding.

    mask: of the pass. real: number of tokens that are no padding. furthest: the largest position; no window that holds
    it changes anything. sparse: whether FlexAttention computes a short tree, too: it skips what no token sees, and has
    to be compiled for the size first. often: as in `gpu_kernels.masked_attention`. The others: as in TreePass.
    """

    def __init__(
        self,
        mask: TreeMask,
        real: int,
        furthest: int,
        past: Sequence[KeysAndValues] | None = None,
        kept: list[KeysAndValues] | None = None,
        wanted: torch.Tensor | None = None,
        *,
        long: bool = False,
        sparse: bool = False,
        often: bool = False,
    ) -> None:
        super().__init__(past, kept, wanted, long=long)
        self._mask, self._real, self._furthest = mask, real, furthest
        self._sparse, self._often = sparse, often
        self._made: dict[tuple[int | None, bool], Any] = {}  # masks by window, and whether written out

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
        if len(query) > len(self._mask.positions) or len(query) < self._real:
            raise RuntimeError("its layers do not give all tokens to attention")
        self._called(layer, key[: self._real], value[: self._real])
        if window is not None and self._furthest < window:
            window = None
        dense, plain = self._mask.pairs <= MOST_DENSE and not self._sparse, cap is None and sinks is None
        written = dense and (plain or not torch.is_grad_enabled())  # a kernel of FlexAttention takes long to compile
        count, flex = len(query), query.device.type == "cuda" and not written
        query, key, value = self._laid_out(layer, query, key, value, self._blocked if flex else self._mask)
        if flex:
            out = _flex(query, key, value, self._in_blocks(window), scaling, cap, sinks)
        else:
            group = query.shape[1] // key.shape[1]  # the fused kernel with a mask knows no groups
            key, value = (rows if group == 1 else rows.repeat_interleave(group, 1) for rows in (key, value))
            mask = self._written_out(window, query.dtype)
            if plain:
                out = gpu_kernels.masked_attention(query, key, value, mask, scaling, often=self._often)
            else:
                out = _by_hand(query, key, value, mask, scaling, cap, sinks)
        out = out.squeeze(0).transpose(0, 1)
        return out if len(out) == count else out[:count]

    def _laid_out(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: TreeMask
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Heads first, (1, H, T, D), as long as the mask, with the keys and values of the past in front."""
        tokens, past = len(mask.positions), len(mask.first) - len(mask.positions)
        key, value = (_longer(rows.to(query.dtype), tokens) for rows in (key, value))
        if self._past is not None:
            before = [_longer(rows, past) for rows in self._past[layer]]
            key, value = torch.cat([before[0], key]), torch.cat([before[1], value])
        query, key, value = (rows[None].transpose(1, 2) for rows in (_longer(query, tokens), key, value))
        return query, key, value

    @cached_property
    def _blocked(self) -> TreeMask:
        """The mask in whole blocks of one of few sizes: FlexAttention is compiled for each."""
        tokens, past = len(self._mask.positions), len(self._mask.first) - len(self._mask.positions)
        return self._mask.padded(whole_blocks(tokens), whole_blocks(past))

    def _written_out(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """What is added to scores, (1, 1, T, S): 0 where a key is seen, else -inf or as good as that.

        In the type of the queries and with rows that are aligned: else the kernel would convert it in every layer.
        """
        if (window, True) not in self._made:
            seen = self._mask.dense(window)
            room = -(-seen.shape[1] // _ALIGNED) * _ALIGNED
            added = torch.zeros(len(seen), room, dtype=dtype, device=seen.device)[:, : seen.shape[1]]
            unseen = _UNSEEN if self._often else float("-inf")
            self._made[window, True] = added.masked_fill_(~seen, unseen)[None, None]
        mask: torch.Tensor = self._made[window, True]
        return mask

    def _in_blocks(self, window: int | None) -> Any:
        if (window, False) not in self._made:
            self._made[window, False] = self._blocked.blocks(window)
        return self._made[window, False]


def whole_blocks(count: int) -> int:
    """The bucket that holds so many tokens, in whole blocks of FlexAttention."""
    return -(-bucket(count) // BLOCK) * BLOCK if count else 0


def _longer(rows: torch.Tensor, length: int) -> torch.Tensor:
    """(T, H, D) with zeros behind it up to that length."""
    return rows if len(rows) == length else pad(rows, (0, 0, 0, 0, 0, length - len(rows)))


def _by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    added: torch.Tensor,
    scaling: float,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with the scores written out in float32, where no kernel computes it, of a few heads at once.

    All (1, H, ..., D)."""
    most = max(1, _MOST_SCORES // (query.shape[2] * key.shape[2]))
    found = []
    for first in range(0, query.shape[1], most):
        heads = slice(first, first + most)
        own = sinks[heads] if sinks is not None else None
        found.append(_of_heads(query[:, heads], key[:, heads], value[:, heads], added, scaling, cap, own))
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _of_heads(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    added: torch.Tensor,
    scaling: float,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    scores = (query @ key.mT).float() * scaling
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    scores = scores + added
    if sinks is not None:
        column = sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value


# ---- FlexAttention ------------------------------------------------------------------------------


def _flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    blocks: Any,
    scaling: float,
    cap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention by FlexAttention. query: (1, H, T, D); key, value: (1, Hkv, S, D). T and S are multiples of 128."""
    grouped = query.shape[1] != key.shape[1]
    out, sums = compiled_flex()(query, key, value, _capped(cap), blocks, scaling, grouped)
    # A sink only adds to the softmax's denominator, whose logarithm is known.
    return out if sinks is None else (out * torch.sigmoid(sums - sinks[None, :, None]).unsqueeze(-1)).to(query.dtype)


@lru_cache(maxsize=1)
def compiled_flex() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """FlexAttention, compiled for each shape that it meets."""
    from rung.engine.compiling import compiled

    return compiled(_flex_with_sums)


def _flex_with_sums(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, change: Any, blocks: Any, scaling: float, grouped: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention, and the logarithms of the softmax's denominators, (1, H, T)."""
    from torch.nn.attention import flex_attention as library

    given = {"score_mod": change, "block_mask": blocks, "scale": scaling, "enable_gqa": grouped}
    if hasattr(library, "AuxRequest"):
        out, more = library.flex_attention(query, key, value, return_aux=library.AuxRequest(lse=True), **given)
        return out, more.lse
    found: tuple[torch.Tensor, torch.Tensor] = library.flex_attention(query, key, value, return_lse=True, **given)
    return found


@lru_cache
def _capped(cap: float | None) -> Callable[..., torch.Tensor] | None:
    """Scores capped as in View; one function for each cap, since a new one would be compiled again."""
    if cap is None:
        return None

    def change(score: torch.Tensor, *_: Any) -> torch.Tensor:
        return cap * torch.tanh(score / cap)

    return change
