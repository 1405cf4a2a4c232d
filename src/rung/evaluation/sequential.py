"""Looking early at a comparison that is still running, by a rule that allows it.

Whoever tests at every look finds a difference by chance far more often than once in twenty. With planned looks and
O'Brien and Fleming's boundaries, which are strict at first and nearly the ordinary level at the end, all looks
together err that often. Knows p-values, nothing of what is compared.
"""

from __future__ import annotations

import math
from statistics import NormalDist

LOOKS = 3

_CONSTANTS = {1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040}
"""C_B(K, 0.05), two-sided. Source: Jennison & Turnbull, Group Sequential Methods (2000), table 2.3."""


def planned_looks(n: int, looks: int = LOOKS) -> list[int]:
    """After how many of n examples is looked, evenly spaced; the last look is at all of them."""
    return sorted({math.ceil(n * k / looks) for k in range(1, looks + 1)} - {0})


def boundary(look: int, looks: int = LOOKS) -> float:
    """The p-value below which a difference counts at that look, 1 <= look <= looks <= 5; two-sided, 0.05 in all.

    Source: O'Brien & Fleming, A multiple testing procedure for clinical trials (1979).
    """
    z = _CONSTANTS[looks] * math.sqrt(looks / look)
    return 2 * (1 - NormalDist().cdf(z))
