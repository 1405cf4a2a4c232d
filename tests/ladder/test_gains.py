"""What is expected of a strategy, and in which order they are tried."""

from __future__ import annotations

from typing import Any

import pytest

from rung.evaluation.statistics import MARGIN
from rung.ladder.gains import Gain, Known, expected_gain, order, what_matters
from rung.types import Family


def knowledge(share: float, high: float, poor: bool = False, tried: int = 20) -> dict[str, Any]:
    row = {"cause": "knowledge", "share": share, "high": high, "net_of_placebo": True, "tried": tried}
    return {"poor": poor, "failed": 20, "causes": [row], "combinations": []}


def pilot(mean: float, high: float, start: float | None = 0.1) -> dict[str, Any]:
    points = [{"examples": 0, "mean": start}] if start is not None else []
    return {"expected": {"mean": mean, "high": high}, "points": [*points, {"examples": 50, "mean": mean}]}


def test_gold_passages_bound_what_retrieval_can_bring() -> None:
    gain = expected_gain("rag", Known(best=0.4, base=0.4, diagnosis=knowledge(0.5, 0.7)))
    assert gain.mean == pytest.approx(0.3) and gain.high == pytest.approx(0.42)
    assert expected_gain("rag", Known(best=0.8, base=0.4, diagnosis=knowledge(0.1, 0.3))).high < MARGIN


def test_a_wrong_answer_whose_passage_is_not_known_may_be_fixed() -> None:
    few = Known(best=0.7, base=0.7, diagnosis=knowledge(0.0, 0.16, tried=1))
    assert expected_gain("rag", few).high == pytest.approx(0.3)
    all_tried = Known(best=0.7, base=0.7, diagnosis=knowledge(0.0, 0.16))
    assert expected_gain("rag", all_tried).high == pytest.approx(0.048)


def test_where_nothing_is_known_all_that_is_wrong_could_be_fixed() -> None:
    for known in (Known(0.4, 0.4), Known(0.4, 0.4, knowledge(0.0, 0.0, poor=True))):
        gain = expected_gain("rag", known)
        assert gain.mean == pytest.approx(0.3) and gain.high == pytest.approx(0.6)
        assert expected_gain("fine-tune", known).high == pytest.approx(0.6)


def test_a_pilot_bounds_what_fine_tuning_can_bring() -> None:
    assert expected_gain("fine-tune", Known(0.5, 0.1, pilot=pilot(0.2, 0.3))).high == 0.0
    gain = expected_gain("fine-tune", Known(0.5, 0.1, pilot=pilot(0.7, 0.9)))
    assert (gain.mean, gain.high) == (pytest.approx(0.2), pytest.approx(0.4)) and "50 examples" in gain.why


def test_one_pilot_without_a_start_is_no_curve_and_bounds_nothing() -> None:
    gain = expected_gain("fine-tune", Known(0.62, 0.62, pilot=pilot(0.55, 0.67, start=None)))
    assert gain.mean == 0.0 and gain.high == pytest.approx(0.38)


def test_what_the_test_could_never_show_does_not_matter() -> None:
    assert what_matters(True, 100) == pytest.approx(0.06) and what_matters(True, 1000) == MARGIN
    assert what_matters(False, 100) == MARGIN and what_matters(True, 12) == 0.1


def test_passages_that_fix_nothing_are_not_worth_training_with() -> None:
    known = Known(0.8, 0.2, knowledge(0.0, 0.02), pilot(0.8, 0.9), {"prompt": 0.2, "fine-tune": 0.8})
    assert expected_gain("rag+fine-tune", known).high < MARGIN
    untrained = Known(0.2, 0.2, knowledge(0.0, 0.1), pilot(0.8, 0.9), {"prompt": 0.2})
    assert expected_gain("rag+fine-tune", untrained).high > MARGIN


def test_what_fine_tuning_gained_is_not_taken_off_what_passages_fix_beside_it() -> None:
    known = Known(0.78, 0.3, knowledge(0.4, 0.65), pilot(0.75, 0.85), {"prompt": 0.3, "fine-tune": 0.78})
    assert expected_gain("rag+fine-tune", known).high == pytest.approx(0.22)
    assert expected_gain("rag", known).high == 0.0, "alone they would have to beat it"
    broken = Known(0.54, 0.54, knowledge(-0.5, -0.2), pilot(0.5, 0.6), {"prompt": 0.54, "fine-tune": 0.54})
    assert expected_gain("rag+fine-tune", broken) == Gain(0.0, 0.0, "what gold passages fix beside fine-tuning")


def test_the_best_gain_for_its_cost_comes_first_and_equals_as_the_ladder_has_them() -> None:
    steps: list[tuple[str, Family, float]] = [("rag", "rag", 100.0), ("lora", "fine-tune", 300.0)]
    steps.append(("rag_lora", "rag+fine-tune", 900.0))
    assert [name for name, _ in order(steps, Known(0.4, 0.4))] == ["rag", "lora", "rag_lora"]
    known = Known(0.4, 0.4, knowledge(0.02, 0.1), pilot(0.9, 0.95))
    assert order(steps, known)[0][0] == "lora"


def test_passages_that_break_most_right_answers_promise_nothing_alone() -> None:
    record = {**knowledge(0.0, 0.0), "causes": [], "interventions": {"knowledge": {"harmful": True}}}
    known = Known(0.4, 0.4, record)
    assert expected_gain("rag", known).high == 0.0
    assert expected_gain("rag+fine-tune", known).high == pytest.approx(0.6), "a model may learn to read them"
