"""What one client may take of the server: bytes, seconds, and pieces of a request."""

from __future__ import annotations

from dataclasses import dataclass

MOST_MESSAGES = 1024
MOST_PARTS = 256
"""Texts that one message consists of."""
MOST_STOPS = 4
LONGEST_STOP = 256
"""Characters."""
MOST_CHOICES = 8
MOST_PROMPTS = 64
"""Prompts of one request of completions; with `n`, answers of one request."""
MOST_TOP = 20
"""Likeliest tokens told at each place."""
MOST_TOKENS = 2**31 - 1
LONGEST_NAME = 129
"""Characters of a model's name."""


@dataclass(frozen=True)
class HttpLimits:
    """body_bytes: of a request. header_s, body_s: time to send the head and the body of a request. answer_s: from the
    body on to the end of the answer. write_s: a client may leave a piece of an answer unread. keep_alive_s: an unused
    connection stays open."""

    body_bytes: int = 1_000_000
    header_s: float = 15.0
    body_s: float = 30.0
    answer_s: float = 120.0
    write_s: float = 20.0
    keep_alive_s: float = 30.0
