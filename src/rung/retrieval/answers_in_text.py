"""Where accepted answers stand in texts, as whole words: case, punctuation and articles aside.

That a passage contains an answer says little where many passages do ("2", "yes", the name of the subject itself). So it
counts by how many would contain it by chance. Knows nothing of marks and searches.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rung.retrieval.passages import searched
from rung.text import is_character, units
from rung.types import Document, Example

BY_CHANCE = 0.05
"""Hits that hold an answer by chance, at most, down to the rank of one that counts. docs/retrieval.md: figures."""

_SAMPLED = 2_000
"""Passages on which the share that holds an answer is estimated."""

_ARTICLES = frozenset({"a", "an", "the"})
_SAYS_NOTHING = re.compile(
    r" (?:yes|no|y|n|true|false|t|f|none|nothing|unknown|maybe|other|not (?:known|given|stated|applicable)|n a|ja|nein"
    r"|oui|non|s[ií]|sim|não) "
)
"""Answers that passages do not hold as such: whether one stands in a text says nothing."""


def contains_answer(passage: Document, example: Example) -> bool:
    """Whether title or text holds an accepted answer."""
    text = _plain_of(passage)
    return any(answer in text for answer in _answers(example))


def says_something(answer: str) -> bool:
    """Whether it means anything that a passage contains this answer: not for yes, no and single signs."""
    plain = plain_words(answer)
    found = plain.split()
    if not found or _SAYS_NOTHING.fullmatch(plain):
        return False
    return len(found) > 1 or (len(found[0]) > 1 and not is_character(found[0]))


def is_telling(rank: int, share: float) -> bool:
    """Whether it is no chance that a hit holds an answer: so few are expected down to the middle of its rank.

    rank: from 1. share: of the passages that hold the answer. Of all passages, this one among them: then of fewer than
    10 passages no hit counts. Of all others: then one that alone holds the answer counts at any rank.
    """
    return (rank - 0.5) * share <= BY_CHANCE


def passages_with(passages: Iterable[Document], examples: Sequence[Example]) -> dict[str, list[Document]]:
    """Example id -> the passages that hold an accepted answer which says something.

    One pass, about 8 s for 100,000 passages of 150 words, whatever the number of examples: only texts with the longest
    word of an answer are looked at closely. Holds the answers in memory, and one text at a time.
    """
    wanted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        for answer in set(_telling(example)):
            wanted[max(answer.split(), key=len)][answer].append(example.id)
    hits: dict[str, list[Document]] = {e.id: [] for e in examples}
    for passage in passages if wanted else ():
        text = searched(passage)
        here = wanted.keys() & units(text)
        plain = plain_words(text) if here else ""
        for name in {n for unit in here for answer, own in wanted[unit].items() if answer in plain for n in own}:
            hits[name].append(passage)
    return hits


class AnswersInText:
    """Which hits of a search say by the answers in them that they are right ones."""

    def __init__(self, passages: Sequence[Document]) -> None:
        """passages: of the whole corpus, of which a fixed sample is looked at."""
        sample = passages if len(passages) <= _SAMPLED else random.Random(0).sample(list(passages), _SAMPLED)
        self._sample = tuple(map(_plain_of, sample))
        self._shares: dict[str, float] = {}

    def telling_hits(self, example: Example, ranked: Sequence[Document]) -> list[Document]:
        """Of ranked passages, best first, those with an answer that so few hold that it is no chance at that rank."""
        answers = list(_telling(example))
        found = []
        for rank, passage in enumerate(ranked, 1):
            text = _plain_of(passage)
            if any(a in text and is_telling(rank, self._share(a)) for a in answers):
                found.append(passage)
        return found

    def _share(self, answer: str) -> float:
        """Share of the passages that hold the answer."""
        if answer not in self._shares:
            self._shares[answer] = sum(answer in text for text in self._sample) / max(1, len(self._sample))
        return self._shares[answer]


def plain_words(text: str) -> str:
    """The words of a text between single spaces, with one at both ends; articles only where there is nothing else."""
    found = units(text)
    return f" {' '.join([u for u in found if u not in _ARTICLES] or found)} "


def _plain_of(passage: Document) -> str:
    return plain_words(searched(passage))


def _answers(example: Example) -> Iterator[str]:
    return (answer for r in example.references if (answer := plain_words(r)).strip())


def _telling(example: Example) -> Iterator[str]:
    return (plain_words(r) for r in example.references if says_something(r))
