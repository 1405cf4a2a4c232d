"""Rows to train on, which of them a step sees, and at what learning rate. Needs no torch to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from rung.types import TrainingOptions


@dataclass(frozen=True)
class TokenRow:
    """An example as token ids. prompt: up to where the answer starts. target: the answer with its end token."""

    id: str
    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def rows(self) -> tuple[TokenRow, ...]:
        """The rows that its loss is computed from: itself."""
        return (self,)

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True)
class TokenPair:
    """Two answers to one prompt, of which one is preferred.

    reference: log p(chosen) - log p(rejected), in nats, before the training.
    """

    chosen: TokenRow
    rejected: TokenRow
    reference: float = 0.0

    @property
    def rows(self) -> tuple[TokenRow, ...]:
        """The rows that its loss is computed from, together in one pass."""
        return self.chosen, self.rejected

    @property
    def tokens(self) -> int:
        return self.chosen.tokens + self.rejected.tokens


Item = TypeVar("Item", TokenRow, TokenPair)
"""What a training draws its batches from."""


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return max(1, -(-rows // batch_size))


def batch_indices(rows: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The rows of a step. Each epoch is a permutation drawn from (seed, epoch), cut into batches in turn.

    Batches are of nearly equal size: in a tiny last batch, a few tokens would weigh as much as those of a whole one.
    """
    per_epoch = steps_per_epoch(rows, batch_size)
    epoch, place = divmod(step, per_epoch)
    order = _order(rows, seed, epoch)
    return list(order[round(place * rows / per_epoch) : round((place + 1) * rows / per_epoch)])


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A permutation of the rows, drawn once an epoch, not once a step."""
    import torch

    draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(rows, generator=draw).tolist())


def learning_rate_at(step: int, options: TrainingOptions) -> float:
    """Linear warm-up over the first share of the steps, then linear to zero."""
    warmup = max(1, round(options.warmup_share * options.steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    return options.learning_rate * (options.steps - step) / max(1, options.steps - warmup)


def parts_of(batch: Sequence[Item], shared: int, micro_tokens: int) -> list[list[Item]]:
    """The batch in order, in parts of at most micro_tokens tokens each, or of one row or pair.

    shared: length of the prefix that all rows share and that counts for none of them.
    """
    parts: list[list[Item]] = []
    room = 0
    for item in batch:
        length = sum(row.tokens - shared - 1 for row in item.rows)
        if length > room or not parts:
            parts.append([])
            room = micro_tokens
        parts[-1].append(item)
        room -= length
    return parts
