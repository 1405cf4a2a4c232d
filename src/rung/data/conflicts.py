"""Near-duplicates whose answers contradict each other, and how alike two inputs are.

Knows texts and answers; knows nothing of sets and of files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from rung.data import typos
from rung.data.folding import squeezed
from rung.data.near_duplicates import SIMILAR, SLOT_WORDS, Pairs, near_duplicates, words_of
from rung.text import normal_form
from rung.types import Example


def conflicting_pairs(examples: Sequence[Example], pairs: Pairs | None = None) -> list[tuple[Example, Example]]:
    """Near-duplicates that have no accepted answer in common. pairs: as in `near_duplicate_groups`.

    No conflict is claimed where the inputs may ask for two things: the same words in another order ("from Rome to
    Bari"), less than SIMILAR in common, more than SLOT_WORDS words for others, or one word for another that is no
    misspelling of it ("Iceland", "Ireland").
    """
    named: list[tuple[Example, Example, tuple[str, str] | None]] = []
    for i, j in near_duplicates(examples) if pairs is None else pairs:
        a, b = examples[i], examples[j]
        if same_answers(a, b):
            continue
        left, right = words_of(a), words_of(b)
        words = _exchanged_word(left, right)
        if words or _little_changed(left, right):
            named.append((a, b, words))
    asked = {word for _, _, words in named for word in words or ()}
    held = Counter(word for e in examples for word in asked.intersection(words_of(e))) if asked else Counter()

    def misspelt(a: str, b: str) -> bool:
        rare, common = sorted((held[a], held[b]))
        return common > 1 and (rare == 1 or typos.MUCH_COMMONER * rare <= common)

    return [(a, b) for a, b, words in named if words is None or misspelt(*words)]


def _exchanged_word(left: Sequence[str], right: Sequence[str]) -> tuple[str, str] | None:
    """The one word in which two texts differ, in each of them; None where they differ otherwise."""
    if len(left) != len(right):
        return None
    differing = [pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]]
    return differing[0] if len(differing) == 1 else None


def _little_changed(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two texts share most words, in the same order."""
    if squeezed(left) == squeezed(right):
        return True
    a, b = Counter(left), Counter(right)
    return a != b and min((a - b).total(), (b - a).total()) <= SLOT_WORDS and _share(left, right) >= SIMILAR


def same_answers(a: Example, b: Example) -> bool:
    """Whether two examples accept a common answer, in their normal form."""
    if a.output == b.output:
        return True
    return not {normal_form(r) for r in a.references}.isdisjoint(normal_form(r) for r in b.references)


def alike_share(a: Example, b: Example) -> float:
    """How alike two inputs are, from 0 to 1: the part of their words and pairs of words that both hold."""
    return _share(words_of(a), words_of(b))


def _share(left: Sequence[str], right: Sequence[str]) -> float:
    if squeezed(left) == squeezed(right):
        return 1.0
    x, y = ({*words, *pairwise(words)} for words in (left, right))
    return len(x & y) / len(x | y)
