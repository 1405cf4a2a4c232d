"""Counts what a model computes and costs, and gives all its failures one kind of error.

Whatever the budget and the ledger know of a model, they know from this wrapper. It passes on what the model knows of
itself, and estimates the speed of one that does not measure itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import ModelError, OutOfMemory, RungError, first_line
from rung.models import speed as speeds
from rung.types import (
    Constraint,
    Generation,
    Measured,
    Model,
    Price,
    Progress,
    Request,
    Speed,
    Trainable,
    TrainingOptions,
    TrainingRow,
)


class Metered:
    """A Model, and Measured, around any model. It is Trainable exactly when the wrapped model is.

    calls: answers that were asked for. tokens_in, tokens_out: of these answers. seconds: in which the model answered
    or trained. Exceptions that are not RungErrors become ModelError, or OutOfMemory where memory ran out.
    price: of tokens, by the million; None: the model's own.
    """

    def __new__(cls, model: Model, price: Price | None = None) -> Metered:
        trainable = cls is Metered and isinstance(model, Trainable)
        return super().__new__(_MeteredTrainable if trainable else cls)

    def __init__(self, model: Model, price: Price | None = None) -> None:
        self.inner = model
        self.name, self.version, self.context_length = model.name, model.version, model.context_length
        self.answers_key, self.thought_tokens = speeds.answers_key(model), speeds.thought_tokens(model)
        self.price: Price | None = price or model.price
        self.calls = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.seconds = 0.0
        self._trained_tokens = 0
        self._estimate: Speed | None = None

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As the model does. Raises ModelError when it does not return one Generation a request."""
        self.calls += len(requests)
        with self._timed(), _failures(self.inner):
            generations = list(self.inner.generate(requests))
        if len(generations) != len(requests):
            raise ModelError(f"model {self.name}: it gave {len(generations)} answers to {len(requests)} requests.")
        self.tokens_in += sum(g.tokens_in for g in generations)
        self.tokens_out += sum(g.tokens_out for g in generations)
        return generations

    def count_tokens(self, text: str) -> int:
        return self.inner.count_tokens(text)

    def check(self, constraint: Constraint) -> None:
        self.inner.check(constraint)

    # ---- what it has cost ------------------------------------------------------------------

    @property
    def computed_tokens(self) -> int:
        """As the model measures it; else tokens in and out, and trained tokens twice."""
        if isinstance(self.inner, Measured):
            return self.inner.computed_tokens
        return self.tokens_in + self.tokens_out + 2 * self._trained_tokens

    @property
    def usd(self) -> float:
        """Dollars for tokens. A price by the hour is not counted here: a machine costs as much while it waits.

        No token is taken to be cached, so that a provider's cache can only make it cheaper.
        """
        if self.price is None:
            return 0.0
        price_in, price_out = self.price.usd_per_million_in or 0.0, self.price.usd_per_million_out or 0.0
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6

    # ---- what it knows of its computing -----------------------------------------------------

    def speed(self) -> Speed:
        """As the model measures it, else an estimate from two answers, which are counted like any others."""
        if isinstance(self.inner, Measured):
            return self.inner.speed()
        if self._estimate is None:
            self._estimate = speeds.estimated_speed(self)
        return self._estimate

    def describe(self) -> dict[str, Any]:
        return speeds.describe(self.inner)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started


class _MeteredTrainable(Metered):
    """Metered, with what a Trainable has."""

    inner: Trainable

    def train(
        self,
        rows: Sequence[TrainingRow],
        options: TrainingOptions,
        folder: Path,
        *,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        """As the model does. What on_step raises passes through unchanged."""
        last: Progress | None = None
        stopped: list[BaseException] = []

        def step(progress: Progress) -> None:
            nonlocal last
            # A training that continues reports tokens of earlier commands too: its first step counts as an average one.
            before = last.tokens if last is not None else progress.tokens * (progress.step - 1) // progress.step
            self._trained_tokens += progress.tokens - before
            last = progress
            try:
                on_step(progress)
            except BaseException as error:
                stopped.append(error)
                raise

        with self._timed(), _failures(self.inner, stopped):
            return self.inner.train(rows, options, folder, until=until, start=start, on_step=step)

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        return self.inner.too_long(rows)

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        with self._timed(), _failures(self.inner):
            return self.inner.loss(rows, adapter)

    def release(self, adapter: Path) -> None:
        self.inner.release(adapter)


def metered(model: Model, price: Price | None = None) -> Metered:
    """The model with counters. A model that has them already keeps them, with this price where one is given."""
    if isinstance(model, Metered):
        model.price = price or model.price
        return model
    return Metered(model, price)


@contextmanager
def _failures(model: Model, stopped: Sequence[BaseException] = ()) -> Iterator[None]:
    """Within: exceptions of a model become ModelError; those in `stopped` are not the model's and pass through."""
    try:
        yield
    except RungError:
        raise
    except Exception as error:
        if error in stopped:
            raise
        fact = first_line(error)
        if is_out_of_memory(error):
            raise OutOfMemory(f"model {model.name}: memory ran out ({fact}). Close other programs.") from error
        raise ModelError(f"model {model.name}: the model failed: {fact}.") from error
