"""A few sizes for many: what is computed at one of them need not be recorded or compiled again for each length."""

from __future__ import annotations


def bucket(count: int, *, least: int = 128) -> int:
    """The smallest size that holds `count`. From `least` on there are four sizes up to each double: less than a quarter
    of a size is padding. Those above `least` are multiples of a quarter of it."""
    size = least
    while size < count:
        size *= 2
    if size == least:
        return size
    step = max(1, size // 8)
    return -(-count // step) * step
