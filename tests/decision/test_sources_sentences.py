"""Sentences about sources that answers name, and what decision.json holds of sources and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

from evidence_cases import candidate, evidence

from rung.decision import decide, decision_from_record, decision_record
from rung.decision.evidence import Invention
from rung.types import Citing, Refusing, Score

RAG, RAG_LORA = candidate("rag", "rag", 0.5), candidate("rag_lora", "rag+fine-tune", 0.8)
SHARP = {("rag", "rag_lora"): 1e-9}


def share(mean: float, n: int = 100) -> Score:
    return Score(mean, max(0.0, mean - 0.1), min(1.0, mean + 0.1), n)


ON_TEST = Citing("rag_lora", "test", share(0.9), share(0.8), share(0.85), 3)
ON_DEV = replace(ON_TEST, set="dev", cites=share(0.7), bad=0)


def test_the_shares_of_the_shipped_candidate_are_told_once_and_of_the_test() -> None:
    found = decide(evidence([RAG, RAG_LORA], SHARP, citing=(ON_DEV, ON_TEST, replace(ON_TEST, candidate="rag"))))
    assert (
        "rag_lora names sources in 90 % (80–100) of its answers to the sealed test; of what it names, 80 % (70–90) are "
        "passages that hold an accepted answer, and 85 % (75–95) hold what it answered. 3 of the numbers that it names "
        "are of no passage."
    ) in found.reasons
    assert sum("names sources" in said for said in (*found.reasons, *found.warnings)) == 1


def test_sources_that_are_seldom_named_or_wrong_are_a_warning() -> None:
    for seldom in (replace(ON_TEST, cites=share(0.2)), replace(ON_TEST, holds=share(0.3), bad=1)):
        found = decide(evidence([RAG, RAG_LORA], SHARP, citing=(seldom,)))
        assert any(w.endswith("Do not rely on its sources.") for w in found.warnings)
        assert not any("names sources" in reason for reason in found.reasons)
    none = replace(ON_TEST, cites=Score(0.0, 0.0, 0.04, 100), holds=None, supports=None, bad=0)
    found = decide(evidence([RAG, RAG_LORA], SHARP, citing=(none,)))
    assert any("names sources in 0 % (0–4) of its answers to the sealed test. Do not" in w for w in found.warnings)
    unknown = replace(ON_TEST, holds=None, bad=0)
    found = decide(evidence([RAG, RAG_LORA], SHARP, citing=(unknown,)))
    assert any(
        "; of what it names, 85 % (75–95) hold what it answered. Whether these hold the answer cannot be said" in w
        for w in found.warnings
    )


def test_what_is_measured_of_every_finalist_stands_in_the_record_and_is_read_back() -> None:
    made = (Invention("rag", True, share(0.4), share(0.1)), Invention("rag_lora", False, share(0.2), None))
    found = decide(evidence([RAG, RAG_LORA], SHARP, citing=(ON_DEV, ON_TEST), invention=made))
    assert found.refusing == (
        Refusing("rag", True, share(0.4), share(0.1)),
        Refusing("rag_lora", False, share(0.2), None),
    )
    assert found.citing == (ON_DEV, ON_TEST)
    record = json.loads(json.dumps(decision_record(found)))
    assert decision_from_record(record) == found
    del record["citing"], record["refusing"]
    assert decision_from_record(record).citing == (), "of an older version"
