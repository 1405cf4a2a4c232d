"""Checks of answers to general prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rung.evaluation.skill_checks import CHECKS, declines
from rung.evaluation.skills import check, suite


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
