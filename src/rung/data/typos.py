"""Pairs of texts that differ in one word, where that word is misspelt in one of them.

Whether two words that differ in a letter are a typo ("card", "crad") or two words ("Iran", "Iraq") is for the data to
say: a place of a sentence that takes three words or more is a slot of a template, and a misspelling hardly stands
elsewhere.
Source for the keys (a text without each of its words in turn): Bocek, Hunt & Stiller, Fast similarity search in large
dictionaries (2007), there with letters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from rung.data.shingles import CHARACTER, NUMERIC, WordTable, mixed, runs, sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEWEST, MOST = 3, 64
"""Words of the texts that are compared so. Longer ones share most shingles whatever one word is."""
SLOT = 3
"""So many words in one place of a sentence are the fillers of a template."""
LEAST_FOR_TYPO = 12
"""Characters of a text in a script without spaces from which one exchanged character counts as a typo."""
LONG_ENOUGH = 8
"""Words of a text from which a letter in one word makes no difference, whatever the other texts say."""
MUCH_COMMONER = 10
"""So many times more texts hold a word than hold its misspelling, where several do."""
LONG_NAME = 6
"""Letters from which two fillers of a slot that differ in one are taken for one, if they are alone with that."""
_PART = 4_000_000  # keys that are sorted at once
_MOST_NEAR = 50


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two places whose texts differ in one letter of one word. slot: whether a template is filled in there."""

    places: tuple[int, int]
    hashes: tuple[int, int]
    words: tuple[str, str]
    slot: bool
    length: int
    alone: bool  # no filler of the slot has a third one near it


def typo_pairs(
    table: WordTable, texts: NDArray[np.int64], words_of: Callable[[int], Sequence[str]]
) -> Iterator[tuple[int, int]]:
    """Places i < j in `texts` of distinct texts that differ by one misspelt word.

    words_of: position in the table -> its words, where the table has forgotten one.
    """
    found = list(_one_word_apart(table, texts, words_of))
    if not found:
        return
    held = _Holders(table, texts, {word for pair in found for word in pair.hashes})
    for pair in found:
        if is_typo(pair, *(held.of(word) for word in pair.hashes)):
            yield min(pair.places), max(pair.places)


def is_typo(pair: _Pair, held_a: int, held_b: int) -> bool:
    """Whether one of two words a letter apart is the other misspelt. held_a, held_b: texts that hold the word."""
    a, b = pair.words
    if all(word & CHARACTER for word in pair.hashes):
        return not pair.slot and pair.length >= LEAST_FOR_TYPO
    letters = min(len(a), len(b))
    if letters < 2 or any(word & CHARACTER for word in pair.hashes):  # letters < 2: a sign, or a word such as "a"
        return False
    if not pair.slot and pair.length >= LONG_ENOUGH:
        return True
    rare, common = sorted((held_a, held_b))
    if rare > 1:
        return not pair.slot and letters > 3 and MUCH_COMMONER * rare <= common
    swapped = len(a) == len(b) > 2 and sorted(a) == sorted(b)
    known = common >= (5 if pair.slot else 3)  # and the other one is known nowhere else
    return known or swapped or (letters >= LONG_NAME and pair.alone) or (letters > 3 and not pair.slot)


def one_letter_apart(a: str, b: str) -> bool:
    """Whether one letter was exchanged, added or left out, or two neighbours changed places."""
    if abs(len(a) - len(b)) > 1 or a == b:
        return False
    same = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        same += 1
    if len(a) == len(b):
        swapped = a[same : same + 2] == b[same : same + 2][::-1] and a[same + 2 :] == b[same + 2 :]
        return swapped or a[same + 1 :] == b[same + 1 :]
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[same + 1 :] == shorter[same:]


def _one_word_apart(
    table: WordTable, texts: NDArray[np.int64], words_of: Callable[[int], Sequence[str]]
) -> Iterator[_Pair]:
    """Pairs of texts that differ in one word by one letter; none where it is a number."""
    import numpy as np

    lengths = table.lengths[texts]
    fit = np.flatnonzero((lengths >= FEWEST) & (lengths <= MOST))
    parts = np.uint64(max(1, -(-int(lengths[fit].sum()) // _PART)))
    for part in range(int(parts)):
        keys, words, owners, positions = [], [], [], []
        for some in table.batches(texts[fit]):
            word, row, place = table.gathered(texts[fit[some]])
            at = place.astype(np.uint64)
            placed = mixed(word, at)
            starts = np.concatenate([[0], np.cumsum(lengths[fit[some]])])
            key = sums(placed, starts)[row] - placed + mixed(np.full(len(at), 7, np.uint64), at)
            key = mixed(key, lengths[fit[some]].astype(np.uint64)[row])
            here = (key % parts == np.uint64(part)) & (word & np.uint64(NUMERIC) == 0)
            keys.append(key[here])
            words.append(word[here])
            owners.append(fit[some][row[here]].astype(np.int32))
            positions.append(place[here].astype(np.int8))
        if not keys:
            return
        word, owner, position = np.concatenate(words), np.concatenate(owners), np.concatenate(positions)
        places, first, length = runs(np.concatenate(keys))
        for start, n in zip(first.tolist(), length.tolist(), strict=True):
            members = places[start : start + n]
            at_word = int(position[members[0]])
            fillers = sorted(
                (table.spelt(h) or words_of(int(texts[i]))[at_word], h, i)
                for h, i in zip(word[members].tolist(), owner[members].tolist(), strict=True)
            )
            yield from _near_fillers(fillers, int(lengths[fillers[0][2]]))


def _near_fillers(fillers: Sequence[tuple[str, int, int]], length: int) -> Iterator[_Pair]:
    """fillers: (word, its hash, place of the text) of the texts that are the same but for this word."""
    slot = len(fillers) >= SLOT
    if slot:
        near: dict[str, list[int]] = defaultdict(list)
        for n, (text, _, _) in enumerate(fillers):
            for key in {text, *(text[:k] + text[k + 1 :] for k in range(len(text)))}:
                near[key].append(n)
        pairs = {
            (a, b)
            for members in near.values()
            if len(members) <= _MOST_NEAR
            for a, b in combinations(members, 2)
            if one_letter_apart(fillers[a][0], fillers[b][0])
        }
    else:
        pairs = {(0, 1)} if one_letter_apart(fillers[0][0], fillers[1][0]) else set()
    if not pairs:
        return
    degree = Counter(n for pair in pairs for n in pair)
    for a, b in sorted(pairs):
        x, y = fillers[a], fillers[b]
        alone = max(degree[a], degree[b]) == 1
        yield _Pair((x[2], y[2]), (x[1], y[1]), (x[0], y[0]), slot, length, alone)


class _Holders:
    """How many texts hold a word, for some words."""

    def __init__(self, table: WordTable, texts: NDArray[np.int64], words: set[int]) -> None:
        import numpy as np

        self._words = np.sort(np.fromiter(words, np.uint64, len(words)))
        self._times = np.zeros(len(words), np.int64)
        for some in table.batches(texts):
            word, row, _ = table.gathered(texts[some])
            place = np.searchsorted(self._words, word)
            place[place == len(self._words)] = 0
            hit = self._words[place] == word
            both = np.unique(place[hit] * np.int64(len(texts)) + row[hit])
            self._times += np.bincount(both // len(texts), minlength=len(words))

    def of(self, word: int) -> int:
        """Texts that hold the word."""
        import numpy as np

        return int(self._times[np.searchsorted(self._words, np.uint64(word))])
