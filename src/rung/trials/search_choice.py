"""The ways to find passages, measured on train questions before any answer is asked for.

A way is measured by the ranks of the passages that hold the answer: recall@k, nDCG@10, MRR; and by how often such a
passage stands among those that a prompt shows. That costs no answer of a model. First all ways search the passages as
they are cut by default; then a few sizes of passages are tried with a lexical search, which is quick; then the best
ways search passages of the best size. The best few are left to be told apart by answers on dev.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rung.evaluation.ranking import Ranking, ranking_of
from rung.evaluation.statistics import score, units_of
from rung.retrieval.gold import pooled
from rung.retrieval.ways import way
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, within_budget
from rung.trials.sufficiency import GoldFound, gold_of
from rung.trials.workshop import Workshop, sample_of
from rung.types import Document, RetrieverSpec, Score

QUESTIONS = 200
"""Train questions at most that ways are measured on."""
LEAST_QUESTIONS = 20
"""With fewer, nothing is told apart: the ways go to dev as they are."""
DEPTH = 20
"""Ranked passages of each question."""
SHOWN = 3
"""Passages that a prompt shows while ways are compared."""
SIZES = (128, 256, 512)
"""Tokens of a passage that are tried, where the task names none."""
MOST = 3
"""Ways at most that go to dev."""
MODEL = "model"
"""Name of the reranker that is the model which answers; it is tried where answers are asked for."""
NEAR = 0.02
"""Of recall@5: ways that are no further below the best go to dev."""

_OVERLAP = 8  # one in so many tokens of a passage is repeated in the next one
_CUT_SHARE = 0.1  # of the documents must be longer than a size for it to be tried
_BETTER = 0.01  # share of questions by which another size has to be ahead of the default
_WORDS_A_TOKEN = 0.6  # at least, of usual text


@dataclass(frozen=True)
class MeasuredWay:
    """One way and what it reached.

    shown: share of questions of which a passage that holds the answer stands in the prompt. build_s: seconds until the
    index could be searched. query_ms: a mean.
    """

    spec: RetrieverSpec
    ranking: Ranking
    shown: Score
    build_s: float
    query_ms: float

    @property
    def order(self) -> tuple[float, float]:
        """Better ways have larger ones."""
        return self.ranking.recall[5].mean, self.ranking.ndcg.mean

    def record(self) -> dict[str, Any]:
        ranking = self.ranking
        return {
            "way": way(self.spec),
            "spec": asdict(self.spec),
            "n": ranking.n,
            "recall": {str(k): asdict(s) for k, s in ranking.recall.items()},
            "ndcg": asdict(ranking.ndcg),
            "mrr": asdict(ranking.mrr),
            "shown": asdict(self.shown),
            "build_s": round(self.build_s, 2),
            "query_ms": round(self.query_ms, 2),
        }


def measured_search(workshop: Workshop, specs: Sequence[RetrieverSpec], folder: Path) -> dict[str, Any]:
    """What the ways reach on train questions, and the best few: what search.json holds, but for what was not tried.

    specs: the single searches, the quickest first. What fuses them, and what orders hits anew, follows from the best.
    folder: where the model's replies about passages are kept.
    Raises BudgetSpent, by the workshop's tools, with the indexes as far as they were made.
    """
    from rung.retrieval.proposals import fusions, rerankings

    measuring, keys = _Measuring(workshop, folder), workshop.inputs.task.retrieval
    measured = measuring.all_of(specs)
    if not measured:
        return {
            "questions": 0,
            "tried": [],
            "best": [asdict(s) for s in specs[:MOST]],
            "sizes": [],
            **measuring.gold_record,
        }
    lexical = next(iter(_ranked([m for m in measured if not m.spec.embedder])), None)
    if lexical is not None:
        embedders = {spec.embedder for spec in specs}
        measured += measuring.all_of([s for s in fusions(lexical.spec, keys) if s.embedder in embedders])
    sizes = measuring.sizes(lexical.spec if lexical is not None else specs[0])
    size = _best_size(sizes)
    best = _near(measured)
    if size is not None:
        best = _near(measuring.all_of([replace(m.spec, tokens=size.tokens, overlap=size.overlap) for m in best]))
        measured += best
    if again := [s for s in rerankings(best[0].spec, keys) if s.reranker != MODEL]:
        ordered = measuring.all_of(again)
        measured += ordered
        best = _near([*best, *ordered])
    return {
        "questions": measuring.count,
        "tried": [m.record() for m in measured],
        "best": [asdict(m.spec) for m in best],
        "sizes": [m.record() for m in sizes],
        **measuring.gold_record,
    }


def _ranked(measured: Sequence[MeasuredWay]) -> list[MeasuredWay]:
    """The best first; of equals, what was named first, which costs less."""
    return sorted(measured, key=lambda m: m.order, reverse=True)


def _near(measured: Sequence[MeasuredWay]) -> list[MeasuredWay]:
    """The best ways and those that are hardly below it, at most MOST."""
    ranked = _ranked(measured)
    return [m for m in ranked if m.order[0] >= ranked[0].order[0] - NEAR][:MOST]


class _Measuring:
    """The questions, and the passages that are known to hold their answers."""

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop = workshop
        self.count = 0
        self._folder = folder
        self._questions = sample_of(workshop.inputs.train, QUESTIONS, workshop.inputs.task.seed)
        self._tokens: dict[str, int] = {}
        self._gold: GoldFound | None = None

    @property
    def gold_record(self) -> dict[str, Any]:
        """How the passages that hold an answer are known."""
        return {"gold": self._gold.record if self._gold is not None else None}

    def all_of(self, specs: Sequence[RetrieverSpec]) -> list[MeasuredWay]:
        """Measured on the same questions, those of which a passage that holds the answer is known; none with too few.

        What any of the first ways found counts for all of them. specs: of one cutting.
        """
        if not specs:
            return []
        found = [self._search(spec, place / len(specs)) for place, spec in enumerate(specs)]
        if self._gold is None:
            hits = [pooled([rows[i] for rows, _, _ in found]) for i in range(len(self._questions))]
            of_question = {e.id: row for e, row in zip(self._questions, hits, strict=True)}
            self._gold = gold_of(self.workshop, self._questions, of_question, self._folder, specs[0])
        index = self.workshop.inputs.library.gold(specs[0])
        relevant = [self._gold.relevant_in(index, e) for e in self._questions]
        known = [i for i, ids in enumerate(relevant) if ids]
        self.count = max(self.count, len(known))
        if len(known) < LEAST_QUESTIONS:
            return []
        groups = units_of([self._questions[i].id for i in known], self.workshop.inputs.groups)
        return [
            self._measured(spec, rows, relevant, known, groups, build_s, query_ms)
            for spec, (rows, build_s, query_ms) in zip(specs, found, strict=True)
        ]

    def sizes(self, spec: RetrieverSpec) -> list[MeasuredWay]:
        """The way with passages of each size, the default first; none where no document is cut."""
        documents, named = self.workshop.inputs.library.documents, self.workshop.inputs.task.retrieval.tokens
        some = sample_of(documents, 1_000, self.workshop.inputs.task.seed)
        words = [len(d.text.split()) or len(d.text) for d in some]
        tried = [
            size
            for size in (named or SIZES)
            if named or sum(n > _WORDS_A_TOKEN * size for n in words) > _CUT_SHARE * len(words)
        ]
        cut = [replace(spec, tokens=size, overlap=size // _OVERLAP) for size in tried]
        found = [m for each in (spec, *cut) for m in self.all_of([each])] if cut else []
        return found if len(found) == len(cut) + 1 else []

    def _search(self, spec: RetrieverSpec, share: float) -> tuple[list[list[Document]], float, float]:
        """The ranked passages of each question, the seconds until they could be searched, and milliseconds a query."""
        tell, started = self.workshop.tools.tell, time.perf_counter()
        tell(f"searching with {way(spec)}", share)
        self.workshop.inputs.library.prepare(spec, tell)
        retriever = self.workshop.inputs.library.search(spec)
        built = time.perf_counter()
        rows = retriever.search([e.query for e in self._questions], DEPTH)
        took = time.perf_counter() - built
        return rows, built - started, 1000 * took / max(1, len(rows))

    def _measured(
        self,
        spec: RetrieverSpec,
        rows: Sequence[Sequence[Document]],
        relevant: Sequence[frozenset[str]],
        known: Sequence[int],
        groups: Sequence[Hashable] | None,
        build_s: float,
        query_ms: float,
    ) -> MeasuredWay:
        """Of the questions in the places `known`; groups: of these."""
        seed = self.workshop.inputs.task.seed
        found = [[p.id for p in rows[i]] for i in known]
        needed = [relevant[i] for i in known]
        assert self._gold is not None
        unmarked = self._gold.any_of([self._questions[i] for i in known])
        ranking = ranking_of(found, needed, any_of=unmarked, groups=groups, seed=seed)
        room = replace(spec, k=DEPTH, token_budget=PASSAGE_TOKENS)
        shown = [float(bool({p.id for p in within_budget(room, rows[i], self._counted)} & relevant[i])) for i in known]
        return MeasuredWay(spec, ranking, score(shown, groups=groups, seed=seed), build_s, query_ms)

    def _counted(self, text: str) -> int:
        if text not in self._tokens:
            self._tokens[text] = self.workshop.tools.model.count_tokens(text)
        return self._tokens[text]


def _best_size(sizes: Sequence[MeasuredWay]) -> RetrieverSpec | None:
    """The cutting whose passages show the answer most often within the tokens of a prompt; None: the default."""
    if not sizes:
        return None
    best = max(sizes, key=lambda m: m.shown.mean)
    if not best.spec.tokens or best.shown.mean < sizes[0].shown.mean + _BETTER:
        return None
    return best.spec
