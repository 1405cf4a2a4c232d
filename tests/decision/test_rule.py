from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from evidence_cases import CLEAR, LORA, RIGHT_OR_WRONG, ZERO, N, baseline, candidate, comparison, evidence

from rung.decision import Evidence, decide
from rung.decision.rule import more_to_exclude, more_to_show, too_few
from rung.evaluation.statistics import compare, compare_all, score
from rung.types import Comparison, Family, LeftEarly, Score


def test_the_verdict_needs_no_numbers_library() -> None:
    code = "import sys, rung.decision; print({'numpy', 'scipy', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# ---- the walk ---------------------------------------------------------------------------------


def test_fine_tuning_is_chosen_when_every_prompt_is_shown_to_be_worse() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR))
    assert (decision.choice, decision.solution) == ("fine-tune", "lora")


def test_a_difference_of_exactly_the_margin_does_not_matter() -> None:
    near = [candidate("few_shot", "prompt", 0.50), candidate("lora", "fine-tune", 0.52)]
    assert decide(evidence(near, {("few_shot", "lora"): 0.001})).choice == "prompt"


def test_a_gap_beyond_the_margin_that_is_not_significant_is_undecided() -> None:
    few = replace(candidate("few_shot", "prompt", 0.77), dev=Score(0.80, 0.75, 0.85, N))
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    assert (decision.choice, decision.solution) == ("undecided", "few_shot")


def test_while_undecided_what_is_ahead_on_dev_too_is_shipped() -> None:
    few = candidate("few_shot", "prompt", 0.77)
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    assert (decision.choice, decision.solution) == ("undecided", "lora")


def test_within_one_family_there_is_nothing_to_be_undecided_about() -> None:
    few = candidate("few_shot", "prompt", 0.44, tokens_in=900)
    decision = decide(evidence([few, ZERO], {("few_shot", "zero_shot"): 0.3}))
    assert (decision.choice, decision.solution) == ("prompt", "few_shot")
    close = replace(few, test=Score(0.41, 0.36, 0.46, N))
    assert decide(evidence([close, ZERO])).solution == "zero_shot"


def test_a_cheap_prompt_below_the_margin_does_not_hide_a_better_prompt() -> None:
    three = [candidate("zero_shot", "prompt", 0.77), candidate("few_shot", "prompt", 0.80, tokens_in=900), LORA]
    assert decide(evidence(three)).solution == "few_shot"


def test_the_first_family_that_is_not_shown_worse_stops_the_climb() -> None:
    rag, both = candidate("rag", "rag", 0.76), candidate("rag_lora", "rag+fine-tune", 0.80)
    worse = {("zero_shot", "rag_lora"): 0.001, ("zero_shot", "rag"): 0.001}
    decision = decide(evidence([ZERO, rag, both], worse))
    assert (decision.choice, decision.solution) == ("undecided", "rag_lora")
    decision = decide(evidence([ZERO, replace(rag, dev=both.dev), both], worse))
    assert (decision.choice, decision.solution) == ("undecided", "rag")


def test_the_order_of_cost_is_family_then_tokens_then_name_and_never_time() -> None:
    dear_output = replace(ZERO, name="z", tokens_in=80, tokens_out=20)  # 80 + 3 * 20 > 100 + 3 * 5
    slow = replace(ZERO, name="a", latency_s_p50=9, build_seconds=999)
    given = [LORA, dear_output, ZERO, slow]
    for order in itertools.permutations(given):
        decision = decide(evidence(list(order), {(c.name, "lora"): 0.001 for c in given}))
        assert [c.name for c in decision.candidates] == ["most_frequent", "a", "zero_shot", "z", "lora"]
        assert decision.solution == "lora"
        assert decide(evidence([c for c in order if c is not LORA])).solution == "a"


def test_a_missing_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="zero_shot and lora were not compared on test"):
        decide(replace(evidence([ZERO, LORA]), comparisons=()))
    with pytest.raises(ValueError, match="most_frequent and zero_shot were not compared on test"):
        decide(replace(evidence([ZERO, LORA]), against_floor=()))


def test_a_comparison_on_dev_does_not_stand_in_for_the_test() -> None:
    known = evidence([ZERO, LORA], CLEAR)
    dev = replace(known.comparisons[0], set="dev", p_corrected=0.9)
    assert decide(replace(known, comparisons=(dev, *known.comparisons))).choice == "fine-tune"


# ---- the floor --------------------------------------------------------------------------------


def test_none_when_the_best_does_not_clear_the_floor() -> None:
    decision = decide(evidence([candidate("lora", "fine-tune", 0.15)]))
    assert (decision.choice, decision.solution) == ("none", None)


def test_the_floor_is_beaten_by_the_paired_comparison_and_not_by_an_interval_of_its_own() -> None:
    weak = candidate("lora", "fine-tune", 0.15)  # 10 to 20 %, the floor at 12 % lies within
    assert decide(evidence([weak], {("most_frequent", "lora"): 0.01})).solution == "lora"
    strong = candidate("lora", "fine-tune", 0.30)  # 25 to 35 %, the floor lies below
    assert decide(evidence([strong], {("most_frequent", "lora"): 0.2})).choice == "none"


def test_the_floor_is_the_better_of_the_baselines_that_look_at_no_input() -> None:
    known = evidence([candidate("lora", "fine-tune", 0.30)], floor=0.12)
    chance = baseline("chance", 0.28)
    [lora] = [c for c in known.candidates if c.name == "lora"]
    raised = replace(
        known,
        candidates=(*known.candidates, chance),
        floors=("most_frequent", "chance"),
        against_floor=(*known.against_floor, comparison(chance, lora, 0.7)),
    )
    assert decide(known).choice == "fine-tune"
    assert (decide(raised).choice, decide(raised).floor) == ("none", 0.28)


def test_a_baseline_that_learns_is_no_floor() -> None:
    decision = decide(evidence([LORA], learner=0.85))
    assert (decision.choice, decision.floor) == ("fine-tune", 0.12)


def test_none_when_the_best_is_too_little_even_above_a_floor_of_nothing() -> None:
    assert decide(evidence([candidate("lora", "fine-tune", 0.04, half=0.03)], floor=0.0)).choice == "none"


def test_none_when_nothing_was_tested() -> None:
    decision = decide(evidence([replace(LORA, test=None)]))
    assert (decision.choice, decision.solution) == ("none", None)
    assert [c.name for c in decision.candidates] == ["most_frequent", "lora"]


def test_a_better_candidate_that_is_not_shown_to_beat_the_floor_does_not_hide_one_that_is() -> None:
    unsteady = candidate("rag", "rag", 0.33)
    decision = decide(
        evidence([ZERO, replace(unsteady, test=Score(0.45, 0.1, 0.9, N))], {("most_frequent", "rag"): 0.3})
    )
    assert (decision.choice, decision.solution) == ("prompt", "zero_shot")
    dear = candidate("lora", "fine-tune", 0.40)
    cheap = replace(unsteady, name="few_shot", family="prompt", test=Score(0.45, 0.1, 0.9, N))
    decision = decide(evidence([cheap, dear], {("most_frequent", "few_shot"): 0.3}))
    # The cheaper one scores higher: it is not shown to be worse, and not shipped either.
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    low = replace(cheap, test=Score(0.30, 0.1, 0.9, N))
    worse = {("most_frequent", "few_shot"): 0.3, ("few_shot", "lora"): 0.01}
    assert decide(evidence([low, dear], worse)).choice == "fine-tune"


def test_a_cheaper_candidate_that_scores_significantly_higher_and_falls_short_is_not_passed_over() -> None:
    few, lora = candidate("few_shot", "prompt", 0.60, half=0.3), candidate("lora", "fine-tune", 0.50, half=0.1)
    p = {("most_frequent", "few_shot"): 0.06, ("few_shot", "lora"): 0.04}
    decision = decide(evidence([few, lora], p, floor=0.33))
    assert (decision.choice, decision.solution) == ("undecided", "lora")


def test_while_undecided_nothing_is_shipped_that_does_not_beat_the_floor() -> None:
    pair = [candidate("few_shot", "prompt", 0.15), candidate("lora", "fine-tune", 0.20)]
    decision = decide(evidence(pair, {("few_shot", "lora"): 0.2}))
    assert (decision.choice, decision.solution) == ("undecided", "lora")


def test_a_rival_above_the_floor_is_preferred_to_a_cheaper_one_that_is_not() -> None:
    below = candidate("zero_shot", "prompt", 0.52, half=0.1)
    above = candidate("few_shot", "prompt", 0.53, half=0.1, tokens_in=900)
    best = candidate("lora", "fine-tune", 0.57, half=0.1)
    decision = decide(evidence([below, above, best], {("most_frequent", "few_shot"): 0.01}, floor=0.43))
    assert decision.choice == "undecided"
    assert "above few_shot" in decision.headline


def test_a_cheaper_candidate_within_the_margin_is_not_shipped_below_the_floor() -> None:
    pair = [candidate("zero_shot", "prompt", 0.53, half=0.1), candidate("lora", "fine-tune", 0.55, half=0.1)]
    decision = decide(evidence(pair, floor=0.44))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert decide(evidence(pair, floor=0.42)).solution == "zero_shot"


# ---- how many more examples -------------------------------------------------------------------


def test_the_estimate_of_examples_needed_reaches_its_power_in_simulation() -> None:
    random = np.random.default_rng(4)
    p_a, p_b = 0.06, 0.12  # only few_shot right, only lora right: a difference of 6 points

    def share_significant(n: int) -> float:
        tables = random.multinomial(n, [p_a, p_b, 1 - p_a - p_b], size=4000)
        z = (tables[:, 1] - tables[:, 0]) / np.sqrt(np.maximum(1, tables[:, 1] + tables[:, 0]))
        return float((np.abs(z) > 1.96).mean())

    half = 1.96 * float(np.sqrt((p_a + p_b - 0.06**2) / N))
    close = [candidate("few_shot", "prompt", 0.60), candidate("lora", "fine-tune", 0.66)]
    known = evidence(close, {("few_shot", "lora"): 0.07}, half=half)
    assert share_significant(N + more_to_show(known, known.comparisons[0])) == pytest.approx(0.8, abs=0.04)


def test_the_estimate_rests_on_the_standard_error_and_not_on_the_width_of_the_interval() -> None:
    close = [candidate("few_shot", "prompt", 0.60), candidate("lora", "fine-tune", 0.66)]
    known = evidence(close, {("few_shot", "lora"): 0.02})
    [one] = known.comparisons
    wide = replace(one, low=one.low - 0.0157, high=one.high + 0.0157, level=0.99)  # as Holm widens it
    assert more_to_show(replace(known, comparisons=(wide,)), wide) == more_to_show(known, one)
    # The half-width of 5 points must shrink to 1 of the margin's 2: 25 times the examples.
    near = comparison(candidate("a", "prompt", 0.80), candidate("b", "fine-tune", 0.81), 0.6)
    assert more_to_exclude(known, near) == 24 * N


def test_two_candidates_that_are_right_on_the_same_examples_need_more_than_one_to_exclude_a_difference() -> None:
    a, b = candidate("few_shot", "prompt", 40 / 45), candidate("lora", "fine-tune", 40 / 45)
    right = [1.0] * 40 + [0.0] * 5
    same = compare("few_shot", "lora", right, right, "test")
    assert same.standard_error == 0.0 and same.high == pytest.approx(0.0787, abs=1e-4)
    # Their interval of 7.9 points must shrink to the margin of 2: (7.87 / 2) ** 2 = 15.5 times the examples.
    more = more_to_exclude(replace(evidence([a, b]), comparisons=(same,)), same)
    assert more == pytest.approx(45 * ((same.high / 0.02) ** 2 - 1), abs=1)


def test_few_units_that_all_differ_alike_need_as_many_as_an_exact_test_can_reject() -> None:
    a, b = candidate("few_shot", "prompt", 0.3), candidate("lora", "fine-tune", 0.9)
    groups = [i // 3 for i in range(24)]
    few = [0.0] * 24
    lora = [1.0 if i < 15 else 0.0 for i in range(24)]  # 5 of 8 groups, all for the better
    against = compare("few_shot", "lora", few, lora, "test", groups=groups)
    assert against.p == 0.0625
    known = replace(evidence([a, b]), comparisons=(against,))
    assert more_to_show(known, against) >= 24 * 6 / 5 - 24  # two to the sixth are the first that can reject
    one = compare("few_shot", "lora", [0.0] * 5, [1.0] * 5, "test")
    assert one.standard_error == 0.0
    assert more_to_show(replace(known, comparisons=(one,)), one) == 1  # six of six: p = 0.031
    six = tuple(replace(one, a=f"c{i}") for i in range(6))  # after Holm p = 0.05 / 6 takes eight
    assert more_to_show(replace(known, comparisons=six), one) == 3


# ---- a test that is too small -----------------------------------------------------------------


def against_floor(n: int, right: int, floor: str, of_floor: int, finalists: int = 4) -> tuple[Evidence, Comparison]:
    """Equal finalists, right in the same examples, beside a floor that is right in others."""
    values = [1.0] * right + [0.0] * (n - right)
    base = [of_floor / n] * n if floor == "chance" else [0.0] * (n - of_floor) + [1.0] * of_floor
    names = [f"c{i}" for i in range(finalists)]
    found = compare_all([(floor, name) for name in names], {floor: base, **dict.fromkeys(names, values)}, "test")
    candidates = [replace(candidate(name, "prompt", right / n), test=score(values)) for name in names]
    known = evidence(candidates, floor=0.0)
    kept = (*candidates, replace(baseline(floor, of_floor / n), test=Score(of_floor / n, 0, 1, n)))
    return replace(known, candidates=kept, against_floor=found, floors=(floor,), n_test=n), found[0]


def test_eight_right_of_eight_beat_a_blind_guess_among_eight_labels() -> None:
    known, against = against_floor(8, 8, "chance", 1)
    assert against.p_corrected < 0.001
    assert decide(known).choice == "prompt"


def test_how_many_examples_a_test_lacks_is_what_a_perfect_score_would_need() -> None:
    for n, right, floor, of_floor, lacking in [
        (5, 5, "most_frequent", 1, 5),  # eight that differ, of which four fifths do: ten
        (10, 9, "most_frequent", 2, 0),  # eight differ: p = 0.0078 < 0.05 / 4
        (2, 2, "chance", 1, 6),  # 2 * 0.5^n < 0.05 / 4 from eight on
        (8, 8, "chance", 4, 0),
    ]:
        known, against = against_floor(n, right, floor, of_floor)
        [first, *_] = known.rated("test")
        assert too_few(known, first, "test") == (0 if against.p_corrected < 0.05 else lacking), (n, floor)
        values = {floor: [1 / 2] * (n + lacking) if floor == "chance" else [0.0] * (n + lacking - (n + lacking) // 5)}
        if lacking:
            values[floor] += [1.0] * (n + lacking - len(values[floor]))
            names = [f"c{i}" for i in range(4)]
            whole = {**values, **dict.fromkeys(names, [1.0] * (n + lacking))}
            assert all(c.p_corrected < 0.05 for c in compare_all([(floor, x) for x in names], whole, "test"))


def test_too_few_groups_are_too_few_examples() -> None:
    known = evidence([replace(LORA, test=Score(0.9, 0.3, 1.0, 40))], {("most_frequent", "lora"): 0.0625})
    assert too_few(known, LORA, "test") == 0
    whole = tuple(replace(c, n=40, low=-1.0, high=1.0) for c in known.against_floor)
    assert too_few(replace(known, against_floor=whole), LORA, "test") == 8  # a sixth unit: 40 * 6 / 5


# ---- as simulated -----------------------------------------------------------------------------


def judged(random: np.random.Generator, rates: dict[tuple[str, Family], float], n: int = 100) -> str:
    """One simulated run: answers right or wrong of a common difficulty, scored, compared and decided."""
    easy = random.random(n) < 0.6  # shared: makes the answers of two candidates alike
    shared = random.random(n) < 0.5
    right = {key: np.where(shared, easy, random.random(n) < rate).astype(float).tolist() for key, rate in rates.items()}
    ((a, _), x), ((b, _), y) = right.items()
    contrasts = (compare(a, b, x, y, "test", resamples=99),)  # one contrast: Holm leaves its p as it is
    scored = [replace(LORA, name=k[0], family=k[1], test=score(v)) for k, v in right.items()]
    return decide(Evidence(RIGHT_OR_WRONG, tuple(scored), contrasts, (), (), n, n, 0.1, 1)).choice


def test_between_equal_candidates_a_dearer_one_is_claimed_in_at_most_one_run_of_twenty() -> None:
    random = np.random.default_rng(0)
    equal: dict[tuple[str, Family], float] = {("zero_shot", "prompt"): 0.6, ("lora", "fine-tune"): 0.6}
    verdicts = [judged(random, equal) for _ in range(300)]
    assert verdicts.count("fine-tune") <= 22  # 15 of 300 are 5 %; 22 leaves room for chance (two standard errors)
    assert verdicts.count("prompt") > 150


def test_a_clearly_better_candidate_is_found_in_nearly_every_run() -> None:
    random = np.random.default_rng(1)
    better: dict[tuple[str, Family], float] = {("zero_shot", "prompt"): 0.3, ("lora", "fine-tune"): 0.95}
    assert [judged(random, better) for _ in range(40)].count("fine-tune") >= 36


def test_what_left_dev_early_does_not_count_on_dev() -> None:
    known = evidence([LORA, ZERO], on="dev", left_early=(LeftEarly("lora", "few_shot was ahead"),))
    assert [c.name for c in known.rated("dev")] == ["zero_shot"]
