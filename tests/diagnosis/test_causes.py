"""What all experiments of a run say together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.diagnosis.causes import Scores, Tried, all_causes, nearness
from rung.evaluation.metrics import load_metric
from rung.types import Diagnosis, Example

IDS = [f"e{i}" for i in range(100)]
FAILED = IDS[80:]
"""The sampled examples that the base fails at."""


def scores(right: int, first: int = 0) -> dict[str, float]:
    return {name: float(first <= i < first + right) for i, name in enumerate(IDS)}


def base(right: int) -> Tried:
    return Tried("zero_shot", "prompt", scores(right))


def tuned(right: int, first: int = 0) -> Tried:
    return Tried("t", "fine-tune", scores(right, first))


def record(**more: Any) -> dict[str, Any]:
    plain = {
        "base": "zero_shot",
        "poor": False,
        "failed": 20,
        "dev": {"right_from": 1.0},
        "examples": [{"id": name, "failed": True, "outcomes": {}, "gold_passages": []} for name in FAILED],
        "causes": [],
        "combinations": [],
        "interventions": {},
        "derivable": {"share": 1.0, "low": 0.8, "high": 1.0},
    }
    return plain | more


def cause(name: str, share: float, low: float, first: int = 0) -> dict[str, Any]:
    """A cause that rescues its share of the sampled failed examples, from the first on."""
    ids = FAILED[first : first + round(share * len(FAILED))]
    interval = {"low": low, "high": min(1.0, share + 0.2)}
    return {"cause": name, "share": share, **interval, "evidence": "x", "net_of_placebo": True, "ids": ids}


def causes(given: dict[str, Any], *built: Tried, pilot: tuple[int, Scores] | None = None) -> tuple[Diagnosis, ...]:
    return all_causes(given, built, pilot, seed=0)


def total(found: Sequence[Diagnosis]) -> float:
    return sum(d.share for d in found)


NOT_AT_HAND = {"share": 0.0, "low": 0.0, "high": 0.2}


# ---- one experiment -------------------------------------------------------------------------


def test_what_fine_tuning_fixes_is_a_convention() -> None:
    found = causes(record(), base(20), tuned(84))
    assert found[0].cause == "convention" and found[0].fixed and found[0].share == pytest.approx(0.8)
    assert found[0].low > 0.5
    assert [d.cause for d in found] == ["convention", "reasoning"] and found[1].share == pytest.approx(0.2)


def test_a_coin_thrown_again_fixes_nothing() -> None:
    """Another solution that is right as often, on other examples, is no cause."""
    found = causes(record(), base(50), tuned(50, 50))
    assert [d.cause for d in found] == ["reasoning"] and not found[0].fixed and found[0].share == pytest.approx(1.0)


def test_what_nothing_fixes_is_missing_knowledge_where_the_answer_is_not_in_the_input() -> None:
    found = causes(record(derivable=NOT_AT_HAND), base(4), tuned(6))
    assert found[0].cause == "knowledge" and not found[0].fixed and found[0].share > 0.9


def test_that_an_answer_follows_from_its_input_is_said_as_what_it_is_a_guess() -> None:
    [rest] = causes(record(), base(0))
    assert rest.cause == "reasoning" and "which was not tested" in rest.evidence
    assert "can be worked out" not in rest.evidence


def test_passages_that_were_read_in_vain_are_no_missing_knowledge() -> None:
    tried = {"knowledge": {"failed": 20}}
    found = causes(record(derivable=NOT_AT_HAND, interventions=tried), base(4))
    assert found[0].cause == "reasoning" and "passages" in found[0].evidence


def test_where_passages_fix_a_part_the_rest_needs_both_passages_and_a_model_that_can_use_them() -> None:
    tried = {"knowledge": {"failed": 20}}
    given = record(derivable=NOT_AT_HAND, interventions=tried)
    found = causes(given, base(4), Tried("r", "rag", scores(14)))
    assert [d.cause for d in found] == ["knowledge+reasoning", "knowledge"]
    assert [d.fixed for d in found] == [False, True]


def test_of_a_family_the_best_on_dev_is_used_whatever_its_name() -> None:
    found = causes(record(), base(20), tuned(30), Tried("another", "fine-tune", scores(84)), tuned(40))
    assert found[0].cause == "convention" and found[0].share == pytest.approx(0.8)


def test_what_uses_no_model_is_no_experiment() -> None:
    found = causes(record(), base(20), Tried("always the same", "baseline", scores(84)))
    assert [d.cause for d in found] == ["reasoning"]


def test_a_small_proven_cause_stands_behind_what_nothing_fixes() -> None:
    found = causes(record(causes=[cause("format", 0.1, 0.02)]), base(0))
    assert [d.cause for d in found] == ["reasoning", "format"]
    found = causes(record(causes=[cause("format", 0.4, 0.2)]), base(0))
    assert [d.cause for d in found] == ["format", "reasoning"]


def test_a_poor_base_says_nothing_by_interventions() -> None:
    given = record(poor=True, causes=[cause("format", 0.9, 0.8)])
    assert causes(given, base(0))[0].cause == "reasoning"


def test_an_observed_sign_is_no_cause_of_the_verdict_but_contradicting_rows_are() -> None:
    signs = [cause("knowledge", 0.9, 0.8), cause("label noise", 0.2, 0.1)]
    given = record(causes=[{**sign, "net_of_placebo": False} for sign in signs])
    assert [d.cause for d in causes(given, base(0)) if d.fixed] == ["label noise"]


# ---- the search, and the factors ------------------------------------------------------------


def test_what_gold_passages_fix_and_the_search_did_not_bring_belongs_to_the_search() -> None:
    rows = [
        {"id": name, "failed": True, "outcomes": {"knowledge": i < 12}, "gold_passages": [f"p{i}"]}
        for i, name in enumerate(FAILED)
    ]
    given = record(
        derivable=NOT_AT_HAND,
        interventions={"knowledge": {"failed": 20}},
        causes=[cause("knowledge", 0.6, 0.3)],
        examples=rows,
    )
    brought = set(FAILED[:6])
    found = {d.cause: d for d in causes(given, base(0), Tried("r", "rag", scores(0), brought))}
    # Gold passages fix 12 of 20. The search brought those of 6 and did not find those of the other 6.
    assert found["retrieval"].share == pytest.approx(0.3) and found["retrieval"].low > 0
    assert found["knowledge"].share == pytest.approx(0.3) and found["knowledge"].low == pytest.approx(0.15)
    rest = next(d for d in found.values() if not d.fixed)
    assert rest.cause.endswith("+reasoning") and rest.share == pytest.approx(0.4)


def test_gold_passages_that_break_more_than_they_fix_are_no_cause_beside_a_search() -> None:
    rows = [{"id": n, "failed": True, "outcomes": {"knowledge": False}, "gold_passages": ["p"]} for n in FAILED]
    for share in (-0.3, 0.0):
        worse = {**cause("knowledge", 0.0, -0.5), "share": share}
        found = causes(record(causes=[worse], examples=rows), base(0), Tried("r", "rag", scores(0), set()))
        assert [d.cause for d in found] == ["reasoning"]


def test_gold_passages_that_break_right_answers_prove_nothing_of_the_search_or_of_passages_read_in_vain() -> None:
    rows = [
        {"id": name, "failed": True, "outcomes": {"knowledge": i < 12}, "gold_passages": [f"p{i}"]}
        for i, name in enumerate(FAILED)
    ]
    for harmful in (False, True):
        tried = {"knowledge": {"failed": 20, "harmful": harmful}}
        given = record(derivable=NOT_AT_HAND, interventions=tried, examples=rows)
        found = causes(given, base(0), Tried("r", "rag", scores(0), set()))
        assert ("retrieval" in {d.cause for d in found}) != harmful
        [rest] = [d for d in found if not d.fixed]
        assert rest.cause == ("knowledge" if harmful else "retrieval+reasoning")
    tried = {"retrieval": {"failed": 20, "harmful": True}}
    [rest] = causes(record(derivable=NOT_AT_HAND, interventions=tried), base(0))
    assert rest.cause == "knowledge"


def test_passages_and_training_have_effects_that_add_up_to_what_both_fix() -> None:
    """Neither fixes 5 to 47 alone but passages; 47 to 94 are fixed by both together only."""
    pilot = (70, {name: value for name, value in scores(10).items() if int(name[1:]) % 2 == 0})
    built = (base(5), Tried("r", "rag", scores(47)), Tried("b", "rag+fine-tune", scores(94)))
    found = {d.cause: d for d in causes(record(derivable=NOT_AT_HAND), *built, pilot=pilot) if d.fixed}
    # On the even examples, right are: 3 by the prompt, 5 by the pilot, 24 with passages, 47 with both.
    assert found["knowledge"].share == pytest.approx(((24 - 3) + (47 - 5)) / 2 / 47)
    assert found["convention"].share == pytest.approx(((5 - 3) + (47 - 24)) / 2 / 47)
    assert total(list(found.values())) == pytest.approx((47 - 3) / 47)


def test_passages_and_training_that_were_only_tried_together_are_one_cause() -> None:
    found = causes(record(derivable=NOT_AT_HAND), base(5), Tried("b", "rag+fine-tune", scores(94)))
    assert found[0].cause == "knowledge+convention" and found[0].fixed
    assert found[0].share == pytest.approx(89 / 95) and total(found) == pytest.approx(1.0)


# ---- every failed example once --------------------------------------------------------------


def test_causes_that_fix_the_same_examples_do_not_add_up_beyond_all_of_them() -> None:
    """Seen in a run: 69 % by one change and 46 % by another, most of them the same answers."""
    given = record(causes=[cause("format", 0.7, 0.5), cause("convention", 0.45, 0.2)])
    found = {d.cause: d for d in causes(given, base(0))}
    assert found["format"].share == pytest.approx(0.7)
    assert "convention" not in found, "each of its answers is fixed by the leading cause"
    assert found["reasoning"].share == pytest.approx(0.3)


def test_a_later_cause_keeps_what_the_leading_one_did_not_fix_and_its_interval_shrinks_alike() -> None:
    given = record(causes=[cause("format", 0.6, 0.4), cause("convention", 0.4, 0.2, first=8)])
    found = {d.cause: d for d in causes(given, base(0))}
    # 4 of its 8 answers are fixed by the leading cause.
    assert found["convention"].share == pytest.approx(0.2)
    assert (found["convention"].low, found["convention"].high) == pytest.approx((0.1, 0.3))


def test_a_change_and_a_built_solution_share_what_both_fix() -> None:
    given = record(causes=[cause("format", 0.5, 0.3)])
    solution = tuned(10, first=80)  # fixes the first 10 of the sampled failed examples, as the change does
    found = {d.cause: d for d in causes(given, base(0), solution)}
    assert found["format"].share == pytest.approx(0.5) and "convention" not in found
    apart = {d.cause: d for d in causes(given, base(0), tuned(10, first=90))}
    assert apart["convention"].share == pytest.approx(0.1)


def test_what_two_causes_fix_together_is_not_also_what_nothing_fixed() -> None:
    pair = {**cause("", 0.6, 0.4), "causes": ["knowledge", "format"]}
    found = {d.cause: d for d in causes(record(combinations=[pair]), base(0))}
    assert found["knowledge+format"].fixed and found["knowledge+format"].share == pytest.approx(0.6)
    assert not found["reasoning"].fixed and found["reasoning"].share == pytest.approx(0.4)


def test_a_fixed_part_and_the_rest_of_one_cause_keep_what_each_says() -> None:
    """Thinking fixes 30 %, and 70 % that could be worked out are fixed by nothing: not "100 %, fixed by thinking"."""
    found = causes(record(causes=[cause("reasoning", 0.3, 0.1)]), base(0))
    assert [(d.cause, d.fixed, round(d.share, 6)) for d in found] == [
        ("reasoning", True, 0.3),
        ("reasoning", False, 0.7),
    ]


def test_where_no_answer_was_wrong_nothing_is_named_by_elimination() -> None:
    """Graded scores between a half and 1: something is missing everywhere, and no answer counts as wrong."""
    none = {"share": 0.0, "low": 0.0, "high": 0.0}
    given = record(failed=0, examples=[], derivable=none, dev={"right_from": 0.5})
    half = Tried("zero_shot", "prompt", {name: 0.6 for name in IDS})
    assert causes(given, half) == ()
    better = Tried("t", "fine-tune", {name: 0.9 for name in IDS})
    assert [d.cause for d in causes(given, half, better)] == ["convention"]


def test_without_elimination_nothing_is_named_that_no_experiment_fixed() -> None:
    given = record(causes=[cause("format", 0.4, 0.2)])
    found = all_causes(given, [base(0)], None, seed=0, by_elimination=False)
    assert [d.cause for d in found] == ["format"]
    assert all_causes(record(), [base(0)], None, seed=0, by_elimination=False) == ()


def test_shares_never_add_up_to_more_than_all_and_lie_in_their_intervals() -> None:
    names = ("format", "convention", "knowledge", "reasoning", "inconsistency", "label noise", "politeness")
    for seed in range(40):
        drawn = random.Random(seed)
        rows = []
        for name in drawn.sample(names, drawn.randint(0, len(names))):
            share = drawn.randint(1, 20) / 20
            one = cause(name, share, share - drawn.random() * 0.6)
            rows.append({**one, "ids": drawn.sample(FAILED, round(20 * share))})
        pair = {**cause("", 0.5, 0.2), "causes": ["knowledge", "format"], "ids": drawn.sample(FAILED, 10)}
        given = record(
            causes=rows,
            combinations=[pair] if drawn.random() < 0.5 else [],
            interventions={"knowledge": {"failed": drawn.choice([0, 20])}},
            derivable={"share": 0.4, "low": 0.2, "high": 0.6},
        )
        families = drawn.sample(["fine-tune", "rag", "rag+fine-tune"], drawn.randint(0, 3))
        built: list[Any] = [Tried(f, f, {i: float(drawn.random() < 0.6) for i in IDS}) for f in families]  # type: ignore[arg-type]
        pilot = (9, {i: float(drawn.random() < 0.3) for i in IDS[:70]}) if drawn.random() < 0.5 else None
        found = causes(given, base(20), *built, pilot=pilot)
        assert total(found) <= 1 + 1e-9, seed
        assert all(0 <= d.low <= d.share + 1e-9 and d.share <= d.high + 1e-9 and d.share > 0 for d in found), seed


def test_long_answers_that_count_only_as_a_whole_are_compared_by_their_words() -> None:
    train = [Example("a", "x", "name[The Mill], food[English]", ()), Example("b", "y", "area", ())]
    exact = load_metric("exact_match", Path())
    assert nearness(exact, train) is None, "2.5 words on average"
    near = nearness(exact, train[:1])
    assert near is not None and near("name[The Mill], food[Indian]", train[0].references or (train[0].output,)) > 0.5
    assert nearness(load_metric("token_f1", Path()), train[:1]) is None
