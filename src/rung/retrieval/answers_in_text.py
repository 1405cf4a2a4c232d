"""Where accepted answers stand in texts, as whole words: case, punctuation and articles aside.

That a passage contains an answer says little where many passages do ("2", "yes", the name of the subject itself). So it
counts by how many would contain it by chance. Knows nothing of marks and searches.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from rung.text import is_character, units
from rung.types import Document, Example

BY_CHANCE = 0.05
"""Hits that hold an answer by chance up to the middle of a rank: (rank - 1/2) times the share of all passages that hold
it. Of fewer than 10 passages none counts: a search that finds most of them says nothing. docs/retrieval.md: figures."""

LONGEST_SHORT = 8
"""Words of an answer that is expected to stand verbatim where a text holds it; a longer one may be worded otherwise."""

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


def standing(documents: Sequence[Document], examples: Sequence[Example]) -> dict[str, bool | None]:
    """Example id -> whether an accepted answer stands in any of the documents or passages.

    None where that cannot be said: the answers are like yes and no, or none stands there and all are so long that the
    documents may word them otherwise. One pass, about 8 s for 100,000 passages of 150 words, whatever the number of
    examples; holds the answers in memory and one text at a time.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        for answer in _telling(example):
            wanted[max(answer.split(), key=len)].add(answer)
    found: set[str] = set()
    for document in documents:
        text = f"{document.title or ''}\n{document.text}"
        here = wanted.keys() & units(text)
        if not here:
            continue
        plain = plain_words(text)
        for unit in here:
            if held := {answer for answer in wanted[unit] if answer in plain}:
                found |= held
                wanted[unit] -= held
                if not wanted[unit]:
                    del wanted[unit]
    return {e.id: _verdict(list(_telling(e)), found) for e in examples}


def _verdict(answers: Sequence[str], found: set[str]) -> bool | None:
    if any(answer in found for answer in answers):
        return True
    return False if any(len(answer.split()) <= LONGEST_SHORT for answer in answers) else None


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
            if any(a in text and (rank - 0.5) * self._share(a) <= BY_CHANCE for a in answers):
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
    return plain_words(f"{passage.title or ''}\n{passage.text}")


def _answers(example: Example) -> Iterator[str]:
    return (answer for r in example.references if (answer := plain_words(r)).strip())


def _telling(example: Example) -> Iterator[str]:
    return (plain_words(r) for r in example.references if says_something(r))
