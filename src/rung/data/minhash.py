"""Near-duplicates among many texts, in time that grows with their number and not with its square.

MinHash sketches propose pairs, of which the similarity is then computed exactly.
Source: Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, ch. 3. It departs where a band holds many texts: each is compared with NEIGHBOURS others,
the most alike first, and with no more after some vain comparisons (filled-in templates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rung.data.shingles import Shingles, mixed, runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERMUTATIONS, ROWS_PER_BAND = 64, 4  # a pair of similarity 0.8 is missed with p = 0.0002
NEIGHBOURS = 8
MOST_REFUSALS, MOST_VAIN = 8, 6
_ERROR = 0.15  # of a similarity as MinHash estimates it: 2.5 standard errors
_BATCH = 20_000  # pairs

Alike = Callable[[int, int, float, int], bool]
"""Whether two places whose texts have that similarity, and share so many shingles, are near-duplicates."""


def minhash_pairs(
    shingles: Shingles, least: float, similar: float, alike: Alike, say: Callable[[str], None]
) -> Iterator[tuple[int, int]]:
    """Pairs of places that connect the near-duplicates which MinHash proposes; none joins what is connected already.

    least: the similarity from which a pair may be one of near-duplicates. similar: that from which it is a likely one.
    """
    places, sketches = _sketches(shingles, say)
    bands = _bands(sketches)
    forest = _Forest(len(shingles), similar, alike)
    for distance in range(1, NEIGHBOURS + 1):
        say(f"Comparing inputs that may be alike, round {distance} of {NEIGHBOURS}.")
        a, b = _proposed(sketches, bands, distance, least - _ERROR)
        for start in range(0, len(a), _BATCH):
            some = slice(start, start + _BATCH)
            left, right = forest.open(places[a[some]], places[b[some]])
            yield from forest.joined(left, right, *shingles.similarity(left, right), least)


class _Forest:
    """Which texts are connected, and how often each was compared in vain.

    After MOST_REFUSALS likely pairs in vain a text is compared no more, nor after MOST_VAIN others.
    """

    def __init__(self, texts: int, similar: float, alike: Alike) -> None:
        import numpy as np

        self._alike, self._similar = alike, similar
        self._root = np.arange(texts)
        self._refusals = np.zeros(texts, np.int64)  # of likely pairs
        self._vain = np.zeros(texts, np.int64)  # of others
        self._refused: set[int] = set()  # pairs, as i * number of texts + j

    def open(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs (a[n], b[n]), the smaller first, that are not connected and may still be compared."""
        import numpy as np

        kept = self._root[a] != self._root[b]
        kept &= np.maximum(self._refusals[a], self._refusals[b]) < MOST_REFUSALS
        kept &= np.maximum(self._vain[a], self._vain[b]) < MOST_VAIN
        return np.minimum(a, b)[kept], np.maximum(a, b)[kept]

    def joined(
        self,
        a: NDArray[np.int64],
        b: NDArray[np.int64],
        similarity: NDArray[np.float64],
        shared: NDArray[np.int64],
        least: float,
    ) -> Iterator[tuple[int, int]]:
        """The near-duplicates among these pairs that were not connected yet; now they are."""
        import numpy as np

        n = len(self._root)
        enough = similarity >= least
        self._vain += np.bincount(np.concatenate([a[~enough], b[~enough]]), minlength=n)
        parent: dict[int, int] = {}  # of the roots that were joined here

        def top(root: int) -> int:
            found = root
            while found in parent:
                found = parent[found]
            if found != root:
                parent[root] = found
            return found

        columns = (each[enough].tolist() for each in (a, b, similarity, shared))
        for i, j, alike, common in zip(*columns, strict=True):
            low, high = sorted((top(int(self._root[i])), top(int(self._root[j]))))
            vain, most = (self._refusals, MOST_REFUSALS) if alike >= self._similar else (self._vain, MOST_VAIN)
            if low == high or max(vain[i], vain[j]) >= most or i * n + j in self._refused:
                continue
            if self._alike(i, j, alike, common):
                parent[high] = low
                yield i, j
            else:
                self._refused.add(i * n + j)
                vain[i] += 1
                vain[j] += 1
        if parent:
            new = np.arange(n)
            for root in parent:
                new[root] = top(root)
            self._root = new[self._root]


def _bands(sketches: NDArray[np.uint32]) -> list[tuple[NDArray[np.uint64], NDArray[np.int32]]]:
    """(a key for each text, the texts that share theirs, side by side) for each band of the sketches."""
    import numpy as np

    columns = range(0, sketches.shape[1], ROWS_PER_BAND)
    keys = [_band_key(sketches[:, column : column + ROWS_PER_BAND]) for column in columns]
    found = []
    for band, key in enumerate(keys):
        member, _, _ = runs(key)
        # Where many texts share a key, those that share the next one too stand together.
        found.append((key, member[np.lexsort((keys[(band + 1) % len(keys)][member], key[member]))].astype(np.int32)))
    return found


def _proposed(
    sketches: NDArray[np.uint32],
    bands: Sequence[tuple[NDArray[np.uint64], NDArray[np.int32]]],
    distance: int,
    least: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of texts so far apart in a band whose sketches are `least` alike, each once, the most alike first."""
    import numpy as np

    codes, equal = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for key, queue in bands:
        same = np.flatnonzero(key[queue[:-distance]] == key[queue[distance:]])
        for start in range(0, len(same), _BATCH):
            some = same[start : start + _BATCH]
            a, b = np.sort([queue[some], queue[some + distance]], axis=0).astype(np.int64)
            times = (sketches[a] == sketches[b]).sum(axis=1).astype(np.int8)
            close = times >= least * sketches.shape[1]
            codes.append((a * len(sketches) + b)[close])
            equal.append(times[close])
    code, first = np.unique(np.concatenate(codes), return_index=True)
    code = code[np.argsort(-np.concatenate(equal)[first], kind="stable")]
    return np.divmod(code, max(1, len(sketches)))


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
