"""Why a solution that retrieves goes wrong: each wrong answer has one cause, the first link of the chain that broke.

The chain: a passage of the corpus holds the answer; the search ranks it among the first; the prompt shows the part that
holds the answer; the answer rests on it; it has the right form. Where the documents hold no answer, the right one is to
say so. Each cause has an experiment that should mend it; how often it does is measured on the wrong answers of that
cause, beside a placebo, and so is how often it breaks a right answer.

Knows facts and outcomes; searches nothing, answers nothing and recommends nothing. Where answers stand is looked up in
`answer_places`, the experiments are made in `search_experiments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rung.diagnosis.shares import Outcome, Sampled
from rung.types import Example, SearchFailure

ABSENT = "absent"
MISSED = "missed"
CUT = "cut"
UNUSED = "unused"
FORM = "form"
INVENTED = "invented"
REFUSED = "refused"
UNKNOWN = "unknown"

CAUSES = (ABSENT, MISSED, CUT, UNUSED, FORM, INVENTED, REFUSED, UNKNOWN)
"""In the order of the chain."""


@dataclass(frozen=True)
class Facts:
    """What is known of one wrong answer.

    answerable: whether its references are answers, not the task's `abstain`. refuses: whether the answer says that
    there is none. holds: whether it is right when it is read leniently. located: whether it is known which passages
    hold the right answer, or that none does. held: a passage or a document of the corpus holds it. found: the search
    ranks such a passage among the first. shown: the prompt has the part that holds it.
    """

    answerable: bool = True
    refuses: bool = False
    holds: bool = False
    located: bool = True
    held: bool = True
    found: bool = True
    shown: bool = True


def cause_of(facts: Facts) -> str:
    """The cause of one wrong answer.

    Who refuses without having been shown the answer does the right thing: the link before it is what broke.
    """
    if not facts.answerable:
        return FORM if facts.refuses else INVENTED
    if facts.holds:
        return FORM
    if not facts.located:
        return REFUSED if facts.refuses else UNKNOWN
    if not facts.held:
        return ABSENT
    if facts.shown:
        return REFUSED if facts.refuses else UNUSED
    return CUT if facts.found else MISSED


@dataclass(frozen=True)
class Remedy:
    """One experiment on wrong answers. what: was changed. outcome, placebo: which came out right, right ones too."""

    what: str
    outcome: Outcome
    placebo: Outcome


def shares(
    solution: str,
    causes: Mapping[str, str],
    mended: Mapping[str, Remedy],
    wrong: Sequence[Example],
    right: Sequence[Example],
    groups: Mapping[str, str],
    seed: int,
) -> tuple[SearchFailure, ...]:
    """A row for each cause that there is, the largest first.

    causes: example id -> cause, of every wrong answer. mended: cause -> its experiment. wrong: the examples that were
    answered wrongly. right: those answered rightly that were asked again. groups: example id -> group, the unit.
    """
    everything = Sampled(tuple(wrong), (), 0.0, groups, seed)
    rows = []
    for cause in CAUSES:
        own = tuple(e for e in wrong if causes[e.id] == cause)
        if own:
            rate = everything.rate(e.id for e in own)
            row = SearchFailure(solution, cause, rate.share, rate.low, rate.high, len(own), len(wrong))
            rows.append(_with(row, mended[cause], own, tuple(right), groups, seed) if cause in mended else row)
    return tuple(sorted(rows, key=lambda row: -row.share))  # stable


def _with(
    row: SearchFailure,
    mended: Remedy,
    own: Sequence[Example],
    right: tuple[Example, ...],
    groups: Mapping[str, str],
    seed: int,
) -> SearchFailure:
    """The row with what the experiment did to those that were asked again."""
    outcome, placebo = mended.outcome, mended.placebo
    tried = tuple(e for e in own if e.id in outcome and e.id in placebo)
    if not tried:
        return row
    net = Sampled(tried, right, 0.0, groups, seed).net_rescue(outcome, placebo)
    kept = [e for e in right if e.id in outcome and e.id in placebo]
    return replace(
        row,
        experiment=mended.what,
        tried=len(tried),
        rescued=sum(outcome[e.id] for e in tried),
        by_chance=sum(placebo[e.id] for e in tried),
        net=net.share,
        net_low=net.low,
        net_high=net.high,
        right=len(kept),
        broken=sum(not outcome[e.id] for e in kept),
        broken_by_chance=sum(not placebo[e.id] for e in kept),
    )
