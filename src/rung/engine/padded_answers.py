"""Answers and log-probabilities on the padded path. transformers' `generate` computes; this chooses the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from rung.engine.batch import Answered, Batch, choose, generator_of, in_parts
from rung.engine.padded_engine import PaddedEngine
from rung.engine.prefill import Job, cut

_LOGITS_ROWS = 256  # target tokens whose logits are held at once


def padded_batches(engine: PaddedEngine, jobs: Sequence[Job], stop_ids: set[int]) -> Iterator[Batch]:
    """The jobs in batches of one adapter each, the shortest first, each as large as the limits allow when it is cut.

    Where padding in front changes answers, only prompts of one length stand in a batch, or one prompt where batches do
    too. Prompts whose answer may reach the length where the network turns positions otherwise reach it together.
    """
    groups: dict[tuple[str | None, int], list[int]] = {}
    for i, job in enumerate(jobs):
        alike = engine.pads_left and not engine.is_beyond(len(job.prompt) + job.most)
        kind = 0 if alike else len(job.prompt) if engine.batches else -1 - i
        groups.setdefault((job.adapter, kind), []).append(i)
    lengths = {i: len(job.prompt) for i, job in enumerate(jobs)}
    for places in groups.values():
        order = sorted(places, key=lambda i: (lengths[i], i))
        for batch in cut(engine, jobs, lengths, order):
            for part in _within_reach(engine, jobs, batch):
                yield Batch(part, lengths, partial(_answer, engine, jobs, stop_ids))


def _within_reach(engine: PaddedEngine, jobs: Sequence[Job], batch: list[int]) -> list[list[int]]:
    """The batch, cut where a long prompt, whose row goes on with fillers until all have ended, would leave the reach.

    A pass with a position beyond it fails, or turns the positions of all its rows otherwise.
    """
    longest, most = max(len(jobs[i].prompt) for i in batch), max(jobs[i].most for i in batch)
    if engine.reach is None or longest + most <= engine.reach:
        return [batch]
    parts: dict[int, list[int]] = {}
    for i in batch:
        parts.setdefault(jobs[i].most, []).append(i)
    return list(parts.values())


@torch.no_grad()
def _answer(engine: PaddedEngine, jobs: Sequence[Job], stop_ids: set[int], batch: list[int]) -> Answered:
    chosen = [jobs[i] for i in batch]
    choice = Choice(chosen, stop_ids, engine.filler)
    with engine.adapters.using(chosen[0].adapter):
        engine.generate([job.prompt for job in chosen], choice, max(job.most for job in chosen))
    return list(zip(batch, choice.answers, strict=True))


class Choice:
    """Chooses each row's next token as the tree path does. A row whose answer has ended gets fillers."""

    def __init__(self, jobs: Sequence[Job], stop_ids: set[int], filler: int) -> None:
        self.answers: list[list[int]] = [[] for _ in jobs]
        self._jobs = jobs
        self._stop_ids = stop_ids
        self._filler = filler
        self._generators = [generator_of(job) for job in jobs]
        self._matchers = [job.matcher.copy() if job.matcher is not None else None for job in jobs]
        self._going = list(range(len(jobs)))

    def processor(self, _: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Scores that leave one token a row. logits: (B, V)."""
        tokens = [self._filler] * len(self._jobs)
        if going := self._going:
            chosen = self.chosen(logits[going], going)
            for row, token in zip(going, chosen, strict=True):
                tokens[row] = token
                self.answers[row].append(token)
                matcher = self._matchers[row]
                if matcher is not None and token not in self._stop_ids:
                    matcher.consume(token)
            self._going = [row for row in going if not self._is_ended(row)]
        scores = torch.full_like(logits, float("-inf"))
        scores[torch.arange(len(tokens)), tokens] = 0.0
        return scores

    def chosen(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """The next token of these rows. logits: one row each."""
        return choose(
            logits,
            [self._jobs[row].temperature for row in rows],
            [self._generators[row] for row in rows],
            [self._matchers[row] for row in rows],
            [self._jobs[row].top_p for row in rows],
        )

    def ended(self, ids: torch.Tensor, _: Any = None, **__: Any) -> torch.Tensor:
        """Which rows have their whole answer, (B,)."""
        going = set(self._going)
        return torch.tensor([row not in going for row in range(len(self._jobs))], device=ids.device)

    def _is_ended(self, row: int) -> bool:
        answer = self.answers[row]
        return answer[-1] in self._stop_ids or len(answer) >= self._jobs[row].most


# ---- log-probabilities of given answers -----------------------------------------------------------


def padded_logprobs(
    engine: PaddedEngine, adapter: str | None, rows: Sequence[tuple[list[int], list[int]]]
) -> list[list[float]]:
    """As `decode.logprobs`. When memory runs out, fewer rows go through the network at once."""
    found: list[list[float]] = [[] for _ in rows]
    order = sorted((i for i, row in enumerate(rows) if row[1]), key=lambda i: (len(rows[i][0]) + len(rows[i][1]), i))
    in_parts(engine, order, partial(_next_part, rows), lambda chosen: _score(engine, adapter, rows, chosen, found))
    return found


def _next_part(rows: Sequence[tuple[list[int], list[int]]], order: list[int], limit: int) -> tuple[list[int], int]:
    """The first rows of `order` that bring at most `limit` tokens, at least one row; and the tokens they bring."""
    part = tokens = targets = 0
    while part < len(order):
        prompt, answer = rows[order[part]]
        length = len(prompt) + len(answer) - 1
        if part and (tokens + length > limit or targets + len(answer) > _LOGITS_ROWS):
            break
        part, tokens, targets = part + 1, tokens + length, targets + len(answer)
    return order[:part], tokens


@torch.no_grad()
def _score(
    engine: PaddedEngine,
    adapter: str | None,
    rows: Sequence[tuple[list[int], list[int]]],
    chosen: list[int],
    found: list[list[float]],
) -> None:
    """Fills `found` for the chosen rows."""
    with engine.adapters.using(adapter):
        logits, _ = engine.scores([rows[i] for i in chosen])
    tokens = torch.tensor([token for i in chosen for token in rows[i][1]], device=logits.device)
    chances = iter(torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0].tolist())
    for i in chosen:
        found[i] = [next(chances) for _ in rows[i][1]]
