"""Durations, counts and lines as people read them. How scores are written stands in `decision.figures`."""

from __future__ import annotations

import math
import re

NO_BREAK = "\N{NO-BREAK SPACE}"


def duration(s: float | None) -> str:
    """0.12 s, 3.4 s, 38 s, 3.2 min, 1.5 h; a dash where it was not measured."""
    if s is None:
        return "–"
    if s < 0.995:
        return f"{s:.2f} s"
    if s < 9.95:
        return f"{s:.1f} s"
    if s < 99.5:
        return f"{s:.0f} s"
    return f"{s / 60:.1f} min" if s < 5970 else f"{s / 3600:.1f} h"


def time_left(s: float) -> str:
    """An estimate must not look like a measurement."""
    if s < 55:
        return "less than a minute left"
    return f"about {s / 60:.0f} min left" if s < 5400 else f"about {s / 3600:.1f} h left"


def thousands(n: float) -> str:
    """950, 12 k, 1.4 M"""
    if n < 1000:
        return f"{n:.0f}"
    return f"{n / 1e3:.0f} k" if n < 999_500 else f"{n / 1e6:.1f} M"


def dollars(x: float) -> str:
    """1,250, 12.40, 0.42, 0.0031, 0: without the unit, with two figures at least."""
    if x == 0:
        return "0"
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.2f}" if abs(x) >= 0.095 else f"{x:.{1 - math.floor(math.log10(abs(x)))}f}"


def count(n: int, noun: str) -> str:
    """1 warning, 3 warnings"""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def tied(text: str) -> str:
    """With blanks that no line breaks at, before % and around the sign of a p-value."""
    return re.sub(r" (?=%)|(?<=\bp) (?=[=<] )|(?<=\bp [=<]) ", NO_BREAK, text)


def both_ends(name: str, width: int) -> str:
    """At most `width` characters of a model's name: names that begin alike often end differently."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def shortened(text: str, width: int) -> str:
    """At most `width` characters, cut at a word where one ends near."""
    if len(text) <= width:
        return text
    head = text[: max(0, width - 1)]
    space = head.rfind(" ")
    return (head[:space] if space > 0.7 * width else head).rstrip(" ,;:.") + "…"
