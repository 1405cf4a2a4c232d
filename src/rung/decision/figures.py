"""Numbers as people read them: one rounding for the verdict's sentences, the terminal, the report and the plan.

Knows units and rounding, nothing of records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rung.types import Score


@dataclass(frozen=True)
class Scale:
    """How a metric's values are written: as percentages where every score is right or wrong, else as plain scores."""

    right_or_wrong: bool

    def value(self, x: float, n: int = 0) -> str:
        """A score: 81 %, or 0.81. n: how many examples it is the mean of."""
        return f"{self.bare(x, n)} %" if self.right_or_wrong else self.bare(x)

    def bare(self, x: float, n: int = 0) -> str:
        """A score without its unit. Percentages are whole, and have one decimal from 1,000 examples on.

        Almost nothing is never written as 0, nor almost everything as 100.
        """
        if not self.right_or_wrong:
            return _no_minus_zero(f"{x:.2f}")
        figure = f"{100 * x:.0f}" if n < 1000 else f"{100 * x:.1f}"
        if float(figure) not in (0, 100) or x in (0, 1):
            return figure
        finer = f"{100 * x:.1f}"
        return {"0.0": "< 0.1", "100.0": "> 99.9"}.get(finer, finer)

    def interval(self, score: Score) -> str:
        """74–87, or 0.74–0.87"""
        return f"{self.bare(score.low, score.n)}–{self.bare(score.high, score.n)}"

    def full(self, score: Score) -> str:
        """81 % (74–87); 25 % where the value is known, so that its interval is that value alone"""
        if score.low == score.high == score.mean:
            return self.value(score.mean, score.n)
        return f"{self.value(score.mean, score.n)} ({self.interval(score)})"

    def signed(self, d: float) -> str:
        """A difference without its unit: +15, -2.5, +0.15. Below ten points it has one decimal."""
        if not self.right_or_wrong:
            return "+0.00" if f"{d:+.2f}" == "-0.00" else f"{d:+.2f}"
        d = round(d, 9)  # 0.375 - 0.1 is a little less than 0.275 in binary
        figure = f"{100 * d:+.0f}" if abs(d) >= 0.0995 else f"{100 * d:+.1f}".removesuffix(".0")
        return "0" if figure in {"+0", "-0"} else figure

    def gap(self, d: float) -> str:
        """The size of a difference: 15 points, or 0.15."""
        figure = self._unsigned(d)
        return f"{figure} point{'' if figure in {'1', '-1'} else 's'}" if self.right_or_wrong else figure

    def ends(self, low: float, high: float) -> str:
        """The ends of an interval of differences: 36 to 46."""
        return f"{self._unsigned(low)} to {self._unsigned(high)}"

    def detectable(self, d: float, pairs: int | None = None) -> str:
        """A planned difference, where so many pairs of candidates are compared: 26 points where 3 pairs are compared.

        It is computed for right and wrong answers; graded scores vary less. pairs: None where a record does not say it.
        """
        gap = self.gap(d) if self.right_or_wrong else f"{self.gap(d)} at most (graded scores often show less)"
        return f"{gap} where {compared_pairs(pairs)}" if pairs else gap

    def _unsigned(self, d: float) -> str:
        return self.signed(d).removeprefix("+")


PERCENT = Scale(True)
"""For shares that are percentages whatever the metric: causes, general skills."""


def p_value(p: float) -> str:
    """p < 0.001, p = 0.012, p = 0.47"""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def compared_pairs(n: int) -> str:
    """1 pair is compared, 3 pairs are compared: with more of them, only a larger difference can be shown."""
    return "1 pair is compared" if n == 1 else f"{n:,} pairs are compared"


def rounded_up(n: float) -> str:
    """A number of examples or requests, at least 1, rounded up to two figures: an estimate is no measurement."""
    whole = max(1, math.ceil(round(n, 6)))
    step: int = 10 ** max(0, len(str(whole)) - 2)
    return f"{math.ceil(whole / step) * step:,}"


def price_share(usd: float, other_usd: float) -> str:
    """What one costs beside another: at a 40th of the price, at 3 times the price. Empty where the other is free."""
    if usd == other_usd:
        return "at the same price"
    if usd <= 0:
        return "at no cost"
    if other_usd <= 0:
        return ""
    times = usd / other_usd
    if 0.95 <= times < 1.05:
        return "at about the same price"
    if times > 1:
        return f"at {_two_figures(times)} times the price"
    parts = round(float(f"{1 / times:.2g}"))
    if parts < 2 or abs(parts * times - 1) > 0.06:  # no simple fraction
        return f"at {100 * times:.0f} % of the price"
    return f"at {_FRACTIONS.get(parts) or f'{_fraction(parts)} of'} the price"


_FRACTIONS = {2: "half", 3: "a third of", 4: "a quarter of"}


def _two_figures(x: float) -> str:
    """1.3, 12, 340"""
    return f"{float(f'{x:.2g}'):,.1f}".removesuffix(".0")


def _fraction(parts: int) -> str:
    """a 40th, an 8th, a 21st"""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(parts % 10, "th") if parts % 100 not in (11, 12, 13) else "th"
    spoken = f"{parts:,}".partition(",")[0]  # eight, eleven and eighteen begin with a vowel
    return f"a{'n' if spoken.startswith('8') or spoken in ('11', '18') else ''} {parts:,}{ending}"


def more_minutes(minutes: float) -> str:
    """1 more minute, 7 more minutes, 3 more hours; rounded up."""
    if minutes > 120:
        return f"{math.ceil(minutes / 60):,} more hours"
    whole = max(1, math.ceil(minutes))
    return f"{whole} more minute{'' if whole == 1 else 's'}"


def _no_minus_zero(figure: str) -> str:
    return "0.00" if figure == "-0.00" else figure
