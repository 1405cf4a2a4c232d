"""Calls to an endpoint that survive its bad moments: retries, pauses, concurrency and a deadline a call.

Knows HTTP statuses and headers, nothing of language models: `accept` decides what a reply is worth. A call ends exactly
once: with what `accept` returned, or with Refused, CallFailed or a cancellation. Every failure on the way is counted in
`faults` by its kind: a status ("429", "500"), a kind of ConnectionFault ("closed", "truncated"), or one of BadReply.

- Rate limits (429) halve the concurrency and pause all calls: for as long as the endpoint asks, else for a random part
  of a span that doubles while nothing is answered (full jitter; Brooker, "Exponential Backoff And Jitter", 2015).
- Other failures that may pass (408, 409, 425, 5xx, connections, unusable replies) are tried again by their own call,
  which keeps its place meanwhile: an endpoint that is down sees no more calls than it would at work.
- A call that fails again and again in the same way, while others are answered, is at fault itself and is given up.
- The deadline begins when a call is first let in. Waiting in the queue does not count.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rung.models.endpoint.gate import Gate, PausedTooLong
from rung.models.endpoint.http_connection import ConnectionFault, OnData, Reply
from rung.models.endpoint.rate_limits import never_passes, wait_asked, wait_for_refill
from rung.models.endpoint.transport import MOST_CONNECTIONS, UNREACHABLE, Headers

T = TypeVar("T")

_MAY_PASS = frozenset({408, 409, 425, 429})  # and every status from 500 on
_OVERLOADED = frozenset({"408", "409", "425", "429", "502", "503", "504", "529"})  # says nothing of the request itself
_HOPELESS, _OTHERS = (
    8,
    4,
)  # equal failures of a call in a row, and answers to others meanwhile, after which it is given up
_FAIL_FAST_S = 5.0  # for an address at which nothing ever answered, or an endpoint that stopped answering
_BACKOFF_S, _MOST_BACKOFF_S = 0.5, 20.0  # the spans that a call's own waits are drawn from
_MOST_PAUSE_S = 60.0  # the longest span that a pause is drawn from where the endpoint asks for none
_JITTER = 0.1  # of a wait that was asked for, so that several processes do not come back at once
_DETAIL = 20_000  # characters of a refusal's body that are kept
_SHOWN = 300  # characters of it in messages


def may_pass(status: int) -> bool:
    """Whether a call that was refused with this status may be answered when it is made again."""
    return status in _MAY_PASS or status >= 500


class BadReply(Exception):
    """A reply of a good status that cannot be used and is worth asking again. kind: a few words, counted."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


class Refused(Exception):
    """What no retry cures. detail: the body of the reply, or a sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"HTTP {status}: {shown(detail)}")
        self.status, self.detail = status, detail


class CallFailed(Exception):
    """No usable reply before the deadline. kind and detail: of the last failure; attempts: requests that were sent."""

    def __init__(self, kind: str, detail: str, attempts: int) -> None:
        super().__init__(f"{kind} after {attempts} attempt{'s' if attempts != 1 else ''}: {shown(detail)}")
        self.kind, self.detail, self.attempts = kind, detail, attempts


class Exchanger(Protocol):
    """What Calls needs of a Transport."""

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Headers,
        body: bytes | None = None,
        timeout_s: float,
        on_data: OnData | None = None,
    ) -> Reply: ...


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A failure that may pass. wait: seconds that the endpoint asks for. pauses: all calls wait, not this one alone.

    stale: a kept connection was closed; sending again at once is worth it.
    """

    kind: str
    detail: str
    wait: float | None = None
    pauses: bool = False
    stale: bool = False


class Calls:
    """in_flight: most calls at once; None: found out. timeout_s: seconds a call may take with all its retries, of which
    one attempt may take half. now: seconds since 1970. draw: a random number in [0, 1).

    faults: failures by kind. sent: requests. answered: calls that `accept` took.
    """

    def __init__(
        self,
        transport: Exchanger,
        in_flight: int | None = None,
        timeout_s: float = 600.0,
        *,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        most: int = getattr(transport, "most_connections", MOST_CONNECTIONS)
        self._transport, self._timeout_s, self._now, self._draw = transport, timeout_s, now, draw
        self._gate = Gate(in_flight, most, timeout_s)
        self.faults: Counter[str] = Counter()
        self.sent = self.answered = 0
        self._reached = False  # whether any reply ever came
        self._unreachable_since: float | None = None
        self._answered_at: float | None = None  # the last useful answer, or the first request
        self._silent = False  # the endpoint gave a whole call's time nothing: the next calls are not so patient
        self._refusals_in_a_row = 0  # rounds that ended in a 429 since the last answer

    @property
    def limit(self) -> int:
        """Calls that may run at once now."""
        return self._gate.limit

    async def call(
        self,
        path: str,
        body: bytes | None,
        *,
        accept: Callable[[Reply], T],
        headers: Headers,
        method: str = "POST",
        timeout_s: float | None = None,
        attempts: int | None = None,
        watch: Callable[[], OnData] | None = None,
    ) -> T:
        """What `accept` returns for a reply of a 2xx status. It raises BadReply for one to ask again, Refused for none.

        timeout_s: another one than that of all calls. attempts: most requests to send. watch: asked before each
        attempt for what gets the pieces of its body, so that nothing of a failed attempt is mixed into the next.
        Raises Refused and CallFailed.
        """
        place = _Place(self._gate)
        try:
            await place.take()
            deadline = self._deadline(timeout_s)
            tried, fresh = 0, False
            row = _Row()
            while True:
                result = await self._attempt(method, path, body, headers, accept, watch, deadline)
                if not isinstance(result, _Trouble):
                    return result
                if result.stale and not fresh:
                    fresh = True  # once a call; it is no attempt, since mostly nobody got the request
                    continue
                tried += 1
                if row.is_hopeless(result.kind, self.answered):
                    raise CallFailed(result.kind, result.detail, tried)
                await self._before_next(result, tried, attempts, deadline, place)
        except PausedTooLong as pause:
            detail = f"The endpoint asks for no more calls for {pause.seconds:.0f} s, longer than a call may take."
            raise CallFailed("429", detail, 0) from None
        finally:
            place.give()

    def _deadline(self, timeout_s: float | None) -> float:
        now = asyncio.get_running_loop().time()
        if self._answered_at is None:
            self._answered_at = now
        patience = self._timeout_s if timeout_s is None else timeout_s
        return now + (min(patience, _FAIL_FAST_S) if self._silent else patience)

    async def _attempt(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Headers,
        accept: Callable[[Reply], T],
        watch: Callable[[], OnData] | None,
        deadline: float,
    ) -> T | _Trouble:
        sent_at = asyncio.get_running_loop().time()
        timeout_s = max(0.001, min(deadline - sent_at, self._timeout_s / 2))
        self.sent += 1
        among = self._gate.running
        trouble: _Trouble
        try:
            reply = await self._transport.exchange(
                method, path, headers=headers, body=body, timeout_s=timeout_s, on_data=watch() if watch else None
            )
        except ConnectionFault as fault:
            trouble = _Trouble(fault.kind, fault.detail, stale=fault.stale)
        else:
            self._reached = True
            try:
                trouble_or_none = self._judged(reply, sent_at)
                if trouble_or_none is None:
                    value = accept(reply)
                    self._succeeded(reply, sent_at, among)
                    return value
                trouble = trouble_or_none
            except BadReply as bad:
                trouble = _Trouble(bad.kind, bad.detail or f"The reply cannot be used: {bad.kind}.")
            except Refused as refused:
                self._count(str(refused.status))
                raise
        self._count(trouble.kind)
        return trouble

    def _judged(self, reply: Reply, sent_at: float) -> _Trouble | None:
        """None for a 2xx, which `accept` looks at. Raises Refused for what no retry cures."""
        now, status = self._now(), reply.status
        refill = wait_for_refill(reply.headers, now)
        if refill:
            self._gate.pause(refill)
        if 200 <= status < 300:
            return None
        text = reply.body[: 4 * _DETAIL].decode("utf-8", "replace")[:_DETAIL]
        if 300 <= status < 400:
            place = reply.headers.get("location", "another address")
            raise Refused(status, f"The endpoint sends on to {place}. Name that address, if you trust it.")
        asked = wait_asked(reply.headers, reply.body, now)
        limited = status == 429 or (status == 402 and asked is not None)  # OpenRouter: dollars for calls in flight
        if not (may_pass(status) or limited) or never_passes(status, reply.body):
            raise Refused(status, text)
        if limited:
            self._pause(asked or refill or None, sent_at)
        elif asked and status >= 500:
            self._gate.pause(self._jittered(asked))
        return _Trouble(str(status), text or f"HTTP {status}", asked, pauses=limited or (bool(asked) and status >= 500))

    def _pause(self, asked: float | None, sent_at: float) -> None:
        news = self._gate.limited(sent_at)
        if asked is not None:
            self._gate.pause(self._jittered(asked))
        elif news:
            span = min(_MOST_PAUSE_S, _BACKOFF_S * 2 ** min(self._refusals_in_a_row, 16))
            self._gate.pause(self._draw() * span)
        self._refusals_in_a_row += news

    def _succeeded(self, reply: Reply, sent_at: float, among: int) -> None:
        self.answered += 1
        self._answered_at, self._silent = asyncio.get_running_loop().time(), False
        if self._gate.sent_since_halved(sent_at):
            self._refusals_in_a_row = 0
        self._gate.answered(reply.seconds, among)

    async def _before_next(
        self, trouble: _Trouble, tried: int, attempts: int | None, deadline: float, place: _Place
    ) -> None:
        """Wait until the call may be tried again. Raises CallFailed where that would be too late."""
        loop = asyncio.get_running_loop()
        failed = CallFailed(trouble.kind, trouble.detail, tried)
        if attempts is not None and tried >= attempts:
            raise failed
        deadline = self._hastened(trouble, deadline, loop.time())
        span = min(_MOST_BACKOFF_S, _BACKOFF_S * 2 ** min(tried - 1, 16))
        wait = self._jittered(trouble.wait) if trouble.wait else self._draw() * span
        left = self._gate.pause_left()
        if loop.time() + (left if trouble.pauses else max(wait, left)) >= deadline:
            self._note_silence(loop.time())
            raise failed
        if not trouble.pauses:
            await asyncio.sleep(wait)
            if not self._gate.pause_left():
                return
        try:
            async with asyncio.timeout_at(deadline):
                await place.take_again()
        except (TimeoutError, PausedTooLong):
            self._note_silence(loop.time())
            raise failed from None

    def _hastened(self, trouble: _Trouble, deadline: float, now: float) -> float:
        """The deadline, or an earlier one where nothing at all answers at the endpoint's address."""
        if self._reached or trouble.kind not in UNREACHABLE:
            return deadline
        if self._unreachable_since is None:
            self._unreachable_since = now
        return min(deadline, self._unreachable_since + _FAIL_FAST_S)

    def _note_silence(self, now: float) -> None:
        if self._answered_at is not None and now - self._answered_at >= 0.9 * self._timeout_s:
            self._silent = True

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + _JITTER * self._draw())

    def _count(self, kind: str) -> None:
        self.faults[kind] += 1


class _Row:
    """Failures of one call in a row that are of one kind."""

    def __init__(self) -> None:
        self._kind, self._times, self._answered = "", 0, 0

    def is_hopeless(self, kind: str, answered: int) -> bool:
        """One more failure. answered: calls that were answered until now. Whether the call is to be given up."""
        if kind != self._kind:
            self._kind, self._times, self._answered = kind, 0, answered
        self._times += 1
        others = answered - self._answered
        return self._times >= _HOPELESS and others >= _OTHERS and kind not in _OVERLOADED


class _Place:
    """One call's place among those that run: taken and given back, never twice."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._held = gate, False

    async def take(self, *, again: bool = False) -> None:
        await self._gate.enter(again=again)
        self._held = True

    async def take_again(self) -> None:
        """Let others in first, where fewer may run than before."""
        self.give()
        await self.take(again=True)

    def give(self) -> None:
        if self._held:
            self._held = False
            self._gate.leave()


def shown(detail: str) -> str:
    """The message in a refusal's body, in one line, cut."""
    try:
        record = json.loads(detail)
    except ValueError:
        record = None
    if isinstance(record, list) and record:  # Gemini's
        record = record[0]
    if isinstance(record, Mapping):
        error = record.get("error", record)
        message = error.get("message") if isinstance(error, Mapping) else error
        detail = message if isinstance(message, str) else detail
    line = " ".join(detail.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
