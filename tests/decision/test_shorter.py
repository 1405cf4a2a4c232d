"""What the verdict says of shorter prompts, and that the shorter one of two is shipped where it holds up."""

from __future__ import annotations

from dataclasses import replace

from evidence_cases import CLEAR, LORA, ZERO, candidate, evidence

from rung.decision import Skills, decide
from rung.decision.evidence import Shortened
from rung.types import Candidate

LONG = replace(LORA, tokens_in=143.0, cost_per_1k_usd=0.40)
PAIRS = {("zero_shot", "lora_short"): 0.001, **CLEAR}
HELD = Shortened("lora", "lora_short", "the input alone", False, 12.0, 143.0, 0.8, -0.01, -0.03, 0.01, 200)


def short(mean: float) -> Candidate:
    return replace(candidate("lora_short", "fine-tune", mean), tokens_in=12.0, cost_per_1k_usd=0.10)


def test_the_shorter_prompt_is_shipped_within_the_margin_and_what_it_saves_is_said_early() -> None:
    decision = decide(evidence([ZERO, LONG, short(0.80)], PAIRS, shortened=(HELD,)))
    assert decision.solution == "lora_short"
    assert decision.reasons[1] == (
        "lora_short (the input alone) reads 12 tokens a request in the place of 143, at a quarter of the price, and "
        "answers 80 % of the sealed test right (75–85 %); lora: 81 %."
    )
    assert "lora is 1 point above it" in decision.headline or "above the best prompt" in decision.headline


def test_one_that_falls_on_the_test_is_not_shipped_and_that_is_said() -> None:
    decision = decide(evidence([ZERO, LONG, short(0.70)], PAIRS, shortened=(HELD,)))
    assert decision.solution == "lora"
    (said,) = [r for r in decision.reasons if "tokens a request" in r]
    assert said.endswith("lora: 81 %. That is 11 points below it, although dev had them within 2 points.")


def test_that_no_shorter_prompt_held_up_is_said_with_the_number() -> None:
    none = replace(HELD, short=None, trained=True, mean=0.6, difference=-0.21, low=-0.27, high=-0.15)
    decision = decide(evidence([ZERO, LONG], CLEAR, shortened=(none,)))
    assert (
        "No shorter prompt than that of lora held up on dev: the input alone reads 12 tokens in the place of 143 and, "
        "after some steps of training with it, reaches 60 %, 21 points below it (15 to 27); the margin that matters is "
        "2 points."
    ) in decision.reasons


def test_skills_that_only_the_shorter_prompt_lost_are_a_warning_that_names_the_longer_one() -> None:
    kept, lost = Skills("lora", 0.0, -0.02, 0.02, 242, False), Skills("lora_short", -0.2, -0.3, -0.1, 242, True)
    known = evidence([ZERO, LONG, short(0.80)], PAIRS, shortened=(HELD,), skills=(kept, lost))
    [warning] = decide(known).warnings
    assert "lora_short lost general skills" in warning
    assert warning.endswith("or take lora: it has a longer prompt, keeps general skills, and reaches 81 % on dev.")


def test_skills_that_both_lost_are_told_of_the_shipped_one_alone() -> None:
    lost = [Skills(name, -0.2, -0.3, -0.1, 242, True) for name in ("lora", "lora_short")]
    known = evidence([ZERO, LONG, short(0.80)], PAIRS, shortened=(HELD,), skills=tuple(lost))
    [warning] = decide(known).warnings
    assert warning.startswith("lora_short lost general skills") and warning.endswith("Use it for this task alone.")
