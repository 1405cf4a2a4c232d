"""Counts what a model computes and costs, and gives all its failures one kind of error.

Whatever the budget and the ledger know of a model, they know from this wrapper. It passes on what the model knows of
itself, and estimates the speed of one that does not measure itself. A model that is paid by the token takes its dollars
from a purse: by itself where it can, else here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import BudgetSpent, ModelError, OutOfMemory, RungError, first_line, may_pass
from rung.models import speed as speeds
from rung.models.purse import Purse
from rung.types import (
    DPO,
    Constraint,
    Generation,
    Measured,
    Model,
    PreferenceRow,
    Preferring,
    Price,
    Progress,
    Request,
    Speed,
    Trainable,
    TrainingOptions,
    TrainingRow,
)

if TYPE_CHECKING:
    from rung.models.card_worker import Ahead
    from rung.models.cards import Cards

Ask = Callable[[Sequence[Request]], Sequence[Generation]]

_MARGIN, _TURN_TOKENS = 1.1, 16
"""By how much a provider may count more tokens than `count_tokens`, and what it may add around a turn."""


class Metered:
    """A Model, and Measured, around any model. It is Trainable, and Preferring, exactly when the wrapped model is.

    calls: answers that were asked for. tokens_in, tokens_out: of these answers. tokens_cached: of tokens_in, those that
    the provider read from its cache. kept: answers that cost nothing, because an earlier call had brought them; they
    are no calls. seconds: in which the model answered or trained.
    Exceptions that are not RungErrors become ModelError, or OutOfMemory where memory ran out.
    price: of tokens, by the million; None: the model's own.
    """

    def __new__(cls, model: Model, price: Price | None = None) -> Metered:
        if cls is Metered and isinstance(model, Trainable):
            cls = _MeteredPreferring if isinstance(model, Preferring) else _MeteredTrainable
        return super().__new__(cls)

    def __init__(self, model: Model, price: Price | None = None) -> None:
        self.inner = model
        self.name, self.version, self.context_length = model.name, model.version, model.context_length
        self.answers_key, self.thought_tokens = speeds.answers_key(model), speeds.thought_tokens(model)
        self.count_error = speeds.count_error(model)
        self.price: Price | None = price or model.price
        self.calls = self.kept = 0
        self.tokens_in = self.tokens_out = self.tokens_cached = 0
        self.seconds = 0.0
        self._purse: Purse | None = None
        self._charged_usd = 0.0  # as answers say it
        self._uncharged = Counter(tokens_in=0, tokens_cached=0, tokens_out=0)  # of the other answers
        self._trained_tokens = 0
        self._estimate: Speed | None = None

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """As the model does.

        Raises ModelError when it does not return one Generation a request, and BudgetSpent when the purse does not
        suffice for one more.
        """
        return self._paid(self.inner.generate, requests)

    def _paid(self, ask: Ask, requests: Sequence[Request]) -> list[Generation]:
        """What the model answers, counted, and paid from the purse where there is one: in parts that it allows."""
        if self._purse is None or not _by_the_token(self.price):
            return self._counted(ask, requests)
        found: list[Generation] = []
        while len(found) < len(requests):
            found += self._afforded(self._purse, ask, requests[len(found) :])
        return found

    def _afforded(self, purse: Purse, ask: Ask, requests: Sequence[Request]) -> list[Generation]:
        """Answers to the first of the requests, at least one: as many as the purse allows for in the worst case."""
        worst = [self._worst_usd(request) for request in requests]
        most = len(requests)
        while not purse.reserve(reserved := sum(worst[:most])):
            if most == 1:
                left = purse.left or 0.0
                raise BudgetSpent(
                    f"model {self.name}: the next answer may cost {worst[0]:.2g} USD, and {left:.2g} USD are left"
                )
            most //= 2
        actual = reserved  # of answers that do not come: they may have been charged
        try:
            generations = self._counted(ask, requests[:most])
            actual = sum(charged_usd(g, self.price) for g in generations)
        finally:
            purse.settle(reserved, actual)
        return generations

    def _counted(self, ask: Ask, requests: Sequence[Request]) -> list[Generation]:
        self.calls += len(requests)
        try:
            with self._clock(), _failures(self.inner):
                generations = list(ask(requests))
        except BudgetSpent:
            self.calls -= len(requests)
            raise
        if len(generations) != len(requests):
            raise ModelError(f"model {self.name}: it gave {len(generations)} answers to {len(requests)} requests.")
        for generation in generations:
            if generation.usd == 0.0 and not may_pass(generation.error):
                self.calls -= 1
                self.kept += 1
            else:
                self._count(generation)
        return generations

    def _count(self, generation: Generation) -> None:
        self.tokens_in += generation.tokens_in
        self.tokens_cached += generation.tokens_cached
        self.tokens_out += generation.tokens_out
        if generation.usd is not None:
            self._charged_usd += generation.usd
        else:
            self._uncharged.update(
                tokens_in=generation.tokens_in, tokens_cached=generation.tokens_cached, tokens_out=generation.tokens_out
            )

    def _tokens_usd(self, tokens_in: float, tokens_out: float, tokens_cached: float = 0) -> float:
        return self.price.tokens_usd(tokens_in, tokens_out, tokens_cached) if self.price is not None else 0.0

    def _worst_usd(self, request: Request) -> float:
        """The most that an answer to it can cost, in dollars."""
        read = sum(self.count_tokens(m.content) * _MARGIN + _TURN_TOKENS for m in request.messages)
        written = request.decoding.max_new_tokens + self.thought_tokens
        return self._tokens_usd(read, written)

    def use_purse(self, purse: Purse) -> None:
        """From now on dollars for tokens come from it."""
        own = getattr(self.inner, "use_purse", None)
        if own is not None:
            own(purse, self.price)
        else:
            self._purse = purse

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
        """Dollars for tokens: as answers say it, else their tokens at the price.

        A price by the hour is not counted here: a machine costs as much while it waits.
        """
        return self._charged_usd + self._tokens_usd(**self._uncharged)

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

    # ---- what a model may have beyond the protocol ------------------------------------------

    @property
    def block(self) -> int | None:
        """Answers that are best asked for at once, which may change; None where the model does not say."""
        return getattr(self.inner, "block", None)

    @property
    def timed(self) -> Callable[[Sequence[Request], int], list[Generation]] | None:
        """(requests, concurrency) -> fresh answers with so many in flight; None where the model cannot."""
        own = getattr(self.inner, "timed", None)
        if own is None:
            return None
        return lambda requests, concurrency: self._paid(lambda asked: own(asked, concurrency), requests)

    @property
    def row_losses(self) -> Callable[[Sequence[TrainingRow], Path | None], list[float]] | None:
        """(rows, adapter) -> the mean loss per answer token of each row; None where the model cannot. Each prompt is a
        call, and its tokens are paid for once. Raises BudgetSpent when the purse does not suffice."""
        own = getattr(self.inner, "row_losses", None)
        if own is None:
            return None

        def counted(rows: Sequence[TrainingRow], adapter: Path | None) -> list[float]:
            prompts = {row.messages for row in rows}
            read = sum(self.count_tokens(m.content) for prompt in prompts for m in prompt)
            usd = self._tokens_usd(read, 0)
            if self._purse is not None and not self._purse.reserve(usd):
                raise BudgetSpent(f"model {self.name}: {len(prompts):,} passages to judge would cost {usd:.2g} USD")
            try:
                with self._clock(), _failures(self.inner):
                    found = list(own(rows, adapter))
            finally:
                if self._purse is not None:
                    self._purse.settle(usd, usd)
            self.calls += len(prompts)
            self._count(Generation("", read, 0, 0.0))
            return found

        return counted

    @property
    def cards(self) -> Cards | None:
        """The processes on other cards that train beside this one; None where there are none."""
        return getattr(self.inner, "cards", None)

    def start_cards(self) -> None:
        """Has them load the model already, where the model says that it may."""
        if (own := getattr(self.inner, "start_cards", None)) is not None:
            own()

    def close_cards(self) -> None:
        """Ends these processes, which start anew when they are needed."""
        if (own := getattr(self.inner, "close_cards", None)) is not None:
            own()

    def ahead(self, jobs: Sequence[Ahead], say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Within: other cards do these trainings until they are asked for; nothing where the model has none.

        What they compute counts as this model's own. say: hears what went wrong there.
        """
        own = getattr(self.inner, "ahead", None)
        return own(jobs, say) if own is not None else nullcontext()

    @property
    def remark(self) -> str | None:
        """What a user should know of the model before a run; None where there is nothing."""
        return getattr(self.inner, "remark", None)

    def facts(self) -> dict[str, Any]:
        """What the record of a run keeps of the model; empty where it says nothing."""
        own = getattr(self.inner, "facts", None)
        return dict(own()) if own is not None else {}

    @contextmanager
    def _clock(self) -> Iterator[None]:
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
        with self._counted_steps(on_step) as step:
            return self.inner.train(rows, options, folder, until=until, start=start, on_step=step)

    @contextmanager
    def _counted_steps(self, on_step: Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
        """Within: a training, whose steps are to be told to what this gives."""
        last: Progress | None = None
        stopped: list[BaseException] = []

        def step(progress: Progress) -> None:
            nonlocal last
            if progress.step > 0:
                # A training that continues reports tokens of earlier commands too: its first step counts as an average
                # one.
                before = last.tokens if last is not None else progress.tokens * (progress.step - 1) // progress.step
                self._trained_tokens += progress.tokens - before
                last = progress
            try:
                on_step(progress)
            except BaseException as error:
                stopped.append(error)
                raise

        with self._clock(), _failures(self.inner, stopped):
            yield step

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        return self.inner.too_long(rows)

    def loss(self, rows: Sequence[TrainingRow], adapter: Path | None) -> float:
        with self._clock(), _failures(self.inner):
            return self.inner.loss(rows, adapter)

    def release(self, adapter: Path) -> None:
        self.inner.release(adapter)


class _MeteredPreferring(_MeteredTrainable):
    """Metered, with what a Preferring has."""

    inner: Preferring

    def prefer(
        self,
        rows: Sequence[PreferenceRow],
        options: TrainingOptions,
        folder: Path,
        *,
        how: DPO,
        until: int | None = None,
        start: Path | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        """As the model does. What on_step raises passes through unchanged."""
        with self._counted_steps(on_step) as step:
            return self.inner.prefer(rows, options, folder, how=how, until=until, start=start, on_step=step)


def charged_usd(answer: Generation, price: Price | None) -> float:
    """Dollars that an answer was charged: as it says, else its tokens at the price; 0 without a price."""
    if answer.usd is not None:
        return answer.usd
    return price.tokens_usd(answer.tokens_in, answer.tokens_out, answer.tokens_cached) if price is not None else 0.0


def metered(model: Model, price: Price | None = None) -> Metered:
    """The model with counters. A model that has them already keeps them, with this price where one is given."""
    if isinstance(model, Metered):
        model.price = price or model.price
        return model
    return Metered(model, price)


def _by_the_token(price: Price | None) -> bool:
    return price is not None and (price.usd_per_million_in is not None or price.usd_per_million_out is not None)


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
