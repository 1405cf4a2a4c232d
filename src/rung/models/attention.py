"""Attention behind a shared beginning: keys and values of the common prompt are held once, not once a row.

Every row of a batch starts with the same P tokens. Their keys and values are computed once and kept
as (1, Hkv, P, D); each row attends to them and to its own tokens under one softmax. Exact, and
differentiable through the beginning as well, so training and answering share it.
Source: Juravsky et al., Hydragen (2024), section 3.2; here the two score blocks are normalised
together instead of being merged afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention, softmax

NAME = "rung_shared_beginning"


@dataclass
class Beginning:
    """Keys and values of a shared beginning: one (1, Hkv, P, D) pair a layer, P tokens long."""

    ids: tuple[int, ...]
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by each attention layer in turn while the beginning is computed."""
        assert layer == len(self.keys)
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        return 0


class RowCache:
    """Keys and values of each row's own tokens, written in place: (rows, Hkv, room, D) a layer.

    First the rows' prompts are written, a part of the rows at a time (`write_prompts` says which), then
    one token a row and step. Columns that a row does not use hold zeros and are masked by the caller.
    """

    def __init__(self, rows: int, width: int, room: int) -> None:
        self._rows = rows
        self._room = room
        self._used = width
        self._part: slice | None = None
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []

    def write_prompts(self, part: slice | None) -> None:
        """Which rows the next forward pass holds the prompts of; None: one more token of every row."""
        self._part = part

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        heads, new, width = key.shape[1:]
        if layer == len(self._keys):
            self._keys.append(key.new_zeros(self._rows, heads, self._room, width))
            self._values.append(value.new_zeros(self._rows, heads, self._room, width))
        if self._part is not None:
            self._keys[layer][self._part, :, :new] = key
            self._values[layer][self._part, :, :new] = value
            return key, value
        if layer == 0:
            self._used += new
        self._keys[layer][:, :, self._used - new : self._used] = key
        self._values[layer][:, :, self._used - new : self._used] = value
        return self._keys[layer][:, :, : self._used], self._values[layer][:, :, : self._used]

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drops the other rows: finished answers leave the batch."""
        self._keys = [k[rows] for k in self._keys]
        self._values = [v[rows] for v in self._values]

    def get_seq_length(self, *_: Any) -> int:
        return 0


def causal_mask(lengths: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask of right-padded rows over themselves. lengths: (B,). Returns (B, 1, width, width).

    Padding columns are hidden from real tokens; a padding token may see itself, so no row is empty.
    """
    columns = torch.arange(width, device=lengths.device)
    causal = columns[None, :] <= columns[:, None]  # (width, width)
    real = columns[None, :] < lengths[:, None]  # (B, width)
    seen = causal[None] & (real[:, None, :] | torch.eye(width, dtype=torch.bool, device=lengths.device)[None])
    return torch.zeros(seen.shape, dtype=dtype, device=lengths.device).masked_fill_(~seen, torch.finfo(dtype).min)[
        :, None
    ]


def shared_beginning_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    beginning: Beginning | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query: (B, H, Q, D); key, value: (B, Hkv, S, D); attention_mask: (B, 1, Q, S), added, or None for causal.

    beginning: what stands before every row. Returns (B, Q, H, D).
    """
    if beginning is None:
        out = scaled_dot_product_attention(
            query, key, value, attention_mask, scale=scaling, is_causal=attention_mask is None, enable_gqa=True
        )
        return out.transpose(1, 2), None
    rows, heads, queries, width = query.shape
    shared = key.shape[1]
    group = heads // shared
    first_key, first_value = beginning.keys[module.layer_idx][0], beginning.values[module.layer_idx][0]  # (Hkv, P, D)
    length = first_key.shape[1]

    query = (query * scaling).reshape(rows, shared, group * queries, width)
    stacked = query.transpose(0, 1).reshape(shared, rows * group * queries, width)
    before = (stacked @ first_key.transpose(1, 2)).view(shared, rows, group, queries, length).transpose(0, 1)
    own = (query @ key.transpose(2, 3)).view(rows, shared, group, queries, -1)
    if attention_mask is not None:
        own = own + attention_mask[:, None]
    weights = softmax(torch.cat([before, own], dim=-1), dim=-1, dtype=torch.float32).to(query.dtype)

    from_before = weights[..., :length].transpose(0, 1).reshape(shared, rows * group * queries, length) @ first_value
    from_before = from_before.reshape(shared, rows, group * queries, width).transpose(0, 1)
    from_own = weights[..., length:].reshape(rows, shared, group * queries, -1) @ value
    out = (from_before + from_own).reshape(rows, heads, queries, width)
    return out.transpose(1, 2), None


def packed_mask(before: int, lengths: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Additive mask of rows packed one after the other behind `before` tokens that all of them see.

    Each row sees those and itself, causally, and no other row. Returns (1, 1, T, T), T = before + sum(lengths).
    """
    pieces = torch.tensor([before, *lengths], device=device)
    row = torch.repeat_interleave(torch.arange(len(pieces), device=device), pieces)  # (T,), 0 for what is shared
    place = torch.arange(len(row), device=device)
    seen = (place[None, :] <= place[:, None]) & ((row[None, :] == 0) | (row[None, :] == row[:, None]))
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def parts_by_length(lengths: Sequence[int], most: int, *, least: int = 128, waste: float = 1.15) -> list[list[int]]:
    """Rows of similar length together, shortest first: lists of places in `lengths`.

    most: tokens of a part, padding included (a longer row stands alone). A part of at least `least`
    tokens is closed when one more row would pad it to over `waste` times its real tokens.
    """
    parts: list[list[int]] = []
    real = 0
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        length = lengths[place]
        padded = (len(parts[-1]) + 1) * length if parts else 0
        if parts and padded <= most and (real < least or padded <= waste * (real + length)):
            parts[-1].append(place)
            real += length
        else:
            parts.append([place])
            real = length
    return parts


def common_beginning(rows: list[list[int]]) -> int:
    """Length of the longest beginning that all rows share, at least one token short of the shortest row."""
    first, last = min(rows), max(rows)  # lexicographic extremes share what all share
    limit = min(len(row) for row in rows) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length
