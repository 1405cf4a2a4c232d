"""Where the right answers stand: in which passages of the corpus, how high these rank, and whether the prompt has them.

A mark of the example says which passages hold its answer. Without marks, ranked passages that contain an accepted
answer hold it, as far as chance does not put it there. Where none does, the whole corpus is read through for it. That
it stands nowhere says that the corpus lacks it only where answers of this task usually stand word for word in the
corpus, by the train examples. What cannot be said is called unknown, with the reason: of labels, JSON, yes and no, long
answers, and answers that many passages contain. Passages are cut as the solution's own retriever says.
Answers nothing and judges no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rung.diagnosis.lenient import is_json
from rung.retrieval.answers_in_text import contains_answer, is_telling, passages_with, says_something
from rung.retrieval.chunk import document_id
from rung.retrieval.library import Library
from rung.solutions.prompt_rendering import within_budget
from rung.solutions.searching import found as found_by
from rung.text import units
from rung.trials.workshop import Workshop, sample_of
from rung.types import Document, Example, Prediction, Query, Solution

RANKED = 50
"""Ranked passages among which one that holds the answer counts as found."""

MOST_READ = 200_000
"""Passages at most that are read through for an answer that no example marks; about 10 s for 100,000."""

VERBATIM = 0.5
"""Share of train answers that stand word for word in the corpus, from which one that does not is missing there."""

LONGEST_SHORT = 8
"""Words of an answer that is expected to stand verbatim where a text holds it; a longer one may be worded otherwise."""

ELSEWHERE = 0.5
"""Share of the found answers that stand in other documents as well, above which standing somewhere says nothing."""

BROUGHT_TO_OTHERS = 0.1
"""Share of other questions whose rankings hold the answer as high, above which it stands there by chance."""

_LEARNT_FROM = 100  # train examples


@dataclass(frozen=True)
class Place:
    """Where the answer to one example stands.

    unknown: why it is not known; empty where it is. gold: the passages that hold it, best first; none where the corpus
    lacks it. cut_apart: a document holds it, and was cut into passages just there; gold are all of these. any_part:
    gold are the passages of a marked document that contains the answer nowhere word for word. ranked: the passages down
    to the best of gold, where that is among the first RANKED. visible: what the prompt has, cut as it is there. shown:
    the part that holds the answer is there.
    """

    unknown: str = ""
    gold: tuple[Document, ...] = ()
    cut_apart: bool = False
    any_part: bool = False
    ranked: tuple[Document, ...] = ()
    visible: tuple[Document, ...] = ()
    shown: bool = False

    @property
    def rank(self) -> int | None:
        """Of the best passage that holds the answer, from 1; None where it is not among the first RANKED."""
        return len(self.ranked) or None


def places_of(
    workshop: Workshop, solution: Solution, examples: Sequence[Example], answers: Mapping[str, Prediction]
) -> dict[str, Place]:
    """Example id -> where its answer stands for a solution that retrieves. answers: example id -> its prediction."""
    spec = solution.retriever
    assert spec is not None, "a solution that retrieves"
    cut = _Cut(workshop.inputs.library, solution)
    ranked = dict(
        zip([e.id for e in examples], ranked_for(workshop, solution, [e.query for e in examples]), strict=True)
    )
    unmarked = _unmarked(workshop, cut, [e for e in examples if not e.gold_ids], ranked)
    found = {}
    for example in examples:
        place, row = unmarked.get(example.id) or _by_marks(cut, example), ranked[example.id]
        ids, order = {p.id for p in place.gold}, {p.id: i for i, p in enumerate(row)}
        gold = tuple(sorted(place.gold, key=lambda p: order.get(p.id, len(order))))  # stable
        rank = next((i for i, p in enumerate(row, 1) if p.id in ids), 0)
        seen = [cut.passages[i] for i in answers[example.id].passages if i in cut.passages]
        visible = within_budget(spec, seen, workshop.tools.model.count_tokens)
        has = [p.id in ids and not _lost(cut.passages[p.id], p, example) for p in visible]
        unknown = place.unknown
        if place.any_part and any(has) and sum(has) < len(ids):
            unknown = "which part of the marked document holds the answer is not known"
        shown = any(has) and not place.cut_apart
        ranked_to = tuple(row[:rank])
        found[example.id] = replace(
            place, unknown=unknown, gold=gold, ranked=ranked_to, visible=tuple(visible), shown=shown
        )
    return found


def ranked_for(workshop: Workshop, solution: Solution, queries: Sequence[Query]) -> list[list[Document]]:
    """The first RANKED passages for each query, as the index of the solution ranks them.

    The model is not asked: the conversation stands for a query that it would write, and the order of the index for its
    own.
    """
    search = workshop.retriever_of(solution)
    assert search is not None, "a solution that retrieves"
    rows = found_by(solution, workshop.tools.model, queries, search, RANKED, asking=False)
    return [list(row.passages) for row in rows]


def brought(
    library: Library, solution: Solution, examples: Sequence[Example], answers: Iterable[Prediction]
) -> set[str]:
    """Ids of the examples whose prompt has a passage that holds the answer, whatever size passages are cut to."""
    cut = _Cut(library, solution)
    seen = {p.id: [cut.passages[i] for i in p.passages if i in cut.passages] for p in answers}
    found = set()
    for example in examples:
        gold = {p.id for p in cut.marked(example)}
        if any(p.id in gold if example.gold_ids else contains_answer(p, example) for p in seen.get(example.id, ())):
            found.add(example.id)
    return found


def _lost(whole: Document, visible: Document, example: Example) -> bool:
    """Whether the prompt has a cut passage without the answer that the whole one contains."""
    return visible != whole and contains_answer(whole, example) and not contains_answer(visible, example)


# ---- by marks -----------------------------------------------------------------------------------


class _Cut:
    """The passages as the solution's retriever cuts them, and those that an example marks."""

    def __init__(self, library: Library, solution: Solution) -> None:
        self.all = library.passages(solution.retriever)
        self.passages = {p.id: p for p in self.all}
        self.documents = {d.id: d for d in library.documents}
        self.gold = library.gold(solution.retriever)

    @property
    def divided(self) -> list[Document]:
        """The documents that were cut into several passages."""
        return [d for d in self.documents.values() if d.id not in self.passages]

    def marked(self, example: Example) -> tuple[Document, ...]:
        """The passages that the example marks.

        Of a document that is marked, or a passage by the usual cutting, those that contain an answer; all of them where
        the answer stands so in none of its passages, of which every one may hold it then.
        """
        named, parts = self.gold.named(example), self.gold.parts(example)
        holding = [p for p in parts if contains_answer(p, example)]
        return tuple(dict.fromkeys([*named, *(holding if holding or named else parts)]))


def _by_marks(cut: _Cut, example: Example) -> Place:
    """Without rank and what is shown."""
    gold = cut.marked(example)
    if any(contains_answer(p, example) for p in gold):
        return Place(gold=gold)
    own = {document_id(p.id) for p in gold}
    apart = any(contains_answer(d, example) for d in cut.divided if d.id in own)
    return Place(gold=gold, cut_apart=apart, any_part=len(gold) > 1 and not cut.gold.named(example) and not apart)


# ---- without marks ------------------------------------------------------------------------------


def _unmarked(
    workshop: Workshop, cut: _Cut, examples: Sequence[Example], ranked: Mapping[str, Sequence[Document]]
) -> dict[str, Place]:
    """Example id -> where its answer stands by what passages contain; without rank and what is shown."""
    inputs = workshop.inputs
    closed = "answers are labels" if inputs.task.labels or inputs.task.multi_label else ""
    found = {e.id: Place(why) for e in examples if (why := closed or _why_unreadable(e))}
    open_ = [e for e in examples if e.id not in found]
    if not open_:
        return found
    is_large = len(cut.all) > MOST_READ
    train = [] if is_large else [e for e in inputs.train if not _why_unreadable(e)]
    known = sample_of(train, _LEARNT_FROM, inputs.task.seed)
    read = {p.id: p for e in open_ for p in ranked[e.id]} if is_large else cut.passages
    containing = passages_with(read.values(), [*open_, *known])
    found |= {n: Place(gold=hits) for n, hits in _found_by_search(open_, ranked, containing, len(read)).items()}
    rest = [e for e in open_ if e.id not in found]
    if is_large:
        why = f"the corpus has more than {MOST_READ:,} passages, and the example marks none"
        return found | {e.id: Place(why) for e in rest}
    located = [e for e in open_ if e.id in found]
    verbatim = _mean([bool(containing[e.id]) for e in known])
    elsewhere = _mean([len({document_id(p.id) for p in containing[e.id]}) > 1 for e in located])
    apart = passages_with(cut.divided, [e for e in rest if not containing[e.id]])
    for example in rest:
        others = containing[example.id]
        if others and ({p.id for p in others} & {p.id for p in ranked[example.id]} or elsewhere > ELSEWHERE):
            found[example.id] = Place("the answer stands in passages by chance, too")
        elif others:
            found[example.id] = Place(gold=tuple(others))
        elif documents := apart[example.id]:
            gold = tuple(cut.gold.parts(replace(example, gold_ids=tuple(d.id for d in documents))))
            found[example.id] = Place(gold=gold, cut_apart=True)
        else:
            found[example.id] = Place(_why_not_absent(example, verbatim))
    return found


def _found_by_search(
    examples: Sequence[Example],
    ranked: Mapping[str, Sequence[Document]],
    containing: Mapping[str, Sequence[Document]],
    read: int,
) -> dict[str, tuple[Document, ...]]:
    """Example id -> the ranked passages that contain its answer, and not by chance; without those that have none.

    read: number of passages that were looked at. Two guards: few of the others contain it (`is_telling`); and few of
    the other questions are brought the same answer as high in their ranking, since a search brings passages that are
    alike, and so may their answers be.
    """
    found = {}
    for example in examples:
        row, own = ranked[example.id], {p.id for p in containing[example.id]}
        hits = [(rank, p) for rank, p in enumerate(row, 1) if p.id in own]
        share = max(0, len(own) - 1) / max(1, read)
        refs = set(example.references)
        others = [ranked[e.id] for e in examples if not refs & set(e.references)] if hits else []
        first = [next((i for i, p in enumerate(other, 1) if p.id in own), 0) for other in others]
        told = [
            p
            for rank, p in hits
            if is_telling(rank, share) and _mean([0 < i <= rank for i in first]) <= BROUGHT_TO_OTHERS
        ]
        if told:
            found[example.id] = tuple(told)
    return found


def _why_unreadable(example: Example) -> str:
    """Why it says nothing that a passage contains the answer; empty where it does."""
    if all(map(is_json, example.references)):
        return "answers are JSON"
    return "" if any(map(says_something, example.references)) else "the answer is like yes and no"


def _why_not_absent(example: Example, verbatim: float) -> str:
    """Why an answer that no passage contains may stand in the corpus all the same; empty where it does not."""
    if verbatim < VERBATIM:
        return "answers seldom stand in the documents word for word"
    short = any(len(units(r)) <= LONGEST_SHORT for r in example.references if says_something(r))
    return "" if short else "the answer is long, and stands in no passage word for word"


def _mean(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))
