"""Whether answers name their sources, and whether these hold the answer.

Words are compared, no model is asked: a passage that says the same in other words counts as not holding it, and one
that holds the words in another sense counts as holding it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rung.errors import came
from rung.evaluation.abstention import says_nothing
from rung.evaluation.statistics import score, units_of
from rung.retrieval.answers_in_text import says_something
from rung.retrieval.gold import GoldIndex, contains_answer
from rung.retrieval.passages import searched
from rung.text import units
from rung.types import Citing, Document, Example, Prediction, Score, SetName

SHORT = 5
"""Words of an answer up to which a passage that supports it holds all of them in their order."""
MOST_WORDS = 0.8
"""Share of the different words of a longer answer that a passage which supports it holds."""


@dataclass(frozen=True)
class CitedAnswer:
    """What one answer names. holds, supports: of each passage, in order; None where it cannot be said, as of an answer
    "no" that nobody marked. bad: numbers that no passage has."""

    holds: tuple[bool | None, ...] = ()
    supports: tuple[bool | None, ...] = ()
    bad: int = 0

    @property
    def named(self) -> int:
        return len(self.holds) + self.bad


def checked_citations(
    predictions: Sequence[Prediction],
    examples: Mapping[str, Example],
    passages: Mapping[str, Document],
    gold: GoldIndex,
    abstain: str | None = None,
) -> dict[str, CitedAnswer]:
    """Row id -> what its answer names. An answer that did not come, or says that there is none, is left out.

    examples: by id. passages: by id, those that are named at least. gold: the same passages by their marks. A passage
    holds the answer where it contains an accepted one as whole words, or is marked; of a marked document, a part that
    contains an accepted answer, or any where no part does. Any passage may contain a "no": whether it holds that is
    said by marks alone.
    """
    found = {}
    for p in predictions:
        if not came(p.error) or says_nothing(p.text, abstain):
            continue
        example = examples[p.id]
        named = [passages[i] for i in p.citations if i in passages]
        marked = gold.marked(example)
        tells = any(map(says_something, example.references))
        holds = [c.id in marked or (tells and contains_answer(c, example)) for c in named]
        found[p.id] = CitedAnswer(
            tuple(h if tells or marked else None for h in holds),
            tuple(supports(c, p.text) if says_something(p.text) else None for c in named),
            p.bad_citations,
        )
    return found


def supports(passage: Document, answer: str) -> bool:
    """Whether the words of the answer stand in the passage: all of them in their order, or of an answer of more than
    SHORT words, MOST_WORDS of those that differ."""
    said, there = units(answer), units(searched(passage))
    if f" {' '.join(said)} " in f" {' '.join(there)} ":
        return True
    words = set(said)
    return len(said) > SHORT and len(words.intersection(there)) >= MOST_WORDS * len(words)


def citing(
    name: str, set_: SetName, rows: Mapping[str, CitedAnswer], groups: Mapping[str, str], seed: int
) -> Citing | None:
    """The shares of a candidate's answers with their 95 % intervals; None without an answer.

    groups: row id -> group of the split. All that one answer names is of one unit.
    """
    if not rows:
        return None
    unit = dict(zip(rows, units_of(list(rows), groups) or rows, strict=True))

    def share(of: Callable[[CitedAnswer], tuple[bool | None, ...]]) -> Score | None:
        known = [
            (float(v), unit[i]) for i, row in rows.items() for v in (*of(row), *[False] * row.bad) if v is not None
        ]
        return score([v for v, _ in known], groups=[own for _, own in known], seed=seed) if known else None

    return Citing(
        name,
        set_,
        score([float(row.named > 0) for row in rows.values()], groups=list(unit.values()), seed=seed),
        share(lambda row: row.holds),
        share(lambda row: row.supports),
        sum(row.bad for row in rows.values()),
    )
