"""Several adapters in one pass: which tokens have which, and what they add to linear layers.

The base network is computed once for all tokens. A stretch of tokens with one adapter is multiplied as it stands. The
others are gathered, adapter by adapter with fillers between them, and one batched product serves all adapters in
neighbouring slots: it takes hardly longer for many adapters than for one. Inference only.
Sources: Chen et al., Punica (2023), and Sheng et al., S-LoRA (2023), for many adapters over one base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rung.engine.adapter_plain import AdapterLayout, Blocks, Names, PlainAdapter
from rung.engine.adapter_slots import AdapterSlots
from rung.engine.gpu_kernels import on_device

_LONG = 128  # tokens of a stretch from which gathering costs more than a product of its own
_MOST_FILLED = 2.0  # places of a batched product, as a multiple of its tokens
_SMALL = 64  # places; for so few, one product more costs more than fillers

Tokens = list[tuple[PlainAdapter, list[int]]]


@dataclass(frozen=True)
class _Stretch:
    """Tokens first to stop have one adapter."""

    blocks: Callable[[Names], Blocks]
    rank: int
    first: int
    stop: int

    def add(self, x: torch.Tensor, outs: Sequence[torch.Tensor], names: Names) -> None:
        for a, bs in self.blocks(names):
            narrow = x[self.first : self.stop] @ a.to(x.dtype).T
            for number, (place, b) in enumerate(bs):
                part = narrow[:, number * self.rank : (number + 1) * self.rank]
                outs[place][self.first : self.stop].addmm_(part, b.to(x.dtype))


@dataclass(frozen=True)
class _Gathered:
    """Tokens of S adapters. take: (S × m,), the token at each place; fillers are any token. first, stop: the range that
    they stand in. back: (stop - first,), the place of each of its tokens. idle: a filler's place, for tokens of the
    range that belong to none of the adapters; None where there are none of these.
    """

    blocks: Callable[[Names], Blocks]
    rank: int
    count: int
    take: torch.Tensor
    first: int
    stop: int
    back: torch.Tensor
    idle: int | None

    def add(self, x: torch.Tensor, outs: Sequence[torch.Tensor], names: Names) -> None:
        if not (blocks := self.blocks(names)):
            return
        given = x.index_select(0, self.take).view(self.count, -1, x.shape[1])
        for a, bs in blocks:
            narrow = torch.bmm(given, a.to(x.dtype).transpose(1, 2))  # (S, m, n × rank)
            if self.idle is not None:
                narrow.view(len(self.take), -1)[self.idle].zero_()
            for number, (place, b) in enumerate(bs):
                part = narrow[:, :, number * self.rank : (number + 1) * self.rank]
                wide = torch.bmm(part, b.to(x.dtype)).view(len(self.take), -1)
                outs[place][self.first : self.stop].add_(wide.index_select(0, self.back))


class AdapterMix:
    """The adapters of one pass. adapters: those that may occur; None is the base network. of_tokens: for each token of
    the pass, a place in `adapters`. slots: layout -> its slots.

    It may be used until the next one is made with the same slots.
    """

    def __init__(
        self,
        adapters: Sequence[PlainAdapter | None],
        of_tokens: Sequence[int],
        slots: Callable[[AdapterLayout], AdapterSlots],
        device: torch.device,
    ) -> None:
        self.adapters, self.of_tokens = tuple(adapters), list(of_tokens)
        self._slots, self._device = slots, device
        self._parts = [*self._divide()]

    def of(self, wanted: Sequence[int]) -> AdapterMix:
        """The same of some of the tokens. wanted: their places, in Python: a GPU would have to be waited for."""
        of_tokens = [self.of_tokens[token] for token in wanted]
        return AdapterMix(self.adapters, of_tokens, self._slots, self._device)

    def add(self, x: torch.Tensor, outs: Sequence[torch.Tensor], names: Names) -> None:
        """Adds what the adapters add. x: (T, in), of all tokens; outs: of the layers of these names, (T, out) each."""
        if len(x) != len(self.of_tokens):
            raise ValueError(f"{names[0]} gets {len(x)} of {len(self.of_tokens)} tokens; nobody knows whose")
        for part in self._parts:
            part.add(x, outs, names)

    def _divide(self) -> list[_Stretch | _Gathered]:
        tokens: dict[PlainAdapter, list[int]] = {}
        for token, place in enumerate(self.of_tokens):
            if (adapter := self.adapters[place]) is not None:
                tokens.setdefault(adapter, []).append(token)
        found: list[_Stretch | _Gathered] = []
        others: dict[int, Tokens] = {}
        for adapter, own in tokens.items():
            stretches = own[-1] - own[0] + 1 == len(own)
            if stretches and (len(own) >= _LONG or len(tokens) == 1):
                found.append(_Stretch(adapter.blocks, adapter.layout.rank, own[0], own[-1] + 1))
            else:
                others.setdefault(id(adapter.layout), []).append((adapter, own))
        for group in others.values():
            found += self._gather(group)
        return found

    def _gather(self, group: Tokens) -> list[_Stretch | _Gathered]:
        """Parts for adapters of one layout: those with very many tokens by themselves, the others together."""
        found: list[_Stretch | _Gathered] = []
        group = sorted(group, key=lambda item: -len(item[1]))
        layout, together = group[0][0].layout, group
        if len(group) > 1:
            slots = self._slots(layout)
            places = slots.place([adapter for adapter, _ in group])
            found += [self._alone(*item) for item in group if item[0] not in places]
            together = [item for item in group if item[0] in places]
            while len(together) > 1 and _is_sparse(together, places):
                found.append(self._alone(*together.pop(0)))
        if len(together) == 1:
            found.append(self._alone(*together[0]))
        elif together:
            first, stop = _range(together, places)
            own = {places[adapter] - first: tokens for adapter, tokens in together}
            found.append(self._gathered(lambda names: slots.blocks(names, first, stop), layout.rank, stop - first, own))
        return found

    def _alone(self, adapter: PlainAdapter, own: list[int]) -> _Stretch | _Gathered:
        if own[-1] - own[0] + 1 == len(own):
            return _Stretch(adapter.blocks, adapter.layout.rank, own[0], own[-1] + 1)

        def blocks(names: Names) -> Blocks:
            return [(a[None], [(place, b[None]) for place, b in bs]) for a, bs in adapter.blocks(names)]

        return self._gathered(blocks, adapter.layout.rank, 1, {0: own})

    def _gathered(
        self, blocks: Callable[[Names], Blocks], rank: int, count: int, own: dict[int, list[int]]
    ) -> _Gathered:
        """own: number of an adapter among the `count` -> its tokens."""
        first, stop = min(tokens[0] for tokens in own.values()), max(tokens[-1] for tokens in own.values()) + 1
        held, most = sum(map(len, own.values())), max(map(len, own.values()))
        if held < stop - first and count * most == held:
            most += 1  # a filler is needed
        take = [first] * (count * most)
        back = [-1] * (stop - first)
        for number, tokens in own.items():
            start = number * most
            take[start : start + len(tokens)] = tokens
            for place, token in enumerate(tokens, start):
                back[token - first] = place
        idle = None
        if held < stop - first:
            filled = {n * most + i for n, tokens in own.items() for i in range(len(tokens))}
            idle = next(place for place in range(count * most) if place not in filled)
            back = [idle if place < 0 else place for place in back]
        return _Gathered(blocks, rank, count, self._places(take), first, stop, self._places(back), idle)

    def _places(self, numbers: list[int]) -> torch.Tensor:
        return on_device(torch.tensor(numbers, dtype=torch.long), self._device)


def _range(group: Tokens, places: dict[PlainAdapter, int]) -> tuple[int, int]:
    """The range of slots that the adapters stand in."""
    own = [places[adapter] for adapter, _ in group]
    return min(own), max(own) + 1


def _is_sparse(group: Tokens, places: dict[PlainAdapter, int]) -> bool:
    """Whether a product of all of them would be fillers mostly. group: the one with most tokens first."""
    first, stop = _range(group, places)
    filled = (stop - first) * len(group[0][1])
    return filled > max(_SMALL, _MOST_FILLED * sum(len(tokens) for _, tokens in group))
