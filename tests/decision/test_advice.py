from __future__ import annotations

from dataclasses import replace

import pytest
from evidence_cases import CLEAR, GRADED, LORA, RIGHT_OR_WRONG, ZERO, N, candidate, evidence

from rung.decision import MoreExamples, decide
from rung.types import Diagnosis, Score

DOCUMENTS, LARGER = "bring documents", "Try a larger model"
WEAK = candidate("lora", "fine-tune", 0.15)
MORE = MoreExamples(400, 0.05, 0.01, 0.09)


def advised(words: str, steps: tuple[str, ...]) -> bool:
    return any(words in step for step in steps)


def test_the_choice_is_shipped_first_and_nothing_is_open_when_the_interval_ends_below_the_margin() -> None:
    assert decide(evidence([ZERO, LORA], CLEAR)).next[0] == "Ship lora."
    decision = decide(evidence([candidate("few_shot", "prompt", 0.80), LORA], half=0.005))
    assert decision.next == ("Ship few_shot.",)
    assert not any("cannot be excluded" in reason for reason in decision.reasons)


def test_what_would_exclude_a_difference_is_given_in_examples() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.80), LORA], {("few_shot", "lora"): 0.6}))
    # The half-width of 5 points must shrink to 1: 25 times the examples, 24 times more.
    assert advised("About 4,800 more labelled test examples would exclude that", decision.next)


def test_undecided_says_how_many_examples_settle_it_and_what_to_ship_meanwhile() -> None:
    few = replace(candidate("few_shot", "prompt", 0.77), dev=Score(0.80, 0.75, 0.85, N))
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    # 200 * (2.8016 * 5 / (1.95996 * 4)) ** 2 = 639 are needed.
    assert decision.next[0].startswith("About 440 more labelled test examples would settle")
    assert decision.next[1] == "Meanwhile ship few_shot: it is the simpler of the two to build and to change."
    ahead = decide(evidence([replace(few, dev=few.test), LORA], {("few_shot", "lora"): 0.12}))
    assert ahead.next[1] == (
        "Meanwhile ship lora: on dev it is ahead too, by 4 points. few_shot is the simpler of the two to build and to "
        "change."
    )


def test_of_a_rival_at_the_floor_the_examples_that_would_show_it_above_are_given() -> None:
    pair = [candidate("zero_shot", "prompt", 0.53, half=0.1), candidate("lora", "fine-tune", 0.55, half=0.1)]
    decision = decide(evidence(pair, {("most_frequent", "zero_shot"): 0.17}, half=0.13, floor=0.44))
    # Two comparisons with the floor: 200 * ((2.2414 + 0.8416) * 0.13 / 1.95996 / 0.09) ** 2 = 1033 are needed.
    assert decision.next[0].startswith("About 840 more labelled test examples would show zero_shot above the floor")
    assert decision.next[1] == "Meanwhile ship lora: zero_shot is not shown to beat the floor."
    assert decision.next[2].endswith("or zero_shot shown to beat the floor.")


def test_of_a_rival_that_is_right_too_rarely_more_examples_are_not_advised() -> None:
    pair = [candidate("few_shot", "prompt", 0.04, half=0.02), candidate("lora", "fine-tune", 0.055, half=0.02)]
    decision = decide(evidence(pair, floor=0.0))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert decision.next[0].startswith("few_shot is right too rarely to ship")
    assert decision.next[2].endswith("or few_shot at 5 % or more.")


def test_documents_are_not_advised_for_labels_or_a_schema_unless_an_experiment_calls_for_them() -> None:
    guessed = (Diagnosis("knowledge", 0.6, 0.5, 0.7, "nothing fixed it", fixed=False),)
    shown = (Diagnosis("knowledge", 0.6, 0.5, 0.7, "fixed by the gold passages"),)
    assert advised(DOCUMENTS, decide(evidence([WEAK], diagnosis=guessed)).next)
    for fact in ("has_labels", "has_schema"):
        assert not advised(DOCUMENTS, decide(evidence([WEAK], diagnosis=guessed, **{fact: True})).next)
        assert advised(DOCUMENTS, decide(evidence([WEAK], diagnosis=shown, **{fact: True})).next)
    assert not advised(DOCUMENTS, decide(evidence([WEAK], diagnosis=shown, has_corpus=True)).next)
    assert not advised(DOCUMENTS, decide(evidence([WEAK], has_labels=True)).next)


def test_a_larger_model_is_never_advised_beside_documents_or_more_examples() -> None:
    model = Diagnosis("reasoning", 0.6, 0.5, 0.7, "nothing fixed it", fixed=False)
    less = replace(model, share=0.4, low=0.3, high=0.5)
    others = (Diagnosis("convention", 0.3, 0.2, 0.4, "x"), Diagnosis("knowledge", 0.3, 0.2, 0.4, "x"))
    for other in others:
        for candidates in ([WEAK], [ZERO]):
            for order in ((model, other), (other, model), (less, other)):
                steps = decide(evidence(candidates, diagnosis=order, more=MORE, target=0.9)).next
                assert sum("larger model" in step for step in steps) == 1
                assert not advised(DOCUMENTS, steps) and not advised("Label more examples", steps)
            led_by_other = decide(evidence(candidates, diagnosis=(other, less), more=MORE, target=0.9)).next
            assert not any("larger model" in step for step in led_by_other)
            assert advised(DOCUMENTS, led_by_other) or advised("Label more examples", led_by_other)


def test_the_larger_model_is_named_where_one_is_known() -> None:
    model = Diagnosis("reasoning", 0.6, 0.5, 0.7, "nothing fixed it", fixed=False)
    for causes in ((model,), ()):
        steps = decide(evidence([WEAK], diagnosis=causes, larger="org/large")).next
        assert sum("`model: org/large`" in step for step in steps) == 1
    short = decide(evidence([ZERO, LORA], CLEAR, target=0.99, larger="org/large")).next
    assert advised("or a larger model, such as org/large.", short)


def test_reinforcement_is_named_with_its_cost_where_reasoning_leads_and_a_program_checks_answers() -> None:
    reasoning = Diagnosis("reasoning", 0.6, 0.5, 0.7, "nothing fixed it", fixed=False)
    other = Diagnosis("convention", 0.7, 0.6, 0.8, "fixed by a pilot")
    words = "Reinforcement fine-tuning was not tried"
    for cause in (reasoning, replace(reasoning, fixed=True), replace(reasoning, cause="knowledge+reasoning")):
        steps = decide(evidence([WEAK], diagnosis=(cause,))).next
        (named,) = [step for step in steps if words in step]
        assert "label_accuracy would check" in named and "30 USD" in named and "4,500 USD" in named
        assert named.endswith("What it would bring here is not known.")
    judge = replace(RIGHT_OR_WRONG, needs_judge=True)
    for quiet in (
        evidence([WEAK], diagnosis=(other, reasoning)),
        evidence([WEAK], diagnosis=(replace(reasoning, low=0.1),)),
        evidence([WEAK], diagnosis=(reasoning,), metric=GRADED),
        evidence([WEAK], diagnosis=(reasoning,), metric=judge),
        evidence([candidate("lora", "fine-tune", 0.96)], diagnosis=(reasoning,)),
        evidence([candidate("lora", "fine-tune", 0.0)], diagnosis=(reasoning,)),
        evidence([WEAK]),
    ):
        assert not advised(words, decide(quiet).next)


def test_more_examples_are_not_advised_for_a_gain_below_the_margin() -> None:
    convention = (Diagnosis("convention", 0.6, 0.5, 0.7, "fixed by a pilot"),)
    nothing = MoreExamples(400, 0.003, 0.0, 0.05)
    steps = decide(evidence([ZERO, LORA], CLEAR, diagnosis=convention, more=nothing)).next
    assert not advised("Label more examples", steps)


def test_of_a_candidate_above_the_floor_that_is_not_shown_the_examples_come_first() -> None:
    p = {("most_frequent", "lora"): 0.2}
    steps = decide(evidence([WEAK], p)).next
    # 200 * (2.8016 * 5 / 1.95996 / 3) ** 2 = 1135 are needed.
    assert steps[0] == "About 940 more labelled test examples would show lora above the floor, if it stays there."
    assert advised(LARGER, steps) and advised("Read some of the wrong answers", steps)
    sure = decide(evidence([candidate("lora", "fine-tune", 0.99, half=0.04)], p, floor=0.97)).next
    assert sure[0].endswith("more labelled test examples would show lora above the floor, if it stays there.")
    assert not advised(LARGER, sure) and not advised("Read some", sure) and len(sure) == 2
    below = decide(evidence([candidate("lora", "fine-tune", 0.11)])).next
    assert not advised("above the floor, if", below) and below[0].startswith(LARGER)


def test_more_examples_are_advised_with_their_gain_where_a_convention_is_learnt_from_them() -> None:
    convention = (Diagnosis("convention", 0.6, 0.5, 0.7, "fixed by a pilot"),)
    steps = decide(evidence([ZERO, LORA], CLEAR, diagnosis=convention, more=MORE, hardest="'b' (5 of 9 wrong)")).next
    assert (
        "Label more examples: about 400 more would add 5 points on dev (1 to 9), if the next doubling helps no more "
        "than "
        "the last one. Start with inputs whose answer is 'b' (5 of 9 wrong)." in steps
    )


@pytest.mark.parametrize("rows", [3, 12])
def test_suspicious_rows_are_named_once_and_at_most_seven(rows: int) -> None:
    names = tuple(f"line {i}" for i in range(rows))
    steps = decide(evidence([WEAK], suspicious=names)).next
    [step] = [s for s in steps if "reference answers" in s]
    assert step.startswith("Read these rows, whose reference answers may be wrong: line 0, line 1, line 2")
    assert ("and 5 more in diagnosis.json" in step) == (rows == 12)


def test_a_test_too_small_for_a_perfect_score_says_how_many_examples_it_lacks() -> None:
    known = evidence([replace(WEAK, test=Score(0.2, 0.04, 0.6, 5))], floor=0.2)
    few = tuple(replace(c, n=5, difference=0.0, low=-0.6, high=0.6) for c in known.against_floor)
    steps = decide(replace(known, against_floor=few, n_test=5)).next
    # Six examples must differ from the floor, which is right in a fifth of them.
    assert steps[0] == (
        "Label more test examples, at least 3: with 5, not even a perfect score could be shown to beat the floor."
    )


def test_a_verdict_of_none_says_what_would_change_it() -> None:
    assert decide(evidence([WEAK])).next[-1] == (
        "What would change the verdict: a candidate that is shown to beat the floor of 12 % and has a mean of at "
        "least 5 %."
    )
