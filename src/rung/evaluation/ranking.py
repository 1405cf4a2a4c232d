"""How well a search ranks: recall@k, nDCG@10 and MRR over questions whose relevant passages are known.

What a question needs are one or more pieces of knowledge. All passages cut from one document stand for one piece, since
they repeat it or hold it apart: the first of them that is found counts, the others add nothing. So a document marked as
gold counts alike however it is cut, and where no document is cut these are the usual measures (trec_eval, BEIR).
Where passages were not marked but found to hold the answer, any one is enough: they are one piece together.

Knows nothing of indexes and models. Imports numpy and scipy when called.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from rung.errors import ScoreMismatch
from rung.evaluation.statistics import score
from rung.retrieval.chunk import document_id
from rung.types import Score

AT = (1, 3, 5, 10, 20)
"""Ranks at which recall is measured."""

NDCG_AT = 10


@dataclass(frozen=True)
class PerQuestion:
    """The measures of each question that counts, in [0, 1], in order. Two searches are compared in pairs by them.

    places: which questions these are, from 0. recall: k -> one value a question. A question without a relevant passage
    does not count.
    """

    places: tuple[int, ...]
    recall: Mapping[int, tuple[float, ...]]
    ndcg: tuple[float, ...]
    mrr: tuple[float, ...]


@dataclass(frozen=True)
class Ranking:
    """The means over n questions, with 95 % intervals.

    recall: k -> share of what a question needs that stands among the first k. ndcg: at NDCG_AT, gains of 0 and 1. mrr:
    one over the rank of the first relevant passage; 0 where none is among the first max(k).
    """

    n: int
    recall: Mapping[int, Score]
    ndcg: Score
    mrr: Score
    per_question: PerQuestion


def ranking_of(
    found: Sequence[Sequence[str]],
    relevant: Sequence[Collection[str]],
    *,
    at: Sequence[int] = AT,
    any_of: Sequence[bool] | None = None,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Ranking:
    """Measures of the ids that were found for each question, best first, against those that are relevant to it.

    any_of: for each question, whether any one relevant passage is enough; None: of none. groups: the group of each
    question, the unit of the intervals; None makes each its own (see `statistics.score`).
    Raises ScoreMismatch when lengths differ, ValueError when no question has a relevant passage.
    """
    if groups is not None and len(groups) != len(found):
        raise ScoreMismatch(f"{len(found)} questions but {len(groups)} groups; each question has one group")
    each = per_question(found, relevant, at=at, any_of=any_of)
    if not each.places:
        raise ValueError("no question has a relevant passage, so that nothing can be measured")
    units = None if groups is None else [groups[place] for place in each.places]
    return Ranking(
        len(each.places),
        {k: score(values, groups=units, seed=seed) for k, values in each.recall.items()},
        score(each.ndcg, groups=units, seed=seed),
        score(each.mrr, groups=units, seed=seed),
        each,
    )


def per_question(
    found: Sequence[Sequence[str]],
    relevant: Sequence[Collection[str]],
    *,
    at: Sequence[int] = AT,
    any_of: Sequence[bool] | None = None,
) -> PerQuestion:
    """As `ranking_of`, the values alone; there may be none.

    Sources: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002), with log2(1 + rank);
    Clarke et al., Novelty and diversity in information retrieval evaluation (2008), whose alpha is 1 here: a piece of
    knowledge that was found already gains nothing.
    """
    enough = [False] * len(found) if any_of is None else any_of
    if not len(found) == len(relevant) == len(enough):
        raise ScoreMismatch(
            f"{len(found)} lists of passages, {len(relevant)} of relevant ones and {len(enough)} of any_of; "
            "each question has one of each"
        )
    places = tuple(place for place, ids in enumerate(relevant) if ids)
    recall: dict[int, list[float]] = {k: [] for k in at}
    ndcg, mrr = [], []
    for place in places:
        ranks, needed = _first_ranks(found[place], relevant[place], enough[place])
        for k in at:
            recall[k].append(sum(rank <= k for rank in ranks) / needed)
        gained = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= NDCG_AT)
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(needed, NDCG_AT) + 1))
        ndcg.append(min(1.0, gained / ideal))
        mrr.append(1 / ranks[0] if ranks and ranks[0] <= max(at) else 0.0)
    return PerQuestion(places, {k: tuple(values) for k, values in recall.items()}, tuple(ndcg), tuple(mrr))


def _first_ranks(found: Sequence[str], relevant: Collection[str], any_of: bool) -> tuple[list[int], int]:
    """(rank at which each needed piece is first found, ascending; how many pieces are needed)."""
    pieces = {id_: "" if any_of else document_id(id_) for id_ in relevant}
    first: dict[str, int] = {}
    for rank, id_ in enumerate(dict.fromkeys(found), 1):
        if id_ in pieces:
            first.setdefault(pieces[id_], rank)
    return list(first.values()), len(set(pieces.values()))
