"""What is expected of a strategy, and in which order they are tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rung.decision.figures import Scale
from rung.evaluation.statistics import MARGIN
from rung.ladder.gains import Gain, Known, Way, expected_gain, head_room, order, too_little, what_matters


def knowledge(share: float, high: float, poor: bool = False, tried: int = 20) -> dict[str, Any]:
    row = {"cause": "knowledge", "share": share, "high": high, "net_of_placebo": True, "tried": tried}
    return {"poor": poor, "failed": 20, "causes": [row], "combinations": []}


def pilot(mean: float, high: float, start: float | None = 0.1) -> dict[str, Any]:
    points = [{"examples": 0, "mean": start}] if start is not None else []
    return {"expected": {"mean": mean, "high": high}, "points": [*points, {"examples": 50, "mean": mean}]}


def test_gold_passages_bound_what_retrieval_can_bring() -> None:
    gain = expected_gain(Way("rag", "rag"), Known(best=0.4, base=0.4, diagnosis=knowledge(0.5, 0.7)))
    assert gain.mean == pytest.approx(0.3) and gain.high == pytest.approx(0.42)
    assert expected_gain(Way("rag", "rag"), Known(best=0.8, base=0.4, diagnosis=knowledge(0.1, 0.3))).high < MARGIN


def test_a_wrong_answer_whose_passage_is_not_known_may_be_fixed() -> None:
    few = Known(best=0.7, base=0.7, diagnosis=knowledge(0.0, 0.16, tried=1))
    assert expected_gain(Way("rag", "rag"), few).high == pytest.approx(0.3)
    all_tried = Known(best=0.7, base=0.7, diagnosis=knowledge(0.0, 0.16))
    assert expected_gain(Way("rag", "rag"), all_tried).high == pytest.approx(0.048)


def test_where_nothing_is_known_all_that_is_wrong_could_be_fixed() -> None:
    for known in (Known(0.4, 0.4), Known(0.4, 0.4, knowledge(0.0, 0.0, poor=True))):
        gain = expected_gain(Way("rag", "rag"), known)
        assert gain.mean == pytest.approx(0.3) and gain.high == pytest.approx(0.6)
        assert expected_gain(Way("fine-tune", "fine-tune"), known).high == pytest.approx(0.6)


def test_a_pilot_bounds_what_fine_tuning_can_bring() -> None:
    assert expected_gain(Way("fine-tune", "fine-tune"), Known(0.5, 0.1, pilot=pilot(0.2, 0.3))).high == 0.0
    gain = expected_gain(Way("fine-tune", "fine-tune"), Known(0.5, 0.1, pilot=pilot(0.7, 0.9)))
    assert (gain.mean, gain.high) == (pytest.approx(0.2), pytest.approx(0.4)) and "50 examples" in gain.why


def test_one_pilot_without_a_start_is_no_curve_and_bounds_nothing() -> None:
    gain = expected_gain(Way("fine-tune", "fine-tune"), Known(0.62, 0.62, pilot=pilot(0.55, 0.67, start=None)))
    assert gain.mean == 0.0 and gain.high == pytest.approx(0.38)


def test_what_the_test_could_never_show_does_not_matter() -> None:
    assert what_matters(True, 100) == pytest.approx(0.06) and what_matters(True, 1000) == MARGIN
    assert what_matters(False, 100) == MARGIN and what_matters(True, 12) == 0.1


def test_a_skip_says_below_what_a_gain_does_not_count() -> None:
    gap, gain = Scale(True).gap, Gain(0.079, 0.079, "by the curve")
    small = too_little(gain, what_matters(True, 34), True, 34, gap)
    assert small == (
        "it could gain 7.9 points on dev at most (by the curve), less than the 10 points that count beside a test of "
        "only 34 examples"
    )
    some = too_little(Gain(0.03, 0.03, "so"), what_matters(True, 100), True, 100, gap)
    assert some.endswith("(so), less than the 6 points that a test of 100 examples can show at all")
    assert too_little(Gain(0.01, 0.01, "so"), MARGIN, True, 1000, gap).endswith("less than the 2 points that matter")
    nothing = too_little(Gain(0.0, 0.0, "so"), 0.1, True, 34, gap)
    assert nothing == "it could gain 0 points on dev at most (so)"


def test_what_others_gained_meanwhile_is_said_where_it_leaves_words_nothing() -> None:
    record = {"failed": 14, "causes": [], "combinations": []}
    known = Known(0.73, 0.58, record, leader="lora", gap=Scale(True).gap)
    gain = expected_gain(Way("stated_rules", "prompt", cures=frozenset({"format", "convention"})), known)
    assert gain.high == 0.0 and gain.why == (
        "its causes, convention and format, hold 0 % of the failures, at most 21 % or 9 points, of which lora has "
        "gained 15 points since"
    )


def test_passages_that_fix_nothing_are_not_worth_training_with() -> None:
    known = Known(0.8, 0.2, knowledge(0.0, 0.02), pilot(0.8, 0.9), {"prompt": 0.2, "fine-tune": 0.8})
    assert expected_gain(Way("rag+fine-tune", "rag+fine-tune"), known).high < MARGIN
    untrained = Known(0.2, 0.2, knowledge(0.0, 0.1), pilot(0.8, 0.9), {"prompt": 0.2})
    assert expected_gain(Way("rag+fine-tune", "rag+fine-tune"), untrained).high > MARGIN


def test_what_fine_tuning_gained_is_not_taken_off_what_passages_fix_beside_it() -> None:
    known = Known(0.78, 0.3, knowledge(0.4, 0.65), pilot(0.75, 0.85), {"prompt": 0.3, "fine-tune": 0.78})
    assert expected_gain(Way("rag+fine-tune", "rag+fine-tune"), known).high == pytest.approx(0.22)
    assert expected_gain(Way("rag", "rag"), known).high == 0.0, "alone they would have to beat it"
    broken = Known(0.54, 0.54, knowledge(-0.5, -0.2), pilot(0.5, 0.6), {"prompt": 0.54, "fine-tune": 0.54})
    assert expected_gain(Way("rag+fine-tune", "rag+fine-tune"), broken) == Gain(
        0.0, 0.0, "what gold passages fix beside fine-tuning"
    )


def test_the_best_gain_for_its_cost_comes_first_and_equals_as_the_ladder_has_them() -> None:
    steps = [Way("rag", "rag", 100.0), Way("lora", "fine-tune", 300.0), Way("rag_lora", "rag+fine-tune", 900.0)]
    assert [name for name, _ in order(steps, Known(0.4, 0.4))] == ["rag", "lora", "rag_lora"]
    known = Known(0.4, 0.4, knowledge(0.02, 0.1), pilot(0.9, 0.95))
    assert order(steps, known)[0][0] == "lora"


def test_passages_that_break_most_right_answers_promise_nothing_alone() -> None:
    record = {**knowledge(0.0, 0.0), "causes": [], "interventions": {"knowledge": {"harmful": True}}}
    known = Known(0.4, 0.4, record)
    assert expected_gain(Way("rag", "rag"), known).high == 0.0
    assert expected_gain(Way("rag+fine-tune", "rag+fine-tune"), known).high == pytest.approx(0.6), (
        "a model may learn to read them"
    )


WORDS = Way("optimised_prompt", "prompt", 100.0, cures=frozenset({"format", "convention"}))
TAUGHT = Way("distilled_lora", "fine-tune", 300.0, imitates=True)


def failing(*causes: tuple[str, float, float], failed: int = 20) -> dict[str, Any]:
    rows = [{"cause": c, "share": s, "high": h, "net_of_placebo": True, "tried": failed} for c, s, h in causes]
    return {"poor": False, "failed": failed, "causes": rows, "combinations": []}


def test_words_can_fix_what_form_and_convention_hold_and_no_more() -> None:
    record = failing(("convention", 0.4, 0.6), ("reasoning", 0.5, 0.8))
    assert head_room(record, WORDS.cures) == (pytest.approx(0.4), pytest.approx(0.6))
    gain = expected_gain(WORDS, Known(best=0.5, base=0.5, diagnosis=record))
    assert gain.mean == pytest.approx(0.1) and gain.high == pytest.approx(0.3)
    assert "convention and format, hold 40 % of the failures, at most 60 %" in gain.why


def test_words_fix_nothing_where_the_experiments_fixed_nothing() -> None:
    record = failing(("knowledge", 0.9, 1.0), failed=60)
    assert head_room(record, WORDS.cures) == (0.0, pytest.approx(0.05))  # none in sixty
    assert expected_gain(WORDS, Known(best=0.7, base=0.7, diagnosis=record)).high == pytest.approx(0.015)


def test_two_causes_that_are_fixed_together_count_where_both_can_be_cured() -> None:
    record = failing()
    record["combinations"] = [
        {"causes": ["convention", "format"], "share": 0.2, "high": 0.3},
        {"causes": ["format", "knowledge"], "share": 0.5, "high": 0.6},
    ]
    assert head_room(record, WORDS.cures) == (pytest.approx(0.2), pytest.approx(0.3))


def test_who_learns_from_a_teacher_comes_no_further_than_the_teacher() -> None:
    ahead, behind = Known(0.6, 0.6, teacher=(0.8, 0.85)), Known(0.6, 0.6, teacher=(0.5, 0.58))
    assert expected_gain(TAUGHT, ahead).high == pytest.approx(0.25)
    gain = expected_gain(TAUGHT, behind)
    assert gain.high == 0.0 and gain.why == "the teacher reaches 0.50 on dev, the best so far 0.60"
    assert expected_gain(TAUGHT, Known(0.6, 0.6)).high == pytest.approx(0.4)  # nobody has asked it


def test_more_examples_by_a_teacher_bring_what_the_curve_says() -> None:
    curve = {**pilot(0.7, 0.8), "more": {"mean": 0.01, "high": 0.03}}
    trained = Known(0.75, 0.5, pilot=curve, built={"fine-tune": 0.75}, teacher=(0.95, 0.97))
    gain = expected_gain(TAUGHT, trained)
    assert (gain.mean, gain.high) == (pytest.approx(0.01), pytest.approx(0.03)) and "learning curve" in gain.why
    four_times = replace(TAUGHT, doublings=2.0)
    assert expected_gain(four_times, trained).high == pytest.approx(0.06), "no doubling brings more than the one before"
    measured = replace(trained, curve={**curve, "more": {"mean": 0.02, "high": 0.05}})
    assert expected_gain(TAUGHT, measured).high == pytest.approx(0.05), "the whole training knows better than a pilot"
    untrained = Known(0.5, 0.5, pilot=curve, teacher=(0.95, 0.97))
    assert expected_gain(TAUGHT, untrained).high == pytest.approx(0.33)


def test_what_is_to_equal_a_dearer_family_gains_over_what_costs_less_and_comes_last() -> None:
    way = Way("rag_distilled", "fine-tune", 10.0, replaces="rag")
    known = Known(1.0, 0.4, built={"prompt": 0.4, "fine-tune": 0.7, "rag": 1.0, "rag+fine-tune": 1.0})
    assert expected_gain(way, known).high == pytest.approx(0.3), "though nothing is left to gain in score"
    behind = Known(0.7, 0.4, built={"prompt": 0.4, "fine-tune": 0.7, "rag": 0.6})
    assert expected_gain(way, behind).high == 0.0
    ranked = order([way, Way("rag_lora", "rag+fine-tune", 900.0)], behind)
    assert [name for name, _ in ranked] == ["rag_lora", "rag_distilled"]
