"""Inputs without answers: read as examples are, each once, and kept away from dev and the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rung.data.beside.unlabelled import read_unlabelled
from rung.data.examples import read_examples
from rung.data.fence import fence_of
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.types import Message, Query, SealedTest, Split

WORDS = "amber birch cedar delta ember fjord grove heron inlet jetty knoll larch maple north ocean pearl"


def rows(**named: str) -> list[dict[str, Any]]:
    """16 rows with inputs of their own. named: input and output as these columns call them."""
    asked, given = named.get("input", "input"), named.get("output", "output")
    words = WORDS.split()
    texts = [f"what is a {word}, by way of {words[i - 5]} and {words[i - 7]}" for i, word in enumerate(words)]
    return [{asked: text, given: f"{i % 3}"} for i, text in enumerate(texts)]


def jsonl(items: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def read(folder: Path, examples: Any, text: str, name: str = "u.jsonl", more: str = "") -> list[Query]:
    """The unlabelled inputs of a task whose first half of examples is train, and the rest dev and test."""
    said: list[str] = []
    return _read(folder, examples, {name: text}, said, more)


def _read(folder: Path, examples: Any, files: dict[str, str], said: list[str], more: str = "") -> list[Query]:
    folder.mkdir(exist_ok=True)
    (folder / "e.jsonl").write_text(jsonl(examples), "utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "task.yaml").write_text(
        f"instruction: Answer.\nexamples: e.jsonl\nunlabelled: [{', '.join(files)}]\n{more}", "utf-8"
    )
    task = read_task(folder / "task.yaml")
    found = read_examples(task)
    half = len(found) // 2
    dev = [e for i, e in enumerate(found) if i >= half and i % 2]
    split = Split(tuple(found[:half]), tuple(dev), SealedTest([e for e in found[half:] if e not in dev]), {})
    return list(read_unlabelled(task, fence_of(found, split), said.append))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.jsonl", '{"input": "a new question"}\n{"input": "another one"}\n'),
        ("u.json", '[{"input": "a new question"}, {"input": "another one"}]'),
        ("u.csv", "input,other\na new question,1\nanother one,2\n"),
        ("u.tsv", "Input\tother\na new question\t1\nanother one\t2\n"),
        ("u.txt", "a new question\n\n  another one  \n"),
    ],
)
def test_inputs_are_read_from_every_format_of_examples_and_from_lines(tmp_path: Path, name: str, text: str) -> None:
    assert [q.input for q in read(tmp_path, rows(), text, name)] == ["a new question", "another one"]


def test_the_columns_are_those_of_the_examples(tmp_path: Path) -> None:
    text = '{"title": "not this", "question": "a new one", "reply": "an answer that is not read"}\n'
    found = read(tmp_path, rows(input="question", output="reply"), text)
    assert [q.input for q in found] == ["a new one"]


def test_several_columns_are_joined_as_in_the_examples(tmp_path: Path) -> None:
    examples = [{"subject": f"about {r['input']}", "body": r["input"], "label": r["output"]} for r in rows()]
    fields = "fields: {input: [subject, body], output: label}\n"
    found = read(tmp_path, examples, '{"body": "it broke", "subject": "help"}\n', more=fields)
    assert [q.input for q in found] == ["subject: help\nbody: it broke"]


def test_a_file_with_other_columns_is_recognised_by_itself_and_told(tmp_path: Path) -> None:
    text = jsonl([{"id": f"n{i}", "text": f"some words that are new, number {i}"} for i in range(3)])
    said: list[str] = []
    found = _read(tmp_path, rows(input="question"), {"u.jsonl": text}, said)
    assert said[0] == 'u.jsonl: the inputs are read from the column "text".'
    assert [q.input for q in found] == [f"some words that are new, number {i}" for i in range(3)]
    assert found[0].id == "unlabelled:n0"


def conversation(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]}


@pytest.mark.parametrize("examples", ["columns", "messages"])
def test_conversations_that_end_with_the_user_are_inputs(tmp_path: Path, examples: str) -> None:
    own = rows() if examples == "columns" else [conversation(r["input"], r["output"]) for r in rows()]
    text = jsonl([conversation("a first question"), conversation("one", "its answer", "and another")])
    first, second = read(tmp_path, own, text)
    assert (first.input, first.turns) == ("a first question", ())
    assert (second.input, second.turns) == ("and another", (Message("user", "one"), Message("assistant", "its answer")))


def test_the_answer_at_the_end_of_a_conversation_is_not_read(tmp_path: Path) -> None:
    own = [conversation(r["input"], r["output"]) for r in rows()]
    (found,) = read(tmp_path, own, jsonl([conversation("a first question", "an answer")]))
    assert (found.input, found.turns) == ("a first question", ())


def test_rows_of_their_own_instruction_keep_it(tmp_path: Path) -> None:
    own = [{"instruction": f"Do {r['output']} with it.", "input": r["input"], "output": "x"} for r in rows()]
    (found,) = read(tmp_path, own, '{"instruction": "Translate it.", "input": "a new text"}\n')
    assert (found.instruction, found.input) == ("Translate it.", "a new text")


def test_an_input_that_stands_twice_is_taken_once_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    files = {"a.jsonl": '{"input": "a new one"}\n', "b.jsonl": '{"input": "A  new one"}\n{"input": "more"}\n'}
    found = _read(tmp_path, rows(), files, said)
    assert [q.input for q in found] == ["a new one", "more"]
    assert len({q.id for q in found}) == 2
    assert said == ["unlabelled: 2 inputs without answers; left out: 1 that stand there twice."]


def test_what_nearly_repeats_dev_or_test_is_left_out_and_train_stays(tmp_path: Path) -> None:
    said: list[str] = []
    examples = rows()
    text = jsonl([{"input": f"{r['input']}!"} for r in examples] + [{"input": "a new one"}])
    found = _read(tmp_path, examples, {"u.jsonl": text}, said)
    assert [q.input for q in found] == [f"{r['input']}!" for r in examples[:8]] + ["a new one"]
    assert said == ["unlabelled: 9 inputs without answers; left out: 8 that nearly repeat a row of dev or the test."]


def test_files_of_which_nothing_is_left_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^u\.jsonl: no input is left: .* Bring inputs that are new"):
        read(tmp_path, rows(), jsonl([{"input": r["input"]} for r in rows()[8:]]))


def test_a_row_without_an_input_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'^u\.jsonl, line 2: "input" is empty'):
        read(tmp_path, rows(), '{"input": "a"}\n{"input": " "}\n')


def test_rows_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r'^new/u\.jsonl, line 2: "input" is empty'):
        _read(
            tmp_path, rows(), {"old/u.jsonl": '{"input": "a"}\n', "new/u.jsonl": '{"input": "b"}\n{"input": ""}\n'}, []
        )


def test_a_file_without_a_column_of_inputs_is_an_error_that_names_the_column(tmp_path: Path) -> None:
    text = jsonl([{"id": i, "date": "2026"} for i in range(5)])
    with pytest.raises(DataError, match=r'columns are id, date\. Name it as in the examples: "question"'):
        read(tmp_path, rows(input="question"), text)


def test_ids_are_never_those_of_examples(tmp_path: Path) -> None:
    examples = [{"id": f"r{i}", **r} for i, r in enumerate(rows())]
    found = read(tmp_path, examples, '{"id": "r1", "input": "a"}\n{"id": "r1", "input": "b"}\n')
    assert [q.id for q in found] == ["unlabelled:r1", "unlabelled:r1#2"]
    text = jsonl([{"id": i, "input": f"{i} {n} times"} for n, i in enumerate(("a", "a", "a#2"))])
    found = read(tmp_path / "b", examples, text)
    assert [q.id for q in found] == ["unlabelled:a", "unlabelled:a#2", "unlabelled:a#2#2"], "no two are alike"


def test_a_line_of_text_ends_only_where_a_line_ends(tmp_path: Path) -> None:
    found = read(tmp_path, rows(), "one\u2028line\x0cof text\r\nand another\ranother yet", "u.txt")
    assert [q.input for q in found] == ["one\u2028line\x0cof text", "and another", "another yet"]


def test_a_text_that_says_who_speaks_is_read_as_in_the_examples(tmp_path: Path) -> None:
    own = [{"text": f"\n\nHuman: {r['input']}\n\nAssistant: it is {r['input'][10:]}"} for r in rows()]
    talks = [
        "\n\nHuman: a new one\n\nAssistant:",
        "\n\nHuman: one\n\nAssistant: its answer\n\nHuman: two\n\nAssistant: no",
    ]
    first, second = read(tmp_path, own, jsonl([{"text": text} for text in talks]))
    assert (first.input, first.turns) == ("a new one", ())
    assert (second.input, second.turns) == ("two", (Message("user", "one"), Message("assistant", "its answer")))


def test_a_conversation_without_turns_is_an_error_that_names_its_row(tmp_path: Path) -> None:
    own = [conversation(r["input"], r["output"]) for r in rows()]
    with pytest.raises(DataError, match=r'^u\.jsonl, line 2: "messages" is no list of turns'):
        read(tmp_path, own, jsonl([conversation("a question"), {"messages": []}]))


def test_an_instruction_that_the_task_holds_is_left_out_only_where_all_examples_have_the_same(tmp_path: Path) -> None:
    own = [{"instruction": f"Answer {r['output']}.", "input": r["input"], "output": "x"} for r in rows()]
    (found,) = read(tmp_path, own, '{"instruction": "Answer", "input": "a new text"}\n')
    assert found.instruction == "Answer"


def test_of_many_inputs_a_fixed_sample_is_kept_away_from_dev_and_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.data.beside.unlabelled.MOST", 3)
    text = jsonl([{"input": f"something new about {word}"} for word in WORDS.split()])
    said: list[str] = []
    found = _read(tmp_path, rows(), {"u.jsonl": text}, said)
    assert len(found) == 3 and found == read(tmp_path, rows(), text)
    assert said == ["unlabelled: 3 inputs without answers; left out: 13 that a training would not see."]
