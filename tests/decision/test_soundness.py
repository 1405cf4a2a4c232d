"""Whatever the evidence, a verdict never ships what falls short, contradicts itself or says a thing twice."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from evidence_cases import N, candidate, evidence

from rung.decision import MoreExamples, decide, decision_from_record, decision_record, unfinished
from rung.decision.rule import LEAST_USEFUL, shortfall
from rung.types import Candidate, Decision, Diagnosis, Family, SetName, Skipped

FAMILY_OF: dict[str, Family] = {"a": "prompt", "b": "prompt", "c": "rag", "d": "fine-tune", "e": "rag+fine-tune"}
CAUSES = ("format", "convention", "knowledge", "retrieval", "reasoning", "knowledge+reasoning", "label noise")


def drawn(seed: int, on: SetName) -> Any:
    """Evidence with scores, p-values, causes and skipped strategies at random."""
    draw = random.Random(seed)
    names = draw.sample(list(FAMILY_OF), draw.randint(1, len(FAMILY_OF)))
    candidates: list[Candidate] = [
        candidate(n, FAMILY_OF[n], round(draw.choice((0.03, 0.12, 0.5)) + draw.random() / 10, 3)) for n in names
    ]
    pairs = [(x, y) for x in (*names, "most_frequent", "tfidf_linear") for y in names if x != y]
    p = {pair: draw.choice((1e-6, 0.03, 0.2, 1.0)) for pair in pairs}
    causes = tuple(
        Diagnosis(c, share := draw.random(), max(0.0, share - 0.3), 1.0, "as an experiment says", draw.random() < 0.5)
        for c in draw.sample(CAUSES, draw.randint(0, 3))
    )
    reasons = draw.sample(("plan", "gain", "target", "budget", "memory", "fault"), draw.randint(0, 3))
    skipped = tuple(
        Skipped(f"s{i}", "rag", reason, "of something", draw.choice((None, 3.0)), draw.random() < 0.5)  # type: ignore[arg-type]
        for i, reason in enumerate(reasons)
    )
    facts = {key: draw.random() < 0.5 for key in ("has_corpus", "has_labels", "has_schema")}
    return evidence(
        candidates,
        p,
        floor=draw.choice((0.0, 0.1, 0.5, 1.0)),
        learner=draw.choice((None, 0.2, 0.6)),
        on=on,
        diagnosis=causes,
        skipped=skipped,
        target=draw.choice((None, 0.55)),
        more=draw.choice((None, MoreExamples(100, 0.05, 0.0, 0.1))),
        suspicious=draw.choice(((), ("line 3",))),
        **facts,
    )


def check(decision: Decision) -> None:
    said = (decision.headline, *decision.warnings, *decision.reasons, *decision.next)
    assert len(set(said)) == len(said)
    assert all(s[-1] in ".?" or s.endswith("`") for s in said), said
    assert not any("None" in s for s in said if not s.startswith("None: "))
    assert not any(re.search(r"\bis -[\d.]+ point", s) for s in said), said
    advice = " ".join(decision.next)
    assert not ("larger model" in advice and ("bring documents" in advice or "Label more examples" in advice))
    assert decision_from_record(decision_record(decision)) == decision
    assert decision.n_test == N


@pytest.mark.parametrize("seed", range(300))
def test_a_finished_verdict_is_sound(seed: int) -> None:
    known = drawn(seed, "test")
    decision = decide(known)
    check(decision)
    shipped = known.named(decision.solution)
    if shipped is not None:
        assert shortfall(known, shipped, "test") is None and shipped.test.mean >= LEAST_USEFUL
        assert shipped.family != "baseline"
        assert any(
            step.startswith((f"Ship {shipped.name}", f"Meanwhile ship {shipped.name}")) for step in decision.next
        )
    else:
        assert decision.choice == "none" and not any("hip " in step for step in decision.next)
    for one in known.skipped:
        where = decision.warnings if one.reason in ("budget", "memory", "fault") else decision.reasons
        assert any(s.startswith(f"{one.name} ") and "was not tried" in s for s in where)


@pytest.mark.parametrize("seed", range(300))
def test_an_unfinished_outcome_is_sound(seed: int) -> None:
    known = drawn(seed, "dev")
    decision = unfinished(known, "rung run task.yaml --minutes 16")
    check(decision)
    assert (decision.choice, decision.test_reads) == ("unfinished", 0)
    assert all(d.fixed for d in decision.diagnosis) and "by elimination" not in " ".join(decision.reasons)
    shipped = known.named(decision.solution)
    if shipped is not None:
        assert shortfall(known, shipped, "dev") is None
    assert any("--finish" in step for step in decision.next)
