"""Gradients of a batch by passes of few sizes: forward, loss and backward are recorded once a size and replayed.

On a GPU that is one launch where Python would give thousands of kernels, one by one. What a size records is compared
with the plain way on its first rows. Gradients come in the recording's own memory, so that nothing copies them. Where
many steps are to come, the layers' steps are compiled, and what is faster by the clock is kept.
Only the loss of answers; dropout and checkpointing draw random numbers, which a recording does not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from rung.engine import compiled_steps
from rung.engine.adapter_cast import CastFactors
from rung.engine.capture import Captured, GraphMemory
from rung.engine.devices import synchronize
from rung.engine.out_of_memory import is_out_of_memory
from rung.engine.static_pass import Size, StaticPass, TargetRows, can_be_static, size_for
from rung.engine.training_memory import shape_of_engine
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import TRAINING
from rung.errors import first_line
from rung.training.batches import Item
from rung.training.cross_entropy import can_fuse, fused_cross_entropy
from rung.training.loss import cut, summed_loss

_MOST_SIZES = 4  # recorded at a time
_CLOSE = (1e-4, 1e-3)  # differences of losses in nats a target token, and relative ones of gradients, in float32
_ROUNDED = (2e-2, 0.15)  # in half precision
_MOST_AGAIN = 0.5  # of the tokens of all rows, that may be computed again because parts share a prefix
_COMPILING_S = 30.0
_CLEARLY = 2.0  # what compiling may save, at least, as a multiple of what it takes
_OFTEN = 10_000_000  # steps times layers times columns of queries: as many as save the second that a plan takes
_TIMED = 8  # steps from whose median a step's time is known

Gradients = list[torch.Tensor | None]


class OtherNumbers(RuntimeError):
    """A recorded pass gave other numbers than the plain way."""


@dataclass
class _Recorded:
    """A pass of one size. factor: what the summed loss is multiplied with, 0-dimensional. uses: rows it computed."""

    inputs: StaticPass
    factor: torch.Tensor
    run: Captured[torch.Tensor]
    gradients: Gradients
    uses: int = 0
    judged: bool = False  # whether compiled steps were tried, or cannot pay


class CapturedGradients:
    """The gradients of weights in training. sizes: of passes, those used last at the end; the list is changed here.

    Which sizes are used depends on that list and on the rows alone. steps: that are to come. often: as in MaskedView.
    """

    def __init__(
        self, engine: TreeEngine, weights: Sequence[Any], sizes: list[Size], steps: int, *, often: bool = False
    ) -> None:
        self._engine, self._weights, self._sizes = engine, list(weights), sizes
        self._recorded: dict[Size, _Recorded] = {}
        self._memory: GraphMemory | None = None
        self._cast = CastFactors()
        self._steps = steps
        self._most_sizes, self._often = _MOST_SIZES, often
        self._clock: deque[float] = deque(maxlen=_TIMED + 1)

    def add(self, batch: Sequence[Item], *, micro_tokens: int, factor: float) -> tuple[torch.Tensor, int] | None:
        """Sets the gradients of the batch's summed loss times the factor. Returns that loss times the factor,
        0-dimensional, and the number of tokens computed; or None where the batch has to go the plain way.

        Raises OtherNumbers, or whatever the work raises, before any gradient is set.
        """
        parts, shared, long = cut(self._engine, batch, micro_tokens)
        if not batch or long or _is_much_again(batch, len(parts), shared):
            return None
        self._steps -= 1
        self._clock.append(time.monotonic())
        total, computed = torch.zeros((), device=self._engine.device), 0
        sums: Gradients = []
        for part in parts:
            loss, found, tokens = self._of_part(part, factor)
            total += loss.float() * factor
            computed += tokens
            if len(parts) == 1:
                sums = found
            elif not sums:
                sums = [g.clone() if g is not None else None for g in found]  # the next part writes to its place
            else:
                torch._foreach_add_([g for g in sums if g is not None], [g for g in found if g is not None])
        for weight, gradient in zip(self._weights, sums, strict=True):
            weight.grad = gradient
        self._engine.computed_tokens += 2 * computed
        return total, computed

    def closed_for_room(self) -> bool:
        """Closes what is recorded, since memory ran out, and keeps one size at a time from now on. False where that
        would free nothing: nothing is recorded, or one size at a time was too much already."""
        frees = bool(self._recorded) and self._most_sizes > 1
        if frees:
            self._most_sizes = 1
        self.close()
        return frees

    def close(self) -> None:
        """Frees what was recorded. It is recorded again when it is needed."""
        if self._recorded:
            synchronize(self._engine.device)  # nothing frees what still runs
        self._recorded.clear()
        self._memory, self._cast = None, CastFactors()

    # ---- one part of a batch ----------------------------------------------------------------------

    def _of_part(self, part: Sequence[Item], factor: float) -> tuple[torch.Tensor, Gradients, int]:
        """Its summed loss and its gradients, which the next part overwrites; tokens computed."""
        rows = TargetRows.of([(row.prompt, row.target) for item in part for row in item.rows])
        size = size_for(rows, self._sizes)
        if size in self._sizes:
            self._sizes.remove(size)
        self._sizes.append(size)
        del self._sizes[: -self._most_sizes]
        if unused := [known for known in self._recorded if known not in self._sizes]:
            synchronize(self._engine.device)
            for known in unused:
                del self._recorded[known]
        recorded = self._recorded.get(size)
        if recorded is None:
            expected = self._plain(part, factor)
            try:
                recorded = self._record(size, rows, factor)
                loss, found = self._compared(recorded, expected, len(rows.targets))
            except Exception as error:
                if is_out_of_memory(error) or not self._often:
                    raise
                self._often, recorded = False, None  # the attention that PyTorch prefers may be what failed
            else:
                self._recorded[size] = recorded
                return loss, found, rows.tokens
            return self._of_part(part, factor)
        recorded.inputs.fill(rows)
        recorded.factor.fill_(factor)
        recorded.uses += 1
        if self._would_pay(recorded):
            recorded = self._recorded[size] = self._faster(recorded, size, rows, part, factor)
        loss, found = self._run(recorded)
        return loss, found, rows.tokens

    def _run(self, recorded: _Recorded) -> tuple[torch.Tensor, Gradients]:
        loss = recorded.run()
        if not recorded.run.replays:  # gradients are new ones each time
            recorded.gradients = [weight.grad for weight in self._weights]
        return loss, recorded.gradients

    def _record(self, size: Size, rows: TargetRows, factor: float, *, compiled: bool = False) -> _Recorded:
        inputs = StaticPass(self._engine, size)
        inputs.fill(rows)
        scale = torch.full((), factor, device=self._engine.device)
        cast = None if compiled else self._cast  # a compiled step converts what it reads in its own kernels
        work = _work(self._engine, inputs, scale, cast, often=self._often)
        self._memory = self._memory or GraphMemory(self._engine.device)
        run = Captured(work, self._engine.device, self._memory, before=self._drop)
        return _Recorded(inputs, scale, run, [weight.grad for weight in self._weights])

    def _drop(self) -> None:
        for weight in self._weights:
            weight.grad = None

    # ---- compared with the plain way ----------------------------------------------------------------

    def _plain(self, part: Sequence[Item], factor: float) -> tuple[torch.Tensor, Gradients] | None:
        """The summed loss and the gradients of a part, computed plainly; None where memory does not suffice."""
        self._drop()
        try:
            loss, _ = summed_loss(self._engine, part)
            (loss * factor).backward()
            return loss.detach(), [weight.grad for weight in self._weights]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            self._drop()

    def _compared(
        self, recorded: _Recorded, expected: tuple[torch.Tensor, Gradients] | None, targets: int
    ) -> tuple[torch.Tensor, Gradients]:
        """What a recorded pass gives. Raises OtherNumbers where it is not what was expected, beyond rounding.

        targets: number of target tokens. The smaller the loss of one, the larger the share of rounding in gradients.
        """
        loss, found = self._run(recorded)
        if expected is None:
            return loss, found
        pairs = [(f, e) for f, e in zip(found, expected[1], strict=True) if f is not None or e is not None]
        if any(f is None or e is None for f, e in pairs):
            raise OtherNumbers("other weights have gradients than in the plain way")
        gaps = [f.float() - e.float() for f, e in pairs if f is not None and e is not None]
        norms = [_norm(gaps), _norm([e.float() for _, e in pairs if e is not None])]
        ours, plain, gap, norm = torch.stack([loss.float(), expected[0].float(), *norms]).tolist()
        most = _CLOSE if self._engine.dtype == torch.float32 else _ROUNDED
        finite = plain < float("inf") and norm < float("inf")  # else the step itself is wrong
        most_loss, most_gap = most[0] * (plain + targets), most[1] * norm / max(1e-9, min(1.0, plain / targets))
        if finite and not (abs(ours - plain) <= most_loss and gap <= most_gap + 1e-6):
            raise OtherNumbers(
                f"its loss is {ours:g} where the plain way gives {plain:g}, and its gradients are {gap:.2g} away from "
                f"gradients of norm {norm:.2g}"
            )
        return loss, found

    # ---- compiled steps -------------------------------------------------------------------------------

    def _would_pay(self, recorded: _Recorded) -> bool:
        """Whether compiling would clearly save more time than it takes, if it halves a step."""
        if recorded.judged or not self._engine.ways.takes("compiled", TRAINING):
            return False
        if len(self._clock) <= _TIMED or recorded.uses < _TIMED:
            return False
        step_s = median(later - earlier for earlier, later in pairwise(self._clock))
        share = recorded.uses / max(1, sum(other.uses for other in self._recorded.values()))
        return step_s / 2 * self._steps * share > _CLEARLY * _COMPILING_S

    def _faster(
        self, recorded: _Recorded, size: Size, rows: TargetRows, part: Sequence[Item], factor: float
    ) -> _Recorded:
        """The same pass with compiled steps, if that works and is faster; else the one that is there."""
        recorded.judged = True
        ways = self._engine.ways
        try:
            expected = self._plain(part, factor)
            other = self._record(size, rows, factor, compiled=True)
            self._compared(other, expected, len(rows.targets))
            other.uses, other.judged = recorded.uses, True
            before, now = self._seconds(recorded), self._seconds(other)
        except Exception as error:
            if not is_out_of_memory(error):
                ways.give_up("compiled", first_line(error), of=TRAINING)
            return recorded
        return other if now < before else recorded

    def _seconds(self, recorded: _Recorded) -> float:
        """The time of a pass, without Python's work between passes."""
        self._run(recorded)
        synchronize(self._engine.device)
        started = time.perf_counter()
        for _ in range(3):
            self._run(recorded)
        synchronize(self._engine.device)
        return time.perf_counter() - started


def captured_gradients(
    engine: Any, weights: Sequence[Any], sizes: list[Size], *, steps: int, dropout: float, often: bool = False
) -> CapturedGradients | None:
    """None where a training cannot be static: `can_be_static` says where it can; dropout draws random numbers.

    The arguments are those of CapturedGradients.
    """
    if dropout or not isinstance(engine, TreeEngine) or not can_be_static(engine):
        return None
    return CapturedGradients(engine, weights, sizes, steps, often=often)


def attends_often(engine: Any, steps: int) -> bool:
    """Whether a training of so many steps pays for plans of attention, as `gpu_kernels.masked_attention` says."""
    shape = shape_of_engine(engine)
    return shape is not None and steps * shape.layers * shape.queries >= _OFTEN


def _work(
    engine: TreeEngine, inputs: StaticPass, factor: torch.Tensor, cast: CastFactors | None, *, often: bool
) -> Callable[[], torch.Tensor]:
    """Forward, loss and backward as a function that returns the summed loss and leaves gradients in the weights.

    cast: of the adapter; None: its layers run their compiled steps.
    """
    output, compiled = engine.network.get_output_embeddings(), cast is None

    def work() -> torch.Tensor:
        with compiled_steps.taken(compiled), engine.adapters.casting(cast):
            hidden = inputs.hidden(sparse=compiled, often=often)
            if can_fuse(engine):
                loss = fused_cross_entropy(hidden, output, inputs.targets)
            else:
                loss = torch.nn.functional.cross_entropy(engine.logits(hidden), inputs.targets, reduction="sum")
            (loss * factor).backward()
        found: torch.Tensor = loss.detach()
        return found

    return work


def _is_much_again(batch: Sequence[Item], parts: int, shared: int) -> bool:
    """Whether the prefix that all rows share is so long that one pass for it pays, before those of the parts."""
    own = sum(row.tokens - shared for item in batch for row in item.rows)
    return (parts - 1) * shared > _MOST_AGAIN * own


def _norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    found: torch.Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])
    )
    return found
