"""Whether what a search returned holds the answer: one judge for every search, however it cuts documents.

A text is right where it is cut from a document that the question marks and contains an accepted answer. Where no
marked document contains one (answers are labels, or worded otherwise), any text of a marked document is right. Cut
answers are in no text. Besides the ranks, it counts what stands within so many tokens: large passages show more.
Knows no search.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rung.evaluation.ranking import ranking_of
from rung.evaluation.statistics import score
from rung.retrieval.answers_in_text import contains_answer
from rung.types import Document, Example

BUDGETS = (600, 1200)
"""Tokens that are shown."""

Hit = tuple[str, str]
"""(id of the document, text as it would be shown)."""


@dataclass(frozen=True)
class Measured:
    """record: as JSON values. recall_5, within: question by question, for paired comparisons."""

    record: dict[str, Any]
    recall_5: tuple[float, ...]
    within: Mapping[int, tuple[float, ...]]


class Judge:
    """The questions of a task and their marked documents."""

    def __init__(
        self,
        examples: Sequence[Example],
        documents: Mapping[str, Document],
        count_tokens: Callable[[str], int],
        groups: Sequence[Hashable] | None = None,
        *,
        labels: bool = False,
    ) -> None:
        """examples: of which every one marks documents. groups: of each, units of the intervals."""
        self.examples = examples
        self._groups = groups
        self._count = count_tokens
        self._tokens: dict[str, int] = {}
        self._in_words = [
            not labels and any(contains_answer(documents[i], e) for i in e.gold_ids if i in documents) for e in examples
        ]

    def right(self, place: int, hit: Hit) -> bool:
        """Whether the hit answers the question in that place."""
        document, text = hit
        example = self.examples[place]
        if document not in example.gold_ids:
            return False
        return not self._in_words[place] or contains_answer(Document("", text), example)

    def measured(self, rows: Sequence[Sequence[Hit]], depth: int = 20) -> Measured:
        """rows: the hits of each question, best first."""
        found = [
            [hit[0] if self.right(i, hit) else f"\0{n}" for n, hit in enumerate(row[:depth])]
            for i, row in enumerate(rows)
        ]
        ranking = ranking_of(found, [e.gold_ids for e in self.examples], groups=self._groups)
        within = {budget: tuple(float(self._shows(i, row, budget)) for i, row in enumerate(rows)) for budget in BUDGETS}
        sizes = [self._size(text) for row in rows for _, text in row[:5]]
        record = {
            "n": ranking.n,
            "recall": {str(k): asdict(ranking.recall[k]) for k in (1, 5)},
            "ndcg": asdict(ranking.ndcg),
            "mrr": asdict(ranking.mrr),
            "within": {str(b): asdict(score(v, groups=self._groups)) for b, v in within.items()},
            "tokens": round(sum(sizes) / max(1, len(sizes))),
        }
        return Measured(record, ranking.per_question.recall[5], within)

    def _shows(self, place: int, row: Sequence[Hit], budget: int) -> bool:
        """Whether a right text, or enough of it, stands within the tokens; the last text is cut where they end."""
        left = budget
        for hit in row:
            size = self._size(hit[1])
            shown = hit if size <= left else (hit[0], _beginning(hit[1], left / size))
            if shown[1] and self.right(place, shown):
                return True
            left -= size
            if left <= 0:
                return False
        return False

    def _size(self, text: str) -> int:
        if text not in self._tokens:
            self._tokens[text] = self._count(text)
        return self._tokens[text]


def _beginning(text: str, share: float) -> str:
    """That share of the text, by characters, without the word that it ends in where words have spaces."""
    cut = text[: int(share * len(text))]
    if not cut or text[len(cut)].isspace():
        return cut
    whole = cut.rpartition(" ")[0]
    return whole if len(cut) - len(whole) < 40 else cut
