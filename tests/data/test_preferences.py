"""Pairs of answers: read in the usual shapes, refused where they say nothing, and kept away from dev and the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rung.data.beside.preferences import LEAST_PAIRS, read_preferences
from rung.data.examples import read_examples
from rung.data.fence import fence_of
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.types import Message, Preference, SealedTest, Split

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "heron",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "maple",
    "north",
    "ocean",
    "pearl",
]
EXAMPLES = [
    {"input": f"what is a {word}, by way of {WORDS[i - 5]} and {WORDS[i - 7]}", "output": f"{i % 3}"}
    for i, word in enumerate(WORDS)
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def pairs(count: int = LEAST_PAIRS, asked: str = "prompt") -> list[dict[str, Any]]:
    return [{asked: f"Say {word} politely", "chosen": f"Dear {word}", "rejected": word} for word in WORDS[:count]]


def read(
    folder: Path, text: str, name: str = "p.jsonl", more: str = "", examples: Any = EXAMPLES
) -> tuple[tuple[Preference, ...], list[str]]:
    """The pairs of a task whose first half of examples is train, and the rest dev and test; and what was said."""
    (folder / "e.jsonl").write_text(jsonl(examples), "utf-8")
    (folder / name).write_text(text, "utf-8")
    yaml = f"instruction: Answer.\nexamples: e.jsonl\npreferences: {name}\n{more}"
    (folder / "task.yaml").write_text(yaml, "utf-8")
    task = read_task(folder / "task.yaml")
    found = read_examples(task)
    half = len(found) // 2
    dev = [e for i, e in enumerate(found) if i >= half and i % 2]
    split = Split(tuple(found[:half]), tuple(dev), SealedTest([e for e in found[half:] if e not in dev]), {})
    said: list[str] = []
    return read_preferences(task, fence_of(found, split), said.append), said


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("asked", ["input", "prompt", "question"])
def test_what_is_asked_stands_in_a_column_of_a_usual_name(tmp_path: Path, asked: str) -> None:
    found, said = read(tmp_path, jsonl(pairs(asked=asked)))
    assert [(p.query.input, p.chosen, p.rejected) for p in found][:1] == [("Say amber politely", "Dear amber", "amber")]
    assert found[0].row == "p.jsonl, line 1" and len({p.query.id for p in found}) == len(found)
    assert said == ["preferences: 8 pairs of answers."]


def test_a_table_holds_pairs_and_the_columns_may_be_those_of_the_task(tmp_path: Path) -> None:
    lines = ["review,chosen,rejected", *(f"Say {word},Dear {word},{word}" for word in WORDS)]
    examples = [{"review": e["input"], "output": e["output"]} for e in EXAMPLES]
    for more in ("fields: {input: review}\n", ""):
        found, _ = read(tmp_path, "\n".join(lines), "p.csv", more, examples)
        assert len(found) == 16 and found[3].query.input == "Say delta" and found[3].rejected == "delta"


def test_the_usual_shapes_give_the_same_pairs(tmp_path: Path) -> None:
    asked = [(f"Say {word}", f"Dear {word}", word) for word in WORDS]
    shapes: dict[str, list[dict[str, Any]]] = {
        "ultrafeedback": [
            {
                "prompt": q,
                "prompt_id": "a",
                "chosen": [user(q), assistant(c)],
                "rejected": [user(q), assistant(r)],
                "messages": [user(q), assistant(c)],
                "score_chosen": 8.0,
                "score_rejected": 5.0,
            }
            for q, c, r in asked
        ],
        "trl, implicit": [
            {"chosen": [user(q), assistant(c)], "rejected": [user(q), assistant(r)]} for q, c, r in asked
        ],
        "trl, explicit": [
            {"prompt": [user(q)], "chosen": [assistant(c)], "rejected": [assistant(r)]} for q, c, r in asked
        ],
        "hh": [
            {"chosen": f"\n\nHuman: {q}\n\nAssistant: {c}", "rejected": f"\n\nHuman: {q}\n\nAssistant: {r}"}
            for q, c, r in asked
        ],
        "openai": [
            {
                "input": {"messages": [user(q)], "tools": []},
                "preferred_output": [assistant(c)],
                "non_preferred_output": [assistant(r)],
            }
            for q, c, r in asked
        ],
    }
    for name, rows in shapes.items():
        found, _ = read(tmp_path, jsonl(rows))
        assert [(p.query.input, p.chosen, p.rejected) for p in found] == asked, name
        assert not any(p.query.turns or p.query.instruction for p in found), name


def test_the_shared_turns_are_what_is_asked_and_an_input_belongs_to_its_instruction(tmp_path: Path) -> None:
    talk = [user("hello"), assistant("hi"), user("Say it")]
    rows = [
        {"chosen": [*talk, assistant(f"Dear {word}")], "rejected": [*talk, assistant(word)], "id": word}
        for word in WORDS
    ]
    found, _ = read(tmp_path, jsonl(rows))
    assert found[0].query.turns == (Message("user", "hello"), Message("assistant", "hi"))
    assert found[0].query.input == "Say it" and len(found) == 16
    alpaca = [{"instruction": "Greet.", "input": w, "chosen": f"Dear {w}", "rejected": w} for w in WORDS]
    alpaca[0]["input"] = ""
    found, _ = read(tmp_path, jsonl(alpaca))
    assert (found[1].query.instruction, found[1].query.input) == ("Greet.", "birch")
    assert (found[0].query.instruction, found[0].query.input) == (None, "Greet.")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"rejected": "Dear cedar "}, "are equal; correct one of them or remove the row"),
        ({"rejected": " "}, '"rejected" is empty; fill it in or remove the row'),
        ({"chosen": None}, '"chosen" is null; give a value or remove the row'),
        ({"prompt": ""}, '"prompt" is empty; fill it in or remove the row'),
    ],
)
def test_a_row_that_says_nothing_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], fact: str) -> None:
    rows = pairs(12)
    rows[2] |= change
    with pytest.raises(DataError) as refused:
        read(tmp_path, jsonl(rows))
    assert str(refused.value).startswith("p.jsonl, line 3: ") and fact in str(refused.value)


def test_answers_to_different_turns_are_no_pair(tmp_path: Path) -> None:
    rows = [{"chosen": [user(w), assistant("yes")], "rejected": [user(w), assistant("no")]} for w in WORDS]
    rows[4]["rejected"][0] = user("something else")
    with pytest.raises(DataError, match="line 5: the chosen and the rejected answer follow different turns; make all"):
        read(tmp_path, jsonl(rows))


def test_columns_that_are_not_there_are_named_with_what_to_do(tmp_path: Path) -> None:
    one_answer = [{"prompt": w, "chosen": "x"} for w in WORDS]
    with pytest.raises(DataError, match=r'no column "rejected"; columns are prompt, chosen\. Call the column'):
        read(tmp_path, jsonl(one_answer))
    unasked = [{"what": w, "chosen": "x", "rejected": "y"} for w in WORDS]
    with pytest.raises(DataError, match=r"not clear which column is the input; columns are what, chosen, rejected\. "):
        read(tmp_path, jsonl(unasked))


def test_what_nearly_repeats_dev_or_the_test_is_left_out_and_counted_and_never_shown(tmp_path: Path) -> None:
    near = [{"prompt": e["input"] + "!", "chosen": "a", "rejected": "b"} for e in EXAMPLES]
    found, said = read(tmp_path, jsonl([*near, *pairs(9), *pairs(1)]))
    assert [p.query.input for p in found[:8]] == [row["prompt"] for row in near[:8]], "train may be repeated"
    assert len(found) == 17
    assert said == [
        "preferences: 17 pairs of answers; left out: 1 that stand there twice and 8 whose input nearly repeats a row "
        "of dev or the test."
    ]
    with pytest.raises(DataError) as refused:
        read(tmp_path, jsonl([*near[8:], *pairs(2)]))
    assert "2 of 10 pairs can be used; at least 8 are needed" in str(refused.value)
    assert not any(word in str(refused.value) for word in WORDS)


def test_one_input_may_have_several_pairs(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "Greet me", "chosen": f"Dear {w}", "rejected": w} for w in WORDS]
    found, _ = read(tmp_path, jsonl(rows))
    assert len(found) == 16 and len({p.query.id for p in found}) == 16


def test_of_many_pairs_a_fixed_sample_is_used_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.data.beside.preferences.MOST_PAIRS", 10)
    found, said = read(tmp_path, jsonl(pairs(14)))
    assert len(found) == 10 and found == read(tmp_path, jsonl(pairs(14)))[0]
    assert said == ["preferences: 10 pairs of answers; left out: 4 that a training would not see."]


@pytest.mark.parametrize("more", ["labels: [calm, glad, sad]\nmulti_label: true\n", "metric: python:m.py:f\n"])
def test_a_list_is_one_answer_where_it_is_one_in_the_examples(tmp_path: Path, more: str) -> None:
    (tmp_path / "m.py").write_text("def f(prediction, references):\n    return float(prediction in references)\n")
    examples = [{**row, "output": ["calm", "glad"] if i % 2 else ["sad"]} for i, row in enumerate(EXAMPLES)]
    rows = [{"prompt": f"Say {w} politely", "chosen": ["calm", "glad"], "rejected": ["sad", "calm"]} for w in WORDS]
    found, _ = read(tmp_path, jsonl(rows), more=more, examples=examples)
    assert {(p.chosen, p.rejected) for p in found} == {('["calm", "glad"]', '["sad", "calm"]')}
