"""Measures of a search, checked by hand, by scikit-learn, and by what pytrec_eval-terrier gave for the same lists."""

from __future__ import annotations

import math
import random

import pytest

from rung.errors import ScoreMismatch
from rung.evaluation.ranking import per_question, ranking_of
from rung.evaluation.statistics import compare


def lists(seed: int = 3, questions: int = 40) -> tuple[list[list[str]], list[set[str]]]:
    drawn = random.Random(seed)
    ids = [f"d{i}" for i in range(60)]
    found = [drawn.sample(ids, 30) for _ in range(questions)]
    return found, [set(drawn.sample(ids, drawn.randint(1, 14))) for _ in range(questions)]


def test_recall_ndcg_and_mrr_of_one_question_by_hand() -> None:
    each = per_question([["x", "a", "y", "b"]], [{"a", "b", "c"}], at=(1, 2, 4))
    assert each.recall == {1: (0.0,), 2: (1 / 3,), 4: (2 / 3,)}
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    assert each.ndcg[0] == pytest.approx(gained / (1 + 1 / math.log2(3) + 1 / math.log2(4)))
    assert each.mrr == (1 / 2,)


def test_measures_of_uncut_documents_are_the_usual_ones() -> None:
    """Against scikit-learn's nDCG, and recall and MRR written the plain way."""
    from sklearn.metrics import ndcg_score

    found, relevant = lists()
    each = per_question(found, relevant)
    for place, (ids, gold) in enumerate(zip(found, relevant, strict=True)):
        assert each.recall[5][place] == pytest.approx(len(set(ids[:5]) & gold) / len(gold))
        ranks = [rank for rank, id_ in enumerate(ids, 1) if id_ in gold]
        assert each.mrr[place] == pytest.approx(1 / ranks[0] if ranks and ranks[0] <= 20 else 0.0)
        rest = [f"d{i}" for i in range(60) if f"d{i}" not in ids]
        gains = [[float(id_ in gold) for id_ in (*ids, *rest)]]
        assert each.ndcg[place] == pytest.approx(ndcg_score(gains, [[-i for i in range(60)]], k=10))


def test_measures_are_those_of_trec_eval() -> None:
    """The figures are those of pytrec_eval-terrier 0.5.11: recall_5, recall_20, ndcg_cut_10, recip_rank."""
    found, relevant = lists()
    ranking = ranking_of(found, relevant, at=(5, 20, 30))
    assert ranking.recall[5].mean == pytest.approx(0.0712285631035631)
    assert ranking.recall[20].mean == pytest.approx(0.31976669164169164)
    assert ranking.ndcg.mean == pytest.approx(0.12299652649187627)
    assert ranking.mrr.mean == pytest.approx(0.20208038646672946)


def test_parts_of_one_document_are_one_piece_of_knowledge() -> None:
    gold = {"a#1", "a#2", "b"}
    each = per_question([["a#2", "a#1", "b"], ["b", "x", "a#1"]], [gold, gold], at=(1, 2, 3))
    assert each.recall == {1: (0.5, 0.5), 2: (0.5, 0.5), 3: (1.0, 1.0)}
    assert each.ndcg[0] == pytest.approx((1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)))


def test_of_passages_that_were_found_to_hold_the_answer_any_one_is_enough() -> None:
    gold = [{"a", "b", "c"}] * 2
    each = per_question([["x", "b", "a"]] * 2, gold, at=(1, 2), any_of=[True, False])
    assert each.recall == {1: (0.0, 0.0), 2: (1.0, 1 / 3)}
    assert each.ndcg[0] == pytest.approx(1 / math.log2(3))


def test_a_question_without_a_relevant_passage_does_not_count() -> None:
    ranking = ranking_of([["a"], ["b"], []], [{"a"}, set(), {"c"}], groups=["g", "g", "h"])
    assert (ranking.n, ranking.per_question.places) == (2, (0, 2))
    assert ranking.recall[1].mean == 0.5
    with pytest.raises(ValueError, match="no question has a relevant passage"):
        ranking_of([["a"]], [set()])


def test_a_passage_that_is_found_twice_counts_once() -> None:
    each = per_question([["x", "x", "a", "a"]], [{"a", "b"}], at=(2,))
    assert (each.recall[2], each.mrr) == ((0.5,), (0.5,))


def test_intervals_take_groups_as_the_unit_and_two_searches_are_compared_in_pairs() -> None:
    relevant = [{"a"}] * 40
    good, poor = ranking_of([["a"]] * 40, relevant), ranking_of([["a"]] * 20 + [["x", "a"]] * 20, relevant)
    assert (good.recall[1].mean, poor.recall[1].mean) == (1.0, 0.5)
    assert good.recall[1].low > poor.recall[1].high > 0.5
    grouped = ranking_of([["a"]] * 20 + [["x"]] * 20, relevant, groups=[i // 10 for i in range(40)])
    assert grouped.recall[1].low < poor.recall[1].low, "four units say less than forty"
    found = compare("poor", "good", poor.per_question.mrr, good.per_question.mrr, "train")
    assert found.difference == 0.25 and found.p < 0.001


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ScoreMismatch, match="1 lists of passages, 2 of relevant ones"):
        per_question([["a"]], [{"a"}, {"b"}])
    with pytest.raises(ScoreMismatch, match="1 questions but 2 groups"):
        ranking_of([["a"]], [{"a"}], groups=["g", "h"])
