"""Any model as an Answerer: it answers what waits, whole answers at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rung.errors import Busy, ModelError, Unanswerable, fault_text
from rung.models.stop_texts import cut_at
from rung.models.streaming import Ask, Hearer, Load, add_tokens, no_answer, tell_whole, whole_answers
from rung.types import Generation, Model, Request, Trainable, TrainingRow

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)
Losses = Callable[[Sequence[TrainingRow], Path | None], list[float]]


@dataclass(eq=False)
class _Waiting:
    """An ask on its way; the Ticket of who asked."""

    ask: Ask
    hears: Hearer
    cancelled: bool = False
    ended: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class OneByOne:
    """An Answerer over a model that only gives whole answers.

    together: requests of one call of `generate`, as many as wait. at_once: calls that run side by side; more than one
    only for models whose `generate` may be called from several threads. most_waiting: beyond them `submit` refuses.
    """

    def __init__(self, model: Model, *, together: int = 1, at_once: int = 1, most_waiting: int = 1000) -> None:
        self.model = model
        self._together, self._most_waiting = together, most_waiting
        self._waiting: deque[_Waiting] = deque()
        self._running: set[_Waiting] = set()
        self._changed = threading.Condition()
        self._computing = threading.Lock() if at_once == 1 else nullcontext()
        self._closed = False
        self._tokens = [0, 0, 0]  # in, cached, out
        self._threads = [threading.Thread(target=self._work, name="answers", daemon=True) for _ in range(at_once)]
        for thread in self._threads:
            thread.start()

    def submit(self, ask: Ask, hears: Hearer) -> _Waiting:
        if ask.text is not None:
            raise Unanswerable(f"{self.model.name} answers messages only. Ask for a chat completion.", "prompt")
        if ask.logprobs is not None:
            raise Unanswerable(f"{self.model.name} tells no log-probabilities here. Leave them out.", "logprobs")
        if ask.top_p != 1.0:
            raise Unanswerable(f"{self.model.name} samples from all tokens here. Leave top_p out.", "top_p")
        return self._put(ask, hears)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Whole answers, in order. They wait among the others, and are not refused for their number."""
        return whole_answers(requests, partial(self._put, refuse=False))

    @property
    def row_losses(self) -> Losses | None:
        """As the model's, where it has them; they wait for the call of `generate` that runs."""
        own: Losses | None = getattr(self.model, "row_losses", None) if len(self._threads) == 1 else None
        return None if own is None else partial(self._alone, own)

    def too_long(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        assert isinstance(self.model, Trainable)
        return self._alone(self.model.too_long, rows)

    def hold(self, adapter: Path) -> None:
        from rung.models.local import LocalModel

        if not isinstance(self.model, LocalModel):
            raise ModelError(f"adapter {adapter}: {self.model.name} is not in this process, so that it takes none.")
        self._alone(self.model.check_fits, adapter)

    def release(self, adapter: Path) -> None:
        if (release := getattr(self.model, "release", None)) is not None:
            self._alone(release, adapter)

    def load(self) -> Load:
        with self._changed:
            return Load(len(self._running), len(self._waiting), 0, *self._tokens)

    def close(self, grace_s: float = 0.0) -> None:
        """What waits is refused at once; what runs has `grace_s` seconds to end."""
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for one in waiting:
            self._end(one, no_answer("the server ends"))
        for thread in self._threads:
            thread.join(grace_s)

    def _alone(self, work: Callable[..., _Result], *args: object) -> _Result:
        with self._computing:
            return work(*args)

    def _put(self, ask: Ask, hears: Hearer, *, refuse: bool = True) -> _Waiting:
        with self._changed:
            if self._closed:
                raise Busy("the server is about to end. Try again later.")
            if refuse and len(self._waiting) >= self._most_waiting:
                raise Busy(f"{len(self._waiting):,} requests wait already. Try again later.")
            one = _Waiting(ask, hears)
            self._waiting.append(one)
            self._changed.notify()
        return one

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                taken = [self._waiting.popleft() for _ in range(min(self._together, len(self._waiting)))]
                self._running |= set(taken)
            for one in taken:
                if one.cancelled:
                    self._end(one, no_answer("nobody listens any more"))
            self._answer([one for one in taken if not one.ended])

    def _answer(self, taken: list[_Waiting]) -> None:
        if not taken:
            return
        try:
            with self._computing:
                generations = self.model.generate([one.ask.request for one in taken])
            if len(generations) != len(taken):
                raise ModelError(f"{self.model.name} gave {len(generations)} answers to {len(taken)} requests.")
        except Exception as error:  # of a model of any kind: the others who wait must not suffer from it
            if len(taken) > 1:
                for one in taken:
                    self._answer([one])
                return
            generations = [no_answer(fault_text(error))]
        for one, generation in zip(taken, generations, strict=True):
            self._end(one, cut_at(generation, one.ask.stop))

    def _end(self, one: _Waiting, generation: Generation) -> None:
        with self._changed:
            self._running.discard(one)
            add_tokens(self._tokens, generation)
        one.ended = True
        try:
            tell_whole(one.hears, generation)
        except Exception:  # of who asked: this thread must live on
            _log.exception("an answer could not be told")
