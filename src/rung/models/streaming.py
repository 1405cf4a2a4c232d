"""Answers as they are written, to many who ask at once: what is asked, what is heard, and who answers.

An Answerer takes requests at any time, from any thread, and tells each caller of its own answer piece by piece.
`continuous.Continuous` is the local engine; `one_by_one.OneByOne` is any other model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rung.errors import came
from rung.types import Generation, Model, Request


@dataclass(frozen=True)
class Ask:
    """A request, and what a service's caller may add to it.

    text: instead of the request's messages, a text that the model continues as it is. top_p: tokens are sampled from
    the likeliest ones that hold this share. stop: texts before which the answer ends. logprobs: so many of the
    likeliest tokens are told at each place beside the one that was chosen; None: no log-probabilities.
    """

    request: Request
    text: str | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True)
class Token:
    """A token that was written, or could have been. bytes: that it adds to the answer."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class WrittenToken(Token):
    """A token of an answer. top: the likeliest tokens at its place, the likeliest first."""

    top: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer: whole characters of its text, and its tokens where log-probabilities were asked for."""

    text: str
    tokens: tuple[WrittenToken, ...] = ()


class Hearer(Protocol):
    """Who asked. Called from the answerer's own thread: it must not take long, nor raise.

    `begun` once, when the prompt was read, and not at all where it never was; `piece` any number of times; `done` once,
    at the end in any case. The texts of the pieces together are the text of the Generation.
    """

    def begun(self, tokens_in: int, tokens_cached: int) -> None: ...

    def piece(self, piece: Piece) -> None: ...

    def done(self, generation: Generation) -> None: ...


class Whole:
    """A Hearer that waits for the whole answer."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._generation: Generation | None = None

    def begun(self, tokens_in: int, tokens_cached: int) -> None: ...

    def piece(self, piece: Piece) -> None: ...

    def done(self, generation: Generation) -> None:
        self._generation = generation
        self._ended.set()

    def wait(self) -> Generation:
        """The answer, once it is whole."""
        self._ended.wait()
        assert self._generation is not None
        return self._generation


def whole_answers(requests: Sequence[Request], put: Callable[[Ask, Hearer], Ticket]) -> list[Generation]:
    """Whole answers, in order. put: takes an ask on, however many wait. A Ctrl-C, or what it raises, cancels them."""
    kept = [Whole() for _ in requests]
    tickets: list[Ticket] = []
    try:
        for request, hears in zip(requests, kept, strict=True):
            tickets.append(put(Ask(request), hears))
        return [hears.wait() for hears in kept]
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise


def add_tokens(sums: list[int], generation: Generation) -> None:
    """sums: of tokens in, of these cached, and out."""
    for place, tokens in enumerate((generation.tokens_in, generation.tokens_cached, generation.tokens_out)):
        sums[place] += tokens


def tell_whole(hears: Hearer, generation: Generation) -> None:
    """Tells an answer that is there at once."""
    if came(generation.error):
        hears.begun(generation.tokens_in, generation.tokens_cached)
    if generation.text:
        hears.piece(Piece(generation.text))
    hears.done(generation)


def no_answer(why: str) -> Generation:
    return Generation("", 0, 0, 0.0, "error", why)


class Ticket(Protocol):
    """An answer that is on its way."""

    def cancel(self) -> None:
        """Nobody listens any more: the answer ends at the next token, with finish "error"."""
        ...


@dataclass(frozen=True)
class Load:
    """What an answerer has to do. running, waiting: requests. adapters: folders that it holds in memory."""

    running: int = 0
    waiting: int = 0
    adapters: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0


class Answerer(Protocol):
    """Answers requests as they come. It is a Model too, whose `generate` waits among the others: a search asks so.

    - `submit` returns at once. Raises Busy where too many wait already, ModelError once it is closed.
    - `hold` reads an adapter folder and checks it against the base (ModelError says what is wrong), before a request
      names it. `release` lets go of it once no request uses it.
    - `close` ends what runs and waits after at most `grace_s` seconds.
    """

    @property
    def model(self) -> Model: ...

    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...

    def submit(self, ask: Ask, hears: Hearer) -> Ticket: ...

    def hold(self, adapter: Path) -> None: ...

    def release(self, adapter: Path) -> None: ...

    def load(self) -> Load: ...

    def close(self, grace_s: float = 0.0) -> None: ...


def as_model(answerer: Answerer) -> Model:
    """The base as a Model whose requests wait among all others. It computes losses of answers where the answerer does:
    passages are judged by them, in a service as in a run."""
    return _Waiting(answerer)


class _Waiting:
    def __init__(self, answerer: Answerer) -> None:
        model = answerer.model
        self.name, self.version, self.price = model.name, model.version, model.price
        self.context_length = model.context_length
        self.generate, self.count_tokens, self.check = answerer.generate, model.count_tokens, model.check
        if (losses := getattr(answerer, "row_losses", None)) is not None:
            self.row_losses, self.too_long = losses, answerer.too_long  # type: ignore[attr-defined]
