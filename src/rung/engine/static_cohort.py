"""Rows that join and leave while they are answered in static steps: what `continuous` computes on a GPU.

Rows stand in one step of fixed addresses. A cohort that was prefilled is copied into its free rows, and its own cache
is freed; a row that ends leaves a free one. What many rows begin with alike is stored once. Cohorts that have no room
here, or need more memory than there may be, are answered in plain passes, and may join later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import torch

from rung.engine.adapter_plain import PlainAdapter
from rung.engine.cohorts import Cohort
from rung.engine.kv_cache import RowCache, Shared, same_keys
from rung.engine.live_rows import LiveRow, choose_tokens
from rung.engine.masked_mix import COUNTS, MixKind, kind_of
from rung.engine.static_rows import LEAST_SHARED, Arranged
from rung.engine.static_shapes import StepShape, rows_bucket, shared_bucket
from rung.engine.static_steps import Standing, columns_for, small, steps_of
from rung.engine.tree_engine import TreeEngine

PlainPass = Callable[[RowCache, Sequence[str | None], Sequence[Sequence[int]]], torch.Tensor]
"""A plain pass over these tokens of the rows of a cache, with the adapter of each: final hidden states, (B, C)."""

_ROOM = 16  # columns that a row that joins needs beside those that it fills


@dataclass(eq=False)
class _Place:
    """A row that stands here. new: its tokens that are chosen and not yet read. copied: keys of the first layer of
    tokens that others may see too, and that stand in its own columns."""

    row: LiveRow
    adapter: PlainAdapter | None
    new: list[int]
    copied: list[torch.Tensor]


class StaticCohort:
    """The rows of one engine that are answered in static steps. plain: what passes of a new kind are compared with."""

    def __init__(self, engine: TreeEngine, plain: PlainPass) -> None:
        self._engine, self._plain = engine, plain
        self._steps = steps_of(engine)
        self._standing: Standing | None = None
        self._places: list[_Place] = []  # in the order of `Standing.rows`
        self._found: list[torch.Tensor] | None = None  # logits and their argmax, behind the last pass
        self._wished: Counter[tuple[MixKind | None, StepShape]] = Counter()
        self._tried: WeakSet[Cohort] = WeakSet()  # had no room since the last row left

    # ---- who stands here --------------------------------------------------------------------------

    @property
    def rows(self) -> list[LiveRow]:
        return [place.row for place in self._places]

    @property
    def bytes(self) -> int:
        """Of the keys and values that its rows hold. Room to come is the matter of the steps that are kept."""
        if self._standing is None:
            return 0
        tokens = sum(self._standing.lengths) + self._standing.step.rows.shared_tokens
        return int(tokens * self._engine.cache_bytes_per_token)

    def leave(self) -> list[LiveRow]:
        """Rows that ended leave; returns those of them that were dropped."""
        gone = [place.row for place in self._places if place.row.dropped]
        self._keep([number for number, place in enumerate(self._places) if not place.row.ended])
        return gone

    def halved(self) -> list[LiveRow]:
        """The second half of its rows, which leave; all where there is one."""
        kept = len(self._places) // 2
        left = self.rows[kept:]
        self._keep(list(range(kept)))
        return left

    def clear(self) -> list[LiveRow]:
        """All rows, which leave."""
        left = self.rows
        self._keep([])
        return left

    def close(self) -> list[LiveRow]:
        """As `clear`; frees what was recorded, too."""
        left = self.clear()
        self._steps.clear()
        return left

    def _keep(self, numbers: list[int]) -> None:
        standing = self._standing
        if standing is None or (numbers and len(numbers) == len(self._places)):
            return
        kept = set(numbers)
        standing.step.rows.leave([slot for number, slot in enumerate(standing.rows) if number not in kept])
        standing.keep(numbers)
        self._places = [self._places[number] for number in numbers]
        self._tried.clear()
        if not numbers:
            standing.step.lent, self._standing, self._found = False, None, None

    # ---- joining ------------------------------------------------------------------------------------

    def join(self, cohorts: Sequence[Cohort]) -> list[Cohort]:
        """Takes the rows of cohorts over, all of which have chosen tokens; returns cohorts that have no room here.

        Where it raises, some of the rows may stand here and some caches may be gone.
        """
        left = [cohort for cohort in cohorts if cohort in self._tried or not self._takes(cohort)]
        self._tried.update(left)
        return left

    def _takes(self, cohort: Cohort) -> bool:
        if any(row.alone for row in cohort.rows):
            return False  # memory ran out for it; a plain pass needs less
        own = self._adapters_of(cohort.rows)
        if own is None:
            return False
        arranged = Arranged.with_behind(cohort.cache, self._popular(cohort.cache))
        adapters = [*(place.adapter for place in self._places), *own]
        rows = zip(cohort.rows, own, cohort.new, strict=True)
        places = [_Place(row, adapter, list(new), []) for row, adapter, new in rows]
        if not self._finds_room(cohort.cache, arranged, kind_of(adapters), [*self._places, *places]):
            return False
        standing = self._standing
        assert standing is not None
        for shared in arranged.copied:
            for place in places[shared.first : shared.last]:
                place.copied.append(shared.layers[0][0])
        taken = set(standing.rows)
        free = [slot for slot in range(standing.step.shape.rows) if slot not in taken][: len(places)]
        ends = list(cohort.cache.ends)
        standing.step.rows.put(cohort.cache, arranged, free)
        standing.rows += free
        standing.lengths += arranged.lengths
        standing.ends += ends
        self._places += places
        self._found = None
        self._put_adapters(standing)
        return True

    def _adapters_of(self, rows: Sequence[LiveRow]) -> list[PlainAdapter | None] | None:
        """The adapters of rows; None where they are too many beside those that stand here."""
        names = [row.job.adapter for row in rows]
        found = self._engine.adapters.plain_ones(names)
        # Counted as they stand in memory: one that was dropped and read again is another one there.
        if len({*found.values(), *self.adapters()} - {None}) > COUNTS[-1]:
            return None
        return [found[name] for name in names]

    def _popular(self, cache: RowCache) -> list[Shared]:
        """The nodes that are to be stored once: those that are already, and those that save enough of the rows'
        columns."""
        found = []
        for node in cache.shared:
            seen = node.last - node.first
            seen += sum(any(same_keys(key, node.layers[0][0]) for key in place.copied) for place in self._places)
            if self._has(node) or (seen - 1) * len(node.positions) >= LEAST_SHARED:
                found.append(node)
        return found

    def _has(self, node: Shared) -> bool:
        return self._standing is not None and self._standing.step.rows.has(node)

    def _finds_room(self, cache: RowCache, arranged: Arranged, kind: MixKind | None, places: Sequence[_Place]) -> bool:
        """Moves the rows to a step with room for those of the cache; False where there is none.

        places: all rows, those that join last.
        """
        standing, step = self._standing, self._standing.step if self._standing is not None else None
        shared = sum(len(node.positions) for node in arranged.behind if step is None or not step.rows.sees(node))
        lengths = list(arranged.lengths)
        if standing is not None and step is not None:
            shape = step.shape
            fits = len(places) <= shape.rows and max(lengths) + _ROOM <= shape.columns
            if fits and _will_do(step.kind, kind) and step.rows.has_room(arranged.behind):
                return True
            shared += step.rows.shared_tokens
            lengths += standing.lengths
        left = max(map(_left_of, places))
        wanted = StepShape(rows_bucket(len(places)), columns_for(lengths, left), shared_bucket(shared))
        self._wished[kind, wanted] += left  # a shape that is asked for again and again pays
        like = standing.like if standing is not None else small(cache.own)
        found = self._steps.fitting(wanted, kind, like, lambda: self._wished[kind, wanted], current=step)
        if found is None or found is step:
            return False
        if standing is None:
            found.rows.clear()
            self._standing = Standing(found, [], [], [], like, lent=True)
        else:
            standing.move(found, self.adapters())
            self._found = None
        return True

    def _put_adapters(self, standing: Standing) -> None:
        if standing.step.mix is not None:
            by_slot: list[PlainAdapter | None] = [None] * standing.step.shape.rows
            for slot, place in zip(standing.rows, self._places, strict=True):
                by_slot[slot] = place.adapter
            standing.step.mix.put(by_slot)

    # ---- a round --------------------------------------------------------------------------------------

    def choose(self) -> list[LiveRow]:
        """Rows that have read all of their tokens get the next ones. Returns these rows; ended ones leave."""
        if self._standing is None or self._found is None:
            return []
        logits, likeliest = self._found
        asked = [number for number, place in enumerate(self._places) if not place.new]
        slots, rows = [self._standing.rows[number] for number in asked], [self._places[number].row for number in asked]
        if not rows:
            return []
        taken = choose_tokens(rows, logits, places=slots, likeliest=likeliest)
        for number, tokens in zip(asked, taken, strict=True):
            self._places[number].new = tokens
        self.leave()
        return rows

    def read(self) -> list[LiveRow]:
        """A pass over new tokens of all rows. Returns rows that left, since there is no room for longer ones."""
        gone: list[LiveRow] = []
        while (standing := self._standing) is not None:
            found = self._steps.read(standing, self, self._plainly)
            if found is not None:
                tokens, *self._found = found
                counts = [min(tokens, len(place.new)) for place in self._places]
                for place, count in zip(self._places, counts, strict=True):
                    place.new = place.new[count:]
                standing.advance(counts)
                self._engine.computed_tokens += sum(counts)
                break
            full = [length >= standing.step.shape.columns for length in standing.lengths]
            gone += [place.row for place, is_full in zip(self._places, full, strict=True) if is_full]
            self._keep([number for number, is_full in enumerate(full) if not is_full])
        return gone

    def _plainly(self, cache: RowCache, new: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._plain(cache, [place.row.job.adapter for place in self._places], new)

    # ---- as `StaticSteps.read` asks for the rows -----------------------------------------------------

    @property
    def new(self) -> list[list[int]]:
        return [place.new for place in self._places]

    @property
    def left(self) -> int:
        return max(map(_left_of, self._places))

    def to_come(self) -> float:
        return float(self.left)

    def adapters(self) -> list[PlainAdapter | None]:
        return [place.adapter for place in self._places]


def _left_of(place: _Place) -> int:
    """Tokens that the network may still have to read of a row."""
    return place.row.job.most - len(place.row.answer) + len(place.new)


def _will_do(there: MixKind | None, wanted: MixKind | None) -> bool:
    """Whether rows of the wanted kind may stand in a step of the kind that is there."""
    if there is None or wanted is None:
        return wanted is None and (there is None or not there.alone)
    holds = there.count >= wanted.count and there.rank >= wanted.rank and there.layers >= wanted.layers
    return holds and (wanted.alone or not there.alone)
