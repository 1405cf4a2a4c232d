"""A row that is being answered among others: what it was asked, what it wrote, and whether it is at its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rung.engine.answering import forced
from rung.engine.batch import choose, generator_of
from rung.engine.gpu_kernels import on_device
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
    def tokens(self) -> list[int]:
        """What the network has read or is to read: the prompt, and the answer so far."""
        return [*self.job.prompt, *self.answer]


def choose_tokens(
    rows: Sequence[LiveRow],
    logits: torch.Tensor,
    *,
    places: Sequence[int] | None = None,
    likeliest: torch.Tensor | None = None,
) -> list[list[int]]:
    """Gives each row its next token, and those that its grammar then leaves no choice about; returns them.

    logits: (B, V). places: the row of logits of each; None: all in order. likeliest: the argmax of the logits, (B,),
    where it is known.
    """
    tokens = choose(
        logits,
        [row.job.temperature for row in rows],
        [row.generator for row in rows],
        [row.matcher for row in rows],
        [row.job.top_p for row in rows],
        rows=places,
        likeliest=likeliest,
    )
    told = _told(rows, logits, places, tokens)
    return [_take(row, token, told.get(number)) for number, (row, token) in enumerate(zip(rows, tokens, strict=True))]


def _told(
    rows: Sequence[LiveRow], logits: torch.Tensor, places: Sequence[int] | None, tokens: Sequence[int]
) -> dict[int, Chosen]:
    """Of rows that tell log-probabilities, those of their tokens. A GPU is waited for once for all of them."""
    telling = [number for number, row in enumerate(rows) if row.logprobs is not None]
    if not telling:
        return {}
    numbers = [[places[n] if places is not None else n for n in telling], [tokens[n] for n in telling]]
    wanted, chosen = on_device(torch.tensor(numbers), logits.device)
    logs = torch.log_softmax(logits.index_select(0, wanted), -1)
    top = logs.topk(min(max(rows[n].logprobs or 0 for n in telling), logs.shape[1]))
    found = torch.cat([logs.gather(1, chosen[:, None]), top.values], 1).tolist()
    ids: list[list[int]] = top.indices.tolist()
    return {
        n: Chosen(tokens[n], own[0], tuple(zip(best, own[1:], strict=True))[: rows[n].logprobs])
        for n, own, best in zip(telling, found, ids, strict=True)
    }


def _take(row: LiveRow, token: int, told: Chosen | None) -> list[int]:
    """told: where log-probabilities are told; then each token has a step of its own."""
    if told is None:
        tokens = [token, *forced(row.matcher, token, row.stop_ids)][: row.job.most - len(row.answer)]
    else:
        tokens = [token]
        if row.matcher is not None and token not in row.stop_ids:
            row.matcher.consume(token)
        row.chosen.append(told)
    row.answer += tokens
    return tokens
