"""Fixed samples: the same rows for the same seed, in their order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def sample_of(rows: Sequence[Row], most: int, seed: int) -> tuple[Row, ...]:
    """A fixed sample of examples or the like, in their order; all of them where they are few."""
    if len(rows) <= most:
        return tuple(rows)
    places = sorted(random.Random(seed).sample(range(len(rows)), most))
    return tuple(rows[i] for i in places)
