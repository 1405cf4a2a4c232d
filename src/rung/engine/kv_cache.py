"""The KV cache of rows that are being answered, and attention in a decode step.

Each row attends to its own cache and to the prefix nodes that it shares with its neighbours, under one softmax.
Source: Juravsky et al., Hydragen (2024), for attention split into shared and own keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rung.engine.attention import KeysAndValues, Padded, attend, grouped, merge, softmax, ungrouped

_Shared = tuple[list[KeysAndValues], int, int]
"""Keys and values a layer, (1, Hkv, L, D) each; the first row that sees them; the row behind the last."""


class RowCache:
    """Keys and values of rows that are being answered. Each decode step adds one token or a few to a row.

    lengths: number of tokens in each row's own cache, (B,). room: columns of that cache. shared: prefix nodes of
    several neighbouring rows, as (keys and values a layer, (1, Hkv, L, D) each; first row; row behind the last).
    """

    def __init__(self, lengths: torch.Tensor, room: int, shared: list[_Shared]) -> None:
        self.lengths = lengths
        self.wanted: torch.Tensor | None = None
        self._room = room
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
        device = self.lengths.device
        number = torch.tensor(counts, device=device)
        self.wanted = number.cumsum(0) - 1 if max(counts) > 1 else None
        first = (number.cumsum(0) - number).tolist()
        self._padded = Padded.of(first, counts, device)
        self._first = [*first, sum(counts)]
        columns = self.lengths[:, None] + torch.arange(max(counts), device=device)  # (B, n)
        self._rows = torch.arange(len(counts), device=device).repeat_interleave(number)
        self._columns = columns.flatten() if self._padded.taken is None else columns.flatten()[self._padded.taken]
        width = int((self.lengths + number).max())
        self._unseen = torch.arange(width, device=device) > columns[..., None]  # (B, n, width)
        self.lengths = self.lengths + number

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self.hold(layer, key, value, self._rows, self._columns)
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        width = self._unseen.shape[-1]
        rows = self._unseen.shape[0]
        keys, values = (x[:, :, :width].flatten(0, 1) for x in self._own[layer])  # (B * Hkv, S, D), views
        queries = self._padded.gather(query).reshape(rows * heads, -1, query.shape[2])  # (B * Hkv, group * n, D)
        scores = (queries @ keys.mT).float().mul_(scaling)
        unseen = self._unseen.repeat(1, group, 1)[:, None]  # (B, 1, group * n, S)
        scores.unflatten(0, (rows, heads)).masked_fill_(unseen, float("-inf"))
        part, part_sum = softmax(scores, values)
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        logsum = torch.empty((*query.shape[:2], 1), dtype=torch.float32, device=query.device)
        for target, found in ((out, part), (logsum, part_sum)):
            self._padded.scatter(target, found.view(rows, heads * group, -1, found.shape[-1]))
        for level in self._levels:
            # The nodes of a level are seen by different rows, so that they are merged in one operation.
            start, end = self._first[level[0][1]], self._first[level[-1][2]]
            others = torch.zeros_like(out[start:end])
            sums = torch.full_like(logsum[start:end], float("-inf"))
            for nodes, first_row, last_row in level:
                first, last = self._first[first_row], self._first[last_row]
                part, part_sum = attend(grouped(query[first:last], heads), *nodes[layer], scaling=scaling)
                others[first - start : last - start] = ungrouped(part)
                sums[first - start : last - start] = ungrouped(part_sum)
            merge(out[start:end], logsum[start:end], others, sums)
        return out

    def keep_rows(self, rows: list[int]) -> None:
        """Keeps these rows only: finished answers leave the batch."""
        chosen = torch.tensor(rows, device=self.lengths.device)
        self.lengths = self.lengths[chosen]
        for layer, (key, value) in enumerate(self._own):  # one by one: both copies of all layers need not fit
            self._own[layer] = (key[chosen], value[chosen])
        counts = [
            (nodes, sum(r < first for r in rows), sum(r < last for r in rows))
            for level in self._levels
            for nodes, first, last in level
        ]
        self._levels = _levels([(nodes, first, last) for nodes, first, last in counts if last > first])


def _levels(shared: Sequence[_Shared]) -> list[list[_Shared]]:
    """The nodes in lists. Within a list they are in order of their rows, and no row sees two of them."""
    levels: list[list[_Shared]] = []
    for node in sorted(shared, key=lambda node: (node[1], -node[2])):
        free = next((level for level in levels if level[-1][2] <= node[1]), None)
        if free is None:
            levels.append([node])
        else:
            free.append(node)
    return levels
