"""Answers of a batch in static decode steps (`static_steps`), from its prefill to its last row.

Every step reads one token of each row, from its choice or from what its grammar forces; a row asks for a choice when
it has read all of them, so that no row waits for another. Long stretches that a grammar forces are read in wider
passes. Batches of few steps, and those whose adapters PEFT computes or whose weights are whole ones, are answered in
passes of any shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rung.engine.adapter_plain import PlainAdapter
from rung.engine.answering import BatchAnswers
from rung.engine.kv_cache import RowCache
from rung.engine.masked_mix import COUNTS, kind_of
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.static_rows import Arranged
from rung.engine.static_shapes import StepShape, rows_bucket
from rung.engine.static_steps import Plain, Standing, StaticSteps, columns_for, small, steps_of
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ANSWERS
from rung.errors import first_line

Adapters = dict[str | None, PlainAdapter | None]
"""Folder of an adapter -> as it stands in memory."""


class StaticDecoder:
    """Answers batches in static steps of one engine. Remembers how long answers are."""

    def __init__(self, engine: TreeEngine) -> None:
        self._engine = engine
        self.steps: StaticSteps = steps_of(engine)
        self._typical: dict[tuple[bool, int], float] = {}

    def learn(self, state: BatchAnswers) -> None:
        """Remembers how long the answers of such a batch are."""
        longest = float(max(map(len, state.answers)))
        before = self._typical.get(_sort_of(state), longest)
        self._typical[_sort_of(state)] = max(longest, (before + longest) / 2)

    def answer(self, state: BatchAnswers, cache: RowCache, plain: Plain) -> RowCache | None:
        """Answers the active rows, each of which has new tokens. cache: their keys and values; it is used up.

        Returns None when all are answered, else the cache for what is left to do in plain passes. Where a static pass
        fails or differs from a plain one, the way is given up and nothing is lost. Raises where memory runs out.
        """
        if cache.long or not (adapters := self._adapters_of(state)):
            return cache
        rows = _Rows(self, state, adapters)
        arranged, like = Arranged.of(cache), small(cache.own)
        wanted = StepShape(
            rows_bucket(len(arranged.lengths)), columns_for(arranged.lengths, state.left), arranged.shared
        )
        step = self.steps.fitting(wanted, kind_of(rows.adapters()), like, rows.to_come)
        if step is None:
            return cache
        if step.mix is not None:
            step.mix.put(rows.adapters())
        ends = list(cache.ends)
        step.rows.take(cache, arranged)
        standing = Standing(step, list(range(len(ends))), list(arranged.lengths), ends, like)
        while state.active:
            try:
                found = self.steps.read(standing, rows, plain)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._engine.ways.give_up("static", first_line(error), of=ANSWERS)
                found = None
            if found is None:
                left = standing.cache()
                if not self._engine.ways.takes("static", ANSWERS):
                    self.steps.clear()
                return left
            counts = state.read(found[0])
            standing.advance(counts)
            self._engine.computed_tokens += sum(counts)
            state.choose(found[1], standing.rows, found[2])
            standing.keep(state.leave())
        return None

    def _adapters_of(self, state: BatchAnswers) -> Adapters:
        """The adapters of the rows; empty where they cannot be computed here."""
        names = list(dict.fromkeys(state.jobs[place].adapter for place in state.active))
        mixable = self._engine.adapters.mixable
        if sum(name is not None for name in names) > COUNTS[-1] or not all(mixable(name) for name in names):
            return {}
        return self._engine.adapters.plain_ones(names)

    def steps_to_come(self, state: BatchAnswers) -> float:
        """At most; fewer where such answers were shorter. One that is longer than they were is taken for half done."""
        typical = self._typical.get(_sort_of(state), float("inf"))
        longest = max(len(state.answers[place]) for place in state.active)
        return min(float(state.left), typical - longest if typical > longest else float(longest))


@dataclass(frozen=True)
class _Rows:
    """The active rows of a batch, as `StaticSteps.read` asks for them."""

    decoder: StaticDecoder
    state: BatchAnswers
    of_names: Adapters

    @property
    def new(self) -> Sequence[Sequence[int]]:
        return self.state.new

    @property
    def left(self) -> int:
        return self.state.left

    def to_come(self) -> float:
        return self.decoder.steps_to_come(self.state)

    def adapters(self) -> list[PlainAdapter | None]:
        return [self.of_names[self.state.jobs[place].adapter] for place in self.state.active]


def _sort_of(state: BatchAnswers) -> tuple[bool, int]:
    """What batches with answers of similar lengths have in common."""
    return all(job.matcher is not None for job in state.jobs), max(job.most for job in state.jobs)


def static_decoder(engine: TreeEngine) -> StaticDecoder:
    """The engine's own, made at its first use."""
    if engine.static_decoder is None:
        engine.static_decoder = StaticDecoder(engine)
    found: StaticDecoder = engine.static_decoder
    return found
