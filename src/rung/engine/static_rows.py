"""The KV cache of rows in decode steps of one shape, and attention in them, at fixed addresses and without any wait.

What rows see is said by numbers in tensors: how many columns of its own cache a row has filled, and which of the
shared columns are before it. So a step can be recorded once and replayed as the rows grow. Where nothing is shared,
attention is one kernel of PyTorch's; else the scores of both parts stand under one softmax.
Source: Juravsky et al., Hydragen (2024), for attention split into shared and own keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from rung.engine import gpu_kernels
from rung.engine.attention import KeysAndValues
from rung.engine.buckets import bucket
from rung.engine.kv_cache import RowCache, Shared

LEAST_SHARED = 8_192
"""Tokens that rows need not keep for themselves, from which a shared part pays for its operations in each layer."""
_FEW = 8  # a node that fewer than one in so many rows sees is copied into their own columns


@dataclass(frozen=True)
class StepShape:
    """Numbers of rows, of columns in each row's own cache, and of columns that several rows see."""

    rows: int
    columns: int
    shared: int

    def holds(self, other: StepShape) -> bool:
        """Whether what needs the other shape can stand in this one without wasting more than about half."""
        fits = other.rows <= self.rows and other.columns <= self.columns and other.shared <= self.shared
        near = self.rows <= 2 * other.rows and self.columns <= 2 * other.columns
        return fits and near and self.shared <= 2 * other.shared


def rows_bucket(count: int) -> int:
    """The smallest number of rows that passes are made for and that holds so many."""
    return max(1, 1 << (count - 1).bit_length()) if count <= 32 else bucket(count, least=64)


@dataclass(frozen=True)
class Arranged:
    """The rows of a RowCache as they are to stand here. behind: nodes that are stored once; copied: those that go into
    the rows' own columns. lengths: columns that each row fills then."""

    behind: tuple[Shared, ...]
    copied: tuple[Shared, ...]
    lengths: tuple[int, ...]

    @staticmethod
    def of(cache: RowCache) -> Arranged:
        rows = len(cache.ends)
        wide = [node for node in cache.shared if _FEW * (node.last - node.first) >= rows]
        pays = sum((node.last - node.first - 1) * len(node.positions) for node in wide) >= LEAST_SHARED
        behind = wide if pays else []
        copied = [node for node in cache.shared if not any(node is other for other in behind)]
        lengths: list[int] = cache.lengths.tolist()
        for node in copied:
            for row in range(node.first, node.last):
                lengths[row] += len(node.positions)
        return Arranged(tuple(behind), tuple(copied), tuple(lengths))

    @property
    def shared(self) -> int:
        """Columns that several rows see, to the next size that passes are made for."""
        tokens = sum(len(node.positions) for node in self.behind)
        return bucket(tokens, least=64) if tokens else 0


class StepInputs:
    """What a pass of `tokens` tokens of each row reads: one row of numbers, and views of it.

    ids, positions: (1, rows × tokens), row behind row. lengths: columns that are filled before the pass, (rows,).
    last: place of the last token of each row that is no filler, (rows,).
    """

    def __init__(self, rows: int, tokens: int, device: torch.device) -> None:
        self.tokens = tokens
        self.numbers = torch.zeros(2 * rows * tokens + 2 * rows, dtype=torch.long, device=device)
        self.ids, self.positions = (part[None] for part in self.numbers[: 2 * rows * tokens].chunk(2))
        self.lengths, self.last = self.numbers[2 * rows * tokens :].chunk(2)
        self.rows = torch.arange(rows, device=device).repeat_interleave(tokens)
        self.ahead = torch.arange(tokens, device=device)


class StaticRows:
    """A View of one token a row, or of a few. like: a layer's keys and values, (…, Hkv, …, D) each, for every layer.

    `take` fills it, and `begin` comes before each pass. A row that has nothing to read computes a filler: it writes
    where its next token will stand, and nobody sees that.
    """

    def __init__(self, shape: StepShape, like: Sequence[KeysAndValues], device: torch.device) -> None:
        self.shape = shape
        self.wanted: torch.Tensor | None = None
        self.long = False
        rows, columns, shared = shape.rows, shape.columns, shape.shared
        self._own: list[KeysAndValues] = []  # (B, Hkv, S, D) a layer
        self._behind: list[KeysAndValues] = []  # (Hkv, P, D) a layer
        for layer in like:
            key, value = (x.new_zeros(rows, x.shape[1], columns, x.shape[3]) for x in layer)
            self._own.append((key, value))
            key, value = (x.new_zeros(x.shape[1], shared, x.shape[3]) for x in layer)
            self._behind.append((key, value))
        self._positions = torch.zeros(rows, columns, dtype=torch.long, device=device)  # of each column's token
        self._of_rows = torch.zeros(rows, shared, dtype=torch.bool, device=device)  # whether a row sees a shared column
        self._shared_positions = torch.zeros(shared, dtype=torch.long, device=device)
        self._columns = torch.arange(columns, device=device)
        self._masks: dict[tuple[int | None, int, torch.dtype], torch.Tensor] = {}
        self._nodes: list[Shared] = []  # of what is behind, by the rows as they stand here

    @property
    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in (*self._own, *self._behind))

    # ---- a pass -----------------------------------------------------------------------------

    def begin(self, inputs: StepInputs) -> None:
        """Prepares a pass that reads these inputs."""
        self._inputs = inputs
        own = (inputs.lengths[:, None] + inputs.ahead).clamp(max=self.shape.columns - 1)  # (B, n)
        self._written = own
        self._written_flat = own.flatten()
        self._masks = {}

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
        keys, values = self._own[layer]
        keys[self._inputs.rows, :, self._written_flat] = key
        values[self._inputs.rows, :, self._written_flat] = value
        rows, tokens, heads = self.shape.rows, self._inputs.tokens, keys.shape[1]
        group = query.shape[1] // heads
        # The query heads of a group read the same keys: they stand like more tokens of the row.
        queries = query.view(rows, tokens, heads, group, -1).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, Hkv, g × n, D)
        one_kernel = cap is None and sinks is None and not self.shape.shared
        mask = self._mask(window, group, query.dtype if one_kernel else torch.float32)
        if one_kernel:
            out = gpu_kernels.masked_attention(queries, keys, values, mask, scaling)
        else:
            out = self._by_hand(layer, queries, mask, scaling, cap, sinks)
        found: torch.Tensor = out.unflatten(2, (group, tokens)).permute(0, 3, 1, 2, 4)
        return found.reshape(rows * tokens, heads * group, -1)

    def _by_hand(
        self,
        layer: int,
        queries: torch.Tensor,
        mask: torch.Tensor,
        scaling: float,
        cap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attention with the scores written out in float32, shared columns first. queries: (B, Hkv, Q, D)."""
        (keys, values), (before_keys, before_values) = self._own[layer], self._behind[layer]
        rows, heads, count, _ = queries.shape
        shared, own = self.shape.shared, self.shape.columns
        scores = torch.matmul(queries, keys.mT)
        if shared:
            of_all = queries.transpose(0, 1).flatten(1, 2)  # (Hkv, B × Q, D): one product for all rows
            before = torch.bmm(of_all, before_keys.mT).unflatten(1, (rows, count)).transpose(0, 1)
            scores = torch.cat([before, scores], -1)
        if cap is not None:
            scores = (scores.float() * (scaling / cap)).tanh() * (cap / scaling)
        scores = torch.add(mask, scores, alpha=scaling)  # in float32, as the mask is
        if sinks is not None:
            column = sinks.float().view(1, heads, -1, 1).repeat_interleave(self._inputs.tokens, 2)
            scores = torch.cat([scores, column.expand(rows, -1, -1, -1)], -1)
        weights = scores.softmax(-1).to(values.dtype)
        out = torch.matmul(weights[..., shared : shared + own], values)
        if shared:
            of_all = weights[..., :shared].transpose(0, 1).flatten(1, 2)
            out = out + torch.bmm(of_all, before_values).unflatten(1, (rows, count)).transpose(0, 1)
        return out

    def _mask(self, window: int | None, group: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of shared and own columns: 0 or -inf, (B, 1, Q, P + S), or Q = 1 for one token a
        row. Made once a pass for all layers with the same window. A token always sees itself."""
        if (made := self._masks.get((window, group, dtype))) is None:
            tokens = self._inputs.tokens
            seen = self._columns <= self._written[..., None]  # (B, n, S)
            before = self._of_rows[:, None].expand(-1, tokens, -1)  # (B, n, P)
            if window is not None:
                bound = self._inputs.positions.view(-1, tokens, 1) - window
                seen = seen & (self._positions[:, None] > bound)
                before = before & (self._shared_positions > bound)
            seen = torch.cat([before, seen], -1) if self.shape.shared else seen
            made = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, float("-inf"))[:, None]
            made = self._masks[window, group, dtype] = made if tokens == 1 else made.repeat(1, 1, group, 1)
        return made

    # ---- which rows stand here --------------------------------------------------------------

    def take(self, cache: RowCache, arranged: Arranged) -> None:
        """The rows of a cache, whose layers are freed one by one: both copies of all layers need not fit."""
        device, rows = self._positions.device, len(arranged.lengths)
        held: list[int] = cache.lengths.tolist()
        width = max(held)
        nodes = [[i for i in range(len(node.positions))] for node in arranged.copied]
        starts = [sum(map(len, nodes[:number])) for number in range(len(nodes))]
        source, of_rows, columns, filled = list[int](), list[int](), list[int](), list(held)
        for node, tokens, start in zip(arranged.copied, nodes, starts, strict=True):
            for row in range(node.first, node.last):
                source += [start + i for i in tokens]
                of_rows += [row] * len(tokens)
                columns += [filled[row] + i for i in tokens]
                filled[row] += len(tokens)
        taken, into_rows, into_columns = torch.tensor([source, of_rows, columns], device=device).long()
        self._place(cache.positions[:, :width], arranged.lengths, cache.ends)
        if source:
            places = torch.tensor([place for node in arranged.copied for place in node.positions], device=device)
            self._positions[into_rows, into_columns] = places[taken]
        self._behind_of(arranged.behind)
        for layer in range(len(self._own)):
            for which in (0, 1):
                own, behind = self._own[layer][which], self._behind[layer][which]
                own.zero_()  # of rows that stood here before; 0 times what is no number would be no number
                own[:rows, :, :width] = cache.own[layer][which][:, :, :width]
                if source:
                    found = torch.cat([node.layers[layer][which] for node in arranged.copied], 2)[0].transpose(0, 1)
                    own[into_rows, :, into_columns] = found[taken]
                if arranged.behind:
                    found = torch.cat([node.layers[layer][which] for node in arranged.behind], 2)[0]
                    behind.zero_()
                    behind[:, : found.shape[1]] = found
            cache.drop(layer)

    def take_from(self, other: StaticRows, rows: Sequence[int], lengths: Sequence[int], ends: Sequence[int]) -> None:
        """Those rows of another shape with the same shared part. lengths, ends: of these rows."""
        chosen = torch.tensor(rows, device=self._positions.device)
        width = min(self.shape.columns, other.shape.columns)
        self._place(other._positions[chosen, :width], lengths, ends)
        self._behind_of(_kept(other._nodes, rows))
        for layer in range(len(self._own)):
            for own, theirs in zip(self._own[layer], other._own[layer], strict=True):
                own.zero_()
                own[: len(rows), :, :width] = theirs[chosen, :, :width]
            for behind, theirs in zip(self._behind[layer], other._behind[layer], strict=True):
                common = min(behind.shape[1], theirs.shape[1])
                behind.zero_()
                behind[:, :common] = theirs[:, :common]

    def as_cache(self, rows: Sequence[int], lengths: Sequence[int], ends: Sequence[int]) -> RowCache:
        """These rows as a cache for passes of any shape. It shares the memory of rows that stand first, in order."""
        device, in_order = self._positions.device, list(rows) == list(range(len(rows)))
        chosen = torch.tensor(rows, device=device)

        def own(x: torch.Tensor) -> torch.Tensor:
            return x[: len(rows)] if in_order else x[chosen]

        nodes, start, behind = _kept(self._nodes, rows), 0, list[Shared]()
        for node, whole in zip(nodes, self._nodes, strict=True):
            stop = start + len(whole.positions)
            layers = [(key[None, :, start:stop], value[None, :, start:stop]) for key, value in self._behind]
            if node.last > node.first:
                behind.append(replace(node, layers=layers))
            start = stop
        ahead = torch.arange(self.shape.columns, device=device) - torch.tensor(lengths, device=device)[:, None]
        filled = ahead < 0
        positions = torch.where(filled, own(self._positions), ahead + torch.tensor(ends, device=device)[:, None])
        cache = RowCache(torch.tensor(lengths, device=device), self.shape.columns, behind, positions, ends, self.long)
        cache.own.extend((own(key), own(value)) for key, value in self._own)
        return cache

    def _place(self, positions: torch.Tensor, lengths: Sequence[int], ends: Sequence[int]) -> None:
        """Positions of the rows' columns: those that are known, then one behind the other from each row's end on."""
        device, rows, columns = positions.device, len(lengths), self.shape.columns
        ahead = self._columns - torch.tensor(lengths, device=device)[:, None]
        behind = ahead + torch.tensor(ends, device=device)[:, None]
        self._positions.zero_()
        known = pad(positions, (0, columns - positions.shape[1]))
        self._positions[:rows] = torch.where(ahead < 0, known, behind)

    def _behind_of(self, nodes: Sequence[Shared]) -> None:
        """Which rows see which shared columns. Their keys and values are the caller's matter."""
        self._nodes = [replace(node, layers=[]) for node in nodes]
        seen = torch.zeros(self._of_rows.shape, dtype=torch.bool)
        places: list[int] = []
        for node in nodes:
            seen[node.first : node.last, len(places) : len(places) + len(node.positions)] = True
            places += node.positions
        self._of_rows.copy_(seen)
        self._shared_positions[: len(places)] = torch.tensor(places, dtype=torch.long, device=self._of_rows.device)


def _kept(nodes: Sequence[Shared], rows: Sequence[int]) -> list[Shared]:
    """The nodes for these rows alone, in order; one that none of them sees spans no row."""
    return [
        replace(node, first=sum(row < node.first for row in rows), last=sum(row < node.last for row in rows))
        for node in nodes
    ]
