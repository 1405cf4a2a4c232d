"""Numbers as people read them. Knows units and rounding, nothing of records."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rung.decision import RATES
from rung.types import Score

NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Scale:
    """How a metric's values are told: as shares where it says right or wrong, as plain scores otherwise."""

    rates: bool

    def value(self, x: float, n: int = 0) -> str:
        return f"{self.bare(x, n)} %" if self.rates else self.bare(x)

    def bare(self, x: float, n: int = 0) -> str:
        """Without its unit. Shares of fewer than 1,000 are whole, unless that would make none or all of almost."""
        if not self.rates:
            return f"{x:.2f}"
        figure = f"{100 * x:.0f}" if n < 1000 else f"{100 * x:.1f}"
        return figure if figure not in {"0", "100"} or x in (0, 1) else f"{100 * x:.1f}"

    def interval(self, score: Score) -> str:
        return f"{self.bare(score.low, score.n)}–{self.bare(score.high, score.n)}"

    def full(self, score: Score) -> str:
        """81 % (74–87)"""
        return f"{self.value(score.mean, score.n)} ({self.interval(score)})"

    def gap(self, d: float) -> str:
        """A size of a difference: 15 points, or 0.15."""
        figure = self.signed(d).removeprefix("+")
        return f"{figure} point{'' if figure in {'1', '-1'} else 's'}" if self.rates else figure

    def detectable(self, d: float) -> str:
        """A planned difference, for which answers are taken to be right or wrong: graded ones vary less."""
        return self.gap(d) if self.rates else f"{self.gap(d)} at most"

    def signed(self, d: float) -> str:
        """A difference without its unit: +15, -2.5, +0.15."""
        if not self.rates:
            return f"{d:+.2f}"
        d = round(d, 9)  # as the decision tells it
        figure = f"{100 * d:+.0f}" if abs(d) >= 0.0995 else f"{100 * d:+.1f}".removesuffix(".0")
        return "0" if figure in {"+0", "-0"} else figure


def scale_of(metric: str) -> Scale:
    return Scale(metric in RATES)


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


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def thousands(n: float) -> str:
    """950, 12 k, 1.4 M"""
    if n < 1000:
        return f"{n:.0f}"
    return f"{n / 1e3:.0f} k" if n < 999_500 else f"{n / 1e6:.1f} M"


def count(n: int, noun: str) -> str:
    """1 warning, 3 warnings"""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def tied(text: str) -> str:
    """With blanks that no line breaks at, before % and around the sign of a p-value."""
    return re.sub(r" (?=%)|(?<=\bp) (?=[=<] )|(?<=\bp [=<]) ", NO_BREAK, text)


def shortened(text: str, width: int) -> str:
    """At most `width` characters, cut at a word where one ends near."""
    if len(text) <= width:
        return text
    head = text[: max(0, width - 1)]
    space = head.rfind(" ")
    return (head[:space] if space > 0.7 * width else head).rstrip(" ,;:.") + "…"
