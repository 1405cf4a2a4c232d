"""The few shapes of static decode steps, and what a step of one shape reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rung.engine.buckets import bucket


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


def shared_bucket(tokens: int) -> int:
    """The smallest number of shared columns that passes are made for and that holds so many."""
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
