"""What a solution says to a question that it cannot answer: that it has no answer, or one that it made up.

A question is unanswerable because the user says so (its reference is the task's `abstain`), or because the passages
that hold its answer were taken out of the corpus. Knows answers as texts; nothing of models, prompts or corpora.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rung.data.refusals import says_nothing as says_nothing
from rung.evaluation.statistics import compare, score, units_of
from rung.text import units
from rung.types import Comparison, Example, Score

Said = Literal["nothing", "right", "made up"]
"""nothing: that there is no answer, or no word. right: an accepted answer all the same. made up: anything else."""


def what_it_says(text: str, references: Sequence[str], abstain: str | None = None) -> Said:
    """What an answer to an unanswerable question amounts to.

    references: answers that were accepted while it could be answered. One that stands in the text as whole words makes
    it right: the model knew it, or another passage holds it; then nothing is made up. abstain: the answer that says
    that there is none; an answer may go on behind it.
    """
    if says_nothing(text, abstain):
        return "nothing"
    return "right" if _holds(text, references) else "made up"


def _holds(text: str, references: Sequence[str]) -> bool:
    said = f" {' '.join(units(text))} "
    return any(f" {' '.join(words)} " in said for r in references if (words := units(r)))


@dataclass(frozen=True)
class Unanswered:
    """What one solution said on unanswerable rows: row id -> what. answerable: likewise on rows that have an answer."""

    rows: Mapping[str, Said]
    answerable: Mapping[str, Said]

    @property
    def invented(self) -> dict[str, float]:
        """Row id -> 1.0 where the answer was made up, else 0.0."""
        return {i: float(said == "made up") for i, said in self.rows.items()}

    @property
    def refused(self) -> dict[str, float]:
        """Row id of an answerable row -> 1.0 where it was refused, else 0.0."""
        return {i: float(said == "nothing") for i, said in self.answerable.items()}


def share_of(outcomes: Mapping[str, float], groups: Mapping[str, str], seed: int) -> Score | None:
    """The mean over rows with its 95 % interval; None without rows. groups: row id -> group of the split."""
    if not outcomes:
        return None
    return score(list(outcomes.values()), groups=units_of(list(outcomes), groups), seed=seed)


def more_invented(
    base: tuple[str, Unanswered], tuned: tuple[str, Unanswered], groups: Mapping[str, str], seed: int
) -> Comparison | None:
    """Share invented by `tuned` minus that of `base`, on the rows that both were asked; None where there are none.

    base, tuned: (name, what it said). The paired test and the interval are those of `statistics.compare`.
    """
    (a_name, a), (b_name, b) = base, tuned
    ids = [i for i in b.rows if i in a.rows]
    if not ids:
        return None
    before, after = a.invented, b.invented
    units_ = units_of(ids, groups)
    return compare(a_name, b_name, [before[i] for i in ids], [after[i] for i in ids], "dev", groups=units_, seed=seed)


def refuses_by_reference(example: Example, abstain: str | None) -> bool:
    """Whether the accepted answer to a row is that there is none, as the task writes it."""
    if abstain is None:
        return False
    wanted = units(abstain)
    return any(units(r) == wanted for r in example.references)
