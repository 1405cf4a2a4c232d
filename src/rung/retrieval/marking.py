"""Gold passages of examples that mark none, found by a lexical search and by the answers that the hits contain.

No model is asked. How often that is chance is measured: the same is done with the answer of another example.
Knows no files.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rung.retrieval import open_index
from rung.retrieval.answers_in_text import contains_answer
from rung.retrieval.chunk import chunk, document_id
from rung.retrieval.gold import GoldIndex
from rung.types import Document, Example, RetrieverSpec, Tell

POOL = 20
"""Hits among which the answer is looked for."""

_BLOCK = 200


@dataclass(frozen=True)
class Marks:
    """gold: example id -> the document that holds the answer. n: examples that were looked at.

    by_chance: of `drawn` examples, those for which a document was found that holds the answer of another one.
    """

    gold: Mapping[str, str]
    n: int
    by_chance: int
    drawn: int

    @property
    def wrong(self) -> float:
        """Share of the marks that may be chance, at most: as many examples as chance marks, of those marked. All
        where no two answers differ, so that chance cannot be measured."""
        if not self.gold or not self.drawn:
            return float(bool(self.gold))
        return min(1.0, self.by_chance / self.drawn * self.n / len(self.gold))


def mark(
    examples: Sequence[Example],
    documents: Sequence[Document],
    *,
    seed: int = 0,
    tell: Tell = lambda what, share: None,
) -> Marks:
    """The best-ranked document that holds an accepted answer, for each example for which that is no chance.

    See `GoldIndex.relevant` for what counts. Ids are those of documents, so that they hold under any cutting. One
    document an example: each that is marked counts as needed, and of later ones fewer are right.
    """
    passages = chunk(documents)
    search, index = open_index(RetrieverSpec("bm25", POOL, 0), passages), GoldIndex(passages)
    drawn = random.Random(seed)
    gold: dict[str, str] = {}
    by_chance = tried = 0
    for start in range(0, len(examples), _BLOCK):
        tell("looking for documents that hold the answers", start / len(examples))
        block = examples[start : start + _BLOCK]
        for example, hits in zip(block, search.search([e.query for e in block], POOL), strict=True):
            if (found := _best(index, example, hits)) is not None:
                gold[example.id] = found
            other = _with_answer_of(example, drawn.choice(examples))
            if other is not None:
                tried += 1
                by_chance += _best(index, other, hits) is not None
    return Marks(gold, len(examples), by_chance, tried)


def _best(index: GoldIndex, example: Example, hits: Sequence[Document]) -> str | None:
    relevant = index.relevant(replace(example, gold_ids=()), hits)
    return next((document_id(hit.id) for hit in hits if hit.id in relevant), None)


def _with_answer_of(example: Example, other: Example) -> Example | None:
    """The example with the answers of another one; None where an answer of the two holds one of the other."""
    said = Document("", "\n".join(example.references)), Document("", "\n".join(other.references))
    if contains_answer(said[0], other) or contains_answer(said[1], example):
        return None
    return replace(example, references=other.references)
