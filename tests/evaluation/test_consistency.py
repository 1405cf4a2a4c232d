"""pass^k against closed forms."""

from __future__ import annotations

from math import comb

import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.consistency import pass_k
from rung.evaluation.statistics import score


@pytest.mark.parametrize(("n", "k", "p"), [(4, 4, 0.9), (10, 4, 0.7), (5, 1, 0.3), (8, 3, 0.5)])
def test_its_expectation_over_all_outcomes_of_n_samples_is_p_to_the_k(n: int, k: int, p: float) -> None:
    expected = sum(
        comb(n, c) * p**c * (1 - p) ** (n - c) * pass_k([[1.0] * c + [0.0] * (n - c)], k).mean for c in range(n + 1)
    )
    assert expected == pytest.approx(p**k)


def test_with_as_many_samples_as_times_it_is_the_share_of_rows_that_are_always_right() -> None:
    rows = [[1.0, 1.0, 1.0]] * 5 + [[1.0, 0.0, 1.0]] * 3 + [[0.0, 0.0, 0.0]] * 2
    found = pass_k(rows, 3)
    assert (found.mean, found.n) == (0.5, 10)
    assert found == score([1.0] * 5 + [0.0] * 5), "Wilson's interval over rows, however many samples there are"
    assert pass_k(rows, 1).mean == pytest.approx((5 + 2) / 10)


def test_a_graded_sample_counts_as_right_only_where_its_score_is_1() -> None:
    assert pass_k([[1.0, 0.99], [1.0, 1.0]], 2).mean == 0.5


def test_groups_are_the_unit_of_its_interval() -> None:
    rows = [[float(i % 3 != 0)] * 4 for i in range(30)]
    alone, grouped = pass_k(rows, 4), pass_k(rows, 4, groups=[i // 3 for i in range(30)])
    clustered = pass_k(rows, 4, groups=[i % 3 for i in range(30)])
    assert alone.mean == grouped.mean == clustered.mean
    assert clustered.high - clustered.low > alone.high - alone.low > grouped.high - grouped.low


def test_too_few_samples_and_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        pass_k([[1.0, 1.0]], 3)
    with pytest.raises(ValueError, match="at least one"):
        pass_k([[1.0]], 0)
    with pytest.raises(ScoreMismatch):
        pass_k([[1.0], [0.0]], 1, groups=[1])
