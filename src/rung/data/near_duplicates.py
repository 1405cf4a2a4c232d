"""Examples that are nearly the same, and the groups they form.

Two inputs are near-duplicates when the Jaccard similarity of their word 2- and 3-grams (shingles) is at least SIMILAR
and they are not one template filled in twice. Up to EXACT_UP_TO distinct inputs are compared all with all; beyond,
MinHash proposes the pairs, and each is checked exactly. Time grows with the number of inputs, not with its square.
Source: Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman & Ullman,
Mining of Massive Datasets, ch. 3. It departs where a band holds many inputs: each is compared with NEIGHBOURS others,
and with no more after MOST_REFUSALS vain comparisons (filled-in templates).
Knows texts and answers; knows nothing of sets and of files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from hashlib import blake2b, sha256
from itertools import pairwise
from typing import TYPE_CHECKING

from rung.text import is_character, units
from rung.types import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILAR = 0.8
"""Jaccard similarity of shingles from which two inputs count as near-duplicates."""
TYPO = 0.75
"""Share of letters in common from which one word counts as another misspelt."""
LEAST_FOR_TYPO = 12
"""Characters of a text in a script without spaces from which one exchanged character counts as a typo."""
EXACT_UP_TO = 2_000
"""Up to so many distinct inputs are compared all with all; beyond, MinHash proposes the pairs."""
BOILERPLATE = 20
"""A shingle counts for nothing when more than one text in so many (and more than ten) has it."""

PERMUTATIONS, ROWS_PER_BAND = 64, 4  # a pair at SIMILAR is missed with p = 0.0002
NEIGHBOURS = 8
MOST_REFUSALS = 8
_PROPOSED = 0.6  # similarity as MinHash estimates it, from which a pair is checked; its standard error is 0.05
_BATCH = 10_000  # texts
_BUCKET_BITS = 22  # shingles are counted in 4 million buckets: 32 MB, whatever the size of the data

Pairs = Sequence[tuple[int, int]]
"""Positions i < j of near-duplicates in a list of examples."""


def near_duplicates(examples: Sequence[Example]) -> Pairs:
    """Pairs of near-duplicates, sorted by their later position; computed once a run and handed on.

    The pairs connect every group of near-duplicates, but not each two of its members are a pair: a repeated text is
    paired with its first occurrence only, and beyond EXACT_UP_TO inputs the pairs of a group form a tree.
    """
    first: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for i, example in enumerate(examples):
        twin = first.setdefault(content_digest(example), i)
        if twin != i:
            pairs.append((twin, i))
    # Sorted by content, so that the order of the examples plays no part in what is compared.
    distinct = [first[digest] for digest in sorted(first)]
    del first
    propose = _all_pairs if len(distinct) <= EXACT_UP_TO else _minhash_pairs
    pairs += [(min(pair), max(pair)) for pair in propose(_Texts([examples[i] for i in distinct]), distinct)]
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def near_duplicate_groups(examples: Sequence[Example], pairs: Pairs | None = None) -> dict[str, str]:
    """Example id -> group: the user's `group`s joined with near-duplicates; an example alone is a group of its own.

    A group is named after the smallest id in it. pairs: of `near_duplicates(examples)`; None computes them.
    """
    parent = list(range(len(examples)))
    first_of: dict[str, int] = {}
    for i, example in enumerate(examples):
        if example.group is not None:
            _join(parent, first_of.setdefault(example.group, i), i)
    for i, j in near_duplicates(examples) if pairs is None else pairs:
        _join(parent, i, j)
    name: dict[int, str] = {}
    for i, example in enumerate(examples):
        root = _root(parent, i)
        name[root] = min(name.get(root, example.id), example.id)
    return {example.id: name[_root(parent, i)] for i, example in enumerate(examples)}


def conflicting_pairs(examples: Sequence[Example], pairs: Pairs | None = None) -> list[tuple[Example, Example]]:
    """Near-duplicates that have no accepted answer in common. pairs: as in `near_duplicate_groups`."""
    found = near_duplicates(examples) if pairs is None else pairs
    return [(examples[i], examples[j]) for i, j in found if not same_answers(examples[i], examples[j])]


def same_answers(a: Example, b: Example) -> bool:
    """Whether two examples accept a common answer, case and outer spaces aside."""
    return not {r.strip().casefold() for r in a.references}.isdisjoint(r.strip().casefold() for r in b.references)


def normalised(example: Example) -> str:
    """Input and context without case, spacing and sentence punctuation; the raw text where that leaves nothing."""
    return " ".join(_units(example)) or _text(example).strip()


def content_digest(example: Example) -> str:
    """SHA-256 of the normalised input and context, 32 hexadecimal digits: equal wherever the same text stands."""
    return sha256(normalised(example).encode(errors="replace")).hexdigest()[:32]


def how_grouped() -> dict[str, object]:
    """What made the groups, for the record: other thresholds or versions may make others."""
    import unicodedata

    import numpy

    thresholds = {
        "similar": SIMILAR,
        "typo": TYPO,
        "least_for_typo": LEAST_FOR_TYPO,
        "exact_up_to": EXACT_UP_TO,
        "boilerplate": BOILERPLATE,
    }
    return {**thresholds, "numpy": numpy.__version__, "unicode": unicodedata.unidata_version}


def _text(example: Example) -> str:
    return example.query.text


def _units(example: Example) -> list[str]:
    return units(_text(example), signs=True)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _join(parent: list[int], i: int, j: int) -> None:
    low, high = sorted((_root(parent, i), _root(parent, j)))
    parent[high] = low


def _same_template(a: list[str], b: list[str]) -> bool:
    """Whether two texts differ by exchanged words ("…of France" / "…of Spain") rather than by a typo or an addition.

    In scripts without spaces one exchanged character among LEAST_FOR_TYPO is a typo: it is less than a word.
    """
    only_a, only_b = Counter(a) - Counter(b), Counter(b) - Counter(a)
    if not only_a or not only_b:
        return False
    left, right = "".join(only_a.elements()), "".join(only_b.elements())
    if any(c.isnumeric() for c in left + right):  # 三 too
        return True
    if only_a.total() == only_b.total() == 1 and is_character(left) and is_character(right):
        return min(len(a), len(b)) < LEAST_FOR_TYPO
    return SequenceMatcher(None, left, right, autojunk=False).ratio() < TYPO


# ---- shingles ---------------------------------------------------------------------------------


class _WordHashes(dict[str, int]):
    """Word -> 64-bit hash, the same in every process. Forgets when it grows large."""

    def __missing__(self, word: str) -> int:
        if len(self) >= 1_000_000:
            self.clear()
        self[word] = value = int.from_bytes(blake2b(word.encode(errors="replace"), digest_size=8).digest())
        return value


class _Texts:
    """Distinct texts and their shingles, hashed to 64 bits and without boilerplate; cut into words again when asked
    for, so that the shingles of all texts are never in memory together."""

    def __init__(self, examples: Sequence[Example]) -> None:
        import numpy as np

        self.examples = examples
        self._hashes = _WordHashes()
        self._holders = np.zeros(1 << _BUCKET_BITS, np.int64)  # bucket of shingles -> texts that have one
        for start in range(0, len(examples), _BATCH):
            values, _ = self._shingles(range(start, min(start + _BATCH, len(examples))))
            self._holders += np.bincount(values >> np.uint64(64 - _BUCKET_BITS), minlength=1 << _BUCKET_BITS)
        self._limit = max(10, len(examples) // BOILERPLATE)

    def __len__(self) -> int:
        return len(self.examples)

    def shingles(self, places: Sequence[int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(hashes, which of `places` each belongs to), sorted by place; distinct within a place."""
        import numpy as np

        values, rows = self._shingles(places)
        telling = self._holders[values >> np.uint64(64 - _BUCKET_BITS)] <= self._limit
        return values[telling], rows[telling]

    def sets(self, places: Sequence[int]) -> list[frozenset[int]]:
        """The shingles of each place."""
        import numpy as np

        values, rows = self.shingles(places)
        starts = np.searchsorted(rows, np.arange(len(places) + 1))
        return [frozenset(values[a:b].tolist()) for a, b in pairwise(starts.tolist())]

    def alike(self, i: int, j: int, a: frozenset[int], b: frozenset[int]) -> bool:
        """Whether the texts i and j, whose shingles are a and b, are near-duplicates."""
        shared = len(a & b)
        if not shared or shared < SIMILAR * (len(a) + len(b) - shared):
            return False
        left, right = self.examples[i], self.examples[j]
        return same_answers(left, right) or not _same_template(_units(left), _units(right))

    def _shingles(self, places: Sequence[int]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """As `shingles`, boilerplate included: 2- and 3-grams of words; the word itself where there is only one."""
        import numpy as np

        texts = [_units(self.examples[i]) for i in places]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        text_of = np.repeat(np.arange(len(texts)), lengths)
        word = np.fromiter((self._hashes[w] for t in texts for w in t), np.uint64, len(text_of))
        two = _mixed(word[:-1], word[1:])
        three = _mixed(two[:-1], word[2:])
        alone, inside2, inside3 = lengths[text_of] == 1, text_of[:-1] == text_of[1:], text_of[:-2] == text_of[2:]
        values = np.concatenate([word[alone], two[inside2], three[inside3]])
        rows = np.concatenate([text_of[alone], text_of[:-1][inside2], text_of[:-2][inside3]])
        order = np.lexsort((values, rows))
        values, rows = values[order], rows[order]
        new = np.ones(len(values), bool)
        new[1:] = (values[1:] != values[:-1]) | (rows[1:] != rows[:-1])
        return values[new], rows[new]


def _mixed(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of two hashes in this order, by multiplication and shifts as in SplitMix64 (Steele et al., 2014)."""
    import numpy as np

    mixed: NDArray[np.uint64] = (a * np.uint64(0x9E3779B97F4A7C15)) ^ (b + np.uint64(0x632BE59BD9B4E019))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# ---- pairs ------------------------------------------------------------------------------------


def _all_pairs(texts: _Texts, names: Sequence[int]) -> Iterator[tuple[int, int]]:
    """All near-duplicates, through an index from shingle to texts. names: what the texts are called in the pairs."""
    holders: dict[int, list[int]] = defaultdict(list)
    sets = texts.sets(range(len(texts)))
    for j, found in enumerate(sets):
        overlap = Counter(i for shingle in found for i in holders[shingle])
        for i in sorted(i for i, n in overlap.items() if n >= SIMILAR * max(len(sets[i]), len(found))):
            if texts.alike(i, j, sets[i], found):
                yield names[i], names[j]
        for shingle in found:
            holders[shingle].append(j)


def _minhash_pairs(texts: _Texts, names: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs that connect the near-duplicates which MinHash proposes; none joins what is connected already."""
    import numpy as np

    places, sketches = _sketches(texts)
    keys = [_band_key(sketches[:, i : i + ROWS_PER_BAND]) for i in range(0, PERMUTATIONS, ROWS_PER_BAND)]
    # Where many texts share a key, those that share the next one too stand together.
    orders = [np.lexsort((keys[(band + 1) % len(keys)], key)) for band, key in enumerate(keys)]
    forest = _Forest(texts)
    for distance in range(1, NEIGHBOURS + 1):
        for key, order in zip(keys, orders, strict=True):
            a, b = order[:-distance], order[distance:]
            equal = key[a] == key[b]
            a, b = a[equal], b[equal]
            for start in range(0, len(a), _BATCH):
                some_a, some_b = a[start : start + _BATCH], b[start : start + _BATCH]
                close = (sketches[some_a] == sketches[some_b]).mean(axis=1) >= _PROPOSED
                for i, j in forest.joined(places[some_a[close]], places[some_b[close]]):
                    yield names[i], names[j]


class _Forest:
    """Which texts are connected, and how often each was compared in vain (at most MOST_REFUSALS times)."""

    def __init__(self, texts: _Texts) -> None:
        import numpy as np

        self._texts = texts
        self._root = np.arange(len(texts))
        self._refusals = np.zeros(len(texts), np.int64)
        self._refused: set[int] = set()  # pairs, as i * number of texts + j

    def joined(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """The near-duplicates among the proposed pairs (a[n], b[n]) that were not connected yet; now they are."""
        import numpy as np

        n, texts = len(self._root), self._texts
        open_ = (self._root[a] != self._root[b]) & (np.maximum(self._refusals[a], self._refusals[b]) < MOST_REFUSALS)
        pairs = zip(a[open_].tolist(), b[open_].tolist(), strict=True)
        proposed = [(min(p), max(p)) for p in pairs if min(p) * n + max(p) not in self._refused]
        if not proposed:
            return
        involved = sorted({i for pair in proposed for i in pair})
        sets = dict(zip(involved, texts.sets(involved), strict=True))
        parent: dict[int, int] = {}  # of the roots that were joined here

        def top(root: int) -> int:
            found = root
            while found in parent:
                found = parent[found]
            if found != root:
                parent[root] = found
            return found

        for i, j in proposed:
            low, high = sorted((top(int(self._root[i])), top(int(self._root[j]))))
            if low == high or max(self._refusals[i], self._refusals[j]) >= MOST_REFUSALS:
                continue
            if texts.alike(i, j, sets[i], sets[j]):
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
        key = _mixed(key, band[:, column].astype(np.uint64))
    return key


def _sketches(texts: _Texts) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """(texts that have shingles, their MinHash sketches of shape (texts, PERMUTATIONS)), by hashes of a fixed seed."""
    import numpy as np

    rng = np.random.default_rng(1)
    factors = rng.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)
    places: list[NDArray[np.int64]] = []
    sketches: list[NDArray[np.uint32]] = []
    for start in range(0, len(texts), _BATCH):
        values, rows = texts.shingles(range(start, min(start + _BATCH, len(texts))))
        if not len(values):
            continue
        first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        sketch = np.empty((len(first), PERMUTATIONS), np.uint32)
        for number, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            hashed = (values * factor + offset) >> np.uint64(32)
            sketch[:, number] = np.minimum.reduceat(hashed, first)
        places.append(rows[first] + start)
        sketches.append(sketch)
    if not places:
        return np.empty(0, np.int64), np.empty((0, PERMUTATIONS), np.uint32)
    return np.concatenate(places), np.concatenate(sketches)
