"""Per-example scores as arrays, and the units that are drawn, flipped and counted whole.

A unit is one example or, where examples come in groups, one group. Imports numpy when called.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from rung.errors import ScoreMismatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.intp]


def units_of(ids: Sequence[str], groups: Mapping[str, str]) -> list[str] | None:
    """The unit of each example: its group in `groups`, else its own id. None where each example is its own unit."""
    units = [groups.get(i, i) for i in ids]
    return units if len(set(units)) < len(units) else None


def as_scores(values: Sequence[float]) -> FloatArray:
    """Scores as an array, shape (n,). Raises ValueError when there are none or one lies outside [0, 1]."""
    import numpy as np

    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores have shape {scores.shape}, not (n,) with n >= 1")
    if not ((scores >= 0) & (scores <= 1)).all():  # NaN fails too
        raise ValueError("scores lie outside [0, 1]")
    return scores


def all_binary(scores: FloatArray) -> bool:
    """Whether every score is 0 or 1."""
    return bool(((scores == 0) | (scores == 1)).all())


def unit_sums(values: FloatArray, groups: Sequence[Hashable] | None) -> tuple[FloatArray, FloatArray]:
    """Sum and size of each unit, both of shape (units,), in the order in which the groups first appear.

    values: shape (n,). groups: the group of each example; None makes each example its own unit.
    Raises ScoreMismatch when values and groups differ in length.
    """
    import numpy as np

    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ScoreMismatch(f"{len(values)} scores but {len(groups)} groups; each example has one group")
    number: dict[Hashable, int] = {}
    index: IntArray = np.array([number.setdefault(group, len(number)) for group in groups])
    return np.bincount(index, weights=values).astype(np.float64), np.bincount(index).astype(np.float64)
