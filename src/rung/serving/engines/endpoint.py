"""A model behind an endpoint as an Answerer: each request is a call of its own, told while it is written.

Answers are not kept on disk: what clients ask is theirs. The key stays in this process's environment, and the address
is in no error that a client sees. How many calls run at once, and when they wait, is the endpoint's `Gate`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

from rung.errors import Busy, ModelError, Unanswerable, came, fault_text
from rung.models.endpoint.endpoint import Endpoint
from rung.models.stop_texts import cut_at, first_stop, held_back
from rung.models.streaming import Ask, Hearer, Load, Piece, add_tokens, whole_answers
from rung.models.thinking import PAIRS
from rung.text import whole
from rung.types import Generation, Request

_STOPS_SENT = 4  # that OpenAI takes; the others are looked for here


class Proxied:
    """An Answerer over an Endpoint. most_waiting: beyond them `submit` refuses."""

    def __init__(self, model: Endpoint, *, most_waiting: int = 256) -> None:
        self.model = model
        self._endpoint, self._most_waiting = model, most_waiting
        self._going: set[_Going] = set()
        self._tokens = [0, 0, 0]  # in, cached, out
        self._changed = threading.Condition()
        self._closed = False
        model.look()

    def submit(self, ask: Ask, hears: Hearer) -> _Going:
        if ask.text is not None:
            raise Unanswerable(f"{self.model.name} answers messages only. Ask for a chat completion.", "prompt")
        if ask.logprobs is not None:
            raise Unanswerable(f"{self.model.name} tells no log-probabilities here. Leave them out.", "logprobs")
        if self.load().waiting >= self._most_waiting:
            raise Busy(f"{self._most_waiting:,} requests wait already. Try again later.")
        return self._put(ask, hears)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Whole answers, in order. They wait among the others, and are not refused for their number."""
        return whole_answers(requests, self._put)

    def hold(self, adapter: Path) -> None:
        raise ModelError(
            f"adapter {adapter.name}: {self.model.name} is an endpoint, which takes no adapters from here."
        )

    def release(self, adapter: Path) -> None: ...

    def load(self) -> Load:
        going = len(self._going)
        running = min(going, self._endpoint.in_flight)
        return Load(running, going - running, 0, *self._tokens)

    def close(self, grace_s: float = 0.0) -> None:
        """What waits and runs has `grace_s` seconds to end."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._going, grace_s)
        self._endpoint.close()

    def _put(self, ask: Ask, hears: Hearer) -> _Going:
        going = _Going(ask, hears, self._endpoint)
        with self._changed:
            if self._closed:
                raise Busy("the server is about to end. Try again later.", 5.0)
            self._going.add(going)
        more: dict[str, object] = {"stop": list(ask.stop[:_STOPS_SENT])} if ask.stop else {}
        more |= {"top_p": ask.top_p} if ask.top_p != 1.0 else {}

        def ended(future: Future[Generation]) -> None:
            generation = going.ended(future)
            with self._changed:
                self._going.discard(going)
                add_tokens(self._tokens, generation)
                self._changed.notify_all()

        try:
            going.start(more, ended)
        except BaseException:
            with self._changed:
                self._going.discard(going)
            raise
        return going


class _Going:
    """A request on its way; the Ticket of who asked."""

    def __init__(self, ask: Ask, hears: Hearer, endpoint: Endpoint) -> None:
        self._ask, self._hears, self._endpoint = ask, hears, endpoint
        self._told = ""
        self._begun = False
        self._stop: Callable[[], None] = lambda: None

    def start(self, more: dict[str, object], ended: Callable[[Future[Generation]], None]) -> None:
        self._stop = self._endpoint.start(self._ask.request, ended, more, self._attempt)

    def cancel(self) -> None:
        self._stop()

    def ended(self, future: Future[Generation]) -> Generation:
        """The end in any case: what is left is told, and then that it is over."""
        generation = self._whole(future)
        if came(generation.error):
            self._begin(generation.tokens_in, generation.tokens_cached)
        self._tell(generation.text)
        self._hears.done(generation)
        return generation

    def _whole(self, future: Future[Generation]) -> Generation:
        try:
            generation = cut_at(future.result(), self._ask.stop)
        except CancelledError:
            return Generation(self._told, 0, 0, 0.0, "error", "nobody listens any more")
        except Exception as error:  # of this call; others go on
            return Generation(self._told, 0, 0, 0.0, "error", self._without_address(fault_text(error)))
        if not generation.text.startswith(self._told):
            fault = generation.error or "the connection broke, and the next answer began in another way"
            return replace(generation, text=self._told, finish="error", error=self._without_address(fault))
        if generation.error is not None:
            return replace(generation, error=self._without_address(generation.error))
        return generation

    def _attempt(self) -> Callable[[str], None]:
        """What gets the pieces of one attempt. What was told of an earlier one is not told again."""
        text = ""

        def more(piece: str) -> None:
            nonlocal text
            text += whole(piece)
            if _may_be_thought(text):
                return
            at = first_stop(text, self._ask.stop)
            if not self._begun:
                self._begin(sum(self._endpoint.count_tokens(turn.content) for turn in self._ask.request.messages), 0)
            self._tell(text[: len(text) - held_back(text, self._ask.stop) if at is None else at])

        return more

    def _begin(self, tokens_in: int, tokens_cached: int) -> None:
        if not self._begun:
            self._begun = True
            self._hears.begun(tokens_in, tokens_cached)

    def _tell(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            self._hears.piece(Piece(text[len(self._told) :]))
            self._told = text

    def _without_address(self, text: str) -> str:
        spec = self._endpoint.spec
        for address in (spec.endpoint, spec.authority, spec.host):
            text = text.replace(address, "its endpoint") if address else text
        return text


def _may_be_thought(text: str) -> bool:
    """Whether a text begins, or may go on to begin, with a thought, which is no part of an answer."""
    bare = text.lstrip()
    return not bare or any(bare.startswith(start) or start.startswith(bare) for start, _ in PAIRS)
