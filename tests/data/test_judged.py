"""Answers that people scored: scales and words, examples that they belong to, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.data.judged import LEAST_JUDGED, Judged, read_judged
from rung.errors import DataError
from rung.types import Example, JudgeSpec, ModelSpec, Task

EXAMPLES = [Example(f"e{i}", f"Where is {i}?", f"in {i}", (f"in {i}", f"at {i}"), context="a map") for i in range(40)]


def read(folder: Path, rows: list[dict[str, Any]], *, pairwise: bool = False) -> tuple[Judged, ...]:
    path = folder / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    judge = JudgeSpec(ModelSpec("j", "fake:j"), "good", "pairwise" if pairwise else "graded")
    model = (ModelSpec("m", "fake:m"),)
    task = Task("demo", folder / "task.yaml", "Say where.", (folder / "examples.jsonl",), "judge", model, judge=judge)
    return read_judged(replace(task, judged=(path,)), EXAMPLES)


def rows(n: int = LEAST_JUDGED, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"e{i}", "answer": f"in {i}", "score": 1, **more} for i in range(n)]


def test_a_row_takes_input_context_and_references_from_its_example(tmp_path: Path) -> None:
    by_id = read(tmp_path, rows(model="gpt-5"))[3]
    assert by_id.answer.query == EXAMPLES[3].query and by_id.answer.references == ("in 3", "at 3")
    assert (by_id.score, by_id.model, by_id.row) == (1.0, "gpt-5", "scores.jsonl, line 4")
    own = [{"question": f"where is {i}?", "response": "there", "Human score": 0.5} for i in range(20)]
    by_input = read(tmp_path, own)[3]
    assert by_input.answer.query.id == "e3" and (by_input.answer.text, by_input.score) == ("there", 0.5)


def test_an_answer_to_another_input_may_be_scored_too(tmp_path: Path) -> None:
    own = [{"input": "Who?", "answer": "he", "score": 0, "reference": "she", "context": "a play"}, *rows()]
    found = read(tmp_path, own)[0]
    assert (found.answer.query.input, found.answer.query.context) == ("Who?", "a play")
    assert found.answer.references == ("she",)


def test_an_id_beside_another_input_is_the_rows_own(tmp_path: Path) -> None:
    own = [{"id": f"e{i}", "input": f"Where is {i + 1}?", "answer": "there", "score": 0} for i in range(20)]
    assert read(tmp_path, own)[3].answer.query.id == "e4"
    (tmp_path / "b").mkdir()
    other = [{"id": f"e{i}", "input": "Who?", "answer": "there", "score": 0} for i in range(20)]
    found = read(tmp_path / "b", other)[3].answer
    assert (found.query.input, found.references) == ("Who?", ())


def test_one_input_under_several_contexts_belongs_to_the_one_that_its_row_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [Example(f"c{i}", "Who won?", f"team {i}", (f"team {i}",), context=f"match {i}") for i in range(3)]
    monkeypatch.setattr("test_judged.EXAMPLES", [*EXAMPLES, *several])
    named = {"input": "Who won?", "answer": "team 2", "score": 1, "context": "match 2"}
    unknown = {"input": "Who won?", "answer": "team 2", "score": 1}
    found = read(tmp_path, [named, unknown, *rows()])
    assert found[0].answer.query.id == "c2" and found[1].answer.references == ()


@pytest.mark.parametrize(
    ("score", "expected"),
    [(1, 1.0), ("0.25", 0.25), ("right", 1.0), ("Wrong", 0.0), (True, 1.0), (False, 0.0), ("TRUE", 1.0)],
)
def test_scores_are_numbers_or_words(tmp_path: Path, score: object, expected: float) -> None:
    assert read(tmp_path, [{**row, "score": score} for row in rows()])[0].score == expected


@pytest.mark.parametrize(("scale", "expected"), [("1-5", 0.75), ("0 to 10", 0.4), ("-4–4", 1.0)])
def test_another_scale_is_declared_in_the_row(tmp_path: Path, scale: str, expected: float) -> None:
    assert read(tmp_path, [{**row, "score": 4} for row in rows(scale=scale)])[0].score == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"score": 4},
            'line 21: the column "score" holds 4, but scores go from 0 to 1. Where people scored on another',
        ),
        ({"score": "good enough"}, 'holds "good enough", which is no score'),
        ({"score": float("1e999")}, "line 21"),
        ({"scale": "five stars"}, 'the scale "five stars" cannot be read; write its ends, such as 1-5'),
        ({"id": "nobody"}, 'the id "nobody" is that of no example; give the input as well'),
        ({"answer": None}, 'the column "answer" is empty'),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, [*rows(), {**rows(21)[20], **row}])
    assert said in str(raised.value)


def test_too_few_rows_are_refused_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scores\.jsonl: only 19 scored answers; at least 20 are needed"):
        read(tmp_path, rows(19))


def test_columns_that_are_missing_are_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no column "input" or "id" and no column "score"; columns are answer, grade'):
        read(tmp_path, [{"answer": "x", "grade": 1}] * 20)


def test_a_pair_needs_a_reference(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no reference to compare with; add a column reference"):
        read(tmp_path, [*rows(), {"input": "Who?", "answer": "he", "score": 0}], pairwise=True)
