"""The ways to find passages, measured on train questions before any answer is asked for.

A way is measured by the ranks of the passages that hold the answer: recall@k, nDCG@10, MRR; and by how often such a
passage stands among those that a prompt shows. That costs no answer of a model. First all ways search the passages as
they are cut by default, with the input and, where there is more, with the whole conversation; then a few sizes of
passages are tried with a lexical search, which is quick; then the best ways search passages of the best size. The best
few are left to be told apart by answers on dev.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rung.errors import BudgetSpent, SealedTestError, fault_text
from rung.evaluation.ranking import Ranking, ranking_of
from rung.evaluation.statistics import score, units_of
from rung.retrieval.gold import contains_answer, pooled
from rung.retrieval.proposals import LEXICAL, fusions, rerankings
from rung.retrieval.shared import forget_queries
from rung.retrieval.ways import way
from rung.solutions.prompt_rendering import PASSAGE_TOKENS, within_budget
from rung.solutions.searching import conversation_text
from rung.trials.sufficiency import GoldFound, gold_of
from rung.trials.workshop import Workshop, sample_of
from rung.types import Document, Example, RetrieverSpec, Score, SearchKeys

QUESTIONS = 200
"""Train questions at most that ways are measured on."""
LEAST_QUESTIONS = 20
"""With fewer, nothing is told apart: the ways go to dev as they are."""
DEPTH = 20
"""Ranked passages of each question."""
SHOWN = 3
"""Passages that a prompt shows while ways are compared on dev."""
MOST_SHOWN = 5
"""Passages at most, of PASSAGE_TOKENS tokens, among which the answer is looked for."""
SIZES = (128, 256, 512)
"""Tokens of a passage that are tried, where the task names none."""
MOST = 3
"""Ways at most that go to dev."""
NEAR = 0.02
"""Of recall@5: ways that are no further below the best, or one question, go to dev."""

_OVERLAP = 8  # one in so many tokens of a passage is repeated in the next one
_CUT_SHARE = 0.1  # of the text must stand in documents longer than a size for it to be tried
_BETTER = 0.03  # share of questions by which another size has to be ahead: less is noise of 200 questions
_BYTES_A_TOKEN = 4  # of usual text
_ROUNDING = 1e-9


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


def measured_search(
    workshop: Workshop, specs: Sequence[RetrieverSpec], folder: Path, *, sizes: bool = True, asking: bool = True
) -> dict[str, Any]:
    """What the ways reach on train questions, and the best few: what search.json holds.

    specs: the single searches, the quickest first. What fuses them, and what orders hits anew, follows from the best.
    folder: where the model's replies about passages are kept. sizes: passages of other sizes may be tried. asking: the
    model may be asked about passages. A way that fails is left out, and `not_tried` says why.
    Raises BudgetSpent, by the workshop's tools, with the indexes as far as they were made.
    """
    measuring, keys = _Measuring(workshop, folder, asking), workshop.inputs.task.retrieval
    embedders = {spec.embedder for spec in specs}
    measured = measuring.all_of(specs)
    if not measured:
        return measuring.record([], [], _untold([s for s in specs if s not in measuring.failed], keys))
    words = [m for m in measured if m.spec.kind == LEXICAL]
    if words:
        fused = fusions(_ranked(words)[0].spec, keys)
        measured += measuring.all_of([s for s in fused if s.embedder in embedders])
    if measuring.has_conversations:
        near = _near(measured)
        measured += measuring.all_of([replace(m.spec, query="conversation") for m in measured if m in near])
    best = _near(measured)
    quick = [m for m in measured if not m.spec.embedder] or measured
    tried = measuring.sizes(_ranked(quick)[0].spec) if sizes or keys.tokens else []
    if (size := _best_size(tried, keys)) is not None:
        cut = [replace(m.spec, tokens=size.tokens, overlap=size.overlap) for m in measured if m in best]
        resized = measuring.all_of(cut)
        if resized and (keys.tokens or _most_shown(resized) >= _most_shown(best)):
            best = _near(resized)
        measured += resized
    if again := [s for s in rerankings(best[0].spec, keys) if s.cross_encoder]:
        ordered = measuring.all_of(again)
        measured += ordered
        best = _near([*best, *ordered])
    return measuring.record(measured, tried, [m.spec for m in best])


def _untold(specs: Sequence[RetrieverSpec], keys: SearchKeys) -> list[RetrieverSpec]:
    """What goes to dev where too few questions tell ways apart: of each kind one first, and what the task names."""
    words = [s for s in specs if s.kind == LEXICAL]
    first = words[-1:] or list(specs[:1])  # with stems, where the language is known
    other = [s for s in specs if s not in words and s not in first]
    embedders = {s.embedder for s in specs}
    fused = [s for w in words[-1:] for s in fusions(w, keys) if s.embedder in embedders]
    ordered = [s for spec in first for s in rerankings(spec, keys) if s.cross_encoder]
    found = [*first, *ordered, *other, *fused, *words[:-1]]
    if keys.tokens:
        found = [_cut(spec, size) for spec in found for size in keys.tokens]
    return found[:MOST]


def _ranked(measured: Sequence[MeasuredWay]) -> list[MeasuredWay]:
    """The best first; of equals, what was measured first, which costs less."""
    return sorted(measured, key=lambda m: m.order, reverse=True)


def _near(measured: Sequence[MeasuredWay]) -> list[MeasuredWay]:
    """The best ways and those that are hardly below it, at most MOST."""
    ranked = _ranked(measured)
    return [m for m in ranked if m.order[0] >= ranked[0].order[0] - max(NEAR, 1 / ranked[0].ranking.n) - _ROUNDING][
        :MOST
    ]


def _most_shown(measured: Sequence[MeasuredWay]) -> float:
    return max(m.shown.mean for m in measured)


def _cut(spec: RetrieverSpec, tokens: int) -> RetrieverSpec:
    return replace(spec, tokens=tokens, overlap=tokens // _OVERLAP)


@dataclass(frozen=True)
class _Hits:
    """rows: the ranked passages of each question. build_s: until they could be searched. query_ms: a mean."""

    rows: Sequence[Sequence[Document]]
    build_s: float
    query_ms: float


class _Measuring:
    """The questions, and the passages that are known to hold their answers.

    failed: ways that could not be searched, and why.
    """

    def __init__(self, workshop: Workshop, folder: Path, asking: bool) -> None:
        self.workshop = workshop
        self.failed: dict[RetrieverSpec, str] = {}
        self._folder, self._asking = folder, asking
        self._count = 0
        self._questions = sample_of(workshop.inputs.train, QUESTIONS, workshop.inputs.task.seed)
        self._tokens: dict[str, int] = {}
        self._gold: GoldFound | None = None
        self._known: dict[RetrieverSpec, MeasuredWay] = {}

    @property
    def has_conversations(self) -> bool:
        """Whether there is more to search with than inputs."""
        return any(conversation_text(e.query) != e.query.input for e in self._questions)

    def record(
        self, ways: Sequence[MeasuredWay], sizes: Sequence[MeasuredWay], best: Sequence[RetrieverSpec]
    ) -> dict[str, Any]:
        """What search.json holds. gold: how the passages that hold an answer are known."""
        return {
            "questions": self._count if ways else 0,
            "tried": [m.record() for m in ways],
            "best": [asdict(spec) for spec in best],
            "sizes": [m.record() for m in sizes],
            "not_tried": [{"what": way(spec), "why": why} for spec, why in self.failed.items()],
            "gold": self._gold.record if self._gold is not None else None,
        }

    def all_of(self, specs: Sequence[RetrieverSpec]) -> list[MeasuredWay]:
        """Measured on the same questions, those of which a passage that holds the answer is known; none with too few.

        What any of the first ways found counts for all of them. specs: of one cutting; none is measured twice.
        """
        new = [spec for spec in specs if spec not in self._known and spec not in self.failed]
        found = {spec: hits for i, spec in enumerate(new) if (hits := self._search(spec, i / len(new))) is not None}
        if found:
            self._measure(found)
        return [self._known[spec] for spec in specs if spec in self._known]

    def sizes(self, spec: RetrieverSpec) -> list[MeasuredWay]:
        """The way with passages of each size, the default first; none where hardly any text would be cut."""
        documents, named = self.workshop.inputs.library.documents, self.workshop.inputs.task.retrieval.tokens
        some = sample_of(documents, 1_000, self.workshop.inputs.task.seed)
        lengths = [len(d.text.encode("utf-8", "surrogatepass")) for d in some]
        cut = [
            _cut(spec, size)
            for size in (named or SIZES)
            if named or sum(n for n in lengths if n > _BYTES_A_TOKEN * size) > _CUT_SHARE * sum(lengths)
        ]
        found = [m for each in (spec, *cut) for m in self.all_of([each])] if cut else []
        return found if len(found) > 1 and found[0].spec == spec else []

    def _search(self, spec: RetrieverSpec, share: float) -> _Hits | None:
        """What the way finds; None where it fails, which is noted."""
        inputs, tell = self.workshop.inputs, self.workshop.tools.tell
        talk = spec.query == "conversation"
        queries = [replace(e.query, input=conversation_text(e.query)) if talk else e.query for e in self._questions]
        started = time.perf_counter()
        tell(f"searching with {way(spec)}", share)
        try:
            inputs.library.prepare(spec, tell)
            retriever = inputs.library.search(spec)
            forget_queries(retriever)  # a way that was measured before may have embedded them
            built = time.perf_counter()
            rows = retriever.search(queries, DEPTH)
        except (BudgetSpent, SealedTestError):
            raise
        except Exception as defect:  # of a registered index, a model of the hub, a library or rung
            self.failed[spec] = fault_text(defect)
            return None
        took = time.perf_counter() - built
        return _Hits(rows, built - started, 1000 * took / max(1, len(rows)))

    def _measure(self, found: Mapping[RetrieverSpec, _Hits]) -> None:
        """Notes what each way reaches; nothing with too few questions."""
        first = next(iter(found))
        if self._gold is None:
            hits = [pooled([f.rows[i] for f in found.values()]) for i in range(len(self._questions))]
            of_question = {e.id: row for e, row in zip(self._questions, hits, strict=True)}
            self._gold = gold_of(self.workshop, self._questions, of_question, self._folder, first, asking=self._asking)
        index = self.workshop.inputs.library.gold(first)
        relevant = [self._gold.relevant_in(index, e) for e in self._questions]
        known = [i for i, ids in enumerate(relevant) if ids]
        if len(known) < LEAST_QUESTIONS:
            return
        self._count = max(self._count, len(known))
        groups = units_of([self._questions[i].id for i in known], self.workshop.inputs.groups)
        for spec, hits_of in found.items():
            self._known[spec] = self._measured(spec, hits_of, relevant, known, groups)

    def _measured(
        self,
        spec: RetrieverSpec,
        hits: _Hits,
        relevant: Sequence[frozenset[str]],
        known: Sequence[int],
        groups: Sequence[Hashable] | None,
    ) -> MeasuredWay:
        """Of the questions in the places `known`; groups: of these."""
        seed = self.workshop.inputs.task.seed
        found = [[p.id for p in hits.rows[i]] for i in known]
        assert self._gold is not None
        unmarked = self._gold.any_of([self._questions[i] for i in known])
        ranking = ranking_of(found, [relevant[i] for i in known], any_of=unmarked, groups=groups, seed=seed)
        shown = [float(self._shows(spec, self._questions[i], hits.rows[i], relevant[i])) for i in known]
        return MeasuredWay(spec, ranking, score(shown, groups=groups, seed=seed), hits.build_s, hits.query_ms)

    def _shows(
        self, spec: RetrieverSpec, example: Example, ranked: Sequence[Document], relevant: frozenset[str]
    ) -> bool:
        """Whether a prompt of the usual length shows a passage that holds the answer, and not without the answer."""
        room = replace(spec, k=MOST_SHOWN, token_budget=PASSAGE_TOKENS)
        whole = {p.id: p for p in ranked}
        return any(
            p.id in relevant
            and (p == whole[p.id] or contains_answer(p, example) or not contains_answer(whole[p.id], example))
            for p in within_budget(room, ranked, self._counted)
        )

    def _counted(self, text: str) -> int:
        if text not in self._tokens:
            self._tokens[text] = self.workshop.tools.model.count_tokens(text)
        return self._tokens[text]


def _best_size(sizes: Sequence[MeasuredWay], keys: SearchKeys) -> RetrieverSpec | None:
    """The cutting whose passages show the answer most often within the tokens of a prompt; None: the default, which is
    left only where the task names sizes, or for one that is plainly ahead."""
    if not sizes:
        return None
    default, other = sizes[0], sizes[1:]
    best = max(other, key=lambda m: m.shown.mean)
    ahead = best.shown.mean >= default.shown.mean + _BETTER - _ROUNDING
    return best.spec if keys.tokens or ahead else None
