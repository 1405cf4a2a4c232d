from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from evidence_cases import CLEAR, LORA, ZERO, evidence

from rung.decision import decide, decision_from_record, decision_record
from rung.errors import RunError
from rung.types import BreakEven, Candidate, Comparison, Decision, Diagnosis, LeftEarly, Score, Skipped


def whole() -> Decision:
    return decide(
        evidence(
            [ZERO, LORA, replace(LORA, name="x", test=None)],
            CLEAR,
            diagnosis=(Diagnosis("format", 0.2, 0.1, 0.3),),
            skipped=(Skipped("rag", "rag", "budget", "the budget was spent", 7.0, True),),
            left_early=(LeftEarly("y", "zero_shot was ahead"),),
            break_even=(BreakEven("lora", "zero_shot", 0.1, 10, 5, None),),
        )
    )


def test_a_record_has_every_field_and_comes_back_equal() -> None:
    decision = whole()
    record = json.loads(json.dumps(decision_record(decision)))
    assert list(record) == [f.name for f in fields(Decision)]
    assert record["format"] == 4 and record["models"] == []
    assert set(record["candidates"][0]) == {f.name for f in fields(Candidate)}
    assert set(record["comparisons"][0]) == {f.name for f in fields(Comparison)}
    assert record["skipped"][0] == {
        "name": "rag",
        "family": "rag",
        "reason": "budget",
        "why": "the budget was spent",
        "minutes": 7.0,
        "matters": True,
        "begun": False,
        "model": "",
    }
    assert record["n_test"] == 200 and record["floor"] == 0.12 and record["margin"] == 0.02
    assert record == decision_record(decision)
    assert decision_from_record(record) == decision


@pytest.mark.parametrize(
    "change", [{"choice": "magic"}, {"candidates": [{"name": "x"}]}, {"comparisons": [1]}, {"more": 1}, {"next": None}]
)
def test_a_damaged_record_is_an_error_that_says_so(change: dict[str, Any]) -> None:
    record = decision_record(whole())
    with pytest.raises(RunError, match=r"decision.json: .*Run the task again"):
        decision_from_record(record | change)
    del record["headline"]
    with pytest.raises(RunError, match="headline is missing"):
        decision_from_record(record)


@pytest.mark.parametrize(("format", "named"), [(None, "format 1"), (5, "format 5")])
def test_a_record_of_another_format_is_named_as_that(format: int | None, named: str) -> None:
    record = {k: v for k, v in decision_record(whole()).items() if k != "format"}
    record |= {"format": format} if format else {}
    with pytest.raises(RunError, match=f"{named}, and this rung reads formats 2 to 4"):
        decision_from_record(record)


def test_a_record_of_before_there_were_samples_of_the_test_is_read() -> None:
    decision = whole()
    older = json.loads(json.dumps(decision_record(decision))) | {"format": 3}
    for one in older["candidates"]:
        for key in ("repeats", "pass_1", "pass_k"):
            del one[key]
    for one in older["left_early"]:
        del one["unproven"]
    assert decision_from_record(older) == decision


def test_samples_of_the_test_come_back_equal() -> None:
    sampled = replace(LORA, repeats=4, pass_1=Score(0.84, 0.78, 0.89, 200), pass_k=Score(0.71, 0.62, 0.79, 200))
    decision = decide(evidence([ZERO, sampled], CLEAR))
    assert decision_from_record(json.loads(json.dumps(decision_record(decision)))) == decision


def test_a_record_that_names_no_model_is_read_as_that_of_a_run_of_one() -> None:
    decision = whole()
    older = decision_record(decision) | {"format": 2}
    del older["models"]
    for one in (*older["candidates"], *older["skipped"]):
        del one["model"]
    assert decision_from_record(older) == decision


def test_the_models_of_a_run_of_several_come_back_cheapest_first() -> None:
    known = evidence([replace(ZERO, model="small"), replace(LORA, model="large")], CLEAR, models=("small", "large"))
    record = json.loads(json.dumps(decision_record(decide(known))))
    assert record["models"] == ["small", "large"]
    assert [c["model"] for c in record["candidates"]] == ["", "small", "large"]
    assert decision_from_record(record) == decide(known)
