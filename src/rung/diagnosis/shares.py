"""Shares: which part of the failed examples a change fixes, net of chance and of what it breaks.

    share = net rescue rate - harm
    net rescue rate = (rescued by the change - rescued by the placebo) / failed examples
    harm = (broken by the change - broken by the placebo) / right examples, times right / wrong, and at least 0

Harm is the share of right answers the change broke beyond the placebo, times right/wrong, so that both are fractions
of the failed examples. An example that could not be tried counts as neither rescued nor broken. Whoever throws a coin
again rescues as much as he breaks, and gets a share of nothing.
Source: Bland & Altman, Regression towards the mean (1994), for why examples that were chosen because they failed need
a placebo.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rung.types import Example

HARMFUL = 0.5
"""A change that breaks more than this share of right answers, beyond the placebo, is evidence for no cause."""

LEAST_BROKEN = 3
"""So many right answers must be answered again before a change counts as harmful: one or two break by chance."""

Outcome = Mapping[str, bool]
"""Example id -> whether it came out right. An example that could not be tried is missing."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval. A net share, or its low end, may be below 0."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Sampled:
    """The examples that were answered again. failed: wrong under the base. succeeded: right under the base.

    right_per_wrong: right answers of the base on all of dev for each wrong one. groups: example id -> group; examples
    of one group are one unit. seed: of the bootstrap and the permutations.
    """

    failed: tuple[Example, ...]
    succeeded: tuple[Example, ...]
    right_per_wrong: float
    groups: Mapping[str, str]
    seed: int

    def share(self, outcome: Outcome, chance: Outcome) -> Share:
        """Net rescue rate minus harm; see the top of this module for the formula.

        outcome: of the change. chance: of the placebo, where chance could play a part.
        The interval of a difference of two independent estimates is composed of theirs.
        Source: Zou & Donner, Construction of confidence limits about effect measures (2008).
        """
        gained, lost = self.net_rescue(outcome, chance), self.harm(outcome, chance)
        return difference(gained, lost) if lost is not None else gained

    def net_rescue(self, outcome: Outcome, chance: Outcome) -> Share:
        """The paired difference of the rescue rates over the failed examples."""
        tried = {e.id for e in self.failed if e.id in outcome}
        by_chance = [float(e.id in tried and chance.get(e.id, False)) for e in self.failed]
        by_change = [float(e.id in tried and outcome[e.id]) for e in self.failed]
        return self._paired(by_chance, by_change, self.failed)

    def harm(self, outcome: Outcome, chance: Outcome) -> Share | None:
        """What the change broke beyond the placebo, as a share of the failed examples; None where no right one was
        tried."""
        tried = [e for e in self.succeeded if e.id in outcome and e.id in chance]
        if not tried:
            return None
        by_chance, by_change = ([float(not o[e.id]) for e in tried] for o in (chance, outcome))
        broken = self._paired(by_chance, by_change, tried)
        worth = self.right_per_wrong * len(tried) / len(self.succeeded)
        return Share(*(worth * max(0.0, x) for x in (broken.share, broken.low, broken.high)))

    def is_harmful(self, outcome: Outcome, placebo: Outcome) -> bool:
        """Whether the change breaks most right answers that the placebo does not break."""
        tried = [e.id for e in self.succeeded if e.id in outcome and e.id in placebo]
        broken = sum(placebo[i] - outcome[i] for i in tried)
        return len(tried) >= LEAST_BROKEN and broken > HARMFUL * len(tried)

    def rate(self, ids: Iterable[str]) -> Share:
        """The share of the failed examples that these are."""
        from rung.evaluation.statistics import score, units_of

        if not self.failed:
            return Share(0.0, 0.0, 1.0)
        members = set(ids)
        values = [float(e.id in members) for e in self.failed]
        found = score(values, groups=units_of([e.id for e in self.failed], self.groups), seed=self.seed)
        return Share(found.mean, found.low, found.high)

    def _paired(self, before: Sequence[float], after: Sequence[float], examples: Sequence[Example]) -> Share:
        from rung.evaluation.statistics import compare, units_of

        groups = units_of([e.id for e in examples], self.groups)
        net = compare("placebo", "change", before, after, "dev", groups=groups, seed=self.seed)
        return Share(net.difference, net.low, net.high)


def difference(one: Share, other: Share) -> Share:
    """one - other, of two independent estimates, with the interval by Zou & Donner (2008)."""
    share = one.share - other.share
    low = share - math.hypot(one.share - one.low, other.high - other.share)
    high = share + math.hypot(one.high - one.share, other.share - other.low)
    return Share(share, low, high)
