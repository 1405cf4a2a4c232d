"""A subset of the training examples: clean, diverse, and with every answer in its proportion.

Facility location: the rows are picked one after the other, each time the one that brings all rows nearest to a picked
one. Rows that a check doubts are taken last. `bench/picking.py` measures it against random rows and against all.
Sources: Wei, Iyer & Bilmes, Submodularity in data subset selection and active learning (2015); Minoux, Accelerated
greedy algorithms for maximizing submodular set functions (1978).
Knows examples and findings; nothing of models.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rung.data.checks.wrong_labels import CHECK, OTHER_ANSWER, UNLIKE_NEIGHBOURS, labelled
from rung.data.vectors import MOST_CHARACTERS, TEXT_CHARACTERS, Embedder, embedded, text_of
from rung.text import normal_form
from rung.types import Example, Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABOUT_ROWS = frozenset({CHECK, UNLIKE_NEIGHBOURS, OTHER_ANSWER, "too_long"})
"""Checks whose rows are doubtful whatever their severity, and whether a finding is about one row or about several."""
NOT_ABOUT_ROWS = frozenset(
    {"rare_label", "few_of_a_kind", "label_only_in_test", "straddling_group", "exact_duplicate", "near_duplicate"}
)
"""Checks that name rows with which nothing is wrong. Of duplicates one is picked anyway: the second brings nothing."""

_POOL = 2_000  # rows that are compared with each other
_MOST_POOLS = 5  # of more rows, a random sample
_LEAST_CHARACTERS = 100  # that are read of each input and each answer, where there are many rows


def pick(
    train: Sequence[Example],
    size: int,
    *,
    seed: int,
    doubted: Collection[str] = (),
    embed: Embedder = embedded,
) -> tuple[Example, ...]:
    """So many of the training examples, in their order; all of them where there are no more.

    doubted: ids of rows that are picked only where the others do not suffice. embed: vectors of texts. The same rows
    and seed give the same subset. Raises ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"train_size is {size}, not at least 1")
    if size >= len(train):
        return tuple(train)
    clean = [e for e in train if e.id not in doubted]
    rest = [e for e in train if e.id in doubted]
    if len(clean) >= size:
        picked = _picked(clean, size, seed, embed)
    else:
        picked = {e.id for e in clean} | _picked(rest, size - len(clean), seed, embed)
    return tuple(e for e in train if e.id in picked)


def doubtful(findings: Iterable[Finding]) -> frozenset[str]:
    """Ids of rows that a finding doubts: a warning or an error about one row, an answer that may be wrong, or a row
    that some model cannot read whole."""
    return frozenset(
        i
        for f in findings
        if f.check in ABOUT_ROWS or (f.row and f.severity != "note" and f.check not in NOT_ABOUT_ROWS)
        for i in f.ids
    )


def _picked(examples: Sequence[Example], size: int, seed: int, embed: Embedder) -> set[str]:
    """Ids of `size` of the examples, answer by answer where the answers are labels."""
    if len(examples) > max(_POOL * _MOST_POOLS, 2 * size):
        examples = random.Random(seed).sample(list(examples), max(_POOL * _MOST_POOLS, 2 * size))
    labels = labelled(examples, closed=False)
    parts: dict[str, list[int]] = defaultdict(list)
    for place, e in enumerate(examples):
        parts[normal_form(e.output) if labels else ""].append(place)
    room = max(_LEAST_CHARACTERS, min(TEXT_CHARACTERS, MOST_CHARACTERS // len(examples) // 2))
    vectors = embed([f"{text_of(e)[:room]}\n{e.output[:room]}" for e in examples])
    picked: set[str] = set()
    for answer, places in shared_out({answer: len(places) for answer, places in parts.items()}, size).items():
        pools = _pools(parts[answer], seed)
        for pool, share in zip(pools, _even(places, [len(p) for p in pools]), strict=True):
            picked |= {examples[pool[n]].id for n in facility_location(vectors[pool], share)}
    return picked


def _pools(places: Sequence[int], seed: int) -> list[list[int]]:
    """The places in random parts of at most _POOL, so that memory stays bounded."""
    if len(places) <= _POOL:
        return [list(places)]
    shuffled = random.Random(seed).sample(list(places), len(places))
    return [sorted(shuffled[start : start + _POOL]) for start in range(0, len(shuffled), _POOL)]


def _even(size: int, rows: Sequence[int]) -> list[int]:
    """`size` shared out over parts of so many rows, in proportion."""
    ends = [0, *itertools.accumulate(rows)]
    marks = [size * end // ends[-1] for end in ends]
    return [after - before for before, after in itertools.pairwise(marks)]


def shared_out(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """How many of `size` places each answer gets: in proportion to its rows, by largest remainder, and one at least.

    Where there are more answers than places, the most frequent ones get one each. Source: Hamilton's method.
    """
    total = sum(counts.values())
    order = sorted(counts, key=lambda answer: (-counts[answer], answer))
    places = dict.fromkeys(order[:size], 1)
    for _ in range(min(size, total) - len(places)):
        open_ = [a for a in places if places[a] < counts[a]]
        answer = max(open_, key=lambda a: size * counts[a] / total - places[a])
        places[answer] += 1
    return places


def facility_location(vectors: Any, size: int) -> list[int]:
    """Places of `size` rows, in the order of picking, by lazy greedy search.

    vectors: rows of length 1, shape (n, dimensions). The sum over all rows of the cosine with the nearest picked row
    grows most with each; negative cosines count 0. Of equal rows the first.
    """
    import numpy as np

    alike: NDArray[np.float32] = np.clip(vectors @ vectors.T, 0.0, 1.0)  # (n, n)
    nearest = np.zeros(len(alike), dtype=alike.dtype)
    gains = [(-float(gain), place) for place, gain in enumerate(alike.sum(axis=0))]
    heapq.heapify(gains)
    picked: list[int] = []
    while gains and len(picked) < size:
        _, place = heapq.heappop(gains)
        gain = float(np.maximum(alike[place] - nearest, 0.0).sum())
        if gains and gain < -gains[0][0] - 1e-4:  # an earlier bound; the gain of a row never grows
            heapq.heappush(gains, (-gain, place))
            continue
        picked.append(place)
        np.maximum(nearest, alike[place], out=nearest)
    return picked
