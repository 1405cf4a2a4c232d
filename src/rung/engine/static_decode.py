"""Decode steps of few shapes: each is recorded as a CUDA graph once and replayed, one launch for a whole pass.

Every step reads one token of each row, from its choice or from what its grammar forces; a row asks for a choice when
it has read all of them, so that no row waits for another. Long stretches that a grammar forces are read in wider
passes. What is kept from call to call are the shapes that were used last, with their buffers. Batches of few steps, and
those whose adapters PEFT computes or whose weights are whole ones, are answered in passes of any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rung.engine import compiled_steps
from rung.engine.adapter_plain import PlainAdapter
from rung.engine.answering import BatchAnswers
from rung.engine.attention import KeysAndValues
from rung.engine.buckets import bucket
from rung.engine.capture import Captured, GraphMemory
from rung.engine.gpu_kernels import put
from rung.engine.kv_cache import RowCache
from rung.engine.masked_mix import COUNTS, MaskedMix, MixKind, kind_of
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.static_rows import Arranged, StaticRows, StepInputs, StepShape, rows_bucket
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ANSWERS
from rung.engine.whole_weights import weights_of
from rung.errors import first_line

LEAST_STEPS = 8
"""Steps to come from which recording pays: it takes as long as about three plain ones."""
_FEWER_ROWS = 8  # times as many of them, where recording only makes recorded steps smaller
_AHEAD = 256  # tokens to come that rows have room for at first: attention reads all columns
_WIDE, _MOST_WIDE = 16, 2_048  # tokens of each row in a wide pass, and of all rows
_USED_OFTEN = 3  # wide passes of one shape after which they are recorded
_OFTEN = 20_000  # steps of one shape after which the compiled steps of layers are taken: half a minute, as compiling
_MOST_KEPT = 12  # shapes
_MOST_BYTES = 1.5  # of all kept shapes, as a multiple of the limit for a batch's cache
_TOLERANCES = {torch.float32: 1e-2}  # of a row's logits, against a plain pass; tensor cores may round to 10 bits
_TOLERANCE = 0.1  # in other types

Plain = Callable[[RowCache, Sequence[Sequence[int]]], torch.Tensor]
"""A plain pass over these tokens of the rows of a cache: final hidden states of the last token of each row."""


_Key = tuple[int, MixKind | None, StepShape]
"""Of a step: the weights that it was recorded with, its adapters, its shape."""


class Differs(RuntimeError):
    """A static pass computed other numbers than a plain one."""


class _Step:
    """Passes of one shape with their buffers. Long-lived: a recorded graph reads and writes these very tensors."""

    def __init__(
        self,
        engine: TreeEngine,
        shape: StepShape,
        like: Sequence[KeysAndValues],
        kind: MixKind | None,
        memory: GraphMemory,
        weights: int,
    ) -> None:
        self.shape, self.kind, self.weights = shape, kind, weights
        self.rows = StaticRows(shape, like, engine.device)
        self.mix = MaskedMix(kind, shape.rows, engine.device) if kind is not None else None
        self.count = 0
        """Passes so far."""
        self._engine, self._memory = engine, memory
        self._inputs: dict[int, StepInputs] = {}
        self._used: dict[int, int] = {}
        self._recorded: dict[int, Captured[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.compiled = False
        """Whether its layers run their compiled steps; set where passes of this shape are many."""

    @property
    def bytes(self) -> int:
        return self.rows.bytes + (self.mix.bytes if self.mix is not None else 0)

    def __call__(self, tokens: int, numbers: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """A pass over `tokens` tokens of each row. numbers: as in `StepInputs`. Nothing waits for the device.

        Returns logits, (B, V) in float32, and their argmax, (B,); both are overwritten by the next pass of any step.
        """
        if tokens not in self._inputs:
            self._inputs[tokens] = StepInputs(self.shape.rows, tokens, self._engine.device)
        put(torch.from_numpy(numbers), self._inputs[tokens].numbers)
        self.count += 1
        self._used[tokens] = self._used.get(tokens, 0) + 1
        if self.compiled != (self.count > _OFTEN and self._engine.ways.takes("compiled", ANSWERS)):
            self.compiled = not self.compiled
            self.forget_graphs()
        try:
            return self._replayed(tokens)
        except Exception as error:  # no compiler, or none that can do this
            if not self.compiled or is_out_of_memory(error):
                raise
            self.give_up_compiled(first_line(error))
            return self._replayed(tokens)

    def give_up_compiled(self, reason: str) -> None:
        self._engine.ways.give_up("compiled", reason, of=ANSWERS)
        self.compiled = False
        self.forget_graphs()

    def forget_graphs(self) -> None:
        """They are recorded again when they are needed."""
        self._recorded.clear()

    def _replayed(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        if tokens not in self._recorded:
            if tokens > 1 and self._used[tokens] <= _USED_OFTEN:
                return self._work(tokens)
            self._recorded[tokens] = Captured(lambda: self._work(tokens), self._engine.device, self._memory)
        return self._recorded[tokens]()

    def _work(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, engine = self._inputs[tokens], self._engine
        self.rows.begin(inputs)
        if self.mix is not None:
            self.mix.begin(tokens)
        with engine.adapters.applying(self.mix), compiled_steps.taken(self.compiled):
            hidden = engine.run(inputs.ids, inputs.positions, self.rows)
            logits = engine.logits(hidden if tokens == 1 else hidden.index_select(0, inputs.last))
        return logits, logits.argmax(-1)


@dataclass
class _Standing:
    """The active rows in a step: which of its rows they are, the columns that each fills, and its next position.

    like: as in StaticRows.
    """

    step: _Step
    rows: list[int]
    lengths: list[int]
    ends: list[int]
    like: Sequence[KeysAndValues]

    def cache(self) -> RowCache:
        return self.step.rows.as_cache(self.rows, self.lengths, self.ends)

    def numbers(self, new: Sequence[Sequence[int]], tokens: int) -> npt.NDArray[np.int64]:
        """What `StepInputs` holds for a pass over the first `tokens` of each row's new tokens."""
        count, rows = self.step.shape.rows, np.array(self.rows)
        found = np.zeros(2 * count * (tokens + 1), dtype=np.int64)
        ids, positions = found[: 2 * count * tokens].reshape(2, count, tokens)
        lengths, last = found[2 * count * tokens :].reshape(2, count)
        positions[rows] = np.array(self.ends)[:, None] + np.arange(tokens)
        lengths[rows], last[:] = self.lengths, np.arange(count) * tokens
        if tokens == 1:
            ids[rows, 0] = [own[0] for own in new]
            return found
        for row, own in zip(self.rows, new, strict=True):
            read = own[:tokens]
            ids[row, : len(read)] = read
            last[row] += len(read) - 1
        return found

    def advance(self, counts: Sequence[int]) -> None:
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        self.ends = [end + count for end, count in zip(self.ends, counts, strict=True)]

    def keep(self, going: Sequence[int]) -> None:
        self.rows, self.lengths, self.ends = (
            [numbers[i] for i in going] for numbers in (self.rows, self.lengths, self.ends)
        )


class StaticDecoder:
    """The static decode steps of one engine, those that were used last."""

    def __init__(self, engine: TreeEngine) -> None:
        self._engine = engine
        self._memory = GraphMemory(engine.device)
        self._kept: dict[_Key, _Step] = {}  # the one used last stands last
        self._checked: set[tuple[bool, ...]] = set()  # kinds of passes that were compared with plain ones
        self._typical: dict[tuple[bool, int], float] = {}
        engine.on_make_room.append(self.clear)

    def clear(self) -> None:
        """Frees all buffers and graphs."""
        for key in list(self._kept):
            self._drop(key)
        self._memory = GraphMemory(self._engine.device)

    def _drop(self, key: _Key) -> None:
        """Frees a step at once: its graphs hold it, and it holds them."""
        self._kept.pop(key).forget_graphs()

    @property
    def bytes(self) -> int:
        """Of the buffers that are kept; what graphs need besides is torch's own."""
        return sum(step.bytes for step in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

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
        arranged = Arranged.of(cache)
        like = [(_small(key), _small(value)) for key, value in cache.own]
        own = [adapters[state.jobs[place].adapter] for place in state.active]
        step = self._step(state, arranged.lengths, arranged.shared, like, own)
        if step is None:
            return cache
        ends = list(cache.ends)
        step.rows.take(cache, arranged)
        standing = _Standing(step, list(range(len(ends))), list(arranged.lengths), ends, like)
        while state.active:
            try:
                found = self._pass(state, standing, adapters, plain)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self._engine.ways.give_up("static", first_line(error), of=ANSWERS)
                found = None
            if found is None:
                left = standing.cache()
                if not self._engine.ways.takes("static", ANSWERS):
                    self.clear()
                return left
            state.choose(found[0], standing.rows, found[1])
            standing.keep(state.leave())
        return None

    def _pass(
        self,
        state: BatchAnswers,
        standing: _Standing,
        adapters: dict[str | None, PlainAdapter | None],
        plain: Plain,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """One pass over new tokens of all active rows, in the step that suits them; None where none does.

        Rows that were moved to another step stand there when it raises, with nothing read.
        """
        tokens = self._width(state, standing)
        shape = standing.step.shape
        is_full = max(standing.lengths) + tokens > shape.columns
        if is_full or 2 * rows_bucket(len(standing.rows)) < shape.rows:
            own = [adapters[state.jobs[place].adapter] for place in state.active]
            least = LEAST_STEPS if is_full else _FEWER_ROWS * LEAST_STEPS
            other = self._step(state, standing.lengths, shape.shared, standing.like, own, standing.step, least=least)
            if other is None and is_full:
                return None
            if other is not None and other is not standing.step:
                other.rows.take_from(standing.step.rows, standing.rows, standing.lengths, standing.ends)
                standing.step, standing.rows = other, list(range(len(standing.rows)))
        found = standing.step(tokens, standing.numbers(state.new, tokens))
        step = standing.step
        kind = (step.kind is not None, step.shape.shared > 0, tokens > 1, step.compiled)
        if kind not in self._checked:
            try:
                self._check(found[0], plain(standing.cache(), [new[:tokens] for new in state.new]), standing.rows)
            except Differs as error:
                if not step.compiled:
                    raise
                step.give_up_compiled(str(error))
                return self._pass(state, standing, adapters, plain)
            self._checked.add(kind)
        counts = state.read(tokens)
        standing.advance(counts)
        self._engine.computed_tokens += sum(counts)
        return found

    def _check(self, logits: torch.Tensor, plainly: torch.Tensor, rows: Sequence[int]) -> None:
        """Raises Differs where logits are not those of a plain pass to rounding. It waits for the device."""
        expected = self._engine.logits(plainly)
        found = logits[torch.tensor(rows, device=logits.device)]
        error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        counted = error[expected.isfinite().all(-1)]
        tolerance = _TOLERANCES.get(self._engine.dtype, _TOLERANCE)
        if not bool((counted <= tolerance).all()):
            raise Differs(f"its numbers differ from those of a plain pass by {float(counted.max()):.3g}")

    def _adapters_of(self, state: BatchAnswers) -> dict[str | None, PlainAdapter | None]:
        """The adapters of the rows; empty where they cannot be computed here."""
        names = list(dict.fromkeys(state.jobs[place].adapter for place in state.active))
        mixable = self._engine.adapters.mixable
        if sum(name is not None for name in names) > COUNTS[-1] or not all(mixable(name) for name in names):
            return {}
        return self._engine.adapters.plain_ones(names)

    def _width(self, state: BatchAnswers, standing: _Standing) -> int:
        """Tokens of each row in the next pass."""
        longest, rows = max(map(len, state.new)), standing.step.shape.rows
        fits = max(standing.lengths) + _WIDE <= standing.step.shape.columns and rows * _WIDE <= _MOST_WIDE
        return _WIDE if 2 * longest >= _WIDE and fits else 1

    def _step(
        self,
        state: BatchAnswers,
        lengths: Sequence[int],
        shared: int,
        like: Sequence[KeysAndValues],
        adapters: Sequence[PlainAdapter | None],
        current: _Step | None = None,
        *,
        least: int | None = None,
    ) -> _Step | None:
        """A step for rows that fill so many columns, kept or new; None where it would not pay, or needs too much.

        current: the one in which the rows stand, whose adapters it has. least: steps to come from which a new one pays;
        None: LEAST_STEPS.
        """
        least = LEAST_STEPS if least is None else least
        columns = bucket(max(lengths) + min(state.left, _AHEAD), least=128)
        wanted = StepShape(rows_bucket(len(lengths)), columns, shared)
        kind = kind_of(adapters) if current is None else current.kind
        weights = self._weights() if current is None else current.weights
        for key in [key for key in self._kept if key[0] != weights]:
            self._drop(key)  # recorded with weights that are not there any more
        fitting = [key for key in self._kept if key[1] == kind and key[2].holds(wanted)]
        if fitting:
            key = min(fitting, key=lambda key: (key[2].rows, key[2].columns, key[2].shared))
        elif self._steps_to_come(state) <= least or not self._make_room(wanted, like, current):
            return None
        else:
            key = (weights, kind, wanted)
            self._kept[key] = _Step(self._engine, wanted, like, kind, self._memory, weights)
        step = self._kept[key] = self._kept.pop(key)
        if step.mix is not None and step is not current:
            step.mix.put(adapters)
        return step

    def _steps_to_come(self, state: BatchAnswers) -> float:
        """At most; fewer where such answers were shorter. One that is longer than they were is taken for half done."""
        typical = self._typical.get(_sort_of(state), float("inf"))
        longest = max(len(state.answers[place]) for place in state.active)
        return min(float(state.left), typical - longest if typical > longest else float(longest))

    def _make_room(self, shape: StepShape, like: Sequence[KeysAndValues], current: _Step | None) -> bool:
        """Drops steps, those first whose use is longest ago, until another one may be kept; False where it may not."""
        a_token = sum(x.shape[1] * x.shape[3] * x.element_size() for layer in like for x in layer)
        needed = a_token * (shape.rows * shape.columns + shape.shared)
        most = min(_MOST_BYTES * self._engine.limits.cache_bytes, self.bytes + self._engine.room_bytes())
        for key in [key for key, step in self._kept.items() if step is not current]:
            if self.bytes + needed <= most and len(self._kept) < _MOST_KEPT:
                break
            self._drop(key)
        return self.bytes + needed <= most

    def _weights(self) -> int:
        """Says which weights a graph reads. Changed in place they are read as they are; exchanged ones stand
        elsewhere."""
        return hash(tuple(weight.data_ptr() for weight in weights_of(self._engine.network).values()))


def _small(rows: torch.Tensor) -> torch.Tensor:
    """One of (B, Hkv, S, D) for its type and sizes alone: no view, which would keep all of them in memory."""
    return rows.new_empty((1, rows.shape[1], 1, rows.shape[3]))


def _sort_of(state: BatchAnswers) -> tuple[bool, int]:
    """What batches with answers of similar lengths have in common."""
    return all(job.matcher is not None for job in state.jobs), max(job.most for job in state.jobs)


def static_decoder(engine: TreeEngine) -> StaticDecoder:
    """The engine's own, made at its first use."""
    if engine.static_decoder is None:
        engine.static_decoder = StaticDecoder(engine)
    found: StaticDecoder = engine.static_decoder
    return found
