"""Sentences about what finalists make up, and how often they are right every time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from evidence_cases import CLEAR, GRADED, LORA, ZERO, candidate, evidence

from rung.decision import decide, decision_from_record, decision_record, unfinished
from rung.decision.checks import times_in
from rung.decision.evidence import Invention
from rung.types import Citing, Score

RAG, RAG_LORA = candidate("rag", "rag", 0.5), candidate("rag_lora", "rag+fine-tune", 0.8)
SHARP = {("rag", "rag_lora"): 1e-9}


def share(mean: float, n: int = 50) -> Score:
    return Score(mean, max(0.0, mean - 0.1), min(1.0, mean + 0.1), n)


def invention(after: float, before: float, p: float, **more: object) -> Invention:
    found = Invention("rag_lora", False, share(after), share(0.04), "rag", share(before), share(0.02))
    difference = after - before
    made = replace(found, difference=difference, low=difference - 0.15, high=difference + 0.15, p=p)
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_winner_that_makes_up_more_than_its_base_is_warned_of_among_the_first() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(invention(0.8, 0.4, 0.0001),)))
    assert found.solution == "rag_lora"
    assert found.warnings[0] == (
        "rag_lora makes up more than rag, which is not fine-tuned: an answer to 80 % (70–90) of 50 dev questions whose "
        "passages were taken out, rag to 40 % (30–50). That is 40 points more (25 to 55), p < 0.001, and speaks "
        "against it where a wrong answer costs more than none."
    )
    assert not any("makes up" in reason for reason in found.reasons), "it is told once"


def test_a_difference_that_is_not_shown_is_a_reason_with_its_numbers_and_no_warning() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(invention(0.5, 0.4, 0.3, given=True),)))
    assert not any("makes up" in warning for warning in found.warnings)
    assert (
        "rag_lora makes up an answer to 50 % (40–60) of 50 unanswerable dev rows, not shown to differ from rag before "
        "fine-tuning (40 % (30–50)); it gives none to 4 % (0–14) of those that can be answered."
    ) in found.reasons


def test_a_winner_that_makes_up_less_is_said_to() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(invention(0.2, 0.6, 0.001),)))
    assert any("20 % (10–30) of 50" in r and "fewer than rag before fine-tuning" in r for r in found.reasons)


def test_what_is_not_shipped_is_not_spoken_of() -> None:
    found = decide(evidence([ZERO, LORA], CLEAR, invention=(invention(0.8, 0.4, 0.0001),)))
    assert not any("makes up" in said for said in (*found.warnings, *found.reasons))


UNKNOWN = "I do not know."
RASH = Invention("rag_lora", True, share(0.9, 15), share(0.1, 40))


def test_a_winner_that_makes_up_most_or_refuses_much_is_warned_of_where_the_task_names_a_refusal() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(RASH,), abstain=UNKNOWN))
    told = (
        "rag_lora makes up an answer to 90 % (80–100) of 15 unanswerable dev rows; it gives none to 10 % (0–20) of "
        "those that can be answered. Do not rely on its refusals."
    )
    assert told in found.warnings and not any("makes up" in r for r in found.reasons)
    shy = replace(RASH, share=share(0.1), refused=share(0.4))
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(shy,), abstain=UNKNOWN))
    assert any("it gives none to 40 % (30–50)" in w for w in found.warnings)
    for fine, abstain in ((RASH, ""), (replace(RASH, share=share(0.4)), UNKNOWN)):
        found = decide(evidence([RAG, RAG_LORA], SHARP, invention=(fine,), abstain=abstain))
        assert not any("refusals" in w for w in found.warnings) and any("makes up" in r for r in found.reasons)


@pytest.mark.parametrize("choice", ["none", "unfinished"])
def test_where_nothing_is_chosen_the_best_that_reads_passages_is_warned_of(choice: str) -> None:
    on, chance = ("test" if choice == "none" else "dev"), {("most_frequent", "few"): 0.5, ("most_frequent", "rag"): 0.5}
    few, rag = candidate("few", "prompt", 0.13), candidate("rag", "rag", 0.1)
    made = (replace(RASH, candidate="rag"), replace(RASH, candidate="few"))
    sources = (Citing("rag", "dev", share(0.3), share(0.06), share(0.06), 9),)
    known = evidence([few, rag], chance, on=on, invention=made, citing=sources, abstain=UNKNOWN)  # type: ignore[arg-type]
    found = decide(known) if on == "test" else unfinished(known, "rung run t")
    assert found.choice == choice and found.solution is None
    assert [w.split()[0] for w in found.warnings if w.endswith("Do not rely on its refusals.")] == ["rag"]
    (said,) = [w for w in found.warnings if w.endswith("Do not rely on its sources.")]
    assert said.startswith("rag names sources in 30 %") and "9 of the numbers that it names are of no passage" in said


def test_a_winner_that_reads_no_passages_is_not_warned_of_questions_whose_passages_were_taken_out() -> None:
    made = replace(RASH, candidate="lora", given=False)
    found = decide(evidence([ZERO, LORA], CLEAR, invention=(made,), abstain=UNKNOWN))
    assert not any("refusals" in w for w in found.warnings) and any("lora makes up" in r for r in found.reasons)


@pytest.mark.parametrize(
    ("after", "before", "abstain", "advised"),
    [(0.98, 0.94, "", True), (0.98, 0.94, "n/a", False), (0.98, 0.5, "", False)],
)
def test_to_name_an_answer_for_what_has_none_is_advised_where_everything_is_made_up(
    after: float, before: float, abstain: str, advised: bool
) -> None:
    both = (Invention("rag", False, share(before)), invention(after, before, 0.5))
    found = decide(evidence([RAG, RAG_LORA], SHARP, invention=both, abstain=abstain, has_corpus=True))
    said = [step for step in found.next if "Name `abstain`" in step]
    assert len(said) == advised
    assert not said or said[0].startswith(
        "Where no passage holds the answer, rag and rag_lora nearly always make one up"
    )


def test_both_shares_of_sampled_answers_are_told_in_one_sentence() -> None:
    sampled = replace(LORA, repeats=4, pass_1=Score(0.84, 0.78, 0.89, 200), pass_k=Score(0.71, 0.62, 0.79, 200))
    found = decide(evidence([ZERO, sampled], CLEAR))
    assert (
        "lora is right four times in four on 71 % of the sealed test (62–79), where its answers are sampled; a single "
        "sample is right on 84 %."
    ) in found.reasons
    graded = decide(evidence([ZERO, sampled], CLEAR, metric=GRADED))
    assert any(reason.startswith("lora scores 1 four times in four on 71 %") for reason in graded.reasons)


def test_what_kept_a_check_from_being_made_is_a_reason() -> None:
    assert "No." in decide(evidence([ZERO, LORA], CLEAR, checks_said=("No.",))).reasons


def test_the_shares_survive_decision_json_and_older_records_have_none() -> None:
    sampled = replace(LORA, repeats=4, pass_1=Score(0.84, 0.78, 0.89, 200), pass_k=Score(0.71, 0.62, 0.79, 200))
    found = decide(evidence([ZERO, sampled], CLEAR))
    record = json.loads(json.dumps(decision_record(found)))
    assert decision_from_record(record) == found
    for one in record["candidates"]:
        for key in ("repeats", "pass_1", "pass_k"):
            del one[key]
    assert all(c.pass_k is None and c.repeats == 0 for c in decision_from_record(record).candidates)


@pytest.mark.parametrize(("n", "words"), [(2, "twice in two"), (4, "four times in four"), (12, "12 times in 12")])
def test_numbers_up_to_ten_are_written_as_words(n: int, words: str) -> None:
    assert times_in(n) == words
