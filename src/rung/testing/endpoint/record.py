"""What a fake endpoint remembers of every call, and what a provider would charge for them. No key is ever kept."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Key = Literal["absent", "present", "equal", "unequal"]
"""Of the key that a call brought; present: one came although none is wanted."""


@dataclass(slots=True)
class Call:
    """One call for a chat completion, or one line of a batch.

    arrived, delivered: seconds since 1970; delivered is None until the whole answer has been sent, and again where the
    client reset the connection without reading it. charged: its answer was computed. status: 0 where none was sent.
    """

    number: int
    path: str
    raw: bytes
    arrived: float
    key: Key
    status: int = 0
    fault: str | None = None
    charged: bool = False
    delivered: float | None = None
    answer: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    in_flight: int = 0

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(self.raw)

    @property
    def digest(self) -> str:
        """Equal for identical requests."""
        return hashlib.sha256(self.raw).hexdigest()[:20]


@dataclass
class Record:
    """All calls in order of arrival. faults: how many of each kind were sent, "in-flight" and "rate" among them.

    most_at_once: the largest number of answers that were computed at once.
    """

    calls: list[Call] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    @property
    def charged(self) -> int:
        return sum(call.charged for call in self.calls)

    @property
    def delivered(self) -> int:
        """Number of calls whose answer was sent whole and with status 200."""
        return sum(_answered(call) for call in self.calls)

    def by_request(self) -> dict[str, dict[str, int]]:
        """For each identical request, by digest: how often it was asked, charged and delivered, and charged tokens."""
        found: dict[str, Counter[str]] = {}
        for call in self.calls:
            counts = found.setdefault(call.digest, Counter())
            counts.update(asked=1, charged=int(call.charged), delivered=int(_answered(call)))
            if call.charged:
                counts.update(tokens_in=call.tokens_in, tokens_out=call.tokens_out, tokens_cached=call.tokens_cached)
        return {digest: dict(counts) for digest, counts in found.items()}

    def paid_again(self) -> list[Call]:
        """Charged calls that arrived after an identical request had been answered whole.

        A client that asks the same k times on purpose, for k samples, is counted too.
        """
        first: dict[str, float] = {}
        for call in self.calls:
            if _answered(call) and call.delivered is not None:
                first[call.digest] = min(call.delivered, first.get(call.digest, call.delivered))
        return [c for c in self.calls if c.charged and c.arrived > first.get(c.digest, float("inf"))]

    def summary(self, *, calls: bool = False) -> dict[str, Any]:
        """All of it as JSON values; the calls one by one where they are asked for."""
        told: dict[str, Any] = {
            "calls": len(self.calls),
            "charged": self.charged,
            "delivered": self.delivered,
            "paid_again": len(self.paid_again()),
            "tokens_in": sum(c.tokens_in for c in self.calls if c.charged),
            "tokens_out": sum(c.tokens_out for c in self.calls if c.charged),
            "tokens_cached": sum(c.tokens_cached for c in self.calls if c.charged),
            "most_at_once": self.most_at_once,
            "faults": dict(self.faults),
            "keys": dict(Counter(c.key for c in self.calls)),
            "statuses": dict(Counter(str(c.status) for c in self.calls)),
            "by_request": self.by_request(),
        }
        if calls:
            told["each"] = [_told(call) for call in self.calls]
        return told


def _answered(call: Call) -> bool:
    return call.delivered is not None and call.status == 200 and call.fault in (None, "slow")


def _told(call: Call) -> Mapping[str, Any]:
    told = {name: getattr(call, name) for name in Call.__slots__ if name != "raw"}
    return {**told, "digest": call.digest, "body": call.raw.decode("utf-8", "replace")}
