"""Demos: worked examples inside a prompt, how they are ordered and how each input gets its own.

Knows inputs and answers of train examples, nothing of models.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rung.text import normal_form
from rung.types import Demo, Document, Example, Query, Retriever, Solution

_KEPT_INDEXES = 2


NEAREST_POOL = 20_000
"""Train examples at most that an input's nearest demos come from."""


def demo(example: Example) -> Demo:
    """The example as a prompt shows it."""
    return Demo(example.query.text, example.output)


def covering(train: Sequence[Example], seed: int, most: int | None = None) -> tuple[Demo, ...]:
    """Train examples as demos, in an order whose every prefix covers as many different answers as it can.

    Answers take turns, the most frequent first. For one answer, inputs near the median length come first, because they
    cost little and are typical. most: at most so many demos; None: all.
    """
    if not train:
        return ()
    most = len(train) if most is None else most
    by_output: dict[str, list[Example]] = defaultdict(list)
    shuffled = random.Random(seed).sample(list(train), len(train))
    median = sorted(len(e.input) for e in train)[len(train) // 2]
    for example in sorted(shuffled, key=lambda e: abs(len(e.input) - median)):
        by_output[example.output].append(example)
    turns = sorted(by_output.values(), key=lambda rows: -len(rows))
    ordered: list[Demo] = []
    depth = 0
    while turns and len(ordered) < most:  # turns are empty once every example is placed
        turns = [rows for rows in turns if depth < len(rows)]
        ordered += [demo(rows[depth]) for rows in turns[: most - len(ordered)]]
        depth += 1
    return tuple(ordered)


def select_demos(solution: Solution, queries: Sequence[Query]) -> list[tuple[Demo, ...]]:
    """The demos that each prompt shows. nearest: the most similar input stands last, beside the question.

    A demo whose input is the input itself is never shown, because it would show the answer.
    """
    selection = solution.demo_selection
    if selection is None or not solution.demos:
        return [()] * len(queries)
    if selection.kind == "fixed":
        return [solution.demos[: selection.k]] * len(queries)
    pool = _pool(solution.demos)
    texts = [q.text for q in queries]
    forms = list(map(normal_form, texts))
    # The search returns so many more as the pool holds copies of an input, so that k others remain.
    copies = max((pool.copies[form] for form in forms), default=0)
    searched = [Query(q.id, text) for q, text in zip(queries, texts, strict=True)]
    rows = []
    for form, hits in zip(forms, pool.index.search(searched, selection.k + copies), strict=True):
        others = [solution.demos[int(hit.id)] for hit in hits if normal_form(hit.text) != form]
        rows.append(tuple(reversed(others[: selection.k])))
    return rows


@dataclass(frozen=True)
class _Pool:
    """Demos with an index over their inputs. copies: normal form -> demos with such an input."""

    demos: tuple[Demo, ...]
    index: Retriever
    copies: Counter[str]


_pools: list[_Pool] = []
"""The pools that were searched last. Every block of inputs and every single request searches the same few."""


def _pool(demos: tuple[Demo, ...]) -> _Pool:
    """The pool, known by identity: to hash or to compare thousands of demos for each request would cost more."""
    global _pools
    for pool in _pools:
        if pool.demos is demos:
            return pool
    from rung.retrieval.bm25 import BM25

    index = BM25([Document(str(i), demo.input) for i, demo in enumerate(demos)])
    pool = _Pool(demos, index, Counter(normal_form(demo.input) for demo in demos))
    _pools = [pool, *_pools[: _KEPT_INDEXES - 1]]
    return pool
