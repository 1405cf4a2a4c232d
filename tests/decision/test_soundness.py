"""Whatever the evidence, a verdict never ships what falls short, contradicts itself or says a thing twice."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from evidence_cases import N, candidate, evidence, of

from rung.decision import MoreExamples, decide, decision_from_record, decision_record, unfinished
from rung.decision.rule import LEAST_USEFUL, rule_on_test, shortfall
from rung.evaluation.contenders import named_pairs
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


MODELS = ("small", "middle", "large")


def drawn_of_several(seed: int, on: SetName) -> Any:
    """The same of two or three models, with contenders at random: what was not named is not compared."""
    draw = random.Random(seed)
    plain, models = drawn(seed, on), MODELS[: draw.randint(2, 3)]
    pool = [(s, m) for s in FAMILY_OF for m in models]
    candidates = [
        of(
            m,
            s,
            FAMILY_OF[s],
            round(draw.choice((0.03, 0.12, 0.5, 0.5)) + draw.random() / 10, 3),
            usd=None if seed % 3 == 0 and draw.random() < 0.5 else round(draw.random(), 2),
        )
        for s, m in draw.sample(pool, draw.randint(1, len(pool)))
    ]
    names = [c.name for c in candidates]
    pairs = [*itertools.combinations(names, 2), *itertools.product(("most_frequent", "tfidf_linear"), names)]
    p = {pair: draw.choice((1e-6, 1e-6, 0.03, 1.0)) for pair in pairs}
    floors = {"floor": draw.choice((0.0, 0.1, 0.5, 1.0)), "learner": draw.choice((None, 0.2, 0.6))}
    facts = ("has_corpus", "has_labels", "has_schema", "target", "more", "suspicious")
    known = evidence(
        candidates,
        p,
        on=on,
        **floors,
        models=models,
        model=draw.choice(models),
        larger=draw.choice(("", "org/large", "org/huge")),
        diagnosis=plain.diagnosis,
        diagnosed=draw.choice(("", *names)),
        skipped=tuple(replace(s, model=draw.choice(("", *models))) for s in plain.skipped),
        **{fact: getattr(plain, fact) for fact in facts},
    )
    if on == "dev":
        return known
    contenders = tuple(draw.sample(names, draw.randint(0, min(3, len(names)))))
    named = {frozenset(pair) for pair in named_pairs(names, contenders)}
    kept = tuple(c for c in known.comparisons if frozenset((c.a, c.b)) in named)
    return replace(known, contenders=contenders, comparisons=kept)


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


@pytest.mark.parametrize("seed", range(400))
def test_a_verdict_over_several_models_claims_only_what_was_named(seed: int) -> None:
    known = drawn_of_several(seed, "test")
    decision, ruling = decide(known), rule_on_test(known)
    check(decision)
    names = {c.name for c in known.rated("test")}
    shipped = known.named(decision.solution)
    if shipped is not None:
        assert shortfall(known, shipped, "test") is None
    if decision.choice in ("prompt", "rag", "fine-tune", "rag+fine-tune"):
        assert shipped is not None and ruling.best is not None and decision.choice == shipped.family
        groups = known.groups("test")
        place = next(i for i, members in enumerate(groups) if shipped in members)
        for passed in itertools.chain(*groups[:place]):
            assert known.asked(passed, ruling.best) and known.shown_above(passed, ruling.best, "test")
    named = {frozenset((c.a, c.b)) for c in known.comparisons}
    for sentence in (decision.headline, *decision.warnings, *decision.reasons, *decision.next):
        for b, a in re.findall(r"(\w+@\w+) minus (\w+@\w+)", sentence):
            assert {a, b} <= names and frozenset((a, b)) in named, sentence


@pytest.mark.parametrize("seed", range(100))
def test_the_order_in_which_candidates_are_given_changes_no_verdict(seed: int) -> None:
    known = drawn_of_several(seed, "test")
    draw = random.Random(seed)
    shuffled = replace(
        known,
        candidates=tuple(draw.sample(known.candidates, len(known.candidates))),
        comparisons=tuple(draw.sample(known.comparisons, len(known.comparisons))),
    )
    one, other = decide(known), decide(shuffled)
    assert rule_on_test(known) == rule_on_test(shuffled) == rule_on_test(known)
    assert (one.headline, one.warnings, one.reasons, one.next) == (
        other.headline,
        other.warnings,
        other.reasons,
        other.next,
    )
    assert one.candidates == other.candidates and one.models == other.models


@pytest.mark.parametrize("seed", range(100))
def test_an_unfinished_outcome_over_several_models_is_sound(seed: int) -> None:
    decision = unfinished(drawn_of_several(seed, "dev"), "rung run task.yaml --minutes 16")
    check(decision)
    assert decision.choice == "unfinished" and not decision.frontier


@pytest.mark.parametrize("seed", range(100))
def test_the_name_of_a_single_model_changes_no_word(seed: int) -> None:
    known = drawn(seed, "test")
    of_one = replace(
        known,
        models=("small",),
        diagnosed="a",
        candidates=tuple(replace(c, model="" if c.family == "baseline" else "small") for c in known.candidates),
        skipped=tuple(replace(s, model="small") for s in known.skipped),
    )
    decision = decide(of_one)
    bare = tuple(replace(c, model="") for c in decision.candidates)
    assert replace(decision, models=(), candidates=bare, skipped=known.skipped) == decide(known)
