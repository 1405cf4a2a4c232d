"""The KV cache of rows in decode steps of one shape, and attention in them, at fixed addresses and without any wait.

What rows see is said by numbers in tensors: how many columns of its own cache a row has filled, and which of the
shared columns are before it. So a step can be recorded once and replayed as the rows grow. Where nothing is shared,
attention is one kernel of PyTorch's; else the scores of both parts stand under one softmax.
Source: Juravsky et al., Hydragen (2024), for attention split into shared and own keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from rung.engine import gpu_kernels
from rung.engine.attention import KeysAndValues
from rung.engine.kv_cache import RowCache, Shared, same_keys
from rung.engine.static_shapes import StepInputs, StepShape, shared_bucket

LEAST_SHARED = 8_192
"""Tokens that rows need not keep for themselves, from which a shared part pays for its operations in each layer."""
_FEW = 8  # a node that fewer than one in so many rows sees is copied into their own columns


@dataclass(frozen=True)
class Arranged:
    """The rows of a RowCache as they are to stand here. behind: nodes that are stored once; copied: those that go into
    the rows' own columns. lengths: columns that each row fills then."""

    behind: tuple[Shared, ...]
    copied: tuple[Shared, ...]
    lengths: tuple[int, ...]

    @staticmethod
    def of(cache: RowCache) -> Arranged:
        """Rows that stand by themselves: what many of them see is stored once where that pays."""
        rows = len(cache.ends)
        wide = [node for node in cache.shared if _FEW * (node.last - node.first) >= rows]
        pays = sum((node.last - node.first - 1) * len(node.positions) for node in wide) >= LEAST_SHARED
        return Arranged.with_behind(cache, wide if pays else [])

    @staticmethod
    def with_behind(cache: RowCache, behind: Sequence[Shared]) -> Arranged:
        """With these nodes stored once, and all others copied."""
        copied = [node for node in cache.shared if not any(node is other for other in behind)]
        lengths: list[int] = cache.lengths.tolist()
        for node in copied:
            for row in range(node.first, node.last):
                lengths[row] += len(node.positions)
        return Arranged(tuple(behind), tuple(copied), tuple(lengths))

    @property
    def shared(self) -> int:
        """Columns that several rows see, to the next size that passes are made for."""
        return shared_bucket(sum(len(node.positions) for node in self.behind))


@dataclass
class _Node:
    """Tokens that stand in the shared columns from `start` on. key: of the first layer; it tells the node from others.

    rows: those that see it."""

    key: torch.Tensor
    positions: Sequence[int]
    start: int
    rows: set[int]

    @property
    def stop(self) -> int:
        return self.start + len(self.positions)


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
        self._nodes: list[_Node] = []  # in the order of their columns

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
        if one_kernel:
            out = gpu_kernels.masked_attention(queries, keys, values, self._mask(window, group, query.dtype), scaling)
        else:
            out = self._by_hand(layer, queries, self._mask(window, group, torch.bool), scaling, cap, sinks)
        found: torch.Tensor = out.unflatten(2, (group, tokens)).permute(0, 3, 1, 2, 4)
        return found.reshape(rows * tokens, heads * group, -1)

    def _by_hand(
        self,
        layer: int,
        queries: torch.Tensor,
        unseen: torch.Tensor,
        scaling: float,
        cap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attention with the scores written out, shared columns first. queries: (B, Hkv, Q, D)."""
        (keys, values), (before_keys, before_values) = self._own[layer], self._behind[layer]
        rows, heads, count, _ = queries.shape
        shared, own = self.shape.shared, self.shape.columns
        queries = queries * scaling
        scores = torch.matmul(queries, keys.mT)
        if shared:
            of_all = queries.transpose(0, 1).flatten(1, 2)  # (Hkv, B × Q, D): one product for all rows
            before = torch.bmm(of_all, before_keys.mT).unflatten(1, (rows, count)).transpose(0, 1)
            scores = torch.cat([before, scores], -1)
        if cap is not None:
            scores = (scores.float() / cap).tanh_() * cap
        scores.masked_fill_(unseen, float("-inf"))  # not added: what another row computed may be no number
        if sinks is not None:
            column = sinks.float().view(1, heads, -1, 1).repeat_interleave(self._inputs.tokens, 2)
            scores = torch.cat([scores.float(), column.expand(rows, -1, -1, -1)], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
        out = torch.matmul(weights[..., shared : shared + own], values)
        if shared:
            of_all = weights[..., :shared].transpose(0, 1).flatten(1, 2)
            out = out + torch.bmm(of_all, before_values).unflatten(1, (rows, count)).transpose(0, 1)
        return out

    def _mask(self, window: int | None, group: int, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores of shared and own columns: 0 or -inf, (B, 1, Q, P + S), or Q = 1 for one token a
        row; as a bool: true where nothing is seen. Made once a pass for all layers with the same window. A token always
        sees itself."""
        if (made := self._masks.get((window, group, dtype))) is None:
            tokens = self._inputs.tokens
            seen = self._columns <= self._written[..., None]  # (B, n, S)
            before = self._of_rows[:, None].expand(-1, tokens, -1)  # (B, n, P)
            if window is not None:
                bound = self._inputs.positions.view(-1, tokens, 1) - window
                seen = seen & (self._positions[:, None] > bound)
                before = before & (self._shared_positions > bound)
            seen = torch.cat([before, seen], -1) if self.shape.shared else seen
            made = ~seen[:, None]
            if dtype != torch.bool:
                made = torch.zeros(made.shape, dtype=dtype, device=seen.device).masked_fill(made, float("-inf"))
            made = self._masks[window, group, dtype] = made if tokens == 1 else made.repeat(1, 1, group, 1)
        return made

    # ---- which rows stand here --------------------------------------------------------------

    def take(self, cache: RowCache, arranged: Arranged) -> None:
        """The rows of a cache, in the place of all that stood here before. Its layers are freed one by one: both copies
        of all layers need not fit."""
        self.clear()
        self.put(cache, arranged, list(range(len(arranged.lengths))))

    def put(self, cache: RowCache, arranged: Arranged, into: Sequence[int]) -> None:
        """The rows of a cache, as new rows with these numbers; they must be free. Its layers are freed one by one.

        What stands behind must have room, as `has_room` says.
        """
        device = self._positions.device
        slots = torch.tensor(into, device=device)
        held: list[int] = cache.lengths.tolist()
        width = max(held)
        nodes = [range(len(node.positions)) for node in arranged.copied]
        starts = [sum(map(len, nodes[:number])) for number in range(len(nodes))]
        source, of_rows, columns, filled = list[int](), list[int](), list[int](), list(held)
        for node, tokens, start in zip(arranged.copied, nodes, starts, strict=True):
            for row in range(node.first, node.last):
                source += [start + i for i in tokens]
                of_rows += [into[row]] * len(tokens)
                columns += [filled[row] + i for i in tokens]
                filled[row] += len(tokens)
        taken, into_rows, into_columns = torch.tensor([source, of_rows, columns], device=device).long()
        self._place(slots, cache.positions[:, :width], arranged.lengths, cache.ends)
        if source:
            places = torch.tensor([place for node in arranged.copied for place in node.positions], device=device)
            self._positions[into_rows, into_columns] = places[taken]
        new = self._store(arranged.behind, into)
        self._tell_behind()
        for layer in range(len(self._own)):
            for which in (0, 1):
                own, behind = self._own[layer][which], self._behind[layer][which]
                # Of rows that stood here before nothing is left: 0 times what is no number would be no number.
                own.index_fill_(0, slots, 0)
                own[slots, :, :width] = cache.own[layer][which][:, :, :width]
                if source:
                    found = torch.cat([node.layers[layer][which] for node in arranged.copied], 2)[0].transpose(0, 1)
                    own[into_rows, :, into_columns] = found[taken]
                for shared, stored in new:
                    found = shared.layers[layer][which][0]
                    # Rows that do not see it add 0 times its values, which must be numbers for that.
                    behind[:, stored.start : stored.stop] = found.nan_to_num(0.0, 0.0, 0.0) if which else found
            cache.drop(layer)

    def take_from(self, other: StaticRows, rows: Sequence[int], lengths: Sequence[int], ends: Sequence[int]) -> None:
        """Those rows of another shape with as many shared columns as are needed, or more. They stand first here, in the
        place of all that stood here before. lengths, ends: of these rows."""
        self.clear()
        device = self._positions.device
        chosen = torch.tensor(rows, device=device)
        width = min(self.shape.columns, other.shape.columns)
        self._place(torch.arange(len(rows), device=device), other._positions[chosen, :width], lengths, ends)
        places = {row: place for place, row in enumerate(rows)}
        moved: list[tuple[_Node, _Node]] = []
        for node in other._nodes:
            if seeing := {places[row] for row in node.rows if row in places}:
                self._nodes.append(_Node(node.key, node.positions, self._filled, seeing))
                moved.append((node, self._nodes[-1]))
        self._tell_behind()
        for layer in range(len(self._own)):
            for own, theirs in zip(self._own[layer], other._own[layer], strict=True):
                own[: len(rows), :, :width] = theirs[chosen, :, :width]
            for behind, theirs in zip(self._behind[layer], other._behind[layer], strict=True):
                for node, here in moved:
                    behind[:, here.start : here.stop] = theirs[:, node.start : node.stop]

    def leave(self, rows: Sequence[int]) -> None:
        """These rows are free. What they alone saw of the shared columns stays until there is need of its place."""
        for node in self._nodes:
            node.rows.difference_update(rows)

    def clear(self) -> None:
        """No row stands here any more."""
        self._nodes = []
        self._positions.zero_()
        for layer in (*self._own, *self._behind):
            for rows in layer:
                rows.zero_()

    def has(self, shared: Shared) -> bool:
        """Whether these tokens stand in the shared columns."""
        return self._node_of(shared) is not None

    def sees(self, shared: Shared) -> bool:
        """Whether they stand there, and some row sees them."""
        node = self._node_of(shared)
        return node is not None and bool(node.rows)

    def has_room(self, behind: Sequence[Shared]) -> bool:
        """Whether these nodes stand in the shared columns, or have room there once nodes that no row sees are gone."""
        new = [shared for shared in behind if not self.has(shared)]
        kept = [n for n in self._nodes if n.rows or any(_same(n, shared) for shared in behind)]
        positions = [node.positions for node in kept] + [shared.positions for shared in new]
        return sum(map(len, positions)) <= self.shape.shared

    @property
    def shared_tokens(self) -> int:
        """Of the shared columns, those that any row sees."""
        return sum(len(node.positions) for node in self._nodes if node.rows)

    def as_cache(self, rows: Sequence[int], lengths: Sequence[int], ends: Sequence[int]) -> RowCache:
        """These rows as a cache for passes of any shape. It shares the memory of rows that stand first, in order."""
        device, in_order = self._positions.device, list(rows) == list(range(len(rows)))
        chosen = torch.tensor(rows, device=device)

        def own(x: torch.Tensor) -> torch.Tensor:
            return x[: len(rows)] if in_order else x[chosen]

        behind = list[Shared]()
        for node in self._nodes:
            layers = [
                (key[None, :, node.start : node.stop], value[None, :, node.start : node.stop])
                for key, value in self._behind
            ]
            behind += [Shared(layers, node.positions, *run) for run in _runs([row in node.rows for row in rows])]
        ahead = torch.arange(self.shape.columns, device=device) - torch.tensor(lengths, device=device)[:, None]
        filled = ahead < 0
        positions = torch.where(filled, own(self._positions), ahead + torch.tensor(ends, device=device)[:, None])
        cache = RowCache(torch.tensor(lengths, device=device), self.shape.columns, behind, positions, ends, self.long)
        cache.own.extend((own(key), own(value)) for key, value in self._own)
        return cache

    def _place(self, slots: torch.Tensor, positions: torch.Tensor, lengths: Sequence[int], ends: Sequence[int]) -> None:
        """Positions of these rows' columns: those that are known, then one behind the other from each row's end on."""
        device, columns = positions.device, self.shape.columns
        ahead = self._columns - torch.tensor(lengths, device=device)[:, None]
        behind = ahead + torch.tensor(ends, device=device)[:, None]
        known = pad(positions, (0, columns - positions.shape[1]))
        self._positions[slots] = torch.where(ahead < 0, known, behind)

    def _node_of(self, shared: Shared) -> _Node | None:
        return next((node for node in self._nodes if _same(node, shared)), None)

    def _store(self, behind: Sequence[Shared], into: Sequence[int]) -> list[tuple[Shared, _Node]]:
        """Notes which rows see these tokens. Returns those that do not stand here yet, and where they are to stand."""
        found: list[tuple[Shared, _Node]] = []
        for shared in sorted(behind, key=self.has, reverse=True):  # what stands here is not dropped for others
            rows = {into[row] for row in range(shared.first, shared.last)}
            if (known := self._node_of(shared)) is not None:
                known.rows |= rows
                continue
            count, start = len(shared.positions), self._filled
            if start + count > self.shape.shared:
                self._close_gaps()
                start = self._filled
            if start + count > self.shape.shared:
                raise ValueError(f"{count} tokens have no room behind {start} of {self.shape.shared}")
            self._nodes.append(_Node(shared.layers[0][0], shared.positions, start, rows))
            found.append((shared, self._nodes[-1]))
        return found

    def _close_gaps(self) -> None:
        """Drops what no row sees; what is left stands side by side."""
        kept = [node for node in self._nodes if node.rows]
        columns = [column for node in kept for column in range(node.start, node.stop)]
        self._nodes = []
        for node in kept:
            node.start = self._filled
            self._nodes.append(node)
        if columns == list(range(len(columns))):
            return
        chosen = torch.tensor(columns, device=self._positions.device)
        for layer in self._behind:
            for behind in layer:
                behind[:, : len(columns)] = behind[:, chosen]

    @property
    def _filled(self) -> int:
        """Shared columns up to the last one that is in use."""
        return self._nodes[-1].stop if self._nodes else 0

    def _tell_behind(self) -> None:
        """Which rows see which shared columns. Their keys and values are the caller's matter."""
        if not self.shape.shared:
            return
        seen = torch.zeros(self._of_rows.shape, dtype=torch.bool)
        places = torch.zeros(self.shape.shared, dtype=torch.long)
        for node in self._nodes:
            seen[sorted(node.rows), node.start : node.stop] = True
            places[node.start : node.stop] = torch.tensor(node.positions, dtype=torch.long)
        self._of_rows.copy_(seen)
        self._shared_positions.copy_(places)


def _same(node: _Node, shared: Shared) -> bool:
    """Whether they are the same tokens in memory. A node keeps its tensor, so that no other gets its place."""
    return same_keys(node.key, shared.layers[0][0])


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Where neighbours are true: (first, behind the last) of each run."""
    ends = [i for i, flag in enumerate([*flags, False]) if not flag]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if end > start]
