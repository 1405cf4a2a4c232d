"""Pairs of short texts of which one is the other with a sentence or a heading before it or behind it.

Longer ones share so many shingles that they are found without (`near_duplicates`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rung.data.folding import folded, squeezed
from rung.data.shingles import WordTable, mixed
from rung.data.typos import MOST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = 5
"""Words of a text that is looked for in others. Shorter ones may be a heading themselves."""
MOST_EXTENDING = 5
"""What more texts begin or end with is a formula."""
_END = re.compile(r"[.?!:\n\u2026\u3002\uff1f\uff01\uff1a]+[\"'\u201d\u2019)\]]*\s*")
"""Where a sentence or a heading ends."""


def extended_pairs(
    table: WordTable, texts: NDArray[np.int64], text_of: Callable[[int], str]
) -> Iterator[tuple[int, int]]:
    """Places in `texts` of distinct texts, of which one is the other with something before or behind.

    text_of: position in the table -> its text.
    """
    import numpy as np

    found = [np.empty((0, 2), np.int64)]
    for backwards in (False, True):
        found += _beginning_with_another(table, texts, backwards)
    pairs = np.unique(np.concatenate(found), axis=0)
    formula = np.bincount(pairs[:, 0], minlength=len(texts)) > MOST_EXTENDING
    for short, long in pairs[~formula[pairs[:, 0]]].tolist():
        said = squeezed(folded(text_of(int(texts[short]))))
        text = text_of(int(texts[long]))
        ends = [match.end() for match in _END.finditer(text)]
        if any(said == squeezed(folded(part)) for end in ends for part in (text[:end], text[end:])):
            yield min(short, long), max(short, long)


def _beginning_with_another(table: WordTable, texts: NDArray[np.int64], backwards: bool) -> Iterator[NDArray[np.int64]]:
    """(place of a text, place of a longer one that begins with it, or ends where backwards), shape (pairs, 2).

    The hash of a text is the sum of the hashes of its words in their places, so those of its beginnings are sums too.
    """
    import numpy as np

    def sums_of(part: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """(hash of each beginning, which of `part` it is of, its words)."""
        word, row, place = table.gathered(texts[part])
        lengths = table.lengths[texts[part]]
        if backwards:  # the words of each text from the last to the first
            word = word[np.cumsum(lengths)[row] - 1 - place]
        total = np.cumsum(mixed(word, place.astype(np.uint64)), dtype=np.uint64)
        starts = (np.cumsum(lengths) - lengths)[row]
        before = np.where(starts > 0, total[starts - 1], np.uint64(0))
        return total - before, row, place + 1

    lengths = table.lengths[texts]
    fit = np.flatnonzero((lengths >= LEAST) & (lengths <= MOST))
    batches = list(table.batches(texts[fit]))
    whole = np.zeros(len(fit), np.uint64)
    for some in batches:
        value, row, words = sums_of(fit[some])
        last = words == lengths[fit[some]][row]
        whole[some] = value[last]
    order = np.argsort(whole, kind="stable")
    for some in batches:
        value, row, words = sums_of(fit[some])
        at = np.searchsorted(whole[order], value)
        at[at == len(order)] = 0
        hit = (whole[order][at] == value) & (words >= LEAST) & (words < lengths[fit[some]][row])
        yield np.stack([fit[order[at[hit]]], fit[some][row[hit]]], axis=1)
