from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rung.decision import Evidence, decide, decision_from_record, decision_record
from rung.errors import RunError
from rung.evaluation.statistics import compare, score
from rung.types import Candidate, Comparison, Diagnosis, Family, Score

N = 200


def candidate(name: str, family: Family, mean: float, *, tokens_in: float = 100, half: float = 0.05) -> Candidate:
    test = Score(mean, max(0.0, mean - half), min(1.0, mean + half), N)
    return Candidate(name, family, test, test, tokens_in, 5, 0.1, 0.2, None, 10, 0)


def evidence(
    candidates: list[Candidate], p: dict[tuple[str, str], float] | None = None, half: float = 0.05, **changes: Any
) -> Evidence:
    """Every pair compared; p is 1 where not given."""
    p = p or {}
    contrasts = []
    for a, b in itertools.combinations([c for c in candidates if c.test], 2):
        assert a.test and b.test
        difference = b.test.mean - a.test.mean
        value = p.get((a.name, b.name), p.get((b.name, a.name), 1.0))
        contrasts.append(
            Comparison(a.name, b.name, "test", difference, difference - half, difference + half, value, value, N)
        )
    known: dict[str, Any] = {
        "metric": "label_accuracy",
        "floor": 0.12,
        "n_test": N,
        "minimum_detectable_difference": 0.09,
        "test_reads": 1,
        "has_corpus": False,
    }
    return Evidence(candidates=tuple(candidates), comparisons=tuple(contrasts), **(known | changes))


ZERO = candidate("zero_shot", "prompt", 0.40)
LORA = candidate("lora", "fine-tune", 0.81)


def test_the_verdict_needs_no_numbers_library() -> None:
    code = "import sys, rung.decision; print({'numpy', 'scipy', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_fine_tuning_is_chosen_when_every_prompt_is_shown_to_be_worse() -> None:
    decision = decide(evidence([ZERO, LORA], {("zero_shot", "lora"): 1e-9}))
    assert (decision.choice, decision.solution) == ("fine-tune", "lora")
    assert decision.headline == (
        "Fine-tune: lora answers 81 % of the sealed test right (76–86 %), 41 points above the best prompt."
    )
    assert "lora minus zero_shot: 41 points (36 to 46), p < 0.001 after Holm." in decision.reasons
    assert "The floor, which needs no model, is 12 %." in decision.reasons
    assert decision.next[0] == "Ship lora."


def test_the_cheaper_family_is_chosen_within_the_margin_and_the_doubt_is_told() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.80), LORA], {("few_shot", "lora"): 0.6}))
    assert (decision.choice, decision.solution) == ("prompt", "few_shot")
    assert decision.headline.endswith("; lora is 1 point above it, which is within the margin.")
    [reason] = [r for r in decision.reasons if r.startswith("lora minus few_shot")]
    assert reason == (
        "lora minus few_shot: 1 point (-4 to 6); the margin that matters is 2 points. "
        "A difference of up to 6 points cannot be excluded."
    )
    # The half-width of 5 points must shrink to 1: 25 times the examples, 24 times more.
    assert any("About 4,800 more labelled test examples would exclude that" in step for step in decision.next)


def test_nothing_is_left_open_when_the_interval_ends_below_the_margin() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.80), LORA], half=0.005))
    assert decision.choice == "prompt"
    assert not any("cannot be excluded" in reason for reason in decision.reasons)
    assert decision.next == ("Ship few_shot.",)


def test_a_difference_of_exactly_the_margin_does_not_matter() -> None:
    near = [candidate("few_shot", "prompt", 0.50), candidate("lora", "fine-tune", 0.52)]
    assert decide(evidence(near, {("few_shot", "lora"): 0.001})).choice == "prompt"


def test_a_gap_beyond_the_margin_that_is_not_significant_is_undecided() -> None:
    few = replace(candidate("few_shot", "prompt", 0.77), dev=Score(0.80, 0.75, 0.85, N))
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    assert (decision.choice, decision.solution) == ("undecided", "few_shot")
    assert decision.headline == (
        "Undecided: lora is 4 points above few_shot on the sealed test (-1 to 9), too close to call with 200 examples."
    )
    # 200 * (2.8016 * 5 / (1.95996 * 4)) ** 2 = 639 are needed.
    assert decision.next[0].startswith("About 440 more labelled test examples would settle")
    assert "Meanwhile ship few_shot" in decision.next[1]


def test_while_undecided_what_is_ahead_on_dev_too_is_shipped() -> None:
    few = candidate("few_shot", "prompt", 0.77)
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert decision.next[1] == (
        "Meanwhile ship lora: on dev it is ahead too, by 4 points. few_shot is the cheaper of the two to run and to "
        "change."
    )


def test_the_estimate_of_examples_needed_reaches_its_power_in_simulation() -> None:
    random = np.random.default_rng(4)
    p_a, p_b = 0.06, 0.12  # only few_shot right, only lora right: a difference of 6 points

    def share_significant(n: int) -> float:
        tables = random.multinomial(n, [p_a, p_b, 1 - p_a - p_b], size=4000)
        z = (tables[:, 1] - tables[:, 0]) / np.sqrt(np.maximum(1, tables[:, 1] + tables[:, 0]))
        return float((np.abs(z) > 1.96).mean())

    half = 1.96 * float(np.sqrt((p_a + p_b - 0.06**2) / N))
    close = [candidate("few_shot", "prompt", 0.60), candidate("lora", "fine-tune", 0.66)]
    decision = decide(evidence(close, {("few_shot", "lora"): 0.07}, half=half))
    more = int(decision.next[0].split()[1].replace(",", ""))
    assert share_significant(N + more) == pytest.approx(0.8, abs=0.04)


def test_within_one_family_there_is_nothing_to_be_undecided_about() -> None:
    few = candidate("few_shot", "prompt", 0.44, tokens_in=900)
    decision = decide(evidence([few, ZERO], {("few_shot", "zero_shot"): 0.3}))
    assert (decision.choice, decision.solution) == ("prompt", "few_shot")
    assert "no other approach than prompt was tested" in decision.headline
    close = replace(few, test=Score(0.41, 0.36, 0.46, N))
    assert decide(evidence([close, ZERO])).solution == "zero_shot"


def test_a_cheap_prompt_below_the_margin_does_not_hide_a_better_prompt() -> None:
    three = [candidate("zero_shot", "prompt", 0.77), candidate("few_shot", "prompt", 0.80, tokens_in=900), LORA]
    assert decide(evidence(three)).solution == "few_shot"


def test_the_first_family_that_is_not_shown_worse_stops_the_climb() -> None:
    rag, both = candidate("rag", "rag", 0.76), candidate("rag_lora", "rag+fine-tune", 0.80)
    decision = decide(evidence([ZERO, rag, both], {("zero_shot", "rag_lora"): 0.001, ("zero_shot", "rag"): 0.001}))
    assert (decision.choice, decision.solution) == ("undecided", "rag_lora")
    rag = replace(rag, dev=both.dev)
    decision = decide(evidence([ZERO, rag, both], {("zero_shot", "rag_lora"): 0.001, ("zero_shot", "rag"): 0.001}))
    assert (decision.choice, decision.solution) == ("undecided", "rag")


def test_a_dearer_family_that_is_no_better_is_compared_and_not_chosen() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.85), LORA]))
    assert decision.choice == "prompt"
    assert decision.headline.endswith("; nothing that costs more scores higher.")
    assert any(r.startswith("lora minus few_shot: -4 points (-9 to 1)") for r in decision.reasons)


def test_none_when_the_best_does_not_clear_the_floor() -> None:
    weak = candidate("lora", "fine-tune", 0.15)
    decision = decide(evidence([weak], has_corpus=False))
    assert (decision.choice, decision.solution) == ("none", None)
    assert decision.headline == (
        "None: the best candidate, lora, answers 15 % of the sealed test right (10–20 %), "
        "which is not shown to beat the floor of 12 %."
    )
    assert "bring documents" in decision.next[0]
    assert not any("bring documents" in step for step in decide(evidence([weak], has_corpus=True)).next)


def test_none_when_the_best_is_too_little_even_above_a_floor_of_nothing() -> None:
    decision = decide(evidence([candidate("lora", "fine-tune", 0.04, half=0.03)], floor=0.0))
    assert decision.choice == "none"
    assert "too little to ship (below 5 %)" in decision.headline


def test_none_when_nothing_was_tested() -> None:
    decision = decide(evidence([replace(LORA, test=None)]))
    assert (decision.choice, decision.solution) == ("none", None)
    assert [c.name for c in decision.candidates] == ["lora"]


def test_while_undecided_nothing_is_shipped_that_does_not_beat_the_floor() -> None:
    pair = [candidate("few_shot", "prompt", 0.15), candidate("lora", "fine-tune", 0.20)]
    decision = decide(evidence(pair, {("few_shot", "lora"): 0.2}))
    assert (decision.choice, decision.solution) == ("undecided", "lora")


def test_a_cheaper_candidate_within_the_margin_is_not_shipped_below_the_floor() -> None:
    pair = [candidate("zero_shot", "prompt", 0.53, half=0.1), candidate("lora", "fine-tune", 0.55, half=0.1)]
    decision = decide(evidence(pair, floor=0.44))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert "within the margin of 2 points" in decision.reasons[1]
    assert decision.next[0].startswith("About 47 more labelled test examples would show zero_shot above the floor")
    assert decision.next[2].endswith("or zero_shot shown to beat the floor.")
    assert decide(evidence(pair, floor=0.42)).solution == "zero_shot"


def test_a_cheaper_candidate_within_the_margin_that_is_right_too_rarely_is_told_as_that() -> None:
    pair = [candidate("few_shot", "prompt", 0.04, half=0.02), candidate("lora", "fine-tune", 0.055, half=0.02)]
    decision = decide(evidence(pair, floor=0.0))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert decision.next[0].startswith("few_shot is too little to ship")
    assert decision.next[2].endswith("or few_shot at 5 % or more.")


def test_where_one_answer_is_always_right_no_model_is_needed() -> None:
    decision = decide(evidence([candidate("zero_shot", "prompt", 1.0)], floor=1.0))
    assert decision.choice == "none" and "no model is needed" in decision.headline and len(decision.next) == 1


def test_the_order_of_cost_is_family_then_tokens_then_name_and_never_time() -> None:
    dear_output = replace(ZERO, name="z", tokens_in=80, tokens_out=20)  # 80 + 3 * 20 > 100 + 3 * 5
    slow = replace(ZERO, name="a", latency_s_p50=9, build_seconds=999)
    given = [LORA, dear_output, ZERO, slow]
    for order in itertools.permutations(given):
        decision = decide(evidence(list(order), {(c.name, "lora"): 0.001 for c in given}))
        assert [c.name for c in decision.candidates] == ["a", "zero_shot", "z", "lora"]
        assert decision.solution == "lora"
        assert decide(evidence([c for c in order if c is not LORA])).solution == "a"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (0.70, "The target of 70 % is met by lora, even by the low end of its interval."),
        (0.80, "The target of 80 % is met by the mean of lora, not by the low end of its interval."),
        (0.85, "The target of 85 % is missed by lora by 4 points; its interval includes the target."),
        (0.90, "The target of 90 % is missed by lora by 9 points."),
    ],
)
def test_the_target_is_set_beside_the_choice(target: float, words: str) -> None:
    decision = decide(evidence([ZERO, LORA], {("zero_shot", "lora"): 0.001}, target=target))
    assert words in decision.reasons
    assert any("To reach the target" in step for step in decision.next) == (target > 0.81)


def test_graded_metrics_are_told_as_scores() -> None:
    decision = decide(evidence([ZERO, LORA], {("zero_shot", "lora"): 0.001}, metric="token_f1"))
    assert decision.headline == (
        "Fine-tune: lora reaches a token_f1 of 0.81 on the sealed test (0.76–0.86), 0.41 above the best prompt."
    )
    assert "lora reaches a tone of 0.81" in decide(evidence([LORA], metric="python:m.py:tone")).headline


def test_causes_skipped_strategies_and_repeated_reads_are_told() -> None:
    told = decide(
        evidence(
            [ZERO],
            diagnosis=(Diagnosis("knowledge", 0.6, 0.5, 0.7, "gold passages"), Diagnosis("format", 0.2, 0.1, 0.3)),
            skipped=(("rag", "there is no corpus"),),
            test_reads=2,
        )
    )
    assert "Why the best prompt fails: missing knowledge, 60 % of it (50–70 %); gold passages." in told.reasons
    assert "Beside that: the form of the answers, 20 % of it (10–30 %)." in told.reasons
    assert "rag was not tried: there is no corpus." in told.reasons
    assert any("opened 2 times" in reason for reason in told.reasons)
    assert any("bring documents" in step for step in told.next)


def test_a_cause_whose_interval_reaches_zero_is_not_told_as_shown() -> None:
    told = decide(evidence([ZERO, LORA], diagnosis=(Diagnosis("knowledge", 0.04, 0.0, 0.21),)))
    assert any("4 % of it (0–21 %); the interval includes nothing" in reason for reason in told.reasons)
    assert not any("bring documents" in step for step in told.next)


def test_lost_skills_are_told_with_the_adapter_that_keeps_them() -> None:
    replayed = replace(LORA, name="lora_replay", test=None)
    lost, kept = (-0.13, -0.2, -0.06, 242, True), (0.06, 0.0, 0.1, 242, False)
    shown = evidence([ZERO, LORA, replayed], {("zero_shot", "lora"): 0.001}, skills={"lora": lost, "lora_replay": kept})
    told = " ".join(decide(shown).reasons)
    assert "lora answers 13 points (6 to 20) fewer of 242 general prompts than the base model." in told
    assert (
        f"lora_replay, trained with the base model's own answers mixed in, keeps them, at {LORA.dev.mean:.0%}"[:-1]
        in told
    )
    alone = " ".join(decide(replace(shown, skills={"lora": lost})).reasons)
    assert "Use the adapter for this task alone." in alone and "lora_replay, trained" not in alone


def test_nearly_all_is_not_told_as_all() -> None:
    assert "answers 99.6 % of" in decide(evidence([candidate("few_shot", "prompt", 0.996)])).headline
    assert "answers 100 % of" in decide(evidence([candidate("few_shot", "prompt", 1.0)])).headline


def test_a_missing_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="zero_shot and lora were not compared on the test"):
        decide(replace(evidence([ZERO, LORA]), comparisons=()))


def test_a_comparison_on_dev_does_not_stand_in_for_the_test() -> None:
    known = evidence([ZERO, LORA], {("zero_shot", "lora"): 0.001})
    dev = replace(known.comparisons[0], set="dev", p_corrected=0.9)
    assert decide(replace(known, comparisons=(dev, *known.comparisons))).choice == "fine-tune"


def test_a_record_has_the_documented_keys_and_comes_back_equal() -> None:
    decision = decide(
        evidence([ZERO, LORA, replace(LORA, name="x", test=None)], diagnosis=(Diagnosis("format", 0.2, 0.1, 0.3),))
    )
    record = json.loads(json.dumps(decision_record(decision)))
    assert list(record) == [
        *("choice", "solution", "headline", "reasons", "next", "candidates", "comparisons", "diagnosis"),
        *("minimum_detectable_difference", "test_reads", "break_even", "frontier"),
    ]
    assert set(record["candidates"][0]) == {
        *("name", "family", "dev", "test", "tokens_in", "tokens_out", "latency_s_p50", "latency_s_p95"),
        *("cost_per_1k_usd", "build_seconds", "build_usd", "tokens_cached"),
    }
    assert set(record["comparisons"][0]) == {"a", "b", "set", "difference", "low", "high", "p", "p_corrected", "n"}
    assert set(record["candidates"][0]["dev"]) == {"mean", "low", "high", "n"}
    assert set(record["diagnosis"][0]) == {"cause", "share", "low", "high", "evidence", "mended"}
    assert record == decision_record(decision)
    assert decision_from_record(record) == decision


@pytest.mark.parametrize(
    "change", [{"choice": "magic"}, {"candidates": [{"name": "x"}]}, {"comparisons": [1]}, {"more": 1}, {"next": None}]
)
def test_a_damaged_record_is_an_error_that_says_so(change: dict[str, Any]) -> None:
    record = decision_record(decide(evidence([ZERO])))
    with pytest.raises(RunError, match=r"decision.json: .*Run the decision again"):
        decision_from_record(record | change)
    del record["headline"]
    with pytest.raises(RunError, match="headline is missing"):
        decision_from_record(record)


def judged(random: np.random.Generator, rates: dict[tuple[str, Family], float], n: int = 100) -> str:
    """One simulated run: answers right or wrong of a common difficulty, scored, compared and decided."""
    easy = random.random(n) < 0.6  # shared: makes the answers of two candidates alike
    shared = random.random(n) < 0.5
    right = {key: np.where(shared, easy, random.random(n) < rate).astype(float).tolist() for key, rate in rates.items()}
    ((a, _), x), ((b, _), y) = right.items()
    contrasts = (compare(a, b, x, y, "test", resamples=99),)  # one contrast: Holm leaves its p as it is
    scored = [replace(LORA, name=k[0], family=k[1], test=score(v)) for k, v in right.items()]
    return decide(Evidence("label_accuracy", tuple(scored), contrasts, 0.1, n, 0.1, 1, False)).choice


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
