"""Which tokens of a tree see which, as a mask for one fused kernel: the tree of `blocks` in another form.

The nodes of a tree are packed depth first. So the tokens that see a key are neighbours: those of its own node from the
key itself on, and those of all nodes below it. A key of a prefix is seen by all tokens of its family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from rung.engine.gpu_kernels import on_device
from rung.engine.prefix_tree import Tree

BLOCK = 128
"""Queries, and keys, that are one block of FlexAttention."""


@dataclass(frozen=True)
class TreeMask:
    """Query q sees key k where first[k] <= q < end[k], and under a window of w tokens where positions[q] - at[k] < w.

    first, end, at: (S,), of the keys: those of the past first, then those of the pass. positions: (T,), of the queries.
    positions and at are places of tokens in their rows. All are of type int32.
    """

    first: torch.Tensor
    end: torch.Tensor
    at: torch.Tensor
    positions: torch.Tensor

    @staticmethod
    def of(numbers: Sequence[Sequence[int]], device: torch.device) -> TreeMask:
        """From what `mask_numbers` returns, in one transfer to the device."""
        flat = torch.tensor([*chain.from_iterable(numbers)], dtype=torch.int32)
        return TreeMask(*on_device(flat, device).split([len(part) for part in numbers]))

    @property
    def pairs(self) -> int:
        """T × S."""
        return len(self.positions) * len(self.first)

    def padded(self, tokens: int, past: int) -> TreeMask:
        """With so many tokens, and so many keys before them; what is new at the end of each is padding."""
        before = len(self.first) - len(self.positions)
        places = torch.arange(len(self.positions), tokens, dtype=torch.int32, device=self.first.device)

        def longer(keys: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
            return torch.cat([keys[:before], keys.new_zeros(past - before), keys[before:], behind])

        none = torch.zeros_like(places)
        positions = torch.cat([self.positions, none])
        return TreeMask(longer(self.first, places), longer(self.end, places + 1), longer(self.at, none), positions)

    def dense(self, window: int | None) -> torch.Tensor:
        """(T, S), true where a query sees a key."""
        queries = torch.arange(len(self.positions), device=self.first.device)[:, None]
        seen = (queries >= self.first) & (queries < self.end)
        return seen if window is None else seen & (self.positions[:, None] - self.at < window)

    def blocks(self, window: int | None) -> Any:
        """As FlexAttention's BlockMask. T and S are multiples of 128. Nothing waits for the device."""
        from torch.nn.attention.flex_attention import BlockMask

        some, every = self._block_seen(window)
        partial = some & ~every
        numbers = [
            part.sum(-1, dtype=torch.int32)[None, None] for part in (partial, every)
        ]  # of the blocks in each row of blocks
        indices = [
            part.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)[None, None]
            for part in (partial, every)
        ]
        return BlockMask.from_kv_blocks(
            numbers[0].contiguous(),
            indices[0].contiguous(),
            numbers[1].contiguous(),
            indices[1].contiguous(),
            BLOCK_SIZE=BLOCK,
            mask_mod=_seen_by(self, window),
        )

    def _block_seen(self, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether a block of queries sees any, and all, of a block of keys: (T / 128, S / 128) each.

        Under a window, a block of which nothing is seen may be among those of which something is.
        """
        start = torch.arange(0, len(self.positions), BLOCK, device=self.first.device)[:, None]
        some = ((self.first < start + BLOCK) & (self.end > start)).unflatten(1, (-1, BLOCK)).any(-1)
        every = ((self.first <= start) & (self.end >= start + BLOCK)).unflatten(1, (-1, BLOCK)).all(-1)
        if window is not None:
            low, high = self.positions.unflatten(0, (-1, BLOCK)).aminmax(dim=1)
            near, far = self.at.unflatten(0, (-1, BLOCK)).aminmax(dim=1)
            some &= low[:, None] - far < window
            every &= high[:, None] - near < window
        return some, every


def _seen_by(mask: TreeMask, window: int | None) -> Callable[..., torch.Tensor]:
    """The mask as FlexAttention asks for it: of one query and one key."""
    first, end, at, positions = mask.first, mask.end, mask.at, mask.positions

    def seen(_: Any, __: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (query >= first[key]) & (query < end[key])

    if window is None:
        return seen

    def seen_within(_: Any, __: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (query >= first[key]) & (query < end[key]) & (positions[query] - at[key] < window)

    return seen_within


def mask_numbers(tree: Tree, known: Sequence[int], *, tokens: int, past: int) -> list[list[int]]:
    """first, end, at and positions of TreeMask, as lists.

    known: for each family the tokens of its prefix; these stand before the tree's tokens, family behind family.
    tokens, past: sizes that the tree and the prefixes are padded to, at the end of each. Padding is seen by none but
    itself.
    """
    first, end, at = [0] * past, [0] * past, [0] * past
    start = 0
    for family, length in enumerate(known):
        own = [(node.start, node.end) for node in tree.nodes if node.family == family]
        if own:
            first[start : start + length] = [own[0][0]] * length
            end[start : start + length] = [max(stop for _, stop in own)] * length
        at[start : start + length] = range(length)
        start += length
    positions = tree.positions(known)
    padding = range(len(positions), tokens)
    first += range(tokens)
    for node in tree.nodes:
        end += [node.end] * node.length
    end += [place + 1 for place in padding]
    positions += [0] * len(padding)
    return [first, end, at + positions, positions]
