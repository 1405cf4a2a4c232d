"""Rows that are being answered: what they have answered, and the tokens that the network has still to read.

Knows grammars, sampling and limits of length; knows nothing of caches and of how the network is computed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from rung.engine.batch import choose, generator_of
from rung.engine.grammar import Matcher
from rung.engine.prefill import Job


class BatchAnswers:
    """The rows of one batch. Where a grammar allows one continuation only, its tokens are taken without asking.

    answers: tokens of each job's answer so far. active: places in `jobs` of the rows that go on. new: of each of these
    the tokens of its answer that the network has not read. A row without any gets a token by `choose`.
    """

    def __init__(self, jobs: Sequence[Job], stop_ids: Collection[int]) -> None:
        self.jobs = jobs
        self.answers: list[list[int]] = [[] for _ in jobs]
        self.active = list(range(len(jobs)))
        self.new: list[Sequence[int]] = [()] * len(jobs)
        self._stop_ids = frozenset(stop_ids)
        self._most = [job.most for job in jobs]
        self._generators = [generator_of(job) for job in jobs]
        self._matchers = [job.matcher.copy() if job.matcher is not None else None for job in jobs]
        self._is_ruled_or_sampled = any(job.matcher is not None or job.temperature > 0 for job in jobs)

    def choose(
        self, logits: torch.Tensor, rows: Sequence[int] | None = None, likeliest: torch.Tensor | None = None
    ) -> None:
        """The next tokens of all rows that have none left to read.

        logits: (n, V). rows: the row of logits of each active row; None: they stand in order. likeliest: the argmax of
        the logits, (n,), where it is known.
        """
        asked = [row for row, tokens in enumerate(self.new) if not tokens]
        if not asked:
            return
        places = [self.active[row] for row in asked]
        of_logits = asked if rows is None else [rows[row] for row in asked]
        if not self._is_ruled_or_sampled:
            found: list[int] = (logits.argmax(-1) if likeliest is None else likeliest).tolist()
            new, answers = self.new, self.answers
            for row, place, from_row in zip(asked, places, of_logits, strict=True):
                token = found[from_row]
                new[row] = (token,)
                answers[place].append(token)
            return
        chosen = choose(
            logits,
            [self.jobs[place].temperature for place in places],
            [self._generators[place] for place in places],
            [self._matchers[place] for place in places],
            [self.jobs[place].top_p for place in places],
            rows=of_logits if of_logits != list(range(len(logits))) else None,
            likeliest=likeliest,
        )
        for row, place, token in zip(asked, places, chosen, strict=True):
            left = self.jobs[place].most - len(self.answers[place])
            tokens = [token, *forced(self._matchers[place], token, self._stop_ids)][:left]
            self.answers[place] += tokens
            self.new[row] = tokens

    def leave(self) -> list[int]:
        """Rows whose answer is complete leave. Returns numbers of the rows that go on, as they were before."""
        stops, answers, most = self._stop_ids, self.answers, self._most
        going = [
            row
            for row, place in enumerate(self.active)
            if not (answer := answers[place]) or (answer[-1] not in stops and len(answer) < most[place])
        ]
        if len(going) < len(self.active):
            self.active, self.new = [self.active[row] for row in going], [self.new[row] for row in going]
        return going

    def read(self, most: int | None = None) -> list[int]:
        """The network has read the first `most` of each row's tokens; None: all. Returns how many of each row."""
        counts = [len(tokens) for tokens in self.new]
        if most is None or max(counts, default=0) <= most:
            self.new = [()] * len(counts)
            return counts
        self.new = [tokens[most:] for tokens in self.new]
        return [min(most, count) for count in counts]

    @property
    def left(self) -> int:
        """Tokens that the network may still have to read of the row that has most of them."""
        rows = zip(self.active, self.new, strict=True)
        return max((self.jobs[p].most - len(self.answers[p]) + len(new) for p, new in rows), default=0)


def forced(matcher: Matcher | None, token: int, stop_ids: Collection[int]) -> list[int]:
    """Gives the chosen token to the grammar; returns the tokens that can only follow."""
    if matcher is None or token in stop_ids:
        return []
    matcher.consume(token)
    return matcher.forced()
