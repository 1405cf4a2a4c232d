"""A row that is being answered among others: what it was asked, what it wrote, and whether it is at its end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch

from rung.engine.answering import forced
from rung.engine.batch import generator_of
from rung.engine.grammar import Matcher
from rung.engine.prefill import Job


@dataclass(frozen=True)
class Chosen:
    """A token and its log-probability, with the likeliest tokens at its place, the likeliest first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class LiveRow:
    """A job on its way.

    stop_ids: end tokens; the answer's last token is one, unless its room ended first. logprobs: so many of the
    likeliest tokens are told at each place; None: none, and no log-probabilities. answer: tokens so far; `chosen` tells
    them where logprobs are asked for. read: its prompt has begun to be read; cached: its tokens that were computed
    before. alone: memory ran out while no other row was there. failed: it ran out for this row alone twice. fault: why
    its adapter cannot be applied. dropped: nobody waits for it any more. passed_over: rows that went before it while
    it waited for a slot.
    """

    job: Job
    stop_ids: Collection[int]
    logprobs: int | None = None
    answer: list[int] = field(default_factory=list)
    chosen: list[Chosen] = field(default_factory=list)
    read: bool = False
    cached: int = 0
    alone: bool = False
    failed: bool = False
    fault: str = ""
    dropped: bool = False
    matcher: Matcher | None = None
    generator: Any = None
    passed_over: int = 0

    def __post_init__(self) -> None:
        self.matcher = self.job.matcher.copy() if self.job.matcher is not None else None
        self.generator = generator_of(self.job)

    @property
    def ended(self) -> bool:
        if self.failed or self.fault or self.dropped:
            return True
        return bool(self.answer) and (self.answer[-1] in self.stop_ids or len(self.answer) >= self.job.most)

    @property
    def tells(self) -> bool:
        """Whether it tells log-probabilities."""
        return self.logprobs is not None

    @property
    def tokens(self) -> list[int]:
        """What the network has read or is to read: the prompt, and the answer so far."""
        return [*self.job.prompt, *self.answer]


def take(row: LiveRow, token: int, chances: torch.Tensor | None) -> list[int]:
    """Gives a row its next token, and those that its grammar then leaves no choice about. chances: log-probabilities
    (V,), where they are told; then each token has a step of its own."""
    if chances is None:
        tokens = [token, *forced(row.matcher, token, row.stop_ids)][: row.job.most - len(row.answer)]
    else:
        tokens = [token]
        if row.matcher is not None and token not in row.stop_ids:
            row.matcher.consume(token)
        top = torch.topk(chances, min(row.logprobs, len(chances))) if row.logprobs else None
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top is not None else ()
        row.chosen.append(Chosen(token, float(chances[token]), tuple(pairs)))
    row.answer += tokens
    return tokens
