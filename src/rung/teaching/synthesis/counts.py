"""How many requests a synthesis makes: known before the first one, and never passed.

The constants stand here alone; what asks and what estimates both read them. Knows numbers, nothing of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rung.teaching.answering import VOTES

Kind = Literal["new", "paraphrase", "document", "unanswerable"]
"""new: an input of the task. paraphrase: a train input in other words. document: a question that a passage answers.
unanswerable: a question that no passage answers."""

KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_ROWS = 20_000
KNOWN = 20
"""Train rows at most that the teacher answers first, as if they were new."""
BAR = 0.6
"""Mean score on these rows below which a teacher writes no examples."""
DEMOS = 8
"""Worked examples, the nearest to the input, in a prompt that shows some."""

WRITTEN: Mapping[Kind, int] = {"new": 5, "paraphrase": 3, "document": 3, "unanswerable": 3}
"""Inputs that one request asks for. What is asked for at once is more alike."""

_SHARES: Mapping[Kind, float] = {"new": 0.6, "paraphrase": 0.4}
_SHARES_WITH_DOCUMENTS: Mapping[Kind, float] = {"new": 0.2, "paraphrase": 0.2, "document": 0.5, "unanswerable": 0.1}
_DRAFTS = 1.6  # inputs written, for each row that is wanted: some are near-duplicates
_VOTED = 1.25  # inputs answered, for each row that is wanted: some have no majority


@dataclass(frozen=True)
class Counts:
    """What is asked of a teacher.

    wanted: kind -> rows. known: train rows that it answers first. settings: prompts that these are answered with.
    """

    wanted: Mapping[Kind, int]
    known: int
    settings: int

    @property
    def rows(self) -> int:
        return sum(self.wanted.values())

    def writings(self, kind: Kind) -> int:
        """Requests for new inputs of a kind."""
        return _up(_DRAFTS * self.wanted.get(kind, 0) / WRITTEN[kind])

    @property
    def written(self) -> int:
        """Requests for new inputs, of all kinds."""
        return sum(map(self.writings, self.wanted))

    @property
    def voted(self) -> int:
        """New inputs that are answered, at most."""
        return _up(_VOTED * self.rows)

    @property
    def measured(self) -> int:
        """Requests for answers to known rows."""
        return VOTES * self.known * self.settings

    @property
    def calls(self) -> int:
        """All requests, at most. Fewer are made where so many written inputs repeat each other that few are left."""
        return self.measured + self.written + VOTES * self.voted


def counts_of(rows: int, kinds: Sequence[Kind], train: int, *, forms: bool) -> Counts:
    """What is asked for so many rows of these kinds, at least one.

    train: number of train rows. forms: the answers of the task have a form that can be said in words.
    """
    shares = _SHARES_WITH_DOCUMENTS if set(kinds) & {"document", "unanswerable"} else _SHARES
    total = sum(shares.get(kind, 0.0) for kind in kinds)
    wanted = {kind: int(rows * shares.get(kind, 0.0) / total) for kind in kinds}
    wanted[kinds[0]] += rows - sum(wanted.values())
    return Counts(wanted, min(KNOWN, train // 2), 3 if forms else 2)


def kinds_for(*, documents: bool, abstains: bool) -> tuple[Kind, ...]:
    """The kinds that a task can have. abstains: it names the answer that is right where documents hold none."""
    return ("new", "paraphrase", *(("document",) if documents else ()), *(("unanswerable",) if abstains else ()))


def _up(number: float) -> int:
    return -int(-number // 1)
