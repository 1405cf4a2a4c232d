from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from scipy.stats import binomtest

from rung.errors import ModelError, ScoreMismatch
from rung.evaluation import skills
from rung.evaluation.skill_checks import CHECKS
from rung.evaluation.skills import KINDS, Skill, check, compare_skills, suite
from rung.evaluation.statistics import ALPHA, MARGIN


def specs(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield spec
    for inner in spec.get("checks", ()):
        yield from specs(inner)


# ---- the suite


def test_the_suite_is_large_and_no_prompt_stands_in_it_twice() -> None:
    assert len(suite()) >= 200
    assert len({s.id for s in suite()}) == len({s.prompt.casefold() for s in suite()}) == len(suite())
    counts = Counter(s.kind for s in suite())
    assert set(counts) == set(KINDS) and min(counts.values()) >= 30


@pytest.mark.parametrize("skill", suite(), ids=lambda s: s.id)
def test_every_row_can_be_passed_and_failed(skill: Skill) -> None:
    assert re.fullmatch(rf"{skill.kind}-[a-z]+(-[a-z]+)*", skill.id)
    assert skill.prompt == skill.prompt.strip() and len(skill.prompt) <= 200
    assert {spec["type"] for spec in specs(skill.check)} <= CHECKS.keys()
    assert check(skill, skill.accepts), f"{skill.accepts!r} is a good answer"
    assert check(skill, f"\n {skill.accepts}\n"), "space around an answer does not matter"
    assert not check(skill, skill.rejects), f"{skill.rejects!r} is a bad answer"
    assert not check(skill, "") and not check(skill, " \n")


@pytest.mark.parametrize("skill", suite(), ids=lambda s: s.id)
def test_there_is_room_for_a_good_answer_and_for_one_that_is_too_long(skill: Skill) -> None:
    pieces = re.findall(r"[^\W\d_]+|\d|[^\w\s]|\n", skill.accepts)
    assert len(pieces) + 1 < skill.room <= 48
    assert all(spec["most"] + 4 < skill.room for spec in specs(skill.check) if "most" in spec)


def test_every_check_is_used_by_some_row() -> None:
    assert {spec["type"] for skill in suite() for spec in specs(skill.check)} == CHECKS.keys()


@pytest.mark.parametrize(
    "answer",
    ["yes", "No.", "{}", "7", "I don't know.", "card_arrival", "The answer is in the text.", "[1, 2, 3]", "a b"],
)
def test_a_model_that_always_says_the_same_passes_little(answer: str) -> None:
    kinds = Counter(skill.kind for skill in suite() if check(skill, answer))
    assert kinds.total() - (kinds["declining"] if answer == "I don't know." else 0) <= 0.05 * len(suite())


# ---- the comparison


def outcomes(base: int, tuned: int, *, both: int) -> tuple[list[bool], list[bool]]:
    """Two lists with that many right each, `both` of them on the same prompts."""
    n = len(suite())
    first = [i < base for i in range(n)]
    second = [i < both or base <= i < base + tuned - both for i in range(n)]
    assert (sum(first), sum(second)) == (base, tuned)
    return first, second


def test_an_unchanged_model_loses_nothing() -> None:
    same = [i % 3 == 0 for i in range(len(suite()))]
    report = compare_skills(same, same)
    assert not report.loses
    assert (report.total.difference, report.total.p) == (0.0, 1.0)
    assert report.total.low < 0 < report.total.high
    assert [change.kind for change in report.kinds] == list(KINDS)


def test_a_real_loss_is_named_and_numbers_are_those_of_the_exact_test() -> None:
    report = compare_skills(*outcomes(120, 90, both=80))
    n = len(suite())
    assert report.loses
    assert (report.total.base, report.total.tuned, report.total.n) == (120 / n, 90 / n, n)
    assert report.total.difference == pytest.approx(-30 / n)
    assert report.total.low < -30 / n < report.total.high < 0
    assert report.total.p == pytest.approx(binomtest(10, 50).pvalue)


def test_a_gain_is_no_loss() -> None:
    report = compare_skills(*outcomes(60, 120, both=60))
    assert report.total.p < 0.001 and not report.loses


def test_a_fall_that_may_be_chance_is_no_loss() -> None:
    report = compare_skills(*outcomes(100, 90, both=60))
    assert report.total.difference < -MARGIN and report.total.p > ALPHA
    assert not report.loses


def test_a_sure_fall_within_the_margin_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seven = outcomes(100, 93, both=93)
    assert compare_skills(*seven).total.p == pytest.approx(2 / 2**7)
    assert compare_skills(*seven).loses
    monkeypatch.setattr(skills, "MARGIN", 0.03)
    assert not compare_skills(*seven).loses


def test_kinds_are_compared_on_their_own_prompts() -> None:
    base = [True] * len(suite())
    tuned = [s.kind != "arithmetic" for s in suite()]
    by_kind = {change.kind: change for change in compare_skills(base, tuned).kinds}
    assert {kind: c.difference for kind, c in by_kind.items()} == {k: -1.0 if k == "arithmetic" else 0.0 for k in KINDS}
    assert sum(c.n for c in by_kind.values()) == len(suite())


def test_outcomes_of_other_prompts_are_refused() -> None:
    whole = [True] * len(suite())
    with pytest.raises(ScoreMismatch, match="tuned has 3 outcomes"):
        compare_skills(whole, [True] * 3)
    with pytest.raises(ScoreMismatch, match="base has"):
        compare_skills([*whole, True], whole)


def test_a_report_can_be_written_as_json() -> None:
    report = compare_skills(*outcomes(120, 90, both=80))
    assert json.loads(json.dumps(asdict(report)))["total"]["kind"] == "all"


def test_every_prompt_is_asked_with_its_room_and_checked() -> None:
    from rung.evaluation.skills import answered
    from rung.testing import FakeModel

    good = {skill.prompt: skill.accepts for skill in suite()}
    model = FakeModel(good)
    assert answered(model, "some/adapter").count(True) >= 0.95 * len(suite())  # a word is a token here
    assert {r.adapter for r in model.requests} == {"some/adapter"}
    assert not any(answered(FakeModel(lambda r: ""), None))


def test_an_answer_that_failed_for_a_passing_reason_is_no_outcome() -> None:
    from rung.evaluation.skills import answered
    from rung.testing import FakeModel

    with pytest.raises(ModelError, match=r"4 of the \d+ prompts .*out of memory"):
        answered(FakeModel(lambda r: MemoryError("out of memory") if "sea" in r.messages[-1].content else ""), None)
    assert not any(answered(FakeModel(lambda r: "", context_length=1), None)), "a prompt that never fits is a failure"
