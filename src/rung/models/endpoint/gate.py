"""How many calls run at once, and when all of them wait: one gate for all calls to an endpoint.

Knows nothing of HTTP. Every operation takes constant time, however many calls wait. Times are the event loop's.

Concurrency as in TCP: doubled a round at first, then one more a round, halved when the endpoint refuses for its rate
limit (additive increase, multiplicative decrease; Chiu and Jain, 1989). Growth also ends where more calls at once only
make each slower (as in TCP Vegas; Brakmo and Peterson, 1995), so that a server that computes one after another is not
buried under requests. A round is as many answers as calls may run at once.
"""

from __future__ import annotations

import asyncio
from collections import deque

FIRST_LIMIT = 8  # calls at once before anything is known
_CROWDED = 2.0  # a round this many times slower than a round on an idle server ends growth
_FORGET = 0.05  # how much of the difference a slower round adds to what an idle server is thought to take


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
        self._round_answers, self._round_seconds = 0, 0.0
        self._idle_s: float | None = None  # seconds an answer takes while the server is not crowded
        self._crowded = False

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
        return max(0.0, self._until - asyncio.get_running_loop().time())

    async def enter(self, *, again: bool = False) -> None:
        """Wait for room. Whoever entered must leave. Raises PausedTooLong."""
        if not self.waiting and self.running < self.limit and not self.pause_left():
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

    def answered(self, seconds: float) -> None:
        """A useful answer came, `seconds` after its request was sent: perhaps more may run at once."""
        if self._limit >= self.most:
            return
        self._round_answers += 1
        self._round_seconds += seconds
        if self._round_answers >= self.limit:
            self._end_of_round()
        if not self._crowded and (self.waiting or self.running >= self.limit):
            self._limit = min(float(self.most), self._limit + (1.0 if self._doubling else 1.0 / self._limit))
            self._let_in()

    def limited(self, sent_at: float) -> bool:
        """A request sent at this time of the loop was refused for the rate limit. Halves once a round.

        Returns False where the limit was halved after the request was sent: it says nothing new.
        """
        if sent_at < self._halved_at:
            return False
        self._halved_at = asyncio.get_running_loop().time()
        self._limit, self._doubling = max(1.0, self._limit / 2), False
        self._round_answers, self._round_seconds = 0, 0.0
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
        left = self.pause_left() if self.waiting else 0.0
        if left:
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

    def _end_of_round(self) -> None:
        mean = self._round_seconds / self._round_answers
        self._round_answers, self._round_seconds = 0, 0.0
        idle = mean if self._idle_s is None else self._idle_s
        self._crowded = not self._named and mean > _CROWDED * idle
        self._doubling = self._doubling and not self._crowded
        self._idle_s = mean if mean < idle else idle + _FORGET * (mean - idle)
