"""How many calls run at once, and when all of them wait: one gate for all calls to an endpoint.

Knows nothing of HTTP. Every operation takes constant time, however many calls wait. Times are the event loop's.

Concurrency as in TCP: doubled a round at first, then one more a round, halved when the endpoint refuses for its rate
limit (additive increase, multiplicative decrease; Chiu and Jain, 1989). Where more calls at once only make each slower,
growth is taken back and tried again later (after TCP Vegas; Brakmo and Peterson, 1995), so that a server that computes
one after another is not buried under requests. A round is as many answers as calls may run at once.
"""

from __future__ import annotations

import asyncio
from collections import deque

FIRST_LIMIT = 8  # calls at once before anything is known
_GROWN = 1.5  # growth is judged when so many times more calls ran at once than before
_CROWDED = 0.8  # an answer's time may grow by the growth to this power; on a serial server it grows by its power 1
_UNJUDGED = 4.0  # growth goes no further than this before it is judged
_FIRST_HOLD, _MOST_HOLD = 4, 32  # rounds without growth after growth was taken back; doubled each time in a row


class _Round:
    """Means over the answers of one round: calls that ran when each was asked for, and seconds that it took.

    size: answers of a round, which is also the limit at its beginning.
    """

    def __init__(self, size: int) -> None:
        self.size, self.answers = size, 0
        self.among = self.seconds = 0.0

    def add(self, among: int, seconds: float) -> bool:
        """Returns whether the round is over."""
        self.answers += 1
        self.among += (among - self.among) / self.answers
        self.seconds += (seconds - self.seconds) / self.answers
        return self.answers >= self.size


class PausedTooLong(Exception):
    """The endpoint asked for a pause that is longer than a call may take. seconds: from now to its end."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.0f} s")
        self.seconds = seconds


class Gate:
    """in_flight: most calls at once, which is also where it starts; None: found out, up to `most`.

    most_pause_s: a longer pause is not waited for; waiting calls get PausedTooLong.
    """

    def __init__(self, in_flight: int | None, most: int, most_pause_s: float) -> None:
        self.most = most if in_flight is None else max(1, min(in_flight, most))
        self.running = 0
        self._named = in_flight is not None
        self._limit = float(self.most if self._named else min(FIRST_LIMIT, self.most))
        self._most_pause_s = most_pause_s
        self._doubling = not self._named
        self._again: deque[asyncio.Future[None]] = deque()  # retries come first: their deadline is running
        self._first: deque[asyncio.Future[None]] = deque()
        self._until, self._timer = 0.0, False
        self._halved_at = float("-inf")
        self._round = _Round(self.limit)
        self._before: _Round | None = None  # what growth is compared with
        self._hold, self._next_hold = 0, _FIRST_HOLD

    @property
    def limit(self) -> int:
        """Calls that may run at once now."""
        return int(self._limit)

    @property
    def waiting(self) -> int:
        """Calls that wait for room, those that were just cancelled among them."""
        return len(self._again) + len(self._first)

    def pause_left(self) -> float:
        """Seconds until calls may start again; 0.0 while they may."""
        if not self._until:
            return 0.0
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def enter(self, *, again: bool = False) -> None:
        """Wait for room. Whoever entered must leave. Raises PausedTooLong."""
        if not self._again and not self._first and self.running < self.limit and not self.pause_left():
            self.running += 1
            return
        if self.pause_left() > self._most_pause_s:
            raise PausedTooLong(self.pause_left())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._again if again else self._first).append(place)
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()  # let in and cancelled in the same turn
            raise

    def leave(self) -> None:
        self.running -= 1
        self._let_in()

    def answered(self, seconds: float, among: int) -> None:
        """A useful answer came: perhaps more may run at once.

        seconds: after its request was sent. among: how many calls ran at that time.
        """
        if not self._named and self._round.add(among, seconds):
            self._judge_growth()
        most = float(self.most)
        if not self._named:
            most = min(most, _UNJUDGED * (self._before or self._round).size)
        if self._limit < most and not self._hold and (self.waiting or self.running >= self.limit):
            self._limit = min(most, self._limit + (1.0 if self._doubling else 1.0 / self._limit))
            self._let_in()

    def limited(self, sent_at: float) -> bool:
        """A request sent at this time of the loop was refused for the rate limit. Halves once a round.

        Returns False where the limit was halved after the request was sent: it says nothing new.
        """
        if sent_at < self._halved_at:
            return False
        self._halved_at = asyncio.get_running_loop().time()
        self._limit, self._doubling = max(1.0, self._limit / 2), False
        self._round, self._before, self._hold = _Round(self.limit), None, 0
        return True

    def sent_since_halved(self, sent_at: float) -> bool:
        return sent_at >= self._halved_at

    def pause(self, seconds: float) -> None:
        """Nobody enters for so long; a longer pause that was asked for before still holds."""
        self._until = max(self._until, asyncio.get_running_loop().time() + seconds)
        if seconds > self._most_pause_s:
            for places in (self._again, self._first):
                while places:
                    if not (place := places.popleft()).done():
                        place.set_exception(PausedTooLong(seconds))
        self._let_in()

    def _let_in(self) -> None:
        if not self._again and not self._first:
            return
        if left := self.pause_left():
            if not self._timer:
                self._timer = True
                asyncio.get_running_loop().call_later(left, self._after_pause)
            return
        while self.running < self.limit and (places := self._again or self._first):
            if not (place := places.popleft()).done():
                self.running += 1
                place.set_result(None)

    def _after_pause(self) -> None:
        self._timer = False
        self._let_in()

    def _judge_growth(self) -> None:
        """At the end of a round: take growth back where it made answers slower in proportion."""
        now, self._round = self._round, _Round(self.limit)
        self._hold = max(0, self._hold - 1)
        if self._hold:
            return
        if self._before is None:
            self._before = now
            return
        before = self._before
        growth = now.among / before.among
        if growth < _GROWN:
            return
        if now.seconds > before.seconds * growth**_CROWDED:
            self._limit, self._before = min(float(before.size), self._limit), None
            self._hold, self._next_hold = self._next_hold, min(_MOST_HOLD, 2 * self._next_hold)
        else:
            self._before, self._next_hold = now, _FIRST_HOLD
