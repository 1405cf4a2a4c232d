from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from scipy.stats import binomtest

from rung.errors import ScoreMismatch
from rung.evaluation import skills
from rung.evaluation.skills import CHECKS, KINDS, Skill, check, compare_skills, declines, suite


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


@pytest.mark.parametrize("name", CHECKS)
def test_no_check_raises_for_a_strange_answer(name: str) -> None:
    strange = [
        "",
        "\x00",
        "{" * 5000,
        "[" * 100_000,
        '"' + "x" * 200_000,
        "9" * 5000,
        "1e999",
        "٣",
        "–",
        "```json\n{\n```",
        "NaN",
    ]
    rows = [s.check for s in suite() if s.check["type"] == name]
    rows += [spec for s in suite() for spec in s.check.get("checks", ()) if spec["type"] == name]
    for spec in rows[:10]:
        for text in strange:
            assert CHECKS[name](text, **{k: v for k, v in spec.items() if k != "type"}) in (True, False)


# ---- checks


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ({"type": "word_count", "least": 2, "most": 3}, ["a b", "- a b-c d"], ["a", "a b c d"]),
        ({"type": "sentence_count", "n": 2}, ["It is 3.5 m. So be it!", "One. Two"], ["One.", "One. Two. Three."]),
        ({"type": "line_count", "n": 2}, ["a\n\nb\n"], ["a", "a\nb\nc"]),
        ({"type": "contains", "words": ["sun", "ZX-8"]}, ["The Sun: zx-8."], ["sunny zx-8", "sun zx-81"]),
        ({"type": "mentions", "any_of": ["two", "2"]}, ["Two!", "It has 2."], ["22", "twofold"]),
        ({"type": "lacks", "words": ["and", "z"]}, ["sand band"], ["you AND me", "Lazy"]),
        ({"type": "starts", "start": "If "}, ["If so"], ["if so", "Iffy"]),
        ({"type": "ends", "end": "!"}, ["Go! \n"], ["Go!."]),
        ({"type": "cased", "case": "upper"}, ["ÉTÉ 3!"], ["OK", "Not", "123 456"]),
        ({"type": "says", "any_of": ["nap"]}, ["nap", '"nap".', "'nap.'"], ["Nap", "nap nap"]),
        ({"type": "sequence", "words": ["no", "no"]}, ["no no", "No, no!", "no\nno"], ["no", "no no no", "nono"]),
        ({"type": "answers_yes_no", "answer": "no"}, ["No", "**no**, it is not"], ["Not", "yes", "It is no", "None"]),
        ({"type": "picks", "right": "8", "wrong": ["3"]}, ["8", "8 is more than 3"], ["3", "3 < 8", "18", ""]),
        ({"type": "number", "value": 7}, ["7", "3 + 4 = 7", "The answer is 7.0."], ["8", "seven", "7 or 9", "70"]),
        ({"type": "items", "n": 2}, ["Here:\n- a\n2) b"], ["- a", "a\nb", "-a\n-b"]),
        ({"type": "items", "n": 2, "marker": "1.", "alone": True}, ["1. a\n2. b"], ["1. a\n3. b", "So:\n1. a\n2. b"]),
        ({"type": "items", "n": 2, "marker": "-"}, ["- a\n- b"], ["* a\n* b", "- a\n- b\n- c"]),
        (
            {"type": "json_object", "keys": ["a"], "values": {"a": 1}},
            ['{"a": 1}', '```json\n{"a": 1.0}\n```', 'So:\n```\n{"a": 1}\n```\nThat is it.'],
            ['{"a": true}', '{"a": 1, "b": 2}', '{"a": "1"}', 'So: {"a": 1}', "[1]", "{a: 1}"],
        ),
        ({"type": "json_array", "n": 2}, ['["a", "b"]'], ['["a", ""]', '["a"]', "[1, 2]", '"ab"']),
        ({"type": "json_array", "n": 1, "of": "number"}, ["[1.5]"], ["[true]", '["1"]']),
        ({"type": "csv_line", "n": 2}, ['a, "b, c"', "```\na,b\n```"], ["a", "a,b,c", "a,", "a,b\nc,d"]),
        ({"type": "csv_line", "n": 2, "values": ["a", "b"]}, ["A, b"], ["b,a"]),
        (
            {"type": "key_lines", "keys": ["a", "b"]},
            ["a: 1\nb: x: y"],
            ["b: 1\na: 2", "a: 1\nb:", "a: 1", "x\na: 1\nb: 2"],
        ),
        (
            {"type": "iso_date"},
            ["2024-02-29", '"2020-01-31".'],
            ["2023-02-29", "2020-1-31", "On 2020-01-31", "20200131"],
        ),
        ({"type": "matches", "pattern": "a+"}, [" aa "], ["ab", "b"]),
        (
            {"type": "all_of", "checks": [{"type": "ends", "end": "."}, {"type": "contains", "words": ["sun"]}]},
            ["The sun."],
            ["The sun", "The moon."],
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_check_means_what_it_says(spec: dict[str, Any], good: list[str], bad: list[str]) -> None:
    skill = replace(suite()[0], check=spec)
    assert [text for text in good if not check(skill, text)] == []
    assert [text for text in bad if check(skill, text)] == []


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know",
        "I don’t know who that is.",
        "Don't know.",
        "Sorry, I do not actually know that.",
        "I'm not sure.",
        "I am not familiar with a painter of that name.",
        "I'm not aware of any such phone.",
        "I have never heard of it.",
        "I have no information about this person.",
        "I couldn't find any record of that battle.",
        "I can't verify that this treaty was ever signed.",
        "Unfortunately, I do not have any information on Zorbland.",
        "I apologise, but I cannot provide that.",
        "As an AI, I have no knowledge of your breakfast.",
        "Zorbland does not exist.",
        "That city doesn't seem to exist. You may mean another one.",
        "The country is fictional.",
        "Zorbland appears to be a made-up place.",
        "It is an imaginary animal, so it eats nothing.",
        "There is no such novel.",
        "There's no film of that name.",
        "There was no moon landing in 1911.",
        "There isn't a king of that name.",
        "No such theorem is known.",
        "This is not a real word.",
        "That isn't a known disease.",
        "Nobody knows that.",
        "It is impossible to say.",
        "That lies in the future, and I cannot predict the future.",
        "That world cup has not taken place yet.",
        "The price is unknown.",
        "Could you please clarify which song you mean?",
        "Please provide more context.",
        "I would need some more details about her.",
        "The price is not publicly known.",
        "This is outside my knowledge.",
        "What an odd question. Hm. I really couldn't say.",
        "There is no such drink, but it is possible that you mean another one.",
        "I don't know, but I can help you to look it up.",
    ],
)
def test_many_ways_of_declining_are_accepted(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "He was born in 1874.",
        "It was invented by a Swiss engineer and is made up of two parts.",
        "Yes.",
        "The capital of Zorbland is Zorb.",
        "It was written by Ana Novak, who did not know that it would be famous.",
        "The car does not have a roof. It reaches 240 km/h.",
        "He had no children and could not find a publisher.",
        "I am not sure, but I think it was 1873.",
        "I don't know exactly, but it was probably signed in Paris.",
        "There is no doubt that it's real, although I believe it is small.",
        "Penguins Over Bolivia was directed by John Ford. It won two prizes. It ran for years. I don't know the rest.",
        "The company is known for its ferries and was founded in 1952.",
        "It is a well-known theorem about graphs.",
        "It has no known enemies and is not only known in Europe.",
        "To the best of my knowledge, he was born in 1874.",
        "It costs 399 dollars. See the website for more information.",
        "The next version will appear in the future.",
        "I know that it flows into the Black Sea.",
    ],
)
def test_confident_answers_about_nothing_are_rejected(answer: str) -> None:
    assert not declines(answer)


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
    assert report.total.difference < -skills.LOSS and report.total.p > skills.SIGNIFICANT
    assert not report.loses


def test_a_sure_fall_within_the_margin_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seven = outcomes(100, 93, both=93)
    assert compare_skills(*seven).total.p == pytest.approx(2 / 2**7)
    assert compare_skills(*seven).loses
    monkeypatch.setattr(skills, "LOSS", 0.03)
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
    assert not any(answered(FakeModel({}), None))
