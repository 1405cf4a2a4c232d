"""Examples that are nearly the same, and the groups they form.

Two inputs are near-duplicates when they are
- one text under another disguise (`folding`): case, punctuation, markup, look-alike letters, quoted mail, a greeting;
- the same LEAST_REORDERED words or more in another order;
- the same sentence with one word misspelt (`typos`), or with another sentence before or behind it (`extensions`);
- similar: the Jaccard similarity of their word 2- and 3-grams (`shingles`) is at least SIMILAR, and they are not one
  template filled in twice; or
- changed a little: that similarity is at least CHANGED, and one is the other with words added or misspelt; or at least
  MISSPELT, and with words misspelt alone.
Up to EXACT_UP_TO distinct inputs are compared all with all; beyond, `minhash` proposes.
Answers play a part only where few rows have them: a rare answer in common tells two such texts from a template.
Knows texts and answers; knows nothing of sets and of files.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from rung.data import extensions, minhash, typos
from rung.data.folding import FOLDING, POLITE, bare, squeezed, views
from rung.data.shingles import CHARACTER, NUMERIC, Shingles, WordTable, mixed, runs, sums
from rung.text import NORMAL_FORM, normal_form, visible
from rung.types import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIMILAR = 0.8
"""Jaccard similarity of shingles from which two inputs count as near-duplicates."""
CHANGED = 0.5
"""Such similarity from which a text with words added, and none exchanged, is the same text."""
MISSPELT = 0.3
"""The same where words are misspelt alone."""
LEAST_CHANGED = 8
"""Words of a text from which that is so; a character of a script without spaces is half a word."""
TELLING = 1 / 3
"""Shingles that it must share for that, for each of its words: a run of words makes about two for each."""
SLOT_WORDS = 20
"""More exchanged words than that are an edited text, and not a template filled in twice."""
LEAST_REORDERED = 4
"""Words of a text from which the same words in another order make it a near-duplicate."""
MOST_VERSIONS = 10
"""More texts than that which share so much are no versions of one text, but what follows one long instruction."""
MOST_QUOTING = 5
"""What more texts quote, or write above a quotation, is a formula, and makes no two of them near-duplicates."""
EXACT_UP_TO = 2_000
"""Up to so many distinct inputs are compared all with all; beyond, MinHash proposes the pairs."""
BOILERPLATE = 20
"""A shingle counts for nothing when more than one text in so many (and more than ten) has it."""
_EXACT_WORDS = 2_000_000
_MANY = 50_000
"""From so many examples on, what is being done is told."""

Pairs = Sequence[tuple[int, int]]
"""Positions i < j of near-duplicates in a list of examples."""
Say = Callable[[str], None]


def near_duplicates(examples: Sequence[Example], say: Say | None = None) -> Pairs:
    """Pairs of near-duplicates, sorted by their later position; computed once a run and handed on.

    The pairs connect every group of near-duplicates, but not each two of its members are a pair: a repeated text is
    paired with its first occurrence only, and beyond EXACT_UP_TO inputs the pairs of a group form a tree. The groups do
    not depend on the order of the examples. say: hears what is being done where that takes long.
    """
    import numpy as np

    if say is None or len(examples) < _MANY:
        say = _quiet
    texts = _Texts(examples, say)
    pairs = [texts.copies(), texts.quoted(), texts.without_signs(), texts.reordered()]
    table, distinct = texts.table, texts.distinct
    for places in (
        _similar(texts, say),
        typos.typo_pairs(table, distinct, texts.words),
        extensions.extended_pairs(table, distinct, lambda row: examples[row].query.text),
    ):
        found = np.array(list(places), np.int64).reshape(-1, 2)
        pairs.append(distinct[found])
    both = np.sort(np.concatenate(pairs), axis=1)
    codes = np.unique(both[:, 1] * max(1, len(examples)) + both[:, 0])  # sorted by the later position
    later, earlier = np.divmod(codes, max(1, len(examples)))
    return list(zip(earlier.tolist(), later.tolist(), strict=True))


def near_duplicate_groups(examples: Sequence[Example], pairs: Pairs | None = None) -> dict[str, str]:
    """Example id -> group: the user's `group`s joined with near-duplicates; an example alone is a group of its own.

    A group is named after the smallest id in it. pairs: of `near_duplicates(examples)`; None computes them.
    """
    first_of: dict[str, int] = {}
    named = [(first_of.setdefault(e.group, i), i) for i, e in enumerate(examples) if e.group is not None]
    roots = connected(len(examples), [*named, *(near_duplicates(examples) if pairs is None else pairs)])
    name: dict[int, str] = {}
    for root, example in zip(roots, examples, strict=True):
        name[root] = min(name.get(root, example.id), example.id)
    return {example.id: name[root] for root, example in zip(roots, examples, strict=True)}


def connected(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of n positions the smallest one that it is connected with through the pairs."""
    parent = list(range(n))
    for i, j in pairs:
        low, high = sorted((_root(parent, i), _root(parent, j)))
        parent[high] = low
    return [_root(parent, i) for i in range(n)]


def words_of(example: Example) -> list[str]:
    """All that is read of an example without case, spacing, markup and punctuation; raw where that leaves nothing."""
    return _views(example)[0]


def content_digest(example: Example) -> str:
    """SHA-256 of the folded input and context, 32 hexadecimal digits: equal wherever the same text stands."""
    return sha256(" ".join(words_of(example)).encode(errors="replace")).hexdigest()[:32]


def how_grouped() -> dict[str, object]:
    """What made the groups, for the record: other thresholds or versions may make others."""
    import unicodedata

    import numpy

    thresholds = {
        "similar": SIMILAR,
        "changed": CHANGED,
        "misspelt": MISSPELT,
        "least_changed": LEAST_CHANGED,
        "telling": TELLING,
        "slot_words": SLOT_WORDS,
        "least_reordered": LEAST_REORDERED,
        "most_versions": MOST_VERSIONS,
        "most_quoting": MOST_QUOTING,
        "least_for_typo": typos.LEAST_FOR_TYPO,
        "most_extending": extensions.MOST_EXTENDING,
        "exact_up_to": EXACT_UP_TO,
        "boilerplate": BOILERPLATE,
    }
    forms = {"normal_form": NORMAL_FORM, "folding": FOLDING}
    return {**forms, **thresholds, "numpy": numpy.__version__, "unicode": unicodedata.unidata_version}


def _quiet(_: str) -> None:
    """Tells nobody."""


def _views(example: Example) -> list[list[str]]:
    """As `folding.views`; what is nothing but punctuation is one word."""
    text = example.query.text
    found = views(text)
    return found if found[0] else [[visible(text)], *found[1:]]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


# ---- texts ------------------------------------------------------------------------------------


class _Texts:
    """The inputs of all examples, cut into words once.

    distinct: an example for each distinct text, sorted by content, so that the order of the examples plays no part in
    what is compared; a place is a position in it.
    """

    def __init__(self, examples: Sequence[Example], say: Say) -> None:
        import numpy as np

        self.examples = examples
        self.table = WordTable()
        keys, parts = array("q"), array("q")  # hashes of first views; of the other ones
        owners = array("q")  # the examples of these
        letters, signs = array("q"), array("b")  # of the first view without signs; 1 where it had some, -1 if they tell
        for i, example in enumerate(examples):
            if i % _MANY == 0 and i:
                say(f"Comparing inputs: {i:,} of {len(examples):,} read.")
            found = _views(example)
            self.table.add(found[0])
            keys.append(hash(squeezed(found[0])))
            plain = bare(found[0])
            letters.append(0 if plain is None else hash(plain[0]))
            signs.append(-1 if plain is None else int(plain[1]))
            for view in found[1:]:
                parts.append(hash(squeezed(view)))
                owners.append(i)
        self._keys, self._parts = (np.array(each, np.int64).view(np.uint64) for each in (keys, parts))
        self._owners = np.array(owners, np.int64)
        self._letters, self._signs = np.array(letters, np.int64).view(np.uint64), np.array(signs, np.int8)
        polite = np.array(self.table.hashes(POLITE), np.uint64)
        self.table.close()
        every = np.arange(len(examples))
        sequence = np.zeros(len(examples), np.uint64)
        self._multiset = np.zeros(len(examples), np.uint64)
        for part in self.table.batches(every):
            word, _, place = self.table.gathered(every[part])
            starts = self.table.starts[part.start : part.stop + 1] - self.table.starts[part.start]
            sequence[part] = sums(mixed(word, place.astype(np.uint64)), starts)
            self._multiset[part] = sums(np.where(np.isin(word, polite), 0, mixed(word, word)), starts)
        _, self.distinct, self._place_of = np.unique(sequence, return_index=True, return_inverse=True)
        self.shingles = Shingles(self.table, self.distinct, max(10, len(self.distinct) // BOILERPLATE))

    def words(self, row: int) -> list[str]:
        """The words of an example's input."""
        return words_of(self.examples[row])

    def copies(self) -> NDArray[np.int64]:
        """(first, other) example of each text under whatever disguise, shape (pairs, 2)."""
        import numpy as np

        return _with_first(self._keys, np.arange(len(self._keys)))

    def quoted(self) -> NDArray[np.int64]:
        """As `copies`, of what mails quote and of what they add; nothing that more than MOST_QUOTING texts hold."""
        import numpy as np

        if not len(self._parts):
            return np.empty((0, 2), np.int64)
        whole = np.flatnonzero(np.isin(self._keys, self._parts))
        owners = np.concatenate([self._owners, whole])
        keys = np.concatenate([self._parts, self._keys[whole]])
        _, run = np.unique(keys, return_inverse=True)
        texts = np.unique(np.stack([run, self._keys[owners].view(np.int64)], axis=1), axis=0)[:, 0]
        rare = np.bincount(texts)[run] <= MOST_QUOTING
        return _with_first(keys[rare], owners[rare])

    def without_signs(self) -> NDArray[np.int64]:
        """As `copies`, of texts and what is left of them without any sign, where one of them stands so."""
        import numpy as np

        fit = np.flatnonzero(self._signs >= 0)
        _, run = np.unique(self._letters[fit], return_inverse=True)
        plain, signed = (np.bincount(run, self._signs[fit] == kind) for kind in (0, 1))
        both = fit[(plain[run] > 0) & (signed[run] > 0)] if len(fit) else fit
        return _with_first(self._letters[both], both)

    def reordered(self) -> NDArray[np.int64]:
        """(first, other) example of each collection of words in whatever order, shape (pairs, 2)."""
        enough = self.distinct[self.table.lengths[self.distinct] >= LEAST_REORDERED]
        return _with_first(self._multiset[enough], enough)

    def alike(self, i: int, j: int, similarity: float, shared: int) -> bool:
        """Whether the texts at two places, which are similar, are near-duplicates and not a template filled in.

        shared: shingles that both have.
        """
        rows = int(self.distinct[i]), int(self.distinct[j])
        a, b = (Counter(self.table.of(row)) for row in rows)
        only = a - b, b - a
        if similarity >= SIMILAR and (not self._same_template(i, j, only) or self._same_rare_answer(i, j)):
            return True
        if only[0].total() > only[1].total():
            rows, only = rows[::-1], only[::-1]
        # Where nearly all that they share is boilerplate, what was added may be all that they say.
        most_added = 0 if similarity < CHANGED else only[1].total()
        return shared >= TELLING * len(self.table.of(rows[0])) and self._changed_little(rows, only, most_added)

    def _changed_little(self, rows: tuple[int, int], only: tuple[Counter[int], Counter[int]], most_added: int) -> bool:
        """Whether one text is the other with words added, and words that stand for others are spelt much as these.

        rows: examples, that with fewer words of its own first. only: these words. One word for one word is for `typos`
        to judge, which knows the other texts. A number for another makes another text.
        """
        words = self.table.of(rows[0])
        fewer, more = only
        if more.total() - fewer.total() > most_added or any(word & (NUMERIC | CHARACTER) for word in fewer):
            return False
        if fewer.total() == more.total() == 1 and len(words) <= typos.MOST:
            return False
        if sum(0.5 if word & CHARACTER else 1 for word in words) - fewer.total() < LEAST_CHANGED:
            return False
        given, found = (self._spelt(own, row) for own, row in zip(only, rows, strict=True))
        if fewer and next(reversed(fewer)) == words[-1] and any(word.startswith(given[-1]) for word in found):
            given.pop()  # cut inside its last word
        if "".join(given) == "".join(found):
            return True
        for word in given:
            meant = next((by for by in found if len(word) > 2 and typos.one_letter_apart(word, by)), None)
            if meant is None:
                return False
            found.remove(meant)
        return True

    def _same_template(self, i: int, j: int, only: tuple[Counter[int], Counter[int]]) -> bool:
        """Whether two texts differ by exchanged words ("…of France" / "…of Spain"), not by an addition or an edit.

        only: the words that one has and the other has not.
        """
        a, b = (own.total() for own in only)
        if not a or not b:
            return False
        numeric = sum(n for own in only for word, n in own.items() if word & NUMERIC)
        if min(a, b) > SLOT_WORDS:
            return 2 * numeric > a + b or self.shingles.holders(i, j) > MOST_VERSIONS
        one_character = len(only[0]) == len(only[1]) == 1 and all(word & CHARACTER for own in only for word in own)
        return bool(numeric) or self.table.lengths[self.distinct[i]] <= typos.MOST or not one_character

    def _spelt(self, only: Counter[int], row: int) -> list[str]:
        """Some of a text's words, by their hashes."""
        found = [self.table.spelt(word) for word in only.elements()]
        if all(found):
            return [word for word in found if word]
        by_hash = dict(zip(self.table.of(row), self.words(row), strict=True))
        return [by_hash[word] for word in only.elements()]

    def _same_rare_answer(self, i: int, j: int) -> bool:
        both = [self._answers[place] for place in (i, j)]
        limit = max(2, min(10, len(self.examples) // BOILERPLATE))
        return any(self._times[answer] <= limit for answer in both[0] & both[1])

    @cached_property
    def _answers(self) -> list[set[str]]:
        """Place -> the answers of every example with that text."""
        found: list[set[str]] = [set() for _ in range(len(self.distinct))]
        for example, place in zip(self.examples, self._place_of.tolist(), strict=True):
            found[place].update(map(normal_form, example.references))
        return found

    @cached_property
    def _times(self) -> Counter[str]:
        """Answer -> number of texts that have it."""
        return Counter(answer for answers in self._answers for answer in answers)


def _with_first(keys: NDArray[np.uint64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of the smallest owner of each key with every other one."""
    import numpy as np

    places, first, length = runs(keys)
    if not len(first):
        return np.empty((0, 2), np.int64)
    members = owners[places]
    smallest = np.repeat(np.minimum.reduceat(members, first), length)
    found: NDArray[np.int64] = np.stack([smallest, members], axis=1)
    different: NDArray[np.bool_] = found[:, 0] != found[:, 1]
    return found[different]


# ---- similar texts ------------------------------------------------------------------------------


def _similar(texts: _Texts, say: Say) -> Iterator[tuple[int, int]]:
    """Pairs of places whose texts share most of their shingles and are no template."""
    shingles = texts.shingles
    if len(shingles) <= EXACT_UP_TO and len(texts.table.values) <= _EXACT_WORDS:
        return ((i, j) for i, j, similarity, shared in _all_pairs(shingles) if texts.alike(i, j, similarity, shared))
    return minhash.minhash_pairs(shingles, MISSPELT, SIMILAR, texts.alike, say)


def _all_pairs(shingles: Shingles) -> list[tuple[int, int, float, int]]:
    """(place, place, similarity, shingles in common) of all pairs that are MISSPELT similar, by a sparse product."""
    import numpy as np
    from scipy.sparse import csr_matrix, triu

    n = len(shingles)
    values, rows = shingles.of(np.arange(n))
    if not len(values):
        return []
    names, columns = np.unique(values, return_inverse=True)
    holds = csr_matrix((np.ones(len(values), np.int32), (rows, columns)), shape=(n, len(names)))
    sizes = np.bincount(rows, minlength=n)
    shared = triu(holds @ holds.T, k=1).tocoo()
    similarity = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    near = similarity >= MISSPELT
    found = (column[near].tolist() for column in (shared.row, shared.col, similarity, shared.data))
    return sorted(zip(*found, strict=True))
