"""How often a solution is right every time: pass^k, from several sampled answers to each row.

Source: Yao, Shinn, Razavi & Narasimhan, tau-bench: a benchmark for tool-agent-user interaction in real-world domains
(2024). Knows scores; nothing of texts, models or temperatures.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from rung.evaluation.statistics import score
from rung.types import Score


def pass_k(
    scores: Sequence[Sequence[float]],
    k: int,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Score:
    """The share of rows that would be right k times in k, a mean over rows, with its 95 % interval.

    scores: of each row, those of its samples in [0, 1], shape (rows, n) with n >= k >= 1; n may differ between rows. A
    sample is right where its score is 1. Of a row with c right samples in n, C(c, k) / C(n, k) estimates p^k without
    bias, where the samples are independent and each is right with probability p. k = 1 gives the mean share of right
    samples. groups: the group of each row, as in `statistics.score`; samples of a row never count as several rows.
    Raises ValueError where a row has fewer than k samples, and ScoreMismatch where groups differ in length.
    """
    if k < 1 or any(len(row) < k for row in scores):
        raise ValueError(f"right {k} times in {k} needs at least one, and at least {k}, samples a row")
    rates = [math.comb(sum(s == 1.0 for s in row), k) / math.comb(len(row), k) for row in scores]
    return score(rates, groups=groups, seed=seed)
