"""Interim looks err no more often than one look at the end."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from rung.evaluation.sequential import boundary, planned_looks


def test_the_last_planned_look_is_at_all_examples() -> None:
    assert planned_looks(100) == [34, 67, 100]
    assert planned_looks(2) == [1, 2] and planned_looks(0) == []


def test_boundaries_are_those_of_the_book() -> None:
    # Jennison & Turnbull (2000): z at K = 5 looks is 4.562, 3.226, 2.634, 2.281, 2.040.
    expected = [4.562, 3.226, 2.634, 2.281, 2.040]
    assert [norm.isf(boundary(k, 5) / 2) for k in range(1, 6)] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("looks", [1, 2, 3, 4, 5])
def test_all_looks_together_err_one_time_in_twenty(looks: int) -> None:
    random = np.random.default_rng(0)
    sums = random.standard_normal((200_000, looks)).cumsum(axis=1) / np.sqrt(np.arange(1, looks + 1))
    limits = [norm.isf(boundary(k, looks) / 2) for k in range(1, looks + 1)]
    assert (np.abs(sums) > limits).any(axis=1).mean() == pytest.approx(0.05, abs=0.003)
