"""Words of many texts as numbers, and their shingles: runs of two and three words, of which similarity is computed.

A word is a 64-bit hash, the same in every process, 8 bytes whatever its length. Shingles are made from them when they
are asked for, so that those of all texts are never in memory together.
Knows nothing of examples, and nothing of what makes two texts near-duplicates.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from rung.text import is_character

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMERIC, CHARACTER = 1, 2
"""Bits of a word's hash: it holds a digit (or 三); it is a character of a script without spaces."""
_BATCH_WORDS = 1_000_000
_BUCKET_BITS = 22  # shingles are counted in 4 million buckets: 32 MB, whatever the size of the data


_MOST_WORDS = 1_000_000


class _Hashes(dict[str, int]):
    """Word -> hash. Forgets when it grows large."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_WORDS:
            self.clear()
        value = int.from_bytes(blake2b(word.encode(errors="replace"), digest_size=8).digest()) & ~3
        value |= NUMERIC * any(c.isnumeric() for c in word) | CHARACTER * (len(word) < 9 and is_character(word))
        self[word] = value
        return value


class WordTable:
    """The words of texts, text after text. After `close`: values, shape (words,), and starts, shape (texts + 1,)."""

    values: NDArray[np.uint64]
    starts: NDArray[np.int64]

    def __init__(self) -> None:
        self._hashes = _Hashes()
        self._spelt: dict[int, str] = {}
        self._values = array("Q")
        self._starts = array("q", [0])

    def add(self, words: Sequence[str]) -> None:
        """One more text."""
        hashes = self._hashes
        self._values.extend([hashes[word] for word in words])
        self._starts.append(len(self._values))

    def hashes(self, words: Iterable[str]) -> list[int]:
        """The hashes of some words, before `close`."""
        return [self._hashes[word] for word in words]

    def close(self) -> None:
        """All texts are in it."""
        import numpy as np

        self.values = np.frombuffer(self._values, np.uint64) if self._values else np.empty(0, np.uint64)
        self.starts = np.frombuffer(self._starts, np.int64)
        self._spelt = {value: word for word, value in self._hashes.items()}
        self._hashes.clear()

    def spelt(self, word: int) -> str | None:
        """A word by its hash; None where so many words came that it was forgotten."""
        return self._spelt.get(word)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Words of each text."""
        import numpy as np

        return np.diff(self.starts)

    def of(self, text: int) -> list[int]:
        """The words of one text."""
        found: list[int] = self.values[self.starts[text] : self.starts[text + 1]].tolist()
        return found

    def gathered(self, texts: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """(words of these texts one after another, which of `texts` each belongs to, its place in the text)."""
        import numpy as np

        lengths = self.lengths[texts]
        rows = np.repeat(np.arange(len(texts)), lengths)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self.values[self.starts[texts][rows] + places], rows, places

    def batches(self, texts: NDArray[np.int64]) -> Iterator[slice]:
        """Parts of `texts` of about a million words."""
        import numpy as np

        ends = np.cumsum(self.lengths[texts])
        start = 0
        while start < len(texts):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH_WORDS, side="right")))
            yield slice(start, stop)
            start = stop


class Shingles:
    """The shingles of some texts of a table, hashed to 64 bits and without boilerplate.

    texts: positions in the table, shape (n,); a place is a position in `texts`. A shingle that more than `limit` of
    the texts hold is boilerplate.
    """

    def __init__(self, table: WordTable, texts: NDArray[np.int64], limit: int) -> None:
        import numpy as np

        self.table, self.texts, self._limit = table, texts, limit
        self._holders = np.zeros(1 << _BUCKET_BITS, np.int32)  # bucket of shingles -> texts that have one
        for part in table.batches(texts):
            values, _ = self._all(np.arange(part.start, part.stop))
            buckets, times = np.unique((values >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64), return_counts=True)
            self._holders[buckets] += times.astype(np.int32)

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(hashes, which of `places` each belongs to), sorted by place, then hash; distinct within a place."""
        import numpy as np

        values, rows = self._all(places)
        telling = self._holders[values >> np.uint64(64 - _BUCKET_BITS)] <= self._limit
        return values[telling], rows[telling]

    def similarity(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(Jaccard similarity of the shingles of the places a[n] and b[n], how many they share), of shape (n,) each.

        The similarity of texts without shingles is 0.
        """
        import numpy as np

        found, common = np.zeros(len(a)), np.zeros(len(a), np.int64)
        sizes = np.cumsum(self.table.lengths[self.texts[a]] + self.table.lengths[self.texts[b]])
        start = 0
        while start < len(a):
            before = sizes[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(sizes, before + _BATCH_WORDS, side="right")))
            places = np.concatenate([a[start:stop], b[start:stop]])
            values, rows = self.of(places)
            n = stop - start
            pairs = rows % n
            held = np.bincount(pairs, minlength=n)
            order = np.lexsort((values, pairs))
            values, pairs = values[order], pairs[order]
            twice = (values[1:] == values[:-1]) & (pairs[1:] == pairs[:-1])
            shared = np.bincount(pairs[1:][twice], minlength=n)
            found[start:stop], common[start:stop] = shared / np.maximum(held - shared, 1), shared
            start = stop
        return found, common

    def holders(self, i: int, j: int) -> float:
        """How many texts hold a shingle that two places share: the median, or a little more."""
        import numpy as np

        values, _ = self.of(np.array([i, j]))
        shared, times = np.unique(values, return_counts=True)
        return float(np.median(self._holders[shared[times == 2] >> np.uint64(64 - _BUCKET_BITS)]))

    def _all(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """As `of`, boilerplate included: 2- and 3-grams of words; the word itself where there is only one."""
        import numpy as np

        word, text_of, _ = self.table.gathered(self.texts[places])
        alone = self.table.lengths[self.texts[places]][text_of] == 1
        two = mixed(word[:-1], word[1:])
        three = mixed(two[:-1], word[2:])
        inside2, inside3 = text_of[:-1] == text_of[1:], text_of[:-2] == text_of[2:]
        values = np.concatenate([word[alone], two[inside2], three[inside3]])
        rows = np.concatenate([text_of[alone], text_of[:-1][inside2], text_of[:-2][inside3]])
        order = np.lexsort((values, rows))
        values, rows = values[order], rows[order]
        new = np.ones(len(values), bool)
        new[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
        return values[new], rows[new]


def mixed(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of two hashes in this order, by multiplication and shifts as in SplitMix64 (Steele et al., 2014)."""
    import numpy as np

    found: NDArray[np.uint64] = (a * np.uint64(0x9E3779B97F4A7C15)) ^ (b + np.uint64(0x632BE59BD9B4E019))
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def sums(values: NDArray[np.uint64], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Sum modulo 2^64 of values[starts[n]:starts[n + 1]], shape (n,)."""
    import numpy as np

    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    found: NDArray[np.uint64] = total[starts[1:]] - total[starts[:-1]]
    return found


def runs(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(positions whose key others have too, sorted by key; where in them each run of one key starts; its length)."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    kept = keys[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(1, len(kept)), bool), kept[1:] != kept[:-1]]))
    length = np.diff(np.concatenate([first, [len(kept)]]))
    shared = length > 1
    members, length = order[np.repeat(shared, length)], length[shared]
    return members, np.cumsum(length) - length, length
