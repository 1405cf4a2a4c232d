"""Interim looks: testing a comparison before all examples are answered, by a rule that allows it.

Whoever tests at every interim look at the ordinary level calls equal solutions different far more often than once in
twenty. O'Brien and Fleming's boundaries keep all planned looks together at that level: they are strict at first and
nearly ordinary at the end. Knows p-values, and nothing about what is compared.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LOOKS = 3
"""Planned looks, the last one at all examples included."""

_CONSTANTS = {1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040}
"""C_B(K, 0.05), two-sided. Source: Jennison & Turnbull, Group Sequential Methods (2000), table 2.3."""


def planned_looks(n: int, looks: int = LOOKS) -> list[int]:
    """The numbers of examples after which a look is planned, evenly spaced up to n; fewer than `looks` for small n."""
    return sorted({math.ceil(n * k / looks) for k in range(1, looks + 1)} - {0})


def boundary(look: int, looks: int = LOOKS) -> float:
    """The two-sided p-value below which a difference counts at this look, 1 <= look <= looks <= 5.

    All looks together err with probability 0.05.

    Source: O'Brien & Fleming, A multiple testing procedure for clinical trials (1979).
    """
    z = _CONSTANTS[looks] * math.sqrt(looks / look)
    return 2 * (1 - NormalDist().cdf(z))
