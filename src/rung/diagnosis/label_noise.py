"""Rows whose answers contradict each other: nearly the same input, another answer. A person must look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from rung.data.conflicts import conflicting_pairs, same_answers
from rung.diagnosis.lenient import Yardstick
from rung.text import units
from rung.types import Answer, Example


def conflicts(
    examples: Sequence[Example], by: Yardstick, near: Iterable[tuple[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Pairs of examples with nearly the same input, each of whose answers is wrong for the other, as plain records.

    Nearly the same: near-duplicates that the data checks say contradict each other, or the same words in another order.
    near: pairs of ids that are near-duplicates, where they are known (ids of other examples do not count); None
    computes them.
    """
    rows = {e.id: e for e in examples}
    place = {e.id: n for n, e in enumerate(examples)}
    known = None if near is None else [(place[a], place[b]) for a, b in near if a in place and b in place]
    named = [(a.id, b.id) for a, b in conflicting_pairs(examples, known)]
    pairs = [(rows[a], rows[b]) for a, b in dict.fromkeys((*named, *_same_words(examples)))]
    return [
        {"ids": [a.id, b.id], "rows": [a.row, b.row], "input": b.input, "outputs": [a.output, b.output]}
        for (a, b), agree in zip(pairs, _agree(pairs, by), strict=True)
        if not agree
    ]


def _same_words(examples: Sequence[Example]) -> Iterator[tuple[str, str]]:
    """Ids of each example and the first one with the same words in whatever order."""
    first: dict[bytes, str] = {}
    for example in examples:
        words = " ".join(sorted(units(example.query.text, signs=True)))
        twin = first.setdefault(blake2b(words.encode(errors="replace"), digest_size=16).digest(), example.id)
        if twin != example.id:
            yield twin, example.id


def _agree(pairs: Sequence[tuple[Example, Example]], by: Yardstick) -> list[bool]:
    """Whether the answer of one example of a pair is right for the other. A judge is not asked."""
    if by.scorer.metric.needs_judge:
        return [same_answers(a, b) for a, b in pairs]
    crossed = [Answer(y.query, x.output, y.references) for a, b in pairs for x, y in ((a, b), (b, a))]
    scores = [outcome.score for outcome in by.scorer.score(crossed)]
    return [max(scores[i], scores[i + 1]) >= by.right for i in range(0, len(scores), 2)]
