"""Which finalists may be the best, by dev alone: so that the pairs to compare are named before the test is opened.

Each comparison more costs power after Holm's correction. Finalists that dev shows to be worse need not be compared with
each other: nobody asks which of two losers is better. What is named rests on dev alone, whose examples are not those of
the test, so Holm's correction over the named pairs holds whatever dev said.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence

from rung.evaluation.paired_tests import RESAMPLES, paired_test
from rung.evaluation.statistics import ALPHA


def contenders(
    dev_scores: Mapping[str, Sequence[float]],
    order: Sequence[str],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[str, ...]:
    """The finalist with the highest mean on dev, and every one that is not shown to be worse; in the given order.

    dev_scores: name -> scores in [0, 1] on the same dev examples, shape (n,), n >= 1. order: the names to choose among,
    cheapest first; of equal means the first is the best. groups, seed, resamples: as in `paired_test`. "Shown"
    is the paired test at ALPHA, without correction: a finalist that is left out by mistake cannot be chosen, but one
    that is kept costs only power.
    Raises ScoreMismatch when the scores differ in length, KeyError when a name has no scores.
    """
    if not order:
        return ()
    best = max(order, key=lambda name: sum(dev_scores[name]) / len(dev_scores[name]))

    def may_be_best(name: str) -> bool:
        if name == best:
            return True
        test = paired_test(dev_scores[name], dev_scores[best], groups=groups, resamples=resamples, seed=seed)
        return test.p >= ALPHA

    return tuple(filter(may_be_best, order))


def named_pairs(order: Sequence[str], among: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs to compare on the test: every pair of `order` with at least one contender in it, cheapest first.

    among: the contenders; empty: all are.
    """
    kept = set(among or order)
    return [pair for pair in itertools.combinations(order, 2) if kept & set(pair)]
