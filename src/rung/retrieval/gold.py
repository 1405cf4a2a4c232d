"""Gold passages: those that hold the answer to an example.

They are the passages that the example marks by its gold_ids; without marks, those that were found and contain an
accepted answer as whole words. Training puts them into prompts, the diagnosis answers with them in the place of
retrieved ones, and searches are measured by them, under any cutting of the documents. Results are keyed by example id:
two examples with one input keep their own passages.
Knows nothing of prompts; whether a passage fits into one is asked of the caller.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise, zip_longest

from rung.retrieval.answers_in_text import AnswersInText, contains_answer
from rung.retrieval.chunk import document_id
from rung.text import units
from rung.types import Document, Example, Query, Retriever

__all__ = ["GoldIndex", "GoldRetriever", "WithGold", "WithoutGold", "contains_answer", "pooled"]

MOST_GOLD = 3
"""Gold passages of one example at most."""
SEARCHED = 5
"""Ranked passages at least among which training looks for one that contains the answer."""

_LEFT_OUT = 50
"""Ranked passages at most in whose place later ones come, where passages are left out."""

_OVERLAP = 0.4
"""Share of the neighbouring words of the shorter passage that two cuttings of one document must have in common."""


class GoldIndex:
    """Passages by their own id and by the id of the document they were cut from.

    A mark names a document, or a part of one as documents are usually cut. Under another cutting, parts have the same
    ids and hold something else; a mark means what holds the text of that part.
    """

    def __init__(self, passages: Sequence[Document], usual: Sequence[Document] = ()) -> None:
        """usual: the passages as documents are cut where nothing is chosen; none, where that is how these are cut."""
        self._passages = tuple(passages)
        self._usual = usual
        self._by_id: dict[str, int] = {}
        self._by_document: dict[str, list[int]] = defaultdict(list)
        for place, passage in enumerate(self._passages):
            self._by_id[passage.id] = place
            self._by_document[document_id(passage.id)].append(place)
        self._holds: AnswersInText | None = None

    def passage(self, example: Example, ranked: Sequence[Document] = ()) -> Document | None:
        """The gold passage: of the marked ones, or else of the ranked ones, the first that contains an answer.

        Where the marked passages contain none, the first marked one. None where nothing is marked and found.
        """
        marked = self.named(example) or self.parts(example)
        return next((p for p in marked or ranked if contains_answer(p, example)), next(iter(marked), None))

    def passages(self, example: Example, ranked: Sequence[Document] = ()) -> tuple[Document, ...]:
        """Up to MOST_GOLD gold passages, that of `passage` first.

        Of a marked document, only the passages that contain an answer; of the ranked ones, only the first such. Where
        answers are labels, give no ranked ones: that a passage contains "yes" says nothing.
        """
        best = self.passage(example, ranked)
        if best is None:
            return ()
        own = {p.id for p in self.named(example)}
        rest = [p for p in self.parts(example) if p != best and (p.id in own or contains_answer(p, example))]
        return (best, *rest)[:MOST_GOLD]

    def named(self, example: Example) -> list[Document]:
        """The passages that are marked as such, whole documents among them; not parts of a marked document."""
        return [self._passages[self._by_id[i]] for i in example.gold_ids if self._is_named(i)]

    def parts(self, example: Example) -> list[Document]:
        """Every passage that is marked, or cut from a document that is, in the order of the corpus."""
        places = {place for i in example.gold_ids for place in self._parts_of(i)}
        return [self._passages[place] for place in sorted(places)]

    def marked(self, example: Example) -> frozenset[str]:
        """Ids of the marked passages; of a marked document the parts that contain an answer, else all its parts."""
        own = {p.id for p in self.named(example)}
        for id_ in {i for i in example.gold_ids if not self._is_named(i)}:
            parts = [self._passages[place] for place in self._parts_of(id_)]
            own.update(p.id for p in _with_answer(parts, example))
        return frozenset(own)

    def relevant(self, example: Example, pooled: Sequence[Document] = ()) -> frozenset[str]:
        """Ids of the passages that count as found for this example, when a search is measured.

        Those that are marked (`marked`); else, of the pooled hits of several searches, best first, those that contain
        an accepted answer, unless so many passages hold it that a hit at that rank says nothing (`AnswersInText`).
        Empty where nothing is marked and found: the example then does not count. Where answers are labels, give no
        pooled hits.
        """
        return self.marked(example) or frozenset(p.id for p in self._contained(example, pooled))

    def overlapping(self, passages: Sequence[Document]) -> frozenset[str]:
        """Ids of the passages here that hold the text of these, which were cut in another way, or about half of it."""
        found: set[str] = set()
        for passage in passages:
            here = self._by_document.get(document_id(passage.id), ())
            text = _neighbours(passage)
            for other in (self._passages[place] for place in here):
                own = _neighbours(other)
                if other == passage or len(text & own) >= _OVERLAP * max(1, min(len(text), len(own))):
                    found.add(other.id)
        return frozenset(found)

    def with_answer(self, ids: Collection[str], example: Example) -> frozenset[str]:
        """Of passages here, those that contain an answer to the example; all, where none does."""
        return frozenset(p.id for p in _with_answer([self._passages[self._by_id[i]] for i in ids], example))

    def _contained(self, example: Example, pooled: Sequence[Document]) -> list[Document]:
        if self._holds is None:
            self._holds = AnswersInText(self._passages)
        return self._holds.telling_hits(example, pooled)

    @cached_property
    def _usual_by_id(self) -> dict[str, Document]:
        return {p.id: p for p in self._usual}

    def _is_named(self, mark: str) -> bool:
        if mark not in self._by_id or not self._usual:
            return mark in self._by_id
        return document_id(mark) == mark or self._usual_by_id.get(mark) == self._passages[self._by_id[mark]]

    def _parts_of(self, mark: str) -> Collection[int]:
        """Places of the passages that a mark means, be it one passage, a document or a part as it is usually cut."""
        if self._is_named(mark):
            return {self._by_id[mark], *self._by_document.get(mark, ())}
        if mark in self._by_document or not self._usual or mark not in self._usual_by_id:
            return self._by_document.get(mark, ())
        return [self._by_id[i] for i in self.overlapping([self._usual_by_id[mark]])]


def pooled(rankings: Sequence[Sequence[Document]], most: int = 40) -> tuple[Document, ...]:
    """Hits of several searches for one query as one ranking: the first of each, then the second of each, …"""
    rows = zip_longest(*rankings)
    found = {p.id: p for row in rows for p in row if p is not None}
    return tuple(islice(found.values(), most))


def _with_answer(passages: Sequence[Document], example: Example) -> Sequence[Document]:
    return [p for p in passages if contains_answer(p, example)] or passages


def _neighbours(passage: Document) -> set[tuple[str, str]]:
    """Pairs of neighbouring words of the text."""
    found = units(passage.text)
    return set(pairwise(found)) or {(unit, "") for unit in found}


class GoldRetriever:
    """Finds for each query the gold passages of the example with its id; none for any other."""

    def __init__(self, gold: Mapping[str, Sequence[Document]]) -> None:
        """gold: example id -> its passages, best first."""
        self._gold = gold

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        return [list(self._gold.get(query.id, ())[:k]) for query in queries]


class WithGold:
    """A search whose last hits give way to the gold passage where the prompt would miss it; for training prompts."""

    def __init__(
        self,
        search: Retriever,
        examples: Sequence[Example],
        index: GoldIndex,
        fitting: Callable[[Sequence[Document]], Sequence[Document]],
    ) -> None:
        """examples: those that may be asked for. fitting: ranked passages -> those that the prompt would show."""
        self._search = search
        self._examples = {e.id: e for e in examples}
        self._index = index
        self._fitting = fitting

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        found = self._search.search(queries, max(k, SEARCHED))
        return [self._with_gold(query, row, k) for query, row in zip(queries, found, strict=True)]

    def _with_gold(self, query: Query, ranked: Sequence[Document], k: int) -> list[Document]:
        example = self._examples.get(query.id)
        gold = self._index.passage(example, ranked) if example is not None else None
        row = list(ranked[:k])
        if gold is None or gold in self._fitting(row):
            return row
        row = [p for p in row if p != gold][: k - 1]
        while row and gold not in self._fitting([*row, gold]):
            row.pop()
        return [*row, gold]


class WithoutGold:
    """A search that leaves out every passage that holds the answer to the example with the query's id.

    Left out is what the example marks, every part of a document that it marks, and what contains an accepted answer.
    """

    def __init__(self, search: Retriever, examples: Sequence[Example], index: GoldIndex) -> None:
        """examples: those that may be asked for; for any other query nothing is left out. index: of the passages."""
        self._search = search
        self._examples = {e.id: e for e in examples}
        self._index = index

    def search(self, queries: Sequence[Query], k: int) -> list[list[Document]]:
        found = self._search.search(queries, k + _LEFT_OUT)
        return [self._without(query, row)[:k] for query, row in zip(queries, found, strict=True)]

    def _without(self, query: Query, ranked: Sequence[Document]) -> list[Document]:
        example = self._examples.get(query.id)
        if example is None:
            return list(ranked)
        marked = {p.id for p in self._index.parts(example)}
        return [p for p in ranked if p.id not in marked and not contains_answer(p, example)]
