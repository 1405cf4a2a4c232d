"""What the verdict says of a teacher and of what was learnt from it."""

from __future__ import annotations

from dataclasses import replace

from evidence_cases import GRADED, candidate, evidence

from rung.decision import decide
from rung.decision.evidence import Taught
from rung.decision.teaching import taught_sentences
from rung.types import Score

FEW, LORA = candidate("few_shot", "prompt", 0.7), candidate("distilled_lora", "fine-tune", 0.84)


def test_the_teacher_stands_beside_the_best_candidate_on_dev() -> None:
    known = evidence([FEW, LORA], teacher=Score(0.91, 0.85, 0.95, 100))
    said = "The teacher reaches 91 % (85–95) on dev, the best candidate, distilled_lora, 84 %."
    assert taught_sentences(known) == [said]
    assert said in decide(known).reasons
    assert "0.91 (0.85–0.95)" in taught_sentences(replace(known, metric=GRADED))[0]


def test_what_was_learnt_is_counted_with_what_was_left_out_and_why() -> None:
    one = Taught("distilled_lora", "the teacher (wise)", 1_200, 1_100, "80 no majority, 20 cut off")
    assert taught_sentences(evidence([FEW, LORA], taught=(one,))) == [
        "distilled_lora learnt, beside train, what the teacher (wise) answers to 1,100 inputs. To 100 others it gave "
        "no answer that could be used (80 no majority, 20 cut off)."
    ]


def test_without_a_teacher_nothing_is_said_of_one() -> None:
    assert taught_sentences(evidence([FEW, LORA])) == []
