"""Decode steps of few shapes: each is recorded as a CUDA graph once and replayed, one launch for a whole pass.

Kept are the shapes that were used last, with their buffers. Rows stand in one of them; where they need more columns, or
half of its rows are free, they move to another. The first pass of each kind is compared with a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rung.engine import compiled_steps
from rung.engine.adapter_plain import PlainAdapter
from rung.engine.attention import KeysAndValues
from rung.engine.buckets import bucket
from rung.engine.capture import Captured, GraphMemory
from rung.engine.gpu_kernels import put
from rung.engine.kv_cache import RowCache
from rung.engine.masked_mix import MaskedMix, MixKind
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.static_rows import StaticRows
from rung.engine.static_shapes import StepInputs, StepShape, rows_bucket
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

Key = tuple[int, MixKind | None, StepShape]
"""Of a step: the weights that it was recorded with, its adapters, its shape."""


class Differs(RuntimeError):
    """A static pass computed other numbers than a plain one."""


class StaticStep:
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
        self.mix = MaskedMix(kind, shape.rows, engine.device, engine.dtype) if kind is not None else None
        self.count = 0
        """Passes so far."""
        self._engine, self._memory = engine, memory
        self._inputs: dict[int, StepInputs] = {}
        self._used: dict[int, int] = {}
        self._recorded: dict[int, Captured[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.lent = False
        """Whether rows stand in it that stay from call to call."""
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
        # Rows that stay, those of a server, do not wait half a minute between two tokens.
        pays = self.compiled or (self.count > _OFTEN and not self.lent)
        if self.compiled != (pays and self._engine.ways.takes("compiled", ANSWERS)):
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
class Standing:
    """Rows that are answered in a step: which of its rows they are, the columns that each fills, and its next position.

    like: as in StaticRows. lent: whether they stay for longer than one call, so that nobody else may use their step.
    """

    step: StaticStep
    rows: list[int]
    lengths: list[int]
    ends: list[int]
    like: Sequence[KeysAndValues]
    lent: bool = False

    def __post_init__(self) -> None:
        self.step.lent = self.lent

    def move(self, step: StaticStep, adapters: Sequence[PlainAdapter | None]) -> None:
        """The rows stand in another step from now on, in its first rows. adapters: of each."""
        step.rows.take_from(self.step.rows, self.rows, self.lengths, self.ends)
        if step.mix is not None:
            step.mix.put(adapters)
        self.step.lent, step.lent = False, self.lent
        self.step, self.rows = step, list(range(len(self.rows)))

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


class RowsToRead(Protocol):
    """What rows that stand in a step are to read. new: tokens of each row, at least one. left: how many the row that
    has most of them may still have to read."""

    @property
    def new(self) -> Sequence[Sequence[int]]: ...

    @property
    def left(self) -> int: ...

    def to_come(self) -> float:
        """How many steps are expected to come."""
        ...

    def adapters(self) -> Sequence[PlainAdapter | None]:
        """The adapter of each row; None: the base."""
        ...


class StaticSteps:
    """The static decode steps of one engine, those that were used last."""

    def __init__(self, engine: TreeEngine) -> None:
        self._engine = engine
        self._memory = GraphMemory(engine.device)
        self._kept: dict[Key, StaticStep] = {}  # the one used last stands last
        self._checked: set[tuple[bool, ...]] = set()  # kinds of passes that were compared with plain ones
        engine.on_make_room.append(self.clear)

    def clear(self) -> None:
        """Frees all buffers and graphs, but those of rows that stay."""
        for key in [key for key, step in self._kept.items() if not step.lent]:
            self._drop(key)
        if not self._kept:
            self._memory = GraphMemory(self._engine.device)

    def _drop(self, key: Key) -> None:
        """Frees a step at once: its graphs hold it, and it holds them."""
        self._kept.pop(key).forget_graphs()

    @property
    def bytes(self) -> int:
        """Of the buffers that are kept; what graphs need besides is torch's own."""
        return sum(step.bytes for step in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def fitting(
        self,
        wanted: StepShape,
        kind: MixKind | None,
        like: Sequence[KeysAndValues],
        to_come: Callable[[], float],
        *,
        current: StaticStep | None = None,
        least: int | None = None,
    ) -> StaticStep | None:
        """A step for such rows, kept or new; None where it would not pay, or needs too much.

        current: the one in which the rows stand. to_come: steps that are expected; more than `least` of them pay for a
        new one, None: LEAST_STEPS.
        """
        least = LEAST_STEPS if least is None else least
        weights = self._weights() if current is None else current.weights
        for key in [key for key, step in self._kept.items() if key[0] != weights and not step.lent]:
            self._drop(key)  # recorded with weights that are not there any more
        free = [key for key, step in self._kept.items() if step is current or not step.lent]
        fitting = [key for key in free if key[0] == weights and key[1] == kind and key[2].holds(wanted)]
        if fitting:
            key = min(fitting, key=lambda key: (key[2].rows, key[2].columns, key[2].shared))
        else:
            key = (weights, kind, wanted)
            if key in self._kept or to_come() <= least or not self._make_room(wanted, like, current):
                return None
            self._kept[key] = StaticStep(self._engine, wanted, like, kind, self._memory, weights)
        step = self._kept[key] = self._kept.pop(key)
        return step

    def read(self, standing: Standing, rows: RowsToRead, plain: Plain) -> tuple[int, torch.Tensor, torch.Tensor] | None:
        """One pass over new tokens of all rows, in the step that suits them; None where none does.

        Returns how many tokens of each row it read at most, and what the step returned. Rows that were moved to another
        step stand there when it raises, with nothing read.
        """
        tokens = _width(rows.new, standing)
        shape = standing.step.shape
        is_full = max(standing.lengths) + tokens > shape.columns
        if is_full or 2 * rows_bucket(len(standing.rows)) < shape.rows:
            wanted = StepShape(rows_bucket(len(standing.rows)), columns_for(standing.lengths, rows.left), shape.shared)
            least = LEAST_STEPS if is_full else _FEWER_ROWS * LEAST_STEPS
            step, kind = standing.step, standing.step.kind
            other = self.fitting(wanted, kind, standing.like, rows.to_come, current=step, least=least)
            if other is None and is_full:
                return None
            if other is not None and other is not step:
                standing.move(other, rows.adapters())
        step = standing.step
        found = step(tokens, standing.numbers(rows.new, tokens))
        sort = (step.kind is not None, step.shape.shared > 0, tokens > 1, step.compiled)
        if sort not in self._checked:
            try:
                plainly = plain(standing.cache(), [new[:tokens] for new in rows.new])
                if self._check(found[0], plainly, standing.rows):
                    self._checked.add(sort)
            except Differs as error:
                if not step.compiled:
                    raise
                step.give_up_compiled(str(error))
                return self.read(standing, rows, plain)
        return tokens, *found

    def _check(self, logits: torch.Tensor, plainly: torch.Tensor, rows: Sequence[int]) -> bool:
        """Raises Differs where logits are not those of a plain pass to rounding. It waits for the device.

        Returns whether there was a row to compare: one that gets numbers in a plain pass.
        """
        expected = self._engine.logits(plainly)
        found = logits[torch.tensor(rows, device=logits.device)]
        error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        counted = error[expected.isfinite().all(-1)]
        tolerance = _TOLERANCES.get(self._engine.dtype, _TOLERANCE)
        if not bool((counted <= tolerance).all()):
            raise Differs(f"its numbers differ from those of a plain pass by {float(counted.max()):.3g}")
        return len(counted) > 0

    def _make_room(self, shape: StepShape, like: Sequence[KeysAndValues], current: StaticStep | None) -> bool:
        """Drops steps, those first whose use is longest ago, until another one may be kept; False where it may not."""
        a_token = sum(x.shape[1] * x.shape[3] * x.element_size() for layer in like for x in layer)
        needed = a_token * (shape.rows * shape.columns + shape.shared)
        most = min(_MOST_BYTES * self._engine.limits.cache_bytes, self.bytes + self._engine.room_bytes())
        free = [key for key, step in self._kept.items() if step is not current and not step.lent]
        if self.bytes - sum(self._kept[key].bytes for key in free) + needed > most:
            return False  # not even without them
        for key in free:
            if self.bytes + needed <= most and len(self._kept) < _MOST_KEPT:
                break
            self._drop(key)
        return self.bytes + needed <= most

    def _weights(self) -> int:
        """Says which weights a graph reads. Changed in place they are read as they are; exchanged ones stand
        elsewhere."""
        return hash(tuple(weight.data_ptr() for weight in weights_of(self._engine.network).values()))


def columns_for(lengths: Sequence[int], left: int) -> int:
    """Columns of rows that fill so many and may have so many tokens to come."""
    return bucket(max(lengths) + min(left, _AHEAD), least=128)


def small(layers: Sequence[KeysAndValues]) -> list[KeysAndValues]:
    """Of layers of (B, Hkv, S, D) types and sizes alone: no views, which would keep all of them in memory."""
    return [tuple(rows.new_empty((1, rows.shape[1], 1, rows.shape[3])) for rows in layer) for layer in layers]  # type: ignore[misc]


def _width(new: Sequence[Sequence[int]], standing: Standing) -> int:
    """Tokens of each row in the next pass."""
    longest, rows = max(map(len, new)), standing.step.shape.rows
    fits = max(standing.lengths) + _WIDE <= standing.step.shape.columns and rows * _WIDE <= _MOST_WIDE
    return _WIDE if 2 * longest >= _WIDE and fits else 1


def steps_of(engine: TreeEngine) -> StaticSteps:
    """The engine's own, made at their first use."""
    if engine.static_steps is None:
        engine.static_steps = StaticSteps(engine)
    found: StaticSteps = engine.static_steps
    return found
