"""What calls cost: before a request is sent, the most that it can cost is reserved; afterwards its cost is paid.

A request whose reply did not come whole may have been charged, and counts with the most that it can cost. So what is
spent is never more than the purse holds, whatever breaks. Knows dollars and requests, nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

from rung.errors import BudgetSpent
from rung.models.endpoint.http_connection import ConnectionFault, OnData, Reply
from rung.models.endpoint.policy import Exchanger
from rung.models.endpoint.transport import UNREACHABLE, Headers, Unsent
from rung.models.purse import Purse
from rung.types import Price


@dataclass
class Bill:
    """Of one call, all its attempts included.

    most_usd: of one attempt. usd_of: what a reply of status 2xx was charged; None where that cannot be read from it.
    """

    most_usd: Callable[[], float]
    usd_of: Callable[[Reply], float | None]


@dataclass
class Till:
    """An Exchanger that pays from a purse for the requests of a call that `billed` runs.

    doubtful_usd: paid for requests that brought no whole reply, and that the provider may not have charged.
    unpaid_usd: charged while there was no purse.
    """

    inner: Exchanger
    purse: Purse | None = None
    doubtful_usd: float = 0.0
    unpaid_usd: float = 0.0
    _open: int = 0
    _empty: bool = False
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def most_connections(self) -> int:
        return int(getattr(self.inner, "most_connections", 1000))

    def use_purse(self, purse: Purse | None) -> None:
        """From now on the purse pays, also for what was charged before."""
        self.purse = purse
        if purse is not None:
            purse.settle(0.0, self.unpaid_usd)
            self.unpaid_usd = 0.0

    def start(self) -> None:
        """Calls may be made again after the purse was found empty: it may hold more now."""
        self._empty = False

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Headers,
        body: bytes | None = None,
        timeout_s: float,
        on_data: OnData | None = None,
    ) -> Reply:
        """As the inner one. Raises BudgetSpent where nothing is left for the request and nothing is in flight."""
        bill = _bill.get()
        purse = self.purse
        send = partial(
            self.inner.exchange, method, path, headers=headers, body=body, timeout_s=timeout_s, on_data=on_data
        )
        if bill is None or purse is None:
            reply = await send()
            if bill is not None and 200 <= reply.status < 300:
                self.unpaid_usd += bill.usd_of(reply) or 0.0
            return reply
        most_usd = bill.most_usd()
        await self._reserve(purse, most_usd)
        usd, doubtful = 0.0, most_usd
        try:
            reply = await send()
            told = bill.usd_of(reply) if 200 <= reply.status < 300 else 0.0
            if told is not None:
                usd, doubtful = told, 0.0
            return reply
        except Unsent:
            doubtful = 0.0
            raise
        except ConnectionFault as fault:
            if fault.kind in UNREACHABLE:
                doubtful = 0.0
            raise
        finally:
            self.doubtful_usd += doubtful
            self._open -= 1
            purse.settle(most_usd, usd + doubtful)
            self._wake()

    async def _reserve(self, purse: Purse, usd: float) -> None:
        """Waits for requests in flight where their settling may make room."""
        while self._empty or not purse.reserve(usd):
            if self._empty or not self._open:
                self._empty = True
                self._wake()
                raise BudgetSpent(
                    "the budget in dollars does not suffice for the next call: it may cost up to "
                    f"{_shown(usd)} USD, and {_shown(purse.left or 0.0)} USD are left"
                )
            await self._settled.wait()
        self._open += 1

    def _wake(self) -> None:
        self._settled.set()
        self._settled.clear()  # those who wait were woken all the same


def _shown(usd: float) -> str:
    """0.0312, 0.0047, 0.0000021: four decimals, and below a cent two figures."""
    return f"{usd:.{1 - math.floor(math.log10(usd)) if 0 < usd < 0.01 else 4}f}"


_bill: ContextVar[Bill | None] = ContextVar("bill", default=None)
"""Of the call that the current task makes."""


@contextmanager
def billed(bill: Bill) -> Iterator[None]:
    """Within: requests of this task are paid for by this bill."""
    token = _bill.set(bill)
    try:
        yield
    finally:
        _bill.reset(token)


def usd_of(
    price: Price | None, tokens_in: int, tokens_out: int, tokens_cached: int = 0, tokens_cache_written: int = 0
) -> float | None:
    """Dollars for tokens; None where the price has none for them. The cached and the cache-written are of tokens_in."""
    if price is None or price.usd_per_million_in is None or price.usd_per_million_out is None:
        return None
    return price.tokens_usd(tokens_in, tokens_out, tokens_cached, tokens_cache_written)


def most_usd_of(price: Price | None, tokens_in: int, tokens_out: int) -> float:
    """The most dollars for tokens: a provider may charge more for input that it writes into its cache."""
    if price is None:
        return 0.0
    reads = (price.usd_per_million_in, price.usd_per_million_cached, price.usd_per_million_cache_written)
    read = max((usd for usd in reads if usd is not None), default=0.0)
    return (tokens_in * read + tokens_out * (price.usd_per_million_out or 0.0)) / 1e6
