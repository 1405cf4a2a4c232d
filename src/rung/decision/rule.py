"""The verdict as a rule over numbers: evidence in, a Ruling out. Its sentences stand in other modules.

A group is what is shipped or passed over as one: the candidates of one family, of one model where there are several.
Candidates are ordered by cost: model, then family, tokens, name (`Evidence.by_cost`). Contenders are the finalists that
dev does not show to be worse than the best on dev; a comparison of two finalists was named before the test was opened
when one of the two is a contender. Without contenders all finalists are, and all pairs were named. The rule:

1. A candidate falls short when it is not shown to beat the floor (paired comparison with the best baseline that looks
   at no input, Holm-corrected p below ALPHA), or when its mean is below LEAST_USEFUL. It is never shipped.
2. *none*, when every candidate falls short. Otherwise "the best" is the best on the test of the contenders that do not
   fall short; where every contender does, of all candidates that do not.
3. Walk the groups from the cheapest. Ship the group's cheapest candidate that is at most `margin` below the best and
   does not fall short. Climb on when every candidate of the group is shown to be worse than the best: the comparison
   was named, and is significant after Holm over all that were named.
4. *undecided*, when the walk meets a group that is not shipped, yet not shown to be worse either, for instance because
   it scores higher and falls short, or because its comparison with the best was not named. Meanwhile ship the best if
   the cheaper one falls short, if the best is more than the margin ahead on dev too, or if it is of another model and
   its request is known to cost less all the same; else the cheaper one.

What this promises: the walk leaves a group behind only by named comparisons that are significant. Which comparisons are
named rests on dev, whose examples are not those of the test, and Holm holds whichever of them are true. So at most
ALPHA of all runs leave a group behind that has a candidate as good as every other; between equals, at most ALPHA ship
anything but the cheapest group. The choice is the family of what is shipped: with several models, "prompt" may be the
prompt of a dearer one, by the same proof. Not promised: that a group which is shipped because it comes within the
margin of the best is better than those left behind; they were shown to be worse than the best. A candidate that is no
contender may be shipped where it is cheap enough. Where it scores above the best, the best stays the measure.
*unfinished* is ruled by dev alone. Equal evidence gives equal rulings, whatever the order of its candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, cast

from rung.decision.evidence import Evidence, best_of, costs_less, score_of
from rung.evaluation.baselines import CHANCE
from rung.evaluation.statistics import ALPHA
from rung.types import Candidate, Choice, Comparison, SetName

LEAST_USEFUL = 0.05
"""Below this mean a candidate does not do the task, whatever the floor."""

Shortfall = Literal["floor", "useful"]
"""Why a candidate is not shipped: it is not shown to beat the floor, or its mean is below LEAST_USEFUL."""

_POWER = 0.8
_MOST_TIMES = 50  # a test set that would have to grow by more than this is no practical advice
_ROUNDING = 1e-9  # 0.52 - 0.50 is a little more than 0.02 in binary


@dataclass(frozen=True)
class Ruling:
    """What the rule says. on: the set whose scores it rests on.

    ship: the candidate to ship, also meanwhile; None where none is good enough. best: the best candidate (of those
    that do not fall short, if there are any); None where none was scored. rival: of *undecided*, the cheaper candidate
    that is not shown to be worse.
    """

    choice: Choice
    on: SetName
    ship: Candidate | None = None
    best: Candidate | None = None
    rival: Candidate | None = None


def rule_on_test(evidence: Evidence) -> Ruling:
    """The ruling of a finished run. Raises ValueError when two finalists that were to be compared, or a finalist and a
    baseline that matters, lack their comparison on the test."""
    tested = evidence.rated("test")
    if not tested:
        return Ruling("none", "test")
    worth = [c for c in tested if shortfall(evidence, c, "test") is None]
    if not worth:
        return Ruling("none", "test", best=best_of(tested, "test"))
    best = _best_on_test(evidence, [c for c in worth if evidence.may_be_best(c)] or worth)
    for members in evidence.groups("test"):
        for candidate in members:
            if candidate in worth and within_margin(evidence, candidate, best):
                return Ruling(cast(Choice, candidate.family), "test", ship=candidate, best=best)
        standing = [c for c in members if not evidence.shown_above(c, best, "test")]
        if standing:
            standing = [c for c in standing if c in worth] or standing
            rival = next(c for c in standing if within_margin(evidence, c, best_of(standing, "test")))
            cheaper = rival in worth and not ahead_on_dev(evidence, best, rival)
            cheaper = cheaper and not (best.model != rival.model and costs_less(best, rival))
            return Ruling("undecided", "test", ship=rival if cheaper else best, best=best, rival=rival)
    raise AssertionError("the walk ends at the best candidate at the latest")


def rule_on_dev(evidence: Evidence) -> Ruling:
    """The ruling of an unfinished run: the best on dev meanwhile, if it does not fall short there."""
    rated = evidence.rated("dev")
    if not rated:
        return Ruling("unfinished", "dev")
    worth = [c for c in rated if shortfall(evidence, c, "dev") is None]
    best = best_of(worth or rated, "dev")
    return Ruling("unfinished", "dev", ship=best if worth else None, best=best)


# ---- the rule's terms -------------------------------------------------------------------------


def shortfall(evidence: Evidence, candidate: Candidate, on: SetName) -> Shortfall | None:
    """Why the candidate must not be shipped; None where it may."""
    if score_of(candidate, on).mean < LEAST_USEFUL:
        return "useful"
    floor = evidence.floor(on)
    if floor is not None and not evidence.shown_above(floor, candidate, on):
        return "floor"
    return None


def unbeaten_learner(evidence: Evidence, candidate: Candidate, on: SetName) -> Candidate | None:
    """The best baseline that learns and may do as well as the candidate, so that no language model may be needed.

    It is above the floor and at least LEAST_USEFUL. Either the candidate does not fall short and the baseline is within
    the margin of it or higher, or its own interval lies above the floor and it is not shown to be worse.
    """
    known = evidence.floor(on)
    floor = score_of(known, on).mean if known is not None else 0.0
    worth = shortfall(evidence, candidate, on) is None

    def unbeaten(learner: Candidate) -> bool:
        score = score_of(learner, on)
        if score.mean < LEAST_USEFUL or score.mean <= floor + _ROUNDING:
            return False
        near = score_of(candidate, on).mean - score.mean <= evidence.margin + _ROUNDING
        return (worth and near) or (score.low > floor and not evidence.shown_above(learner, candidate, on))

    return next((c for c in evidence.learners(on) if unbeaten(c)), None)


LearnerClaim = Literal["better", "near", "open"]
"""What is shown of such a baseline: that it is better; else that it is within the margin; else that it is not shown to
be worse."""


def learner_claim(evidence: Evidence, candidate: Candidate, learner: Candidate, on: SetName) -> LearnerClaim:
    if evidence.shown_above(candidate, learner, on):
        return "better"
    apart = abs(score_of(candidate, on).mean - score_of(learner, on).mean)
    return "near" if apart <= evidence.margin + _ROUNDING else "open"


def within_margin(evidence: Evidence, candidate: Candidate, other: Candidate) -> bool:
    """Whether it is at most the margin below the other on the test."""
    apart = _mean(other) - _mean(candidate)
    if _ends_at_the_scale(evidence) and candidate.name != other.name and evidence.asked(candidate, other):
        apart = evidence.contrast(candidate, other, "test").difference
    return apart <= evidence.margin + _ROUNDING


def _best_on_test(evidence: Evidence, candidates: Sequence[Candidate]) -> Candidate:
    """The highest mean; of equals, the first, unless their comparison says otherwise."""
    best = best_of(candidates, "test")
    for c in candidates if _ends_at_the_scale(evidence) else ():
        level = c.name != best.name and _mean(c) == _mean(best) and evidence.asked(best, c)
        if level and evidence.contrast(best, c, "test").difference > 0:
            best = c
    return best


def _ends_at_the_scale(evidence: Evidence) -> bool:
    """Whether means are corrected by a judge's errors: two that would pass the end of the scale are both there."""
    return evidence.judge is not None and evidence.judge.corrects


def ahead_on_dev(evidence: Evidence, best: Candidate, rival: Candidate) -> bool:
    """Whether it is more than the margin ahead on dev too, whose examples are others."""
    return best.dev.mean - rival.dev.mean > evidence.margin + _ROUNDING


def _mean(candidate: Candidate) -> float:
    return score_of(candidate, "test").mean


# ---- how many more examples -------------------------------------------------------------------


def more_to_show(evidence: Evidence, against: Comparison) -> int:
    """About how many more test examples show the observed difference at 80 % power after Holm's first step.

    A standard error s shrinks with the square root of n, and the difference d must be z(1 - alpha / 2m) + z(0.8)
    standard errors, for m comparisons: n_needed = n * ((z(1 - alpha / 2m) + z(0.8)) * s / d) ** 2. With few examples s
    may be too small, even 0, so it is at least the half-width of the interval in units of its own z.
    Nor can an exact test reject before enough examples differ: k that all differ the same way have p = 2 * 0.5^k, so
    a p-value counts as that of 1 - log2(p) such examples, and n must grow until there are enough. At least 1.
    Raises ValueError when there is no difference to show.
    """
    if against.difference == 0:
        raise ValueError(f"{against.a} and {against.b} do not differ")
    z = NormalDist().inv_cdf
    level = ALPHA / evidence.family_size(against)
    half = (against.high - against.low) / 2
    error = max(against.standard_error, half / z((1 + against.level) / 2))
    needed = against.n * ((z(1 - level / 2) + z(_POWER)) * error / against.difference) ** 2
    if against.p > 0:
        needed = max(needed, against.n * _differing(level) / (1 - math.log2(against.p)))
    return max(1, math.ceil(needed - _ROUNDING) - against.n)


def too_few(evidence: Evidence, candidate: Candidate, on: SetName) -> int:
    """How many more examples it takes at least before even a perfect score could be shown to beat the floor.

    0 where there are enough. A perfect score has p = 2 f^n against the known rate f of a blind guess, and
    p = 2 * 0.5^k where it differs from the floor's answers in k examples. Where too few groups make a test of sign
    flips impossible, the interval is the whole range. The first step of Holm's correction is counted.
    """
    floor = evidence.floor(on)
    if floor is None or score_of(floor, on).mean >= 1:
        return 0
    against, rate = evidence.contrast(floor, candidate, on), score_of(floor, on).mean
    level = ALPHA / evidence.family_size(against)
    if against.p_corrected < ALPHA:
        return 0
    differing = _differing(level)
    if against.high - against.low >= 2:
        needed = against.n * differing / (differing - 1)
    elif floor.name == CHANCE and evidence.metric.right_or_wrong:
        needed = math.floor(math.log(level / 2) / math.log(rate)) + 1 if rate > 0 else 1
    else:
        needed = differing / (1 - rate if evidence.metric.right_or_wrong else 1)
    return max(0, math.ceil(needed - _ROUNDING) - against.n)


def _differing(level: float) -> int:
    """The smallest k with 2 * 0.5^k < level."""
    return math.floor(1 - math.log2(level)) + 1


def more_to_exclude(evidence: Evidence, against: Comparison) -> int | None:
    """About how many more test examples bring the interval's high end down to the margin, if the difference stays.

    The distance of that end from the difference shrinks with the square root of n. None where no practical number does.
    """
    room = evidence.margin - against.difference
    if room <= 0:
        return None
    more = against.n * (((against.high - against.difference) / room) ** 2 - 1)
    return max(1, math.ceil(more - 1e-6)) if more <= _MOST_TIMES * against.n else None
