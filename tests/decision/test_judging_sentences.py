"""What the verdict says of a judge, and that what a reader must know first stands first."""

from __future__ import annotations

import json
from dataclasses import replace

from evidence_cases import CLEAR, LORA, ZERO, evidence

from rung.decision import decide
from rung.decision.judging import (
    JudgeCheck,
    agreed,
    biases_in_words,
    first_of_all,
    how_scored,
    judge_from_record,
    judge_record,
    unlike_in_words,
)
from rung.evaluation.judge.agreement import Agreement
from rung.evaluation.judge.biases import Bias
from rung.types import Score

GOOD = Agreement(40, 0.9, 0.77, 0.96, 0.74, 0.51, 0.88)
POOR = replace(GOOD, kappa=0.41, kappa_low=0.1, kappa_high=0.66)
UNCHECKED = JudgeCheck("gpt-9", "graded", 1, "token_f1")
HELD = replace(
    UNCHECKED, agreement=GOOD, people=0.5, judge=0.6, scores=(0.5, 0.7) * 20, errors=(-0.05, -0.15) * 20, unread=0
)
LONG = Bias(0.12, 0.05, 0.19, 20)


def test_that_a_judge_was_never_held_against_people_stands_first() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR, judge=UNCHECKED))
    assert decision.warnings[0].startswith("The judge gpt-9 was never held against people")


def test_that_a_judge_is_secondary_stands_first_with_the_rule_and_its_means_beside() -> None:
    check = replace(HELD, agreement=POOR, beside=(("lora", Score(0.71, 0.6, 0.8, 90)),))
    assert not check.primary and not check.corrects
    warnings = decide(evidence([ZERO, LORA], CLEAR, judge=check)).warnings
    assert warnings[0] == (
        "The judge gpt-9 is secondary, by the rule that was fixed beforehand: kappa is 0.41 (0.10 to 0.66) on 40 "
        "scored answers, with both on the same side of one half in 90 % (77–96), and 0.60 is asked for. All scores and "
        "comparisons are those of token_f1."
    )
    assert warnings[1].startswith("The judge's own means on the sealed test, beside that: lora 0.71 (0.60–0.80).")


def test_a_judge_that_agrees_is_no_warning_and_its_comparisons_are_told_for_what_they_are() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR, judge=HELD))
    assert first_of_all(HELD) == [] and not any("gpt-9" in w for w in decision.warnings)
    (said,) = [r for r in decision.reasons if "gpt-9 agrees with people" in r]
    assert (
        "its mean, lowered by 0.10, because people gave so much less on average" in said
        and "they hold where it errs alike on both" in said
    )


def test_the_correction_is_told_by_its_direction() -> None:
    (more,) = how_scored(replace(HELD, errors=(0.25, 0.0) * 20))
    assert "raised by 0.12, because people gave so much more on average" in more or "raised by 0.13" in more
    (none,) = how_scored(replace(HELD, errors=(0.25, -0.25) * 20))
    assert "its mean, as it is, because people gave as much on average" in none


def test_what_it_prefers_is_told_where_it_was_found_alone() -> None:
    assert biases_in_words(replace(HELD, length=Bias(0.02, -0.05, 0.09, 20))) == []
    (said,) = biases_in_words(replace(HELD, length=LONG))
    assert said.startswith("The judge prefers long answers: with filler behind them, the same answers score 0.12 more")
    (short,) = biases_in_words(replace(HELD, length=Bias(-0.12, -0.19, -0.05, 20)))
    assert "prefers short answers" in short and "0.12 less (0.05 to 0.19)" in short
    (first,) = biases_in_words(replace(HELD, position=LONG))
    assert "prefers the answer that stands first" in first and "cancels out" in first
    (own,) = biases_in_words(replace(HELD, family=LONG))
    assert "favours answers of its own family" in own


def test_a_relative_among_the_candidates_is_a_risk_unless_it_was_measured() -> None:
    (said,) = biases_in_words(replace(HELD, relatives=("gpt-9-mini",)))
    assert "is of the family of gpt-9-mini, which it judges" in said and "add a column model" in said
    assert biases_in_words(replace(HELD, relatives=("gpt-9-mini",), family=Bias(0.0, -0.1, 0.1, 30))) == []


def test_scored_answers_that_are_unlike_the_winners_are_told() -> None:
    (said,) = unlike_in_words(replace(HELD, unlike=("lora", 0.84, 0.6)))
    assert "the judge gives them 0.60 on average, and lora 0.84" in said
    assert unlike_in_words(replace(UNCHECKED, unlike=("lora", 0.84, 0.6))) == []


def test_a_kappa_that_is_not_defined_is_told_so() -> None:
    none = replace(HELD, agreement=replace(GOOD, kappa=None, kappa_low=None, kappa_high=None))
    assert not none.primary and "kappa is not defined on 40 scored answers" in agreed(none) and how_scored(none) == []
    assert "because people gave every answer the same score" in agreed(none)
    assert "because the judge gave every answer the same grade" in agreed(replace(none, scores=(0.5,) * 40))


def test_a_check_is_read_back_as_it_was_written() -> None:
    check = replace(HELD, length=LONG, relatives=("gpt-9-mini",))
    assert judge_from_record(json.loads(json.dumps(judge_record(check)))) == check
    assert judge_from_record(json.loads(json.dumps(judge_record(UNCHECKED)))) == UNCHECKED


def test_two_that_the_correction_takes_to_the_end_of_the_scale_are_told_apart_by_their_comparison() -> None:
    cheap, dear = (replace(c, test=Score(1.0, 0.9, 1.0, 200), dev=Score(1.0, 0.9, 1.0, 200)) for c in (ZERO, LORA))
    known = evidence([cheap, dear], {("zero_shot", "lora"): 0.001}, judge=HELD)
    apart = tuple(
        replace(c, difference=0.15, low=0.05, high=0.25) if (c.a, c.b) == ("zero_shot", "lora") else c
        for c in known.comparisons
    )
    assert decide(replace(known, comparisons=apart)).solution == "lora"
    assert decide(known).solution == "zero_shot", "where their comparison shows nothing, the cheaper one"
