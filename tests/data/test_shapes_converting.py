from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rung.data.rows import Table
from rung.data.shapes import WRITABLE, convert, recognise, write_rows
from rung.data.shapes.reading import Answers, RowReader
from rung.errors import DataError
from rung.types import Example, Message

FULL = Example(
    "i-1", "Where is it?", "at home", ("at home", "home"), "g", "It is at home.", ("d1", "d2"), "e.jsonl, line 1",
    "Answer briefly.", (Message("user", "Hi"), Message("assistant", "Hello")),
)  # fmt: skip
BARE = Example("line-2", "Who?", "me", ("me",), row="e.jsonl, line 2")
ODD = Example(
    "i-3", "a: b\n\nc", '{"x": [1]}', ('{"x": [1]}',), turns=(Message("assistant", "Hi"),), row="e.jsonl, line 3"
)


def read_back(path: Path) -> list[Example]:
    table = load(path)
    reading = recognise(table, {})
    read = RowReader(reading.fields, Answers(lists_are_json=True))
    return [read(row) for row in table.rows]


def load(path: Path) -> Table:
    from rung.data.formats import read_table

    return read_table(path)


@pytest.mark.parametrize("shape", WRITABLE)
@pytest.mark.parametrize(
    "examples", [[FULL, BARE, ODD], [FULL] * 3, [BARE] * 3, [replace(FULL, turns=())] * 2], ids=str
)
def test_what_is_written_reads_back_as_the_same_examples(tmp_path: Path, shape: str, examples: list[Example]) -> None:
    path = tmp_path / "e.jsonl"
    write_rows(examples, shape, path)
    found = [replace(e, id=w.id, row=w.row) if w.id.startswith("line") else replace(e, row=w.row)
             for e, w in zip(read_back(path), examples, strict=True)]  # fmt: skip
    assert found == examples


@pytest.mark.parametrize("first", WRITABLE)
@pytest.mark.parametrize("second", WRITABLE)
def test_nothing_is_lost_between_any_two_shapes(tmp_path: Path, first: str, second: str) -> None:
    examples = [FULL, BARE, ODD]
    write_rows(examples, first, tmp_path / "e.jsonl", [{"source": "web"}, {}, {}])
    done = convert(tmp_path / "e.jsonl", second, tmp_path / "two.jsonl")
    assert done.reading.shape == ("alpaca" if first == "columns" else first)  # columns with an instruction are Alpaca's
    assert done.kept == ("source",)
    parts = [(e.id, e.input, e.output, e.references, e.group, e.context, e.gold_ids, e.instruction, e.turns)
             for e in read_back(tmp_path / "two.jsonl")]  # fmt: skip
    assert parts == [
        (e.id, e.input, e.output, e.references, e.group, e.context, e.gold_ids, e.instruction, e.turns)
        for e in examples
    ]


def test_prompts_are_texts_where_texts_can_hold_them(tmp_path: Path) -> None:
    write_rows([BARE], "prompt_completion", tmp_path / "e.jsonl")
    assert json.loads((tmp_path / "e.jsonl").read_text()) == {"prompt": "Who?", "completion": "me"}


def test_columns_whose_name_the_shape_uses_are_told(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": "q", "label": "a", "messages": "none"}\n')
    done = convert(tmp_path / "e.jsonl", "messages", tmp_path / "o.jsonl", {"input": "text", "output": "label"})
    assert (done.kept, done.left_out) == ((), ("messages",))


def test_the_rejected_answer_is_kept_beside(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    convert(tmp_path / "e.jsonl", "columns", tmp_path / "o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text()) == {"input": "q", "output": "a", "rejected": "b"}


def test_a_row_that_cannot_be_read_stops_the_conversion_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"input": "q", "output": "a"}\n{"input": "", "output": "a"}\n')
    with pytest.raises(DataError, match='line 2: "input" is empty'):
        convert(tmp_path / "e.jsonl", "alpaca", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()


def test_sequences_and_turns_that_are_cut_are_kept_and_told(tmp_path: Path) -> None:
    rows = [{"text": f"to be {i}", "ner_tags": [0, i, 0]} for i in range(4)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(tmp_path / "e.jsonl", "messages", tmp_path / "two.jsonl")
    assert [e.output for e in read_back(tmp_path / "two.jsonl")] == [f"[0, {i}, 0]" for i in range(4)]
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (tmp_path / "e.jsonl").write_text(json.dumps({"messages": [*said, {"role": "user", "content": "Bye"}]}) + "\n")
    assert convert(tmp_path / "e.jsonl", "columns", tmp_path / "two.jsonl").cut == 1


def test_an_empty_column_is_not_told_as_left_out(tmp_path: Path) -> None:
    row = {"instruction": "Name a bird", "input": "", "output": "Owl"}
    (tmp_path / "e.jsonl").write_text(json.dumps(row) + "\n")
    assert convert(tmp_path / "e.jsonl", "columns", tmp_path / "two.jsonl").left_out == ()


def test_two_ways_to_read_a_file_are_told_with_options(tmp_path: Path) -> None:
    rows = [{"en": f"The house {i} is red", "fr": f"La maison {i} est rouge"} for i in range(3)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="--shape columns --field input=en --field output=fr"):
        convert(tmp_path / "e.jsonl", "messages", tmp_path / "two.jsonl")


def test_a_row_without_an_answer_is_written_only_where_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": "q", "label": "a"}\n' + '{"text": "r", "label": ""}\n' * 2)
    with pytest.raises(DataError, match=r'line 2: "label" is empty; fill it in or .* write --empty\n.*row$'):
        convert(tmp_path / "e.jsonl", "messages", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()
    assert convert(tmp_path / "e.jsonl", "messages", tmp_path / "o.jsonl", empty=True).rows == 3


def test_several_labels_are_written_as_a_list_in_json(tmp_path: Path) -> None:
    cells = ["urgent, refund", "refund", "late, urgent", "late"] * 4
    rows = [{"text": f"q {i}", "tags": cell} for i, cell in enumerate(cells)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    convert(tmp_path / "e.jsonl", "columns", tmp_path / "o.jsonl")
    first = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert first["output"] == '["refund", "urgent"]'


def test_one_number_is_written_alike_with_and_without_a_point(tmp_path: Path) -> None:
    rows = [{"input": f"q {i}", "output": 1 if i % 2 else 1.0} for i in range(6)]
    (tmp_path / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    convert(tmp_path / "points.jsonl", "columns", tmp_path / "out.jsonl")
    written = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert {row["output"] for row in written} == {"1"}
