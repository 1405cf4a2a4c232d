"""How long an endpoint asks to be left alone, from the headers and the body of a reply. Pure functions.

Sources: RFC 9110, section 10.2.3 (Retry-After); OpenAI, "Rate limits in headers" (x-ratelimit-…, durations such as
"6m0s"); Anthropic, "Rate limits" (anthropic-ratelimit-…, RFC 3339 times); Google, google.rpc.RetryInfo (retryDelay).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_BUCKETS = (
    *(
        (f"x-ratelimit-limit{x}", f"x-ratelimit-remaining{x}", f"x-ratelimit-reset{x}")
        for x in ("-requests", "-tokens", "")
    ),
    *(
        (f"anthropic-ratelimit-{x}-limit", f"anthropic-ratelimit-{x}-remaining", f"anthropic-ratelimit-{x}-reset")
        for x in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
)
"""(limit, remaining, reset): the names of the headers of each allowance that servers tell of."""

_SPENT = 0.01  # an allowance of which at most this share is left counts as spent
_REFILL = 0.05  # the share of an allowance that is waited for
_MOST_PAUSE_S = 60.0  # for an allowance that is spent, where the server does not refuse
_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?", re.ASCII)
_EPOCH = 1e9  # a larger number is a time, not a duration: in seconds, or from 1e12 on in milliseconds
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|h|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d+(?:\.\d+)?)s"')
_LOOKED_AT = 65536  # bytes of a body

NO_MONEY = re.compile(
    r"insufficient[_ ](quota|balance|funds|credits)|billing_(hard_limit|not_active)|credit balance is too low"
    r"|reached your specified (workspace )?api usage limits|used all available credits"
)
"""In a refusal in small letters: the account has no money. Only codes and fixed phrases count: Gemini words an ordinary
rate limit "check your plan and billing details"."""
_TOO_LARGE = re.compile(
    rb"[Rr]equest too large for "
)  # OpenAI's and Groq's: it alone has more tokens than a minute allows


def wait_asked(headers: Mapping[str, str], body: bytes, now: float) -> float | None:
    """Seconds to wait before anything is sent again, or None where the reply does not say. now: seconds since 1970."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("retry-after")
    if after is not None and (told := seconds_of(after, _server_time(headers, now))) is not None:
        return told
    delay = _RETRY_DELAY.search(body[:_LOOKED_AT])
    return float(delay[1]) if delay else None


def wait_for_refill(headers: Mapping[str, str], now: float) -> float:
    """Seconds until a part of every allowance that is spent is there again; 0.0 where none is spent.

    Servers tell when an allowance will be *full*, and refill it all the time: a twentieth of that, or one request's
    share where that is longer, is waited for. Where no limit is told, the whole is.
    """
    if not any("ratelimit" in name for name in headers):
        return 0.0
    longest = 0.0
    for limit_name, remaining_name, reset_name in _BUCKETS:
        remaining = _number(headers.get(remaining_name, ""))
        if remaining is None:
            continue
        limit = _number(headers.get(limit_name, ""))
        if limit == 0.0 or remaining > (limit or 0.0) * _SPENT:  # a limit of 0, with an answer, stands for none
            continue
        reset = seconds_of(headers.get(reset_name, ""), _server_time(headers, now))
        if reset is not None:
            longest = max(longest, reset * max(_REFILL, 1 / limit) if limit is not None and limit >= 1 else reset)
    return min(longest, _MOST_PAUSE_S)


def never_passes(status: int, body: bytes) -> bool:
    """Whether a 429 is one that no waiting cures: the account has no money, or the request alone is over the limit."""
    looked = body[:_LOOKED_AT]
    if status != 429:
        return False
    return (
        NO_MONEY.search(looked.decode("utf-8", "replace").lower()) is not None or _TOO_LARGE.search(looked) is not None
    )


def seconds_of(text: str, now: float) -> float | None:
    """Seconds from now that a text tells, at least 0: "20", "1.5", "6m0s", "120ms", an HTTP date, an RFC 3339 time.

    A large number is a time since 1970, in seconds or milliseconds. None for anything else.
    """
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number >= _EPOCH:
            return max(0.0, (number / 1000 if number >= 1000 * _EPOCH else number) - now)
        return number
    if _DURATION.fullmatch(text):
        return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    moment = _time(text)
    return None if moment is None else max(0.0, moment - now)


def _server_time(headers: Mapping[str, str], now: float) -> float:
    """The server's clock where it tells it, since its times are by that clock."""
    told = _time(headers["date"]) if "date" in headers else None
    return now if told is None else told


def _time(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, OverflowError):  # a zone of a million hours overflows
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _number(text: str) -> float | None:
    """A plain number of at least 0, else None ("inf", "nan" and "1e9999" are none)."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None
