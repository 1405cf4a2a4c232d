"""The KV cache of rows that are being answered, and attention in a decode step.

Each row attends to its own cache and to the prefix nodes that it shares with its neighbours, under one softmax.
Source: Juravsky et al., Hydragen (2024), for attention split into shared and own keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from rung.engine.attention import KeysAndValues
from rung.engine.attention_kernels import attend, grouped, merge, merge_sinks, scores_of, softmax, ungrouped
from rung.engine.blocks import Padded
from rung.engine.gpu_kernels import on_device

_TO_COME = 64  # tokens of each row that joined caches have room for


@dataclass(frozen=True)
class Shared:
    """Tokens that several neighbouring rows see.

    layers: keys and values, (1, Hkv, L, D) each, one pair a layer. positions: of the tokens in their rows, ascending.
    first, last: the first row that sees them, and the row behind the last.
    """

    layers: list[KeysAndValues]
    positions: Sequence[int]
    first: int
    last: int


@dataclass(frozen=True)
class _Seen:
    """What of shared tokens the rows see in one pass: those from number `start` on, less `unseen` as in `attend`."""

    shared: Shared
    start: int = 0
    unseen: torch.Tensor | None = None

    def layer(self, layer: int) -> KeysAndValues:
        key, value = self.shared.layers[layer]
        return (key[:, :, self.start :], value[:, :, self.start :]) if self.start else (key, value)


class RowCache:
    """Keys and values of rows that are being answered. Each decode step adds one token or a few to a row.

    lengths: number of tokens in each row's own cache, (B,). room: columns of that cache. shared: what several rows see.
    positions: of each column's token in its row, tokens to come included, (B, room). ends: position of the next token
    of each row. long: as in View. held: the lengths as Python numbers, where the caller has them; else a GPU is asked.

    Behind that nothing here waits for the device.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        room: int,
        shared: Sequence[Shared],
        positions: torch.Tensor,
        ends: Sequence[int],
        long: bool = False,
        held: Sequence[int] | None = None,
    ) -> None:
        self.lengths = lengths
        self._held: list[int] = list(held) if held is not None else lengths.tolist()
        self.wanted: torch.Tensor | None = None
        self.places: list[int] = []
        self.long = long
        self._room = room
        self._positions = positions
        self._ends = list(ends)
        self._levels = _levels(shared)
        self._own: list[KeysAndValues] = []  # (B, Hkv, room, D) a layer

    def hold(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
    ) -> None:
        """Stores keys and values (N, Hkv, D) of tokens at those rows and columns, (N,) each."""
        while layer >= len(self._own):
            shape = (len(self.lengths), key.shape[1], self._room, key.shape[2])
            self._own.append((key.new_zeros(shape), value.new_zeros(shape)))
        self._own[layer][0][rows, :, columns] = key
        self._own[layer][1][rows, :, columns] = value

    def expect(self, counts: Sequence[int]) -> None:
        """Prepares the next pass, which brings counts[row] tokens of each row, packed row behind row.

        The pass adds them to the rows. The last token of each row is wanted.
        """
        device, most = self.lengths.device, max(counts)
        if (needed := max(map(int.__add__, self._held, counts))) > self._room:
            self._widen(max(needed, self._room + self._room // 2))
        first = [0, *accumulate(counts)]
        own = np.array(counts, dtype=np.int64)
        inner = np.arange(first[-1]) - np.repeat(first[:-1], own)  # number of each token among those of its row
        given = [own, own.cumsum() - 1, np.repeat(np.arange(len(own)), own), np.repeat(self._held, own) + inner]
        sent = on_device(torch.from_numpy(np.concatenate(given)), device)
        number, last, self._rows, self._columns = sent.split([len(part) for part in given])
        self.wanted = last if most > 1 else None
        self.places = [behind - 1 for behind in first[1:]]  # `wanted` in Python
        self._padded = Padded.of(first[:-1], counts, device)
        self._first = first
        columns = self.lengths[:, None] + torch.arange(most, device=device)  # (B, n)
        width = needed
        unseen = torch.arange(width, device=device) > columns[..., None]  # (B, n, width)
        levels = [[_Seen(shared) for shared in level] for level in self._levels]
        self._seen: dict[int | None, tuple[torch.Tensor, list[list[_Seen]]]] = {None: (unseen, levels)}
        self._queries = [end + i for end, count in zip(self._ends, counts, strict=True) for i in range(count)]
        self._ends = [end + count for end, count in zip(self._ends, counts, strict=True)]
        self._furthest = max(self._ends) - 1
        self._expected = columns
        self.lengths = self.lengths + number
        self._held = [length + count for length, count in zip(self._held, counts, strict=True)]

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
        self.hold(layer, key, value, self._rows, self._columns)
        unseen, levels = self._within(window)
        out, logsum = self._attend_own(layer, query, unseen, key.shape[1], scaling, cap)
        for level in levels:
            # The nodes of a level are seen by different rows, so that they are merged in one operation.
            start, end = self._first[level[0].shared.first], self._first[level[-1].shared.last]
            others = torch.zeros_like(out[start:end])
            sums = torch.full_like(logsum[start:end], float("-inf"))
            for seen in level:
                first, last = self._first[seen.shared.first], self._first[seen.shared.last]
                queries = grouped(query[first:last], key.shape[1])
                part, part_sum = attend(queries, *seen.layer(layer), scaling=scaling, unseen=seen.unseen, cap=cap)
                others[first - start : last - start] = ungrouped(part)
                sums[first - start : last - start] = ungrouped(part_sum)
            merge(out[start:end], logsum[start:end], others, sums)
        if sinks is not None:
            merge_sinks(out, logsum, sinks)
        return out.to(query.dtype)

    @property
    def own(self) -> list[KeysAndValues]:
        """Keys and values of the rows' own columns, (B, Hkv, room, D) each, one pair a layer. Whoever takes the rows
        over drops them layer by layer."""
        return self._own

    def drop(self, layer: int) -> None:
        """Frees the rows' own keys and values of a layer: what stands there then is no view of them."""
        key, value = self._own[layer]
        self._own[layer] = (key.new_empty((0, *key.shape[1:])), value.new_empty((0, *value.shape[1:])))

    @property
    def positions(self) -> torch.Tensor:
        """Of each column's token in its row, (B, room)."""
        return self._positions

    @property
    def ends(self) -> list[int]:
        """Position of the next token of each row."""
        return self._ends

    @property
    def shared(self) -> list[Shared]:
        """The nodes that several rows see."""
        return [node for level in self._levels for node in level]

    def _attend_own(
        self, layer: int, query: torch.Tensor, unseen: torch.Tensor, heads: int, scaling: float, cap: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to each row's own cache, (T, H, D), and its log-sums, (T, H, 1), in float32.

        unseen: (B, n, width).
        """
        rows, group = len(unseen), query.shape[1] // heads
        keys, values = (x[:, :, : unseen.shape[2]].flatten(0, 1) for x in self._own[layer])  # (B * Hkv, S, D), views
        queries = self._padded.gather(query).reshape(rows * heads, -1, query.shape[2])  # (B * Hkv, group * n, D)
        scores = scores_of(queries, keys, scaling, cap)
        apart = scores.unflatten(0, (rows, heads)).unflatten(2, (group, -1))  # (B, Hkv, group, n, S), a view
        apart.masked_fill_(unseen[:, None, None], float("-inf"))
        part, part_sum = softmax(scores, values)
        out = torch.empty(query.shape, dtype=torch.float32, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        for target, found in ((out, part), (logsum, part_sum)):
            self._padded.scatter(target, found.view(rows, heads * group, -1, found.shape[-1]))
        return out, logsum

    def _within(self, window: int | None) -> tuple[torch.Tensor, list[list[_Seen]]]:
        """Columns that the tokens of this pass do not see, (B, n, width), and what they see of shared tokens.

        Found once a pass for all layers with the same window. A token always sees itself.
        """
        if window is None or self._furthest < window:
            window = None
        elif window not in self._seen:
            unseen, levels = self._seen[None]
            places = self._expected.clamp(max=self._room - 1)  # padding, whose output is dropped, may stand beyond
            bounds = self._positions.gather(1, places) - window  # (B, n): the last position that is not seen
            behind = self._positions[:, None, : unseen.shape[2]] <= bounds[..., None]
            within = [[part for seen in level if (part := self._part(seen.shared, window))] for level in levels]
            self._seen[window] = unseen | behind, [level for level in within if level]
        return self._seen[window]

    def _part(self, shared: Shared, window: int) -> _Seen | None:
        """What of shared tokens is within the window of any row; None where nothing is."""
        bounds = [place - window for place in self._queries[self._first[shared.first] : self._first[shared.last]]]
        start = bisect_right(shared.positions, min(bounds))
        if start == len(shared.positions):
            return None
        if shared.positions[start] > max(bounds):
            return _Seen(shared, start)
        device = self.lengths.device
        keys, last = (on_device(torch.tensor(numbers), device) for numbers in (shared.positions[start:], bounds))
        return _Seen(shared, start, keys <= last[:, None])

    def keep_rows(self, rows: list[int]) -> None:
        """Keeps these rows only: finished answers leave the batch."""
        chosen = on_device(torch.tensor(rows), self.lengths.device)
        self.lengths = self.lengths[chosen]
        self._held = [self._held[row] for row in rows]
        self._positions = self._positions[chosen]
        self._ends = [self._ends[row] for row in rows]
        for layer, (key, value) in enumerate(self._own):  # one by one: both copies of all layers need not fit
            self._own[layer] = (key[chosen], value[chosen])
        moved = [
            replace(shared, first=sum(r < shared.first for r in rows), last=sum(r < shared.last for r in rows))
            for level in self._levels
            for shared in level
        ]
        self._levels = _levels([shared for shared in moved if shared.last > shared.first])

    def _widen(self, room: int) -> None:
        """Makes room for so many columns."""
        more = room - self._room
        ahead = torch.arange(1, more + 1, device=self._positions.device)
        self._positions = torch.cat([self._positions, self._positions[:, -1:] + ahead], dim=1)
        for layer, (key, value) in enumerate(self._own):  # one by one: both copies of all layers need not fit
            self._own[layer] = (_padded(key, more), _padded(value, more))
        self._room = room

    def _narrow(self, room: int) -> None:
        """Leaves out what is behind so many columns, which no row has filled; what is kept are views."""
        self._positions = self._positions[:, :room]
        self._own = [(key[:, :, :room], value[:, :, :room]) for key, value in self._own]
        self._room = room

    def _common_room(self, other: RowCache) -> int:
        """Columns that both have when they are one: what they hold, and a few to come."""
        held = max(*self._held, *other._held)
        return min(held + _TO_COME, max(self._room, other._room))

    def bytes_to_join(self, other: RowCache) -> int:
        """Bytes that both as one take more than now; below 0 where room is left out that is not needed."""
        rows, others = len(self.lengths), len(other.lengths)
        columns = (rows + others) * self._common_room(other) - rows * self._room - others * other._room
        return columns * self.own_bytes // (rows * self._room)

    def join(self, other: RowCache) -> None:
        """Takes over the rows of another cache of the same network, behind its own. The other one is empty then."""
        assert self.long == other.long
        rows, room = len(self.lengths), self._common_room(other)
        for cache in (self, other):
            if cache._room < room:
                cache._widen(room)
            elif cache._room > room:
                cache._narrow(room)
        self.lengths = torch.cat([self.lengths, other.lengths])
        self._positions = torch.cat([self._positions, other._positions])
        self._ends += other._ends
        self._held += other._held
        for layer in range(len(self._own)):
            (key, value), (key_2, value_2) = self._own[layer], other._own[layer]
            self._own[layer] = (torch.cat([key, key_2]), torch.cat([value, value_2]))
            other.drop(layer)
        mine = [shared for level in self._levels for shared in level]
        theirs = [
            replace(shared, first=shared.first + rows, last=shared.last + rows)
            for level in other._levels
            for shared in level
        ]
        self._levels = _levels(_as_one(mine, theirs))

    @property
    def own_bytes(self) -> int:
        """Of the rows' own keys and values, room to come included."""
        return sum(key.nbytes + value.nbytes for key, value in self._own)


def _padded(x: torch.Tensor, more: int) -> torch.Tensor:
    """(B, H, S, D) to (B, H, S + more, D)."""
    return torch.nn.functional.pad(x, (0, 0, 0, more))


def _as_one(mine: Sequence[Shared], theirs: Sequence[Shared]) -> list[Shared]:
    """All of them; the same tokens that neighbouring rows of both see are one."""
    found, left = list(mine), list(theirs)
    for place, shared in enumerate(found):
        for other in left:
            if shared.last == other.first and same_keys(shared.layers[0][0], other.layers[0][0]):
                found[place] = replace(shared, last=other.last)
                left.remove(other)
                break
    return found + left


def same_keys(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they are the same numbers in memory."""
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def _levels(shared: Sequence[Shared]) -> list[list[Shared]]:
    """The nodes in lists. Within a list they are in order of their rows, and no row sees two of them."""
    levels: list[list[Shared]] = []
    for node in sorted(shared, key=lambda node: (node.first, -node.last)):
        free = next((level for level in levels if level[-1].last <= node.first), None)
        if free is None:
            levels.append([node])
        else:
            free.append(node)
    return levels


# ---- how much memory a token's keys and values take ---------------------------------------------


def cache_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of one token's keys and values in all layers; never raises.

    config: of a causal language model, with whatever names it gives its sizes. A list of sizes counts as its
    largest. Keys and values of different widths are stored in the wider of the two.
    """
    layers = _most(config, "num_hidden_layers", "n_layer", "num_layers") or 32
    try:
        return sum(_layer_values(config.per_layer_config[i]) for i in range(layers)) * dtype.itemsize
    except Exception:  # most configs are the same for all layers, and their classes raise errors of many kinds
        return layers * _layer_values(config) * dtype.itemsize


def _layer_values(config: Any) -> int:
    """Numbers in one token's keys and values of one layer."""
    hidden = _most(config, "hidden_size", "n_embd", "d_model") or 4096
    heads = _most(config, "num_attention_heads", "n_head") or 1
    apart = [_most(config, name) for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
    if all(apart):  # latent attention: every head has its own keys
        return 2 * heads * max(sum(apart), _most(config, "v_head_dim"))
    width = max(_most(config, "head_dim", "head_size") or -(-hidden // heads), _most(config, "v_head_dim"))
    return 2 * (_most(config, "num_key_value_heads") or heads) * width


def _most(config: Any, *names: str) -> int:
    """The largest positive number under the first of these names that holds any; 0 where none does."""
    for name in names:
        try:
            found = getattr(config, name, None)
        except Exception:  # configs whose layers differ refuse to say
            found = None
        numbers = [n for n in (found if isinstance(found, list | tuple) else [found]) if isinstance(n, int) and n > 0]
        if numbers:
            return max(numbers)
    return 0
