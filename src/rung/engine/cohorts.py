"""Cohorts: rows that were prefilled together and keep one KV cache, and a pass over several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from rung.engine.kv_cache import RowCache
from rung.engine.live_rows import LiveRow
from rung.engine.prefill import Job, SharedPrefixes
from rung.engine.tree_engine import Prefix, TreeEngine

Applied = Callable[[Sequence[str | None]], AbstractContextManager[None]]
"""Within what it returns, each token of a pass has its adapter. It gets one name, or None, for each token."""


@dataclass(frozen=True)
class PassKind:
    """What may share a pass. alone: the adapter whose rows share it with no others; None: a plain one, or none."""

    alone: str | None
    long: bool


@dataclass(eq=False)
class Cohort:
    """Rows with one KV cache, in its order.

    last: hidden states from which their next tokens follow, (B, C). new: tokens of each row that are chosen and not yet
    computed.
    """

    kind: PassKind
    rows: list[LiveRow]
    cache: RowCache
    last: torch.Tensor | None
    new: list[list[int]] = field(default_factory=list)

    def leave(self) -> list[LiveRow]:
        """Rows that ended leave; returns those of them that were dropped."""
        kept = [i for i, row in enumerate(self.rows) if not row.ended]
        gone = [row for row in self.rows if row.dropped]
        if len(kept) < len(self.rows):
            self._keep(kept)
        return gone

    def halved(self) -> list[LiveRow]:
        """The second half of its rows, which leave; all where there is one."""
        left = self.rows[len(self.rows) // 2 :]
        self._keep(list(range(len(self.rows) // 2)))
        return left

    def _keep(self, places: list[int]) -> None:
        if places:
            self.cache.keep_rows(places)
        self.rows = [self.rows[i] for i in places]
        self.new = [self.new[i] for i in places] if self.new else []
        self.last = self.last[places] if self.last is not None else None

    def join(self, other: Cohort) -> None:
        """Takes over another cohort's rows. Both have chosen tokens that are not yet computed."""
        assert self.kind == other.kind and self.last is None and other.last is None
        self.cache.join(other.cache)
        self.rows += other.rows
        self.new += other.new


class AllCohorts:
    """A View of a decode step of several cohorts. counts: tokens of each in this pass."""

    def __init__(self, caches: Sequence[RowCache], counts: Sequence[int], long: bool) -> None:
        self.long = long
        self._caches, self._counts = caches, list(counts)
        self.wanted: torch.Tensor | None = None
        starts = [sum(counts[:i]) for i in range(len(counts))]
        self.places = [start + place for cache, start in zip(caches, starts, strict=True) for place in cache.places]
        if any(cache.wanted is not None for cache in caches):
            parts = [
                start + (cache.wanted if cache.wanted is not None else torch.arange(count, device=cache.lengths.device))
                for cache, start, count in zip(caches, starts, counts, strict=True)
            ]
            self.wanted = torch.cat(parts)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, **more: Any
    ) -> torch.Tensor:
        if len(self._caches) == 1:
            return self._caches[0].attend(layer, query, key, value, scaling, **more)
        parts = zip(self._caches, *(x.split(self._counts) for x in (query, key, value)), strict=True)
        return torch.cat([cache.attend(layer, q, k, v, scaling, **more) for cache, q, k, v in parts])


class Families(SharedPrefixes):
    """Rows by adapter and by the start that they share with earlier prompts. of_jobs: both for each job. applied: what
    applies the adapter of each token. long, apart: as in SharedPrefixes."""

    def __init__(
        self,
        applied: Applied,
        jobs: Sequence[Job],
        of_jobs: Sequence[tuple[str | None, Prefix | None]],
        *,
        long: bool,
        apart: bool,
    ) -> None:
        self.long, self.apart = long, apart
        self._applied = applied
        keys = [(adapter, prefix.ids if prefix is not None else ()) for adapter, prefix in of_jobs]
        distinct = dict(zip(keys, of_jobs, strict=True))
        order = {key: i for i, key in enumerate(sorted(distinct, key=lambda key: (key[0] or "", len(key[1]), key[1])))}
        self._family = {id(job): order[key] for job, key in zip(jobs, keys, strict=True)}
        self.adapters = [adapter for adapter, _ in order]
        self.in_order = [distinct[key][1] for key in order]

    def family(self, job: Job) -> int:
        return self._family[id(job)]

    def applied(self, engine: TreeEngine, families: Sequence[int]) -> AbstractContextManager[None]:
        return self._applied([self.adapters[family] for family in families])
