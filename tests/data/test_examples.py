from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from broken import TASK, rows, write

from rung.data.examples import read_examples, read_sets
from rung.data.shapes import labels as labels_module
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.types import Example


def read(folder: Path, data: str | bytes, name: str = "examples.jsonl", more: str = "") -> tuple[Example, ...]:
    return read_examples(read_task(write(folder, TASK.replace("examples.jsonl", name) + more, data, name)))


def jsonl(items: list[dict[str, object]]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def test_jsonl_csv_tsv_and_json_give_the_same_examples(tmp_path: Path) -> None:
    items = rows(14)
    items[3]["input"] = 'two\nlines, a "quote" and ünïcode 🙂'
    got = {"jsonl": read(tmp_path / "1", jsonl(items)), "json": read(tmp_path / "2", json.dumps(items), "e.json")}
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        path = write(tmp_path / suffix, TASK.replace("examples.jsonl", f"e.{suffix}"), "", f"e.{suffix}")
        with (tmp_path / suffix / f"e.{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["input", "output"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(items)
        got[suffix] = read_examples(read_task(path))
    answers = {kind: [(e.input, e.output) for e in examples] for kind, examples in got.items()}
    assert answers["jsonl"] == [(i["input"], i["output"]) for i in items]
    assert answers["csv"] == answers["tsv"] == answers["json"] == answers["jsonl"]
    assert got["jsonl"][4].row == "examples.jsonl, line 5"
    # The header is line 1, and row 4 takes two lines.
    assert [e.id for e in got["csv"][:6]] == ["line-2", "line-3", "line-4", "line-5", "line-7", "line-8"]


def test_optional_columns_are_read_and_the_output_is_always_a_reference(tmp_path: Path) -> None:
    items = rows(12)
    items[0] |= {"id": 7, "group": "g", "context": "c", "gold_ids": ["p1", 2], "references": ["other", "answer 0"]}
    items[1] |= {"references": ["b"], "gold_ids": "p1", "id": None}
    a, b, c = read(tmp_path, jsonl(items))[:3]
    assert (a.id, a.group, a.context, a.gold_ids) == ("7", "g", "c", ("p1", "2"))
    assert a.references == ("answer 0", "other")
    assert (b.id, b.gold_ids, b.references) == ("line-2", ("p1",), ("answer 1", "b"))
    assert (c.group, c.context, c.gold_ids, c.references) == (None, None, (), ("answer 2",))


def test_lists_in_csv_cells_are_json(tmp_path: Path) -> None:
    text = "input,output,references,gold_ids\n" + "".join(f'q{i},a,"[""b"", ""a""]",p{i}\n' for i in range(12))
    first = read(tmp_path, text, "e.csv")[0]
    assert first.references == ("a", "b")
    assert first.gold_ids == ("p0",)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (2.5, "2.5"), (True, "true"), ([[1], "é"], '[[1], "é"]'), ({"a": None}, '{"a": null}'), (" x ", " x ")],
)
def test_answers_that_are_no_text_are_written_as_json_writes_them(tmp_path: Path, value: object, text: str) -> None:
    items = rows(12)
    items[0]["output"] = value
    assert read(tmp_path, jsonl(items))[0].output == text


def test_columns_are_renamed_by_fields(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"q": f"q{i}", "a": "a", "output": "not this"} for i in range(12)]
    assert read(tmp_path, jsonl(items), more="fields: {input: q, output: a}\n")[3].output == "a"


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path: Path, name: str) -> None:
    text = "input,output\n" + "q,a\n" * 12 if name == "e.csv" else jsonl(rows(12))
    examples = read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), name)
    assert len(examples) == 12
    assert not any("\r" in e.output for e in examples)


def test_blank_lines_are_skipped_and_do_not_shift_the_ids(tmp_path: Path) -> None:
    examples = read(tmp_path, jsonl(rows(6)) + "\n \n" + jsonl(rows(6)))
    assert examples[6].id == "line-9"


def test_a_field_beyond_the_limit_of_the_csv_module_is_read_and_the_limit_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    examples = read(tmp_path, "input,output\n" + "q,a\n" * 12 + "q," + "x" * 500_000 + "\n", "e.csv")
    assert len(examples[-1].output) == 500_000
    assert csv.field_size_limit() == before


def test_a_user_made_split_keeps_its_sets_and_ids_stay_unique(tmp_path: Path) -> None:
    task = TASK.replace("examples.jsonl", "{train: examples.jsonl, test: b.jsonl}")
    sets = read_sets(read_task(write(tmp_path, task, jsonl(rows(10)), b__jsonl=jsonl(rows(4)))))
    assert {name: len(examples) for name, examples in sets.items()} == {"train": 10, "test": 4}
    assert [e.id for e in sets["test"][:2]] == ["b:line-1", "b:line-2"]


def test_at_most_ten_bad_rows_are_spelt_out_in_order(tmp_path: Path) -> None:
    items = "".join('{"input": "a"}\n{"input": \n' for _ in range(8)) + jsonl(rows(12))
    with pytest.raises(DataError) as caught:
        read(tmp_path, items)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("examples.jsonl: 16 problems")
    assert [line.split(":")[0].strip() for line in rest[:10]] == [f"examples.jsonl, line {n}" for n in range(1, 11)]
    assert rest[10:] == ["  … and 6 more"]


def test_twelve_examples_are_enough_and_eleven_are_not(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a", jsonl(rows(12)))) == 12
    with pytest.raises(DataError, match="only 11 examples; at least 12"):
        read(tmp_path / "b", jsonl(rows(11)))


def test_the_nearest_label_is_looked_for_in_the_first_bad_rows_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(labels_module, "nearest", lambda word, words: asked.append(word))
    with pytest.raises(DataError, match="300 problems in its rows"):
        read(tmp_path, jsonl([{"input": f"q{i}", "output": f"lost {i}"} for i in range(300)]), more="labels: [a, b]\n")
    assert len(asked) == 10
