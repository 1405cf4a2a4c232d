"""Rows of several adapters in one matrix, so that one product serves them all. A change of one replaces one row.

Only the engine's thread may touch slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rung.engine.adapter_plain import AdapterLayout, Blocks, Names, PlainAdapter


class AdapterSlots:
    """Slots for adapters of one layout. most: slots at most; memory is taken as they are needed."""

    def __init__(self, layout: AdapterLayout, most: int) -> None:
        self._layout = layout
        self._most = most
        self._rows: torch.Tensor | None = None  # (slots, length)
        self._places: dict[int, int] = {}  # number of an adapter -> its slot; the one used last stands last
        self._known: dict[tuple[Names, int, int], Blocks] = {}

    def __len__(self) -> int:
        return len(self._places)

    def place(self, adapters: Sequence[PlainAdapter]) -> dict[PlainAdapter, int]:
        """A slot for each of the adapters, as far as there are enough of them: those that have one keep it."""
        wanted = sorted(adapters, key=lambda adapter: adapter.number not in self._places)[: self._most]
        for adapter in wanted:
            if adapter.number in self._places:
                self._places[adapter.number] = self._places.pop(adapter.number)
        kept = {adapter.number for adapter in wanted}
        for adapter in wanted:
            if adapter.number not in self._places:
                self._put(adapter, kept)
        return {adapter: self._places[adapter.number] for adapter in wanted}

    def forget(self, adapter: PlainAdapter) -> None:
        """Its slot is free again."""
        self._places.pop(adapter.number, None)

    def blocks(self, names: Names, first: int, stop: int) -> Blocks:
        """As `AdapterLayout.blocks`, of a range of slots: a (S, n × rank, in), b (S, rank, out)."""
        assert self._rows is not None
        key = names, first, stop
        if (found := self._known.get(key)) is None:
            found = self._known[key] = self._layout.blocks(self._rows[first:stop], names)
        return found

    def _put(self, adapter: PlainAdapter, kept: set[int]) -> None:
        taken = set(self._places.values())
        free = next(slot for slot in range(self._most + 1) if slot not in taken)
        if free == self._most:
            oldest = next(number for number in self._places if number not in kept)
            free = self._places.pop(oldest)
        if self._rows is None or free >= len(self._rows):
            self._grow(adapter.row, free + 1)
        assert self._rows is not None
        self._rows[free].copy_(adapter.row)
        self._places[adapter.number] = free

    def _grow(self, row: torch.Tensor, least: int) -> None:
        old, count = self._rows, 2
        while count < least:
            count *= 2
        with torch.inference_mode(False):
            # A range of slots may hold some that were never written, and 0 × a stray NaN would be no zero.
            rows = row.new_zeros(min(count, self._most), len(row))
            if old is not None:
                rows[: len(old)] = old
        self._rows = rows
        self._known.clear()
