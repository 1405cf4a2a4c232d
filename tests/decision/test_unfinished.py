from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from evidence_cases import LORA, ZERO, candidate, evidence

from rung.decision import Evidence, unfinished
from rung.types import Diagnosis, Skipped

COMMAND = "rung run task.yaml --minutes 16"
FEW = candidate("few_shot", "prompt", 0.62)
RAG = Skipped("rag", "rag", "budget", "the budget was spent", minutes=4.2, matters=True)
TUNED = Skipped("lora", "fine-tune", "budget", "the budget was spent", minutes=2.5, matters=True)


def known(*candidates: Any, **changes: Any) -> Evidence:
    return evidence(list(candidates or (ZERO, FEW)), on="dev", **{"skipped": (RAG, TUNED), **changes})


def test_what_is_missing_stands_first_with_what_it_would_cost() -> None:
    decision = unfinished(known(), COMMAND)
    assert (decision.choice, decision.solution, decision.test_reads) == ("unfinished", "few_shot", 0)
    assert decision.headline == (
        "Unfinished: rag and lora could change the verdict and were not tried. About 7 more minutes: "
        "`rung run task.yaml --minutes 16`. Meanwhile, the best on dev is few_shot: 62 % (57–67)."
    )
    assert decision.warnings == (
        "rag (retrieval) was not tried: the budget was spent. It could change the verdict. It would take about 5 more "
        "minutes.",
        "lora (fine-tuning) was not tried: the budget was spent. It could change the verdict. It would take about 3 "
        "more "
        "minutes.",
    )
    assert decision.next[0] == (
        "Go on from here with about 7 more minutes: `rung run task.yaml --minutes 16`. Nothing that is done is done "
        "again."
    )
    assert "--finish" in decision.next[1]
    assert decision.next[2] == "Meanwhile use few_shot: it is the best on dev so far."
    assert decision.skipped == (RAG, TUNED)


def test_no_test_score_and_no_claim_about_the_test_gets_in() -> None:
    tested = replace(known(), candidates=(*(replace(c, test=c.dev) for c in known().candidates),))
    decision = unfinished(tested, COMMAND)
    assert all(c.test is None for c in decision.candidates)
    assert all(c.set == "dev" for c in decision.comparisons)
    assert decision.frontier == () and decision.break_even == ()
    said = " ".join((decision.headline, *decision.reasons, *decision.warnings))
    assert "sealed test" not in said and "significant" not in said
    assert decision.reasons[0] == "few_shot answers 62 % of dev right (57–67 %)."


def test_causes_by_elimination_are_left_out_and_advice_does_not_rest_on_them() -> None:
    fixed = Diagnosis("convention", 0.3, 0.2, 0.4, "fixed by a pilot")
    rest = Diagnosis("reasoning", 0.7, 0.6, 0.8, "nothing fixed it", fixed=False)
    decision = unfinished(known(diagnosis=(rest, fixed)), COMMAND)
    assert decision.diagnosis == (fixed,)
    said = " ".join((decision.headline, *decision.reasons, *decision.next))
    assert "reasoning" not in said and "larger model" not in said and "a convention that only examples show" in said


@pytest.mark.parametrize(
    ("mean", "why"), [(0.04, "is too little to ship (below 5 %)"), (0.15, "beat the floor of 12 %")]
)
def test_meanwhile_nothing_is_shipped_that_is_useless_or_at_the_floor_on_dev(mean: float, why: str) -> None:
    decision = unfinished(known(candidate("few_shot", "prompt", mean)), COMMAND)
    assert decision.solution is None
    assert why in decision.headline
    assert "Ship nothing meanwhile." in decision.next


def test_the_best_on_dev_that_beats_the_floor_is_used_though_another_scores_higher() -> None:
    decision = unfinished(known(ZERO, LORA, p={("most_frequent", "lora"): 0.2}), COMMAND)
    assert decision.solution == "zero_shot"


def test_a_baseline_that_is_not_shown_worse_on_dev_is_named() -> None:
    decision = unfinished(known(p={("tfidf_linear", "few_shot"): 0.6}, learner=0.6), COMMAND)
    assert decision.headline.endswith(
        "You may not need a language model: tfidf_linear, which uses none, reaches 60 % on dev, as much as few_shot "
        "within the margin of 2 points."
    )
    assert "as much as few_shot within the margin of 2 points on dev" in decision.warnings[-1]
    assert decision.next[-1] == (
        "Consider tfidf_linear first: it uses no language model, reaches 60 % on dev, and costs next to nothing to "
        "run. "
        "docs/statistics.md says how it is built."
    )
    assert decision.next[0].startswith("Go on from here")


def test_memory_and_faults_are_not_answered_with_more_minutes() -> None:
    memory = replace(RAG, name="rag_lora", reason="memory", why="it needs more memory than there is", minutes=None)
    fault = replace(TUNED, reason="fault", why="its loss stopped being a number", minutes=None)
    decision = unfinished(known(skipped=(memory, fault)), "rung run task.yaml")
    assert "more minute" not in decision.headline and "To go on: `rung run task.yaml`." in decision.headline
    assert decision.next[0] == (
        "For rag_lora: use a machine with more memory, or a smaller model; then `rung run task.yaml`."
    )
    assert decision.next[1].startswith("For lora: remove the fault that is named above;")


def test_a_strategy_that_does_not_matter_is_a_warning_and_not_in_the_headline() -> None:
    small = replace(TUNED, matters=False)
    decision = unfinished(known(skipped=(small, RAG)), COMMAND)
    assert decision.headline.startswith(
        "Unfinished: rag could change the verdict and was not tried. About 5 more minutes"
    )
    assert [w.split()[0] for w in decision.warnings] == ["rag", "lora"]


def test_a_run_with_no_candidate_at_all_still_has_an_outcome() -> None:
    decision = unfinished(replace(known(), candidates=(), against_floor=(), comparisons=()), COMMAND)
    assert (decision.choice, decision.solution, decision.floor) == ("unfinished", None, 0.0)
    assert "the best on dev" not in decision.headline
