"""What new inputs are to be like: more of them where examples are thin, or where answers are often wrong.

Reads train alone. Of dev it knows at most how often each answer was wrong, as numbers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rung.types import Example, Task

MOST_AIMS = 100
_MOST_CLUSTERS = 12
_EACH_CLUSTER = 6  # train rows of a cluster, on average at least
_FEW = 3
_OFTEN_WRONG = 2.0  # how much more an answer weighs that is always wrong


@dataclass(frozen=True)
class Aim:
    """One kind of input. answer: its right answer, where these are few; None: whatever it is. rows: of train."""

    answer: str | None
    rows: tuple[Example, ...]
    weight: float


def aims_of(task: Task, train: Sequence[Example], wrong: Mapping[str, int], seed: int) -> list[Aim]:
    """The kinds of inputs of a task: one a label, or clusters of inputs where answers are free. Heaviest first.

    A kind weighs 1/sqrt(its rows), so that rare ones get more new rows than common ones; very few rows count as a few,
    because they may be strays. wrong: right answer -> how often it was wrong on dev.
    """
    if not task.labels:
        return sorted((Aim(None, tuple(rows), _weight(len(rows))) for rows in _clusters(train, seed)), key=_heaviest)
    total = max(1, sum(wrong.values()))
    found = [
        Aim(answer, tuple(rows), _weight(len(rows)) * (1 + _OFTEN_WRONG * wrong.get(answer, 0) / total))
        for answer, rows in _by_answer(task, train).items()
    ]
    return sorted(found, key=_heaviest)[:MOST_AIMS]


def spread(count: int, aims: Sequence[Aim]) -> list[int]:
    """So many requests over the aims by their weights, shape (aims,): largest remainders, the heaviest first."""
    if not aims:
        return []
    total = sum(aim.weight for aim in aims)
    exact = [count * aim.weight / total for aim in aims]
    found = [int(x) for x in exact]
    by_rest = sorted(range(len(aims)), key=lambda i: found[i] - exact[i])  # stable
    for place in by_rest[: count - sum(found)]:
        found[place] += 1
    return found


def in_turns(counts: Sequence[int]) -> list[int]:
    """Places of the aims, each as often as it counts, in turns: every beginning of the list covers what it can."""
    return [place for turn in range(max(counts, default=0)) for place, n in enumerate(counts) if turn < n]


def _by_answer(task: Task, train: Sequence[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    if not task.multi_label:
        found.update({label: [] for label in task.labels or ()})
    for example in train:
        found[example.output].append(example)
    return found


def _clusters(train: Sequence[Example], seed: int) -> list[list[Example]]:
    """Train in groups of inputs that are alike."""
    from rung.data.vectors import vectors_of

    number = min(_MOST_CLUSTERS, len(train) // _EACH_CLUSTER)
    vectors = vectors_of(train, seed) if number > 1 else None
    if vectors is None or len(vectors.places) < number:
        return [list(train)]
    from sklearn.cluster import KMeans

    labels = KMeans(number, n_init=1, random_state=seed % 2**32).fit_predict(vectors.dense)
    found: dict[int, list[Example]] = defaultdict(list)
    for place, label in zip(vectors.places, labels, strict=True):
        found[int(label)].append(train[int(place)])
    return [found[label] for label in sorted(found)]


def _weight(rows: int) -> float:
    return 1.0 / math.sqrt(max(_FEW, rows))


def _heaviest(aim: Aim) -> tuple[float, str]:
    return (-aim.weight, aim.answer or (aim.rows[0].id if aim.rows else ""))


def wrong_answers(answers: Sequence[tuple[str, float]]) -> dict[str, int]:
    """Right answer -> how often it scored less than half. answers: (right answer, score)"""
    return dict(Counter(right for right, score in answers if score < 0.5))
