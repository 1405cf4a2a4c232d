"""What is known of a judge, and its sentences: how far it agrees with people, and what it prefers beside the rubric.

Touches no disk and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rung.decision.figures import PERCENT, Scale
from rung.evaluation.judge.agreement import LEAST_KAPPA, Agreement
from rung.evaluation.judge.biases import Bias
from rung.records import but, from_record
from rung.types import JudgeMode, Score

_GRADES = Scale(False)


@dataclass(frozen=True)
class JudgeCheck:
    """A judge as it was held against people before the climb.

    name: of its model. agreement: None where no answers were scored by people. people, judge: mean scores of these
    answers. scores: the judge's, of each. errors: person - judge, of each input a mean over its answers. unread:
    answers on which its replies could not be read. length, position, family: what it prefers; None where it was not
    measured. relatives: models of the task that are of its family. beside: of each finalist its mean by the judge,
    where that is secondary. unlike: a candidate, and the judge's means of its answers and of the scored ones, where
    they differ.
    """

    name: str
    mode: JudgeMode
    samples: int
    fallback: str
    agreement: Agreement | None = None
    people: float | None = None
    judge: float | None = None
    scores: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    unread: int = 0
    length: Bias | None = None
    position: Bias | None = None
    family: Bias | None = None
    relatives: tuple[str, ...] = ()
    beside: tuple[tuple[str, Score], ...] = ()
    unlike: tuple[str, float, float] | None = None

    @property
    def primary(self) -> bool:
        """Whether the judge's scores count: it agrees with people, or it was not held against them."""
        return self.agreement is None or self.agreement.suffices

    @property
    def corrects(self) -> bool:
        """Whether intervals carry its errors: it counts, and people scored some answers."""
        return self.primary and len(self.errors) >= 2


def judge_record(check: JudgeCheck) -> dict[str, Any]:
    """As judge.json holds it."""
    rule = {"least_kappa": LEAST_KAPPA, "primary": check.primary}
    return {**{k: v for k, v in asdict(check).items() if k not in ("beside", "unlike")}, **rule}


def judge_from_record(record: Mapping[str, Any]) -> JudgeCheck:
    """The check that such a record holds."""
    record["agreement"]  # has a default, and what reads it relies on the file
    return from_record(JudgeCheck, but(record, "least_kappa", "primary"))


# ---- sentences --------------------------------------------------------------------------------


def first_of_all(check: JudgeCheck) -> list[str]:
    """What the verdict says first: that the judge was not held against people, or agrees with them too little."""
    if check.agreement is None:
        return [
            f"The judge {check.name} was never held against people, so nobody knows how far its scores can be trusted: "
            "their intervals carry chance alone. Have 20 answers or more scored, and name the file with judged:."
        ]
    if check.primary:
        return []
    said = [
        f"The judge {check.name} is secondary, by the rule that was fixed beforehand: {agreed(check)}, and "
        f"{LEAST_KAPPA:.2f} is asked for. All scores and comparisons are those of {check.fallback}."
    ]
    if check.beside:
        means = ", ".join(f"{name} {_GRADES.full(score)}" for name, score in check.beside)
        said.append(f"The judge's own means on the sealed test, beside that: {means}. They decide nothing.")
    return said


def biases_in_words(check: JudgeCheck) -> list[str]:
    """The biases that were found, and those that may be there and were not measured."""
    said = []
    if check.length is not None and check.length.found:
        long = check.length.difference > 0
        said.append(
            f"The judge prefers {'long' if long else 'short'} answers: with filler behind them, the same answers score "
            f"{_by(check.length)}. Candidates whose answers differ in length are not compared fairly."
        )
    if check.position is not None and check.position.found:
        first = "first" if check.position.difference > 0 else "second"
        more = f"{_GRADES.gap(abs(check.position.difference))} more ({_ends(check.position)})"
        said.append(
            f"The judge prefers the answer that stands {first}: there an answer scores {more}. Each pair is judged in "
            "both orders, so that this cancels out in the mean."
        )
    if check.family is not None and check.family.found:
        own = "favours" if check.family.difference > 0 else "is harder on"
        said.append(
            f"The judge {own} answers of its own family: against people's scores, it gives them {_by(check.family)} "
            "than to the others."
        )
    elif check.family is None and check.relatives:
        names = ", ".join(check.relatives)
        said.append(
            f"The judge {check.name} is of the family of {names}, which it judges. Whether it favours its own was not "
            "measured: add a column model to the scored answers, five at least of its family and five of others."
        )
    return said


def unlike_in_words(check: JudgeCheck) -> list[str]:
    """That the scored answers are unlike the winner's, where they are."""
    if check.unlike is None or not check.corrects:
        return []
    name, theirs, scored = check.unlike
    return [
        f"The answers that people scored are unlike those of {name}: the judge gives them {_GRADES.value(scored)} on "
        f"average, and {name} {_GRADES.value(theirs)}. The intervals take it that the judge errs alike on both."
    ]


def how_scored(check: JudgeCheck) -> list[str]:
    """What its scores, intervals and comparisons rest on, where it counts."""
    if not check.corrects:
        return []
    shift = sum(check.errors) / len(check.errors)
    gave = "more" if shift > 0 else "less"
    moved = f"{'raised' if shift > 0 else 'lowered'} by {_GRADES.gap(abs(shift))}, because people gave so much {gave}"
    if not shift:
        moved = "as it is, because people gave as much"
    return [
        f"The judge {check.name} agrees with people: {agreed(check)}. Each score is its mean, {moved} on average, and "
        "the intervals carry its errors. Differences between candidates are the judge's own: they hold where it errs "
        "alike on both."
    ]


def agreed(check: JudgeCheck) -> str:
    """kappa is 0.74 (0.51 to 0.88) on 40 scored answers, and both are on the same side of one half in 85 % (71–93)"""
    found = check.agreement
    assert found is not None
    if found.kappa is None:
        kappa = f"kappa is not defined on {found.n} scored answers, because {_without_kappa(check)}"
    else:
        ends = f" ({found.kappa_low:.2f} to {found.kappa_high:.2f})" if found.kappa_low is not None else ""
        kappa = f"kappa is {found.kappa:.2f}{ends} on {found.n} scored answers"
    share = PERCENT.full(Score(found.share, found.share_low, found.share_high, found.n))
    return f"{kappa}, with both on the same side of one half in {share}"


def _without_kappa(check: JudgeCheck) -> str:
    """Whose scores of the same answers do not vary."""
    if not check.scores:
        return "one side gave every answer the same score"
    if max(check.scores) > min(check.scores):
        return "people gave every answer the same score"
    return f"the judge gave every answer the same {'grade' if check.mode == 'graded' else 'score'}"


def _by(bias: Bias) -> str:
    """0.12 more (0.05 to 0.19)"""
    more = "more" if bias.difference > 0 else "less"
    return f"{_GRADES.gap(abs(bias.difference))} {more} ({_ends(bias)})"


def _ends(bias: Bias) -> str:
    low, high = sorted((abs(bias.low), abs(bias.high))) if bias.found else (bias.low, bias.high)
    return _GRADES.ends(low, high)
