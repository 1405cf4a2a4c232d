"""Factors of several adapters in one matrix for each layer, so that one product serves them all.

A change of one adapter copies its factors into its slot; the others stay where they are. Only the engine's thread may
touch slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rung.engine.adapter_plain import Blocks, Names, PlainAdapter


class AdapterSlots:
    """Slots for adapters of one layout. most: slots at most; memory is taken as they are needed.

    What stands in a slot stays in memory until another adapter takes the slot or it is forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: list[PlainAdapter | None] = []  # by slot
        self._places: dict[PlainAdapter, int] = {}  # the one used last stands last
        # By the names of layers: of all slots, (slots, …); a batched product is fast on whole matrices only.
        self._whole: dict[Names, Blocks] = {}
        self._ranges: dict[tuple[Names, int, int], Blocks] = {}

    def __len__(self) -> int:
        return len(self._places)

    def place(self, adapters: Sequence[PlainAdapter]) -> dict[PlainAdapter, int]:
        """A slot for each of the adapters, as far as there are enough of them: those that have one keep it."""
        wanted = sorted(adapters, key=lambda adapter: adapter not in self._places)[: self._most]
        for adapter in wanted:
            if adapter in self._places:
                self._places[adapter] = self._places.pop(adapter)
        for adapter in wanted:
            if adapter not in self._places:
                self._put(adapter, wanted)
        return {adapter: self._places[adapter] for adapter in wanted}

    def forget(self, adapter: PlainAdapter) -> None:
        """Its slot is free again."""
        if (slot := self._places.pop(adapter, None)) is not None:
            self._held[slot] = None

    def blocks(self, names: Names, first: int, stop: int) -> Blocks:
        """As `AdapterLayout.blocks`, of a range of slots: a (S, n × rank, in), b (S, rank, out)."""
        key = names, first, stop
        if (found := self._ranges.get(key)) is None:
            whole = self._whole_of(names)
            found = [(a[first:stop], [(place, b[first:stop]) for place, b in bs]) for a, bs in whole]
            self._ranges[key] = found
        return found

    def _put(self, adapter: PlainAdapter, kept: Sequence[PlainAdapter]) -> None:
        if None not in self._held:
            if len(self._held) < self._most:
                self._held += [None] * min(max(2, len(self._held)), self._most - len(self._held))
                self._whole.clear()
                self._ranges.clear()
            else:
                self.forget(next(other for other in self._places if other not in kept))
        slot = self._held.index(None)
        self._held[slot], self._places[adapter] = adapter, slot
        for names, blocks in self._whole.items():
            _copy(adapter.blocks(names), blocks, slot)

    def _whole_of(self, names: Names) -> Blocks:
        if (found := self._whole.get(names)) is None:
            count, own = len(self._held), next(iter(self._places)).blocks(names)
            with torch.inference_mode(False):
                # Zeros: a range may hold slots that were never written, and 0 × a stray NaN would be no zero.
                found = [
                    (a.new_zeros(count, *a.shape), [(place, b.new_zeros(count, *b.shape)) for place, b in bs])
                    for a, bs in own
                ]
            for adapter, slot in self._places.items():
                _copy(adapter.blocks(names), found, slot)
            self._whole[names] = found
        return found


def _copy(own: Blocks, whole: Blocks, slot: int) -> None:
    for (a, bs), (into_a, into_bs) in zip(own, whole, strict=True):
        into_a[slot].copy_(a)
        for (_, b), (_, into_b) in zip(bs, into_bs, strict=True):
            into_b[slot].copy_(b)
