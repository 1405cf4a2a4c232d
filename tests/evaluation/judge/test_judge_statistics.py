"""Agreement, intervals that carry a judge's errors, and its biases: against closed forms and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from judges import METHODS, World, held
from rung.evaluation.judge.agreement import LEAST_KAPPA, agreement
from rung.evaluation.judge.biases import (
    Bias,
    family_of,
    mean_bias,
    middling,
    padded,
    same_family,
    self_preference,
    welch,
)
from rung.evaluation.judge.powered import powered, rectifier
from rung.types import Answer, Example, Query, Score

# ---- agreement --------------------------------------------------------------------------------


def test_kappa_is_that_of_an_independent_implementation() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 5, 60)
    y = np.clip(x + random.integers(-1, 2, 60), 0, 4)
    expected = cohen_kappa_score(x, y, weights="quadratic")
    assert agreement((x / 4).tolist(), (y / 4).tolist()).kappa == pytest.approx(expected)


def test_kappa_is_that_of_a_published_example() -> None:
    """Viera and Garrett, Understanding interobserver agreement: the kappa statistic (2005), table 2: 0.57."""
    x = [1.0] * 15 + [1.0] * 5 + [0.0] * 10 + [0.0] * 70
    y = [1.0] * 15 + [0.0] * 5 + [1.0] * 10 + [0.0] * 70
    found = agreement(x, y)
    assert found.share == 0.85 and found.kappa == pytest.approx(0.57, abs=0.005) and not found.suffices


def test_of_right_and_wrong_kappa_is_cohens_own() -> None:
    x, y = [1.0] * 12 + [0.0] * 8, [1.0] * 10 + [0.0] * 2 + [0.0] * 6 + [1.0] * 2
    found = agreement(x, y)
    assert found.kappa == pytest.approx(cohen_kappa_score(x, y)) and found.share == 0.8
    assert found.kappa_low is not None and found.kappa_high is not None
    assert found.kappa_low < (found.kappa or 0.0) < found.kappa_high and found.share_low < 0.8 < found.share_high


def test_a_judge_that_gives_all_the_same_score_does_not_suffice() -> None:
    found = agreement([0.0, 1.0] * 10, [1.0] * 20)
    assert found.kappa is None and not found.suffices


def test_the_rule_looks_at_kappa_alone() -> None:
    mostly_right = [1.0] * 38 + [0.0] * 2
    found = agreement(mostly_right, [1.0] * 39 + [0.0])
    assert found.share > 0.95 and found.kappa is not None and found.suffices == (found.kappa >= LEAST_KAPPA)


# ---- intervals --------------------------------------------------------------------------------


def test_a_perfect_judge_keeps_its_mean_and_its_interval_grows_by_what_was_not_seen() -> None:
    few, many = (powered(Score(0.6, 0.5, 0.7, 100), [0.0] * n) for n in (20, 400))
    assert few.mean == many.mean == 0.6
    assert few.low < many.low < 0.5 and 0.7 < many.high < few.high


def test_a_lenient_judge_is_corrected_by_what_it_gives_too_much() -> None:
    errors = [-0.25, -0.25, 0.0, -0.25, 0.0] * 8
    found = powered(Score(0.8, 0.75, 0.85, 200), errors)
    assert found.mean == pytest.approx(0.65) and found.n == 200
    assert found.low < 0.65 - 0.05 and found.high > 0.65 + 0.05


def test_answers_that_did_not_come_are_not_corrected() -> None:
    errors = [0.25, 0.25, 0.0, 0.25, 0.0] * 8
    none, half = powered(Score(0.0, 0.0, 0.04, 90), errors, 0.0), powered(Score(0.3, 0.2, 0.4, 90), errors, 0.5)
    assert (none.mean, none.low, none.high) == (0.0, 0.0, 0.04)
    assert half.mean == pytest.approx(0.3 + 0.5 * 0.15)


def test_scores_stay_between_0_and_1() -> None:
    found = powered(Score(0.02, 0.0, 0.05, 50), [-0.5, -0.25] * 10)
    assert (found.mean, found.low) == (0.0, 0.0) and 0.0 <= found.high <= 1.0


def test_a_rare_error_among_20_widens_the_interval_by_more_than_its_spread() -> None:
    low, high = rectifier([0.0] * 19 + [-0.25])
    assert low < -0.05 and high > 0.05


@pytest.mark.parametrize("kind", ["graded", "right"])
@pytest.mark.parametrize("people", [20, 100])
def test_intervals_hold_what_people_would_give_and_those_of_a_naive_judge_do_not(kind: str, people: int) -> None:
    world = World(kind)
    ours, _ = held(world, METHODS["rung: PPI, weight 1, joined ends"], people, 0.0, simulations=200)
    naive, _ = held(world, METHODS["the judge alone (naive)"], people, 0.0, simulations=200)
    assert ours >= 0.91 and naive <= 0.2  # 95 % less three standard errors of 200 simulations


def test_intervals_hold_where_nearly_all_is_good_and_the_judge_seldom_errs() -> None:
    ours, _ = held(World("high"), METHODS["rung: PPI, weight 1, joined ends"], 50, 0.0, simulations=300)
    assert ours >= 0.91


# ---- biases -----------------------------------------------------------------------------------


def test_padding_makes_an_answer_twice_as_long_and_changes_none_of_its_words() -> None:
    for text in ("red", "word " * 200):
        longer = padded(Answer(Query("q", "q"), text, ("r",)))
        assert longer.text.startswith(text.strip()) and len(longer.text.split()) >= 2 * len(text.split())
        assert len(longer.text.split()) >= len(text.split()) + 30


def test_halves_of_right_answers_stand_for_answers_that_could_gain() -> None:
    (one, two) = middling([Example("a", "in", "a red door here", ("x",)), Example("b", "in", "red", ("red",))])
    assert (one.text, two.text) == ("a red", "r") and one.references == ("x",)


def test_a_bias_is_found_where_its_interval_leaves_out_zero() -> None:
    liked, none = mean_bias([0.25, 0.0, 0.25, 0.25, 0.0, 0.25] * 3), mean_bias([0.25, -0.25] * 10)
    assert liked is not None and liked.found and liked.difference == pytest.approx(1 / 6)
    equal = mean_bias([0.25] * 20)
    assert equal is not None and equal.found and equal.low < 0.1 < 0.25 < equal.high, "20 say little of what is unseen"
    assert none is not None and not none.found and mean_bias([0.1] * 4) is None


def test_self_preference_is_measured_against_people_where_models_are_named() -> None:
    errors = [0.3, 0.2, 0.25, 0.3, 0.2, 0.25, 0.0, 0.05, 0.0, -0.05, 0.0, 0.05]
    models = ["gpt-5"] * 6 + ["llama-3"] * 6
    found = self_preference(errors, models, "gpt-5-mini")
    assert found is not None and found.found and found.difference == pytest.approx(0.25 - 0.05 / 6)
    assert self_preference(errors, [""] * 12, "gpt-5-mini") is None
    assert self_preference(errors, models, "claude") is None


def test_welchs_interval_is_that_of_an_independent_implementation() -> None:
    from scipy.stats import ttest_ind

    a, b = [0.1, 0.5, 0.9, 0.4, 0.7], [0.2, 0.1, 0.3, 0.25]
    found, expected = welch(a, b), ttest_ind(a, b, equal_var=False).confidence_interval()
    assert isinstance(found, Bias) and (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_family_is_what_a_name_begins_with() -> None:
    assert family_of("HuggingFaceTB/SmolLM2-135M-Instruct") == "smollm"
    assert same_family("gpt-5-mini", "openai/gpt-4.1") and not same_family("claude-4", "gpt-5")
