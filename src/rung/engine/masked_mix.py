"""Several adapters in passes of one shape, such as recorded decode steps: masks say which row has which adapter.

The factors of all adapters stand side by side in buffers of fixed addresses. Every row is multiplied with all of them,
and what comes from others' factors is set to zero before it is multiplied back: for a few adapters of small rank that
takes less than to sort rows by adapter, and needs no shape that depends on them. Inference only.
Source of the idea: Sheng et al., S-LoRA (2023), for the factors of many adapters beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rung.engine.adapter_mix import AdapterMix
from rung.engine.adapter_plain import LinearSize, Names, PlainAdapter

COUNTS = (1, 2, 4, 8, 16)
"""Adapters that buffers have room for."""


@dataclass(frozen=True)
class MixKind:
    """What passes with the same buffers have in common. count: one of COUNTS. rank: the widest of any adapter.

    layers: name and size of those that any of them adapts. alone: every row has the one adapter: nothing is masked.
    """

    count: int
    rank: int
    layers: frozenset[tuple[str, LinearSize]]
    alone: bool


def kind_of(adapters: Sequence[PlainAdapter | None]) -> MixKind | None:
    """The kind of a pass whose rows have these adapters; None where they are too many or none. None: a row of the
    base."""
    distinct = list(dict.fromkeys(adapter for adapter in adapters if adapter is not None))
    if not distinct or len(distinct) > COUNTS[-1]:
        return None
    return MixKind(
        next(count for count in COUNTS if count >= len(distinct)),
        max(adapter.layout.rank for adapter in distinct),
        frozenset(layer for adapter in distinct for layer in adapter.layout.layers),
        len(distinct) == 1 and None not in adapters,
    )


@dataclass(frozen=True)
class _Buffers:
    """Of layers with the same input. a: (k, count, rank, in) of the k layers that are adapted. b: for each of all
    layers (count, rank, out), or None."""

    a: torch.Tensor
    b: tuple[torch.Tensor | None, ...]


class MaskedMix(AdapterMix):
    """The adapters of passes with so many rows, of one token or several each. What is recorded with it stays right when
    adapters change: their factors are copied into the same buffers.

    `put` comes before a pass with other rows, `begin` at the start of each pass.
    """

    def __init__(self, kind: MixKind, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        self.kind = kind
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._held: list[PlainAdapter | None] = [None] * kind.count
        self._sizes = dict(kind.layers)
        self._buffers: dict[Names, _Buffers] = {}
        self._others = torch.ones(rows, kind.count * kind.rank, dtype=torch.bool, device=device)
        self._mask = self._others  # true where the factors are not those of the row's adapter

    def put(self, adapters: Sequence[PlainAdapter | None]) -> None:
        """The adapter of each row; rows behind them have none. Those that were there before are not copied again."""
        wanted = list(dict.fromkeys(adapter for adapter in adapters if adapter is not None))
        free = [slot for slot, adapter in enumerate(self._held) if adapter not in wanted]
        for adapter in wanted:
            if adapter not in self._held:
                slot = free.pop(0)
                self._held[slot] = adapter
                for names, buffers in self._buffers.items():
                    _fill(buffers, names, slot, adapter)
        others = torch.ones(len(self._others), self.kind.count, dtype=torch.bool)
        for row, own in enumerate(adapters):
            if own is not None:
                others[row, self._held.index(own)] = False
        self._others.copy_(others.repeat_interleave(self.kind.rank, 1))

    def begin(self, tokens: int) -> None:
        """A pass with so many tokens of each row, row behind row."""
        self._mask = self._others if tokens == 1 else self._others.repeat_interleave(tokens, 0)

    def add(self, x: torch.Tensor, outs: Sequence[torch.Tensor], names: Names) -> None:
        """As in AdapterMix: adds what the adapters add to the layers of these names. x: (T, in)."""
        if (tensors := self.tensors(names)) is None:
            return
        if len(x) != len(self._mask):
            raise ValueError(f"{names[0]} gets {len(x)} of {len(self._mask)} tokens; nobody knows whose")
        for place, narrow, b in _parts(x, tensors):
            outs[place].addmm_(narrow, b)

    def tensors(self, names: Names) -> Any:
        """What compiled steps take for the layers of these names; None where none of them is adapted."""
        if self._sizes.keys().isdisjoint(names):
            return None
        buffers = self._buffers.get(names)
        if buffers is None:
            buffers = self._buffers[names] = self._made(names)
        wide = tuple(b.flatten(0, 1) if b is not None else None for b in buffers.b)
        return buffers.a.flatten(0, 2), wide, None if self.kind.alone else self._mask

    def of(self, wanted: Sequence[int]) -> AdapterMix:
        raise NotImplementedError("all tokens of these passes are wanted")

    @property
    def bytes(self) -> int:
        """Of the buffers."""
        found = self._buffers.values()
        return sum(buffers.a.nbytes + sum(b.nbytes for b in buffers.b if b is not None) for buffers in found)

    def _made(self, names: Names) -> _Buffers:
        own = [self._sizes.get(name) for name in names]
        like = self._like
        count, rank = self.kind.count, self.kind.rank
        ins = next(size.ins for size in own if size is not None)
        made = _Buffers(
            like.new_zeros(sum(size is not None for size in own), count, rank, ins),
            tuple(like.new_zeros(count, rank, size.outs) if size is not None else None for size in own),
        )
        for slot, adapter in enumerate(self._held):
            if adapter is not None:
                _fill(made, names, slot, adapter)
        return made


def _parts(x: torch.Tensor, tensors: Any) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """For each layer that is adapted its place, x A' of the row's own adapter beside zeros, and B'."""
    a, bs, others = tensors
    adapted = [(place, b) for place, b in enumerate(bs) if b is not None]
    narrow = (x @ a.to(x.dtype).T).unflatten(1, (len(adapted), -1))
    if others is not None:
        narrow = narrow.masked_fill(others[:, None], 0.0)
    for number, (place, b) in enumerate(adapted):
        yield place, narrow[:, number], b.to(x.dtype)


def _fill(buffers: _Buffers, names: Names, slot: int, adapter: PlainAdapter) -> None:
    """Copies the factors of an adapter; where it has smaller ones or none, zeros stand.

    Rows of other adapters add 0 times its b, which is 0, since `read_plain` refuses what is no finite number.
    """
    rank, own = adapter.layout.rank, _factors(adapter, names)
    adapted = [(place, b[slot]) for place, b in enumerate(buffers.b) if b is not None]
    for number, (place, into_b) in enumerate(adapted):
        into_a = buffers.a[number, slot]
        if place not in own or rank < len(into_a):
            into_a.zero_()
            into_b.zero_()
        if place in own:
            a, b = own[place]
            into_a[:rank].copy_(a)
            into_b[:rank].copy_(b)


def _factors(adapter: PlainAdapter, names: Names) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Place among the layers -> a, (rank, in), and b, (rank, out)."""
    rank, found = adapter.layout.rank, {}
    for a, bs in adapter.layout.blocks(adapter.row, names):
        for number, (place, b) in enumerate(bs):
            found[place] = (a[number * rank : (number + 1) * rank], b)
    return found
