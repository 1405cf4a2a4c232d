"""Near-duplicates among many texts, in time that grows with their number and not with its square.

MinHash sketches propose pairs, of which the similarity is then computed exactly.
Source: Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, ch. 3. It departs where a band holds many texts: each is compared with NEIGHBOURS others,
and with no more after MOST_REFUSALS vain comparisons (filled-in templates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rung.data.shingles import Shingles, mixed, runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERMUTATIONS, ROWS_PER_BAND = 64, 4  # a pair of similarity 0.8 is missed with p = 0.0002
NEIGHBOURS = 8
MOST_REFUSALS = 8
_PROPOSED = 0.6  # similarity as MinHash estimates it, from which a pair is checked; its standard error is 0.05
_BATCH = 20_000  # pairs


def minhash_pairs(
    shingles: Shingles, similar: float, alike: Callable[[int, int], bool], say: Callable[[str], None]
) -> Iterator[tuple[int, int]]:
    """Pairs of places that connect the near-duplicates which MinHash proposes; none joins what is connected already.

    similar: the least similarity. alike: whether a pair of that similarity is one of near-duplicates.
    """
    import numpy as np

    places, sketches = _sketches(shingles, say)
    bands = sketches.shape[1] // ROWS_PER_BAND
    keys = [_band_key(sketches[:, band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND]) for band in range(bands)]
    queues = []
    for band, key in enumerate(keys):
        order, first, length = runs(key)
        member = np.concatenate([order[a : a + n] for a, n in zip(first, length, strict=True)] or [order[:0]])
        # Where many texts share a key, those that share the next one too stand together.
        queues.append(member[np.lexsort((keys[(band + 1) % bands][member], key[member]))].astype(np.int32))
    forest = _Forest(len(shingles), alike)
    for distance in range(1, NEIGHBOURS + 1):
        say(f"Comparing inputs that may be alike, round {distance} of {NEIGHBOURS}.")
        for key, queue in zip(keys, queues, strict=True):
            a, b = queue[:-distance], queue[distance:]
            equal = key[a] == key[b]
            a, b = a[equal], b[equal]
            for start in range(0, len(a), _BATCH):
                some_a, some_b = a[start : start + _BATCH], b[start : start + _BATCH]
                close = (sketches[some_a] == sketches[some_b]).mean(axis=1) >= _PROPOSED
                left, right = forest.open(places[some_a[close]], places[some_b[close]])
                enough = shingles.similarity(left, right) >= similar
                yield from forest.joined(left[enough], right[enough])


class _Forest:
    """Which texts are connected, and how often each was compared in vain (at most MOST_REFUSALS times)."""

    def __init__(self, texts: int, alike: Callable[[int, int], bool]) -> None:
        import numpy as np

        self._alike = alike
        self._root = np.arange(texts)
        self._refusals = np.zeros(texts, np.int64)
        self._refused: set[int] = set()  # pairs, as i * number of texts + j

    def open(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs (a[n], b[n]), the smaller first, that are not connected and may still be compared."""
        import numpy as np

        a, b = np.minimum(a, b), np.maximum(a, b)
        kept = (self._root[a] != self._root[b]) & (np.maximum(self._refusals[a], self._refusals[b]) < MOST_REFUSALS)
        return a[kept], b[kept]

    def joined(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """The near-duplicates among these pairs that were not connected yet; now they are."""
        import numpy as np

        n = len(self._root)
        parent: dict[int, int] = {}  # of the roots that were joined here

        def top(root: int) -> int:
            found = root
            while found in parent:
                found = parent[found]
            if found != root:
                parent[root] = found
            return found

        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            low, high = sorted((top(int(self._root[i])), top(int(self._root[j]))))
            if low == high or max(self._refusals[i], self._refusals[j]) >= MOST_REFUSALS:
                continue
            if i * n + j in self._refused:
                continue
            if self._alike(i, j):
                parent[high] = low
                yield i, j
            else:
                self._refused.add(i * n + j)
                self._refusals[i] += 1
                self._refusals[j] += 1
        if parent:
            new = np.arange(n)
            for root in parent:
                new[root] = top(root)
            self._root = new[self._root]


def _band_key(band: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """One hash for the columns of a band, shape (texts,)."""
    import numpy as np

    key = band[:, 0].astype(np.uint64)
    for column in range(1, band.shape[1]):
        key = mixed(key, band[:, column].astype(np.uint64))
    return key


def _sketches(shingles: Shingles, say: Callable[[str], None]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """(places that have shingles, their MinHash sketches, shape (places, PERMUTATIONS)), by hashes of a fixed seed."""
    import numpy as np

    rng = np.random.default_rng(1)
    factors = rng.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
    places: list[NDArray[np.int64]] = []
    sketches: list[NDArray[np.uint32]] = []
    for part in shingles.table.batches(shingles.texts):
        if part.start:
            say(f"Comparing inputs: {part.start:,} of {len(shingles):,} sketched.")
        values, rows = shingles.of(np.arange(part.start, part.stop))
        if not len(values):
            continue
        first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        sketch = np.empty((len(first), PERMUTATIONS), np.uint32)
        for number, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            hashed = (values * factor + offset) >> np.uint64(32)
            sketch[:, number] = np.minimum.reduceat(hashed, first)
        places.append(rows[first] + part.start)
        sketches.append(sketch)
    if not places:
        return np.empty(0, np.int64), np.empty((0, PERMUTATIONS), np.uint32)
    return np.concatenate(places), np.concatenate(sketches)
