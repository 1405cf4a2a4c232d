from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from broken import TASK, rows, write

from rung.data.examples import read_data, read_examples, read_sets
from rung.data.shapes import labels as labels_module
from rung.data.task_file import read_task
from rung.errors import DataError, TaskError
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


# ---- ids, groups, labels ----


def split_of(folder: Path, train: str, test: str, more: str = "") -> Path:
    task = TASK.replace("examples.jsonl", "{train: examples.jsonl, test: b.jsonl}") + more
    return write(folder, task, train, b__jsonl=test)


def test_ids_that_begin_anew_in_each_file_get_the_name_of_their_file(tmp_path: Path) -> None:
    train = jsonl([{**row, "id": i} for i, row in enumerate(rows(12))])
    sets = read_sets(read_task(split_of(tmp_path, train, jsonl([{**row, "id": i} for i, row in enumerate(rows(4))]))))
    assert [e.id for e in sets["train"][:2]] == ["examples:0", "examples:1"]
    assert [e.id for e in sets["test"][:2]] == ["b:0", "b:1"]
    apart = jsonl([{**row, "id": f"t{i}"} for i, row in enumerate(rows(4))])
    assert read_sets(read_task(split_of(tmp_path / "2", train, apart)))["test"][0].id == "t0"


def test_an_id_that_names_a_row_of_another_file_is_told_apart_from_it(tmp_path: Path) -> None:
    train = jsonl([{**row, "id": f"b:line-{i}"} for i, row in enumerate(rows(12))])
    sets = read_sets(read_task(split_of(tmp_path, train, jsonl(rows(4)))))
    assert [e.id for e in sets["train"][:2]] == ["examples:b:line-0", "examples:b:line-1"]
    assert [e.id for e in sets["test"][:2]] == ["b:line-1", "b:line-2"]


def test_ids_that_no_name_of_a_file_tells_apart_are_an_error(tmp_path: Path) -> None:
    twice = [{"id": "line-3"}, {"id": "x"}, {}]  # the third row is called by its line
    train = jsonl([{**row, **own} for row, own in zip(rows(12), [*twice, *({} for _ in range(9))], strict=True)])
    with pytest.raises(DataError, match=r'examples.jsonl, line 3: the id "examples:line-3" is that of another row'):
        read_sets(read_task(split_of(tmp_path, train, jsonl([{**row, "id": "x"} for row in rows(1)]))))


def test_rows_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    task = TASK.replace("examples.jsonl", "{train: train/0.jsonl, test: test/0.jsonl}")
    path = write(tmp_path, task, jsonl(rows(12)))
    for name, more in (("train", ""), ("test", '{"input": "q"}\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jsonl").write_text(jsonl(rows(12)) + more, "utf-8")
    found = read_data(read_task(path))
    assert [found.sets[name][0].row for name in ("train", "test")] == ["train/0.jsonl, line 1", "test/0.jsonl, line 1"]
    assert [problem.where for problem in found.problems] == ["test/0.jsonl, line 13"]


def test_one_group_however_its_number_is_written(tmp_path: Path) -> None:
    groups: list[object] = [1, 1.0, "1", " 1 ", "1.0", "\uff11", "nan", "NULL", "NA", "", None, "N/A"]
    items = [{**row, "group": group} for row, group in zip(rows(12), groups, strict=True)]
    found = read_data(read_task(write(tmp_path, TASK, jsonl(items))))
    assert [e.group for e in found.sets[None]] == ["1"] * 6 + [None] * 6
    (finding,) = found.findings
    assert finding.check == "missing_group"
    assert "4 rows" in finding.message


LABELS = "labels: [Money back, broken]\n"


def labelled(*outputs: object) -> str:
    return jsonl([{"input": f"question {i}", "output": o} for i, o in enumerate([*outputs, *["broken"] * 12])])


@pytest.mark.parametrize(
    "text", ["money back", " Money back ", "Money\u00a0back", "\uff2doney back", "Money\u200b back"]
)
def test_an_answer_that_looks_like_a_label_is_read_as_it(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, labelled(text), more=LABELS)[0].output == "Money back"


def test_a_label_with_a_letter_of_another_alphabet_is_told_by_the_name_of_the_letter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'did you mean "broken"\? \(it holds \u0430, cyrillic small letter a\)'):
        read(tmp_path, labelled("br\u0430ken"), more=LABELS)


def test_labels_that_differ_in_case_alone_stay_two_where_case_counts(tmp_path: Path) -> None:
    more = "labels: [us, US]\nmetric: exact_match\n"
    items = jsonl([{"input": f"question {i}", "output": "us" if i % 2 else "US"} for i in range(12)])
    assert {e.output for e in read(tmp_path, items, more=more)} == {"us", "US"}


def test_one_number_is_one_label_with_and_without_a_point(tmp_path: Path) -> None:
    data = jsonl([{"input": f"question {i}", "output": 1.0 if i % 2 else 1} for i in range(12)])
    assert {e.output for e in read(tmp_path / "1", data)} == {"1"}
    data = jsonl([{"input": f"question {i}", "output": float(i % 2)} for i in range(12)])
    assert {e.output for e in read(tmp_path / "2", data)} == {"0.0", "1.0"}
    assert {e.output for e in read(tmp_path / "3", data, more="labels: ['0', '1']\n")} == {"0", "1"}


def test_texts_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    text = "input,output\n" + "".join(f"q{i},{('01', '1', '1.0')[i % 3]}\n" for i in range(12))
    assert {e.output for e in read(tmp_path, text, "e.csv")} == {"01", "1", "1.0"}


def test_a_missing_value_is_no_class_unless_it_is_declared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='line 1: the answer "nan" stands for nothing'):
        read(tmp_path / "1", labelled("nan"), more=LABELS)
    with pytest.raises(DataError, match='line 1: the answer "NULL" stands for nothing'):
        read(tmp_path / "2", labelled("NULL"), more="metric: label_accuracy\n")
    declared = read(tmp_path / "3", labelled("NA", True, "null"), more="labels: ['NA', 'true', 'null', broken]\n")
    assert [e.output for e in declared[:3]] == ["NA", "true", "null"]
    assert read(tmp_path / "4", labelled("None"))[0].output == "None"


# ---- empty and endless answers ----


def test_many_empty_answers_name_the_way_to_allow_them_and_one_does_not(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r'line 1: "output" is empty.*; where nothing is the right answer, write empty: a'
    ):
        read(tmp_path / "1", labelled("", " \n"))
    with pytest.raises(DataError) as caught:
        read(tmp_path / "2", labelled(""))
    assert "empty: allowed" not in str(caught.value)
    found = read(tmp_path / "3", labelled("", " \n"), more="empty: allowed\n")
    assert [(e.output, e.references) for e in found[:2]] == [("", ("",))] * 2


def test_empty_answers_beside_labels_want_a_label_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="where no label applies, write a label for it, such as none"):
        read(tmp_path / "1", labelled("", ""), more=LABELS)
    with pytest.raises(TaskError, match="empty: allowed and labels contradict each other"):
        read(tmp_path / "2", labelled("", ""), more=LABELS + "empty: allowed\n")


def test_a_test_set_with_hidden_answers_is_told_as_such(tmp_path: Path) -> None:
    path = split_of(tmp_path, jsonl(rows(20)), jsonl([{"input": f"question {i}", "output": ""} for i in range(5)]))
    with pytest.raises(DataError, match=r"b.jsonl: none of the 5 rows of test has an answer.*examples: train.jsonl"):
        read_sets(read_task(path))


def test_an_endless_answer_is_told_by_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: the answer has 2,000,000 characters, which no model can write"):
        read(tmp_path, labelled("word " * 400_000))


def test_bad_rows_are_told_beside_the_good_ones(tmp_path: Path) -> None:
    found = read_data(read_task(write(tmp_path, TASK, labelled("", "a"))))
    assert [p.where for p in found.problems] == ["examples.jsonl, line 1"]
    assert len(found.sets[None]) == 13


# ---- several texts in a cell ----


@pytest.mark.parametrize(
    ("value", "references"),
    [
        ("REFUND", ("refund", "REFUND")),
        ("refund|money back", ("refund", "money back")),
        ("a|b", ("refund", "a|b")),
        ('["x", "y"]', ("refund", "x", "y")),
        ([], ("refund",)),
        (None, ("refund",)),
        ("", ("refund",)),
        (7, ("refund", "7")),
    ],
)
def test_references_may_be_a_list_its_json_or_one_text(
    tmp_path: Path, value: object, references: tuple[str, ...]
) -> None:
    items = [{"input": f"question {i}", "output": "refund", "references": value} for i in range(12)]
    assert read(tmp_path, jsonl(items))[0].references == references


@pytest.mark.parametrize("cell", ["a.md|b.md", "a.md, b.md", "a.md;b.md", '["a.md", "b.md"]', ["a.md", "b.md"]])
def test_gold_ids_may_stand_between_bars_or_commas(tmp_path: Path, cell: object) -> None:
    items = [{**row, "gold_ids": cell} for row in rows(12)]
    assert read(tmp_path, jsonl(items))[0].gold_ids == ("a.md", "b.md")


def test_rows_with_two_sensible_readings_show_both_and_how_to_choose(tmp_path: Path) -> None:
    items = jsonl([{"text": f"a question {i}", "category": "a", "intent": f"b{i}"} for i in range(12)])
    with pytest.raises(DataError) as caught:
        read(tmp_path / "1", items)
    assert str(caught.value).splitlines()[1:] == [
        '  shape: columns with fields: {input: text, output: intent} (input: the column "text", by its name; '
        'output: the column "intent", by its name)',
        '  shape: columns with fields: {input: text, output: category} (input: the column "text", by its name; '
        'output: the column "category", by its name)',
    ]
    assert read(tmp_path / "2", items, more="fields: {output: category}\n")[0].output == "a"


def test_several_labels_are_a_json_array_in_the_declared_order(tmp_path: Path) -> None:
    more = "multi_label: true\nlabels: [urgent, refund, broken]\n"
    cells: list[object] = ["refund, Urgent", ["broken"], "broken|refund", '["refund", "urgent"]', "", []]
    items = jsonl([{"input": f"question {i}", "output": cells[i % 6]} for i in range(12)])
    found = [e.output for e in read(tmp_path, items, more=more)[:6]]
    assert found == ['["urgent", "refund"]', '["broken"]', '["refund", "broken"]', '["urgent", "refund"]', "[]", "[]"]
    wrong = jsonl([{"input": f"question {i}", "output": "refund, lost"} for i in range(12)])
    with pytest.raises(DataError, match='the answer "lost" is not one of the 3 labels'):
        read(tmp_path / "2", wrong, more=more)


def test_lists_that_may_be_labels_or_accepted_answers_ask_which(tmp_path: Path) -> None:
    items = jsonl([{"input": f"question {i}", "output": ["a", "b"] if i % 2 else ["b"]} for i in range(20)])
    with pytest.raises(DataError, match=r"multi_label: true .* or fields: \{references: output\}"):
        read(tmp_path / "1", items)
    found = read(tmp_path / "2", items, more="fields: {input: input, references: output}\n")
    assert [(e.output, e.references) for e in found[:2]] == [("b", ("b",)), ("a", ("a", "b"))]


def test_what_was_recognised_is_said_unless_the_columns_have_the_standard_names(tmp_path: Path) -> None:
    plain = read_data(read_task(write(tmp_path / "1", TASK, jsonl(rows(12)))))
    assert plain.how == ()
    other = jsonl([{"question": f"question {i}", "answer": "a", "source": "web"} for i in range(12)])
    (line,) = read_data(read_task(write(tmp_path / "2", TASK, other))).how
    assert line == (
        'examples.jsonl: shape columns: input: the column "question", by its name; output: the column "answer", '
        "by its name; not read: source"
    )


def test_a_row_that_says_what_the_task_says_has_no_instruction_of_its_own(tmp_path: Path) -> None:
    def talk(system: str, i: int) -> dict[str, object]:
        turns = [("system", system), ("user", f"question {i}"), ("assistant", "a")]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    same = read(tmp_path / "1", jsonl([talk("Answer.", i) for i in range(12)]))
    assert {e.instruction for e in same} == {None}
    differing = read(tmp_path / "2", jsonl([talk("Answer." if i else "In French.", i) for i in range(12)]))
    assert [e.instruction for e in differing[:2]] == ["In French.", None]


def test_a_million_rows_would_share_their_answers_and_groups(tmp_path: Path) -> None:
    items = [{"input": f"question {i}", "output": f"label {i % 2}", "group": f"g {i % 3}"} for i in range(60)]
    found = read(tmp_path, jsonl(items))
    assert len({id(e.output) for e in found}) == len({id(e.references) for e in found}) == 2
    assert len({id(e.group) for e in found}) == 3
