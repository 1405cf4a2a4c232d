"""A finding about the number of examples: what dev and test can show, and how many more would show 5 and 2 points.

Knows numbers of examples only. The counts are for right/wrong scores and one comparison of two solutions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rung.evaluation.intervals import ALPHA
from rung.evaluation.power import minimum_detectable_difference
from rung.types import Finding

if TYPE_CHECKING:
    from rung.types import SetName, Split

TOO_SMALL = "too_small"
WANTED = (0.05, 0.02)
"""Differences that people care about, as shares."""
_GRADED = " It is computed for right and wrong answers; graded scores vary less, and often show smaller ones."
HARDLY_ANYTHING = 0.2
"""Where the test cannot show a smaller difference than this, that is a warning; above WANTED[0], a note."""


def size_findings(
    split: Split,
    *,
    shares: Mapping[SetName, float] | None = None,
    cap: int | None = None,
    graded: bool = False,
) -> tuple[Finding, ...]:
    """`too_small`, or nothing where the test shows a difference of 5 points.

    shares: of the sets, where rung makes the split; None: the user did. cap: so many examples of test at most, where
    rung makes the split. graded: whether scores are, which vary less than right and wrong ones. Groups count as one
    example each, as they do in the comparisons.
    """
    test, dev = (_units(ids, split.groups) for ids in (split.test.ids, [e.id for e in split.dev]))
    in_test, in_dev = minimum_detectable_difference(test), minimum_detectable_difference(dev)
    if in_test <= WANTED[0]:
        return ()
    total = len(split.train) + len(split.dev) + len(split.test)
    groups = " (rows of one group count as one)" if test < len(split.test) else ""
    needs = "; ".join(_need(wanted, test, shares, cap) for wanted in WANTED)
    hardly = f"{total:,} examples hardly show anything. " if in_test >= HARDLY_ANYTHING else ""
    message = (
        f"{hardly}The test has {_examples(test)}{groups} and shows {_points(in_test)} between two solutions, in 4 of 5 "
        f"cases; dev, which chooses among them, has {dev:,} and shows {_points(in_dev)}. That is where 1 pair is "
        f"compared; with more pairs, only larger differences show.{_GRADED if graded else ''} {needs}."
    )
    return (Finding(TOO_SMALL, "warning" if hardly else "note", "", message),)


def units_needed(difference: float, *, discordance: float = 0.2, alpha: float = ALPHA, power: float = 0.8) -> int:
    """About so many examples show a true difference of two right/wrong scores, in (0, 1), by McNemar's test.

    discordance: as `minimum_detectable_difference` takes it. An approximation, within a few per cent of the exact test.
    Source: Connor, Sample size for testing differences in proportions for the paired-sample design (1987).
    """
    from scipy.stats import norm

    discordance = max(discordance, difference)
    z = norm.isf(alpha / 2) * discordance**0.5 + norm.isf(1 - power) * (discordance - difference**2) ** 0.5
    return math.ceil(float(z / difference) ** 2)


def _need(wanted: float, have: int, shares: Mapping[SetName, float] | None, cap: int | None) -> str:
    needed = _rounded(units_needed(wanted))
    what = (
        f"{'To see' if wanted == WANTED[0] else 'to see'} {100 * wanted:.0f} points, the test needs {needed:,} examples"
    )
    if shares is None or (cap is not None and needed > cap):
        own = " in a file of your own" if shares is not None else ""
        return f"{what}{own}, {_rounded(needed - have):,} more" if needed > have else what
    share = shares["test"]
    more = _rounded(math.ceil((needed - have) / share))
    return f"{what}: about {more:,} more rows, as {100 * share:.0f} % of them are tested"


def _units(ids: Iterable[str], groups: Mapping[str, str]) -> int:
    return len({groups.get(i, i) for i in ids})


def _points(difference: float) -> str:
    return (
        "no difference at all" if difference >= 1 else f"a difference of {100 * difference:.2g} points of 100 or more"
    )


def _examples(n: int) -> str:
    return "1 example" if n == 1 else f"{n:,} examples"


def _rounded(n: int) -> int:
    """Up to two figures: it is a guide."""
    unit: int = 10 ** max(0, len(str(n)) - 2)
    return math.ceil(n / unit) * unit
