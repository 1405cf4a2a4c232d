"""What a learning curve promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.diagnosis.learning_curve import curve, parts, scores_of, sizes
from rung.evaluation.metrics import load_metric
from rung.types import Example, MetricInfo, Prediction


def test_a_quarter_and_a_half_are_piloted_where_they_are_enough() -> None:
    assert sizes(200) == (50, 100) and sizes(40) == (20,) and sizes(20) == ()


def test_a_curve_that_climbs_promises_more_and_a_flat_one_nothing() -> None:
    climbing = curve([(0, [0.0] * 40), (50, [1.0] * 10 + [0.0] * 30), (100, [1.0] * 20 + [0.0] * 20)], 200, 0)
    assert climbing["per_doubling"] == pytest.approx(0.25)
    assert 0.5 < climbing["expected"]["mean"] < 0.75 and climbing["expected"]["high"] > 0.75
    assert climbing["more"]["examples"] == 200 and 0 < climbing["more"]["mean"] < 0.25
    flat = curve([(50, [1.0] * 10 + [0.0] * 30), (100, [1.0] * 10 + [0.0] * 30)], 200, 0)
    assert flat["expected"]["mean"] == pytest.approx(0.25, abs=0.02) and flat["more"]["mean"] < 0.01


def test_a_curve_at_the_top_promises_no_more_than_everything() -> None:
    top = curve([(50, [1.0] * 30 + [0.0] * 10), (200, [1.0] * 40)], 200, 0)
    assert top["expected"]["high"] > 0.99 and top["more"]["high"] < 0.01


def test_nothing_fixed_among_a_few_leaves_more_open_than_among_many() -> None:
    few, many = (curve([(0, [0.0] * n), (50, [0.0] * n)], 200, 0)["expected"] for n in (20, 150))
    assert few["mean"] < 0.05 and few["high"] > 0.1
    assert 0.0 < many["high"] < 0.04


def test_a_few_whole_answers_right_promise_many_where_an_answer_has_many_words() -> None:
    points = [(0, [0.0] * 125), (62, [1.0] * 5 + [0.0] * 120)]
    short, long = (curve(points, 250, 0, parts=parts)["expected"] for parts in (1, 15))
    assert short["low"] == pytest.approx(long["low"], abs=0.01)
    assert long["high"] > 0.2 and long["high"] > 1.5 * short["high"]


def test_answers_that_count_only_as_a_whole_have_as_many_parts_as_words() -> None:
    train = [Example("a", "x", "name[The Mill], food[English]", ()), Example("b", "y", "area", ())]
    exact, f1, label = (load_metric(name, Path()) for name in ("exact_match", "token_f1", "label_accuracy"))
    assert parts(exact, train) == 2.5
    assert parts(f1, train) == parts(label, train) == parts(exact, []) == 1


def test_a_metric_of_the_user_says_itself_that_it_counts_whole_answers_only() -> None:
    train = [Example("a", "x", "one two three", ())]
    assert parts(MetricInfo("mine", lambda answers: [], whole_answer=True), train) == 3


def test_words_of_a_script_without_spaces_count_each_by_itself() -> None:
    assert parts(load_metric("exact_match", Path()), [Example("a", "x", "北京在中国。", ())]) == 5


def test_scores_are_those_of_the_ids_in_their_order() -> None:
    predictions = [Prediction(i, "", 1, 1, 0.1, score=s) for i, s in (("a", 0.5), ("b", None), ("c", 1.0))]
    assert scores_of(predictions, ["c", "a", "b"]) == [1.0, 0.5, 0.0]
