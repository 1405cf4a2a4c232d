from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rung.data.checks import personal
from rung.data.checks.material import Material
from rung.data.corpus import read_corpus
from rung.data.examples import read_sets
from rung.data.fixing import Fixed, fix_task
from rung.data.masking import Masks
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.types import Example, Task

CITIES = ["Lima", "Oslo", "Rome", "Cairo", "Paris", "Quito", "Tunis", "Delhi", "Seoul", "Hanoi", "Accra", "Minsk"]


def row(i: int, **more: Any) -> dict[str, Any]:
    """One of many rows that are not alike."""
    return {
        "input": f"{CITIES[i % 12]} asks {i * 37}: {CITIES[i * 5 % 12]} or {CITIES[i * 7 % 11]}?",
        "output": "one",
        **more,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def task_of(folder: Path, rows: list[dict[str, Any]], *, keys: str = "") -> Task:
    folder.mkdir(exist_ok=True)
    write(folder / "e.jsonl", rows)
    (folder / "task.yaml").write_text(f"instruction: Answer.\nexamples: e.jsonl\n{keys}", "utf-8")
    return read_task(folder)


def changed(fixed: Fixed) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for change in fixed.changes:
        found.setdefault(change.check, []).append(change.row)
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_clean_data_are_copied_as_they_are(tmp_path: Path) -> None:
    task = task_of(tmp_path / "a", [row(i, output=f"answer {i}") for i in range(20)])
    fixed = fix_task(task, tmp_path / "out")
    assert fixed.changes == () and "No row had to be mended" in fixed.lines[-2]
    old, new = read_sets(task)[None], read_sets(read_task(fixed.task))[None]
    assert [(e.input, e.output) for e in old] == [(e.input, e.output) for e in new]


def test_what_can_be_mended_without_doubt_is_mended_and_listed_by_row(tmp_path: Path) -> None:
    rows = [row(i, output=f"answer {i}") for i in range(40)]
    rows[1]["output"] = " answer 1\n"
    rows[2]["input"] += "\u200b\u200b"
    rows[3]["output"] = "```\nanswer 3\n```"
    rows[4] = dict(rows[0])
    rows[5]["output"] = ""
    rows[6]["output"] = "\u200b"
    task = task_of(tmp_path / "a", rows)
    before = (tmp_path / "a" / "e.jsonl").read_bytes()
    fixed = fix_task(task, tmp_path / "out")
    assert changed(fixed) == {
        "whitespace": ["e.jsonl, line 2"],
        "invisible_characters": ["e.jsonl, line 3", "e.jsonl, line 7"],
        "fenced": ["e.jsonl, line 4"],
        "exact_duplicate": ["e.jsonl, line 5"],
        "empty_answer": ["e.jsonl, line 6", "e.jsonl, line 7"],
    }
    written = rows_of(tmp_path / "out" / "examples.jsonl")
    assert len(written) == 37 and fixed.rows == {"examples": (40, 37)}
    assert [r["output"] for r in written[:4]] == ["answer 0", "answer 1", "answer 2", "answer 3"]
    assert not written[2]["input"].endswith("\u200b")
    assert rows_of(tmp_path / "out" / "changes.jsonl")[0]["row"] == "e.jsonl, line 6"
    assert (tmp_path / "a" / "e.jsonl").read_bytes() == before
    assert fix_task(read_task(fixed.task), tmp_path / "again").changes == ()


def test_broken_json_is_left_out_where_nearly_all_answers_are_json(tmp_path: Path) -> None:
    rows = [row(i, output=json.dumps({"city": i})) for i in range(40)]
    rows[7]["output"] = '{"city":'
    fixed = fix_task(task_of(tmp_path / "a", rows), tmp_path / "out")
    assert changed(fixed) == {"broken_json": ["e.jsonl, line 8"]}
    fixed = fix_task(task_of(tmp_path / "b", rows, keys="metric: json_match\n"), tmp_path / "out2")
    assert changed(fixed) == {"broken_json": ["e.jsonl, line 8"]} and fixed.rows == {"examples": (40, 39)}


def test_answers_of_one_value_and_empty_ones_that_are_allowed_are_no_broken_json(tmp_path: Path) -> None:
    rows = [row(i, output=json.dumps({"city": i})) for i in range(40)]
    rows[7]["output"], rows[8]["output"] = "null", "3"
    task = task_of(tmp_path / "a", rows, keys="metric: json_match\n")
    assert fix_task(task, tmp_path / "out").rows == {"examples": (40, 40)}
    rows[7]["output"] = ""
    task = task_of(tmp_path / "b", rows, keys="empty: allowed\n")
    assert fix_task(task, tmp_path / "out2").rows == {"examples": (40, 40)}


def test_labels_are_written_as_declared_and_a_doubtful_label_is_never_changed(tmp_path: Path) -> None:
    rows = [row(i, output=["refund", "card"][i % 2]) for i in range(30)]
    rows[2]["output"], rows[3]["output"] = "Refund ", "refund"
    rows[5]["output"] = "car"
    fixed = fix_task(task_of(tmp_path / "a", rows, keys="labels: [refund, card]\n"), tmp_path / "out")
    assert changed(fixed) == {"unusable_row": ["e.jsonl, line 6"], "label_spelling": ["e.jsonl, line 3"]}
    written = rows_of(tmp_path / "out" / "examples.jsonl")
    assert [r["output"] for r in written[2:4]] == ["refund", "refund"] and len(written) == 29


def test_labels_that_are_not_declared_are_written_as_most_rows_have_them(tmp_path: Path) -> None:
    rows = [row(i, output=["refund", "card"][i % 2]) for i in range(30)]
    rows[2]["output"] = "REFUND"
    fixed = fix_task(task_of(tmp_path / "a", rows, keys="metric: label_accuracy\n"), tmp_path / "out")
    assert changed(fixed) == {"label_spelling": ["e.jsonl, line 3"]}


def test_train_rows_that_stand_in_test_leave_train_and_the_test_keeps_all_its_rows(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    write(folder / "train.jsonl", [row(i, output=f"answer {i}") for i in range(30)])
    test = [row(i, output=f"answer {i}") for i in range(27, 40)]
    test[0]["input"] = test[0]["input"].upper().replace("A", "Ａ")
    write(folder / "test.jsonl", [*test, test[5]])
    keys = "examples: {train: train.jsonl, test: test.jsonl}\n"
    (folder / "task.yaml").write_text(f"instruction: Answer.\n{keys}", "utf-8")
    fixed = fix_task(read_task(folder), tmp_path / "out")
    assert changed(fixed) == {"leakage": [f"train.jsonl, line {n}" for n in (28, 29, 30)]}
    assert fixed.rows == {"train": (30, 27), "test": (14, 14)}
    sets = read_sets(read_task(fixed.task))
    assert (len(sets["train"]), len(sets["test"])) == (27, 14)


def test_changes_name_rows_of_files_of_one_name_by_their_folders(tmp_path: Path) -> None:
    rows = [row(i, output=("good", "bad")[i % 2]) for i in range(60)]
    files = {"train": [row(0, output="GOOD"), *rows[1:40]], "test": [*rows[40:], {"input": "Without an answer?"}]}
    for name, lines in files.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "0.jsonl", lines)
    keys = "examples: {train: train/0.jsonl, test: test/0.jsonl}\nlabels: [good, bad]\n"
    (tmp_path / "task.yaml").write_text(f"instruction: Answer.\n{keys}", "utf-8")
    fixed = fix_task(read_task(tmp_path), tmp_path / "out")
    assert changed(fixed) == {"unusable_row": ["test/0.jsonl, line 21"], "label_spelling": ["train/0.jsonl, line 1"]}
    assert {name: before for name, (before, _) in fixed.rows.items()} == {"train": 40, "test": 21}


def test_the_rest_of_the_task_stays_and_its_paths_still_lead_there(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "d.txt").write_text("Text.")
    (folder / "s.json").write_text("{}")
    (folder / "m.py").write_text("def score(prediction, references):\n    return 1.0\n")
    write(folder / "e.jsonl", [{"q": f"{row(i)['input']}", "a": f"answer {i}"} for i in range(20)])
    (folder / "task.yaml").write_text(
        "# mine\nname: mine\ninstruction: |\n  One.\n\n  Two.  # no comment\nexamples:\n  - e.jsonl  # the data\n"
        "fields: {input: q, output: a}\ncorpus: docs  # facts\nmetric: python:m.py:score\nseed: 7\n"
    )
    fixed = fix_task(read_task(folder), tmp_path / "deep" / "out")
    text = fixed.task.read_text()
    assert "# mine" in text and "# facts" in text and "fields" not in text
    old, new = read_task(folder), read_task(fixed.task)
    assert (new.instruction, new.corpus, new.metric, new.seed) == (old.instruction, old.corpus, old.metric, 7)
    assert new.name == "mine-clean"


def test_of_a_model_only_its_folder_is_a_path_that_leads_from_the_copy(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "small").mkdir(parents=True)
    models = (
        "[{name: small, label: small}, {endpoint: https://host/v1, name: small, label: big, params: {mode: small}}]"
    )
    task = task_of(folder, [row(i, output=f"answer {i}") for i in range(20)], keys=f"models: {models}\n")
    copy = read_task(fix_task(task, tmp_path / "out").task)
    assert copy.models == task.models and copy.models[0].spec == str(folder / "small")


def test_comments_behind_a_list_of_files_stay(tmp_path: Path) -> None:
    task = task_of(tmp_path / "a", [row(i, output=f"answer {i}") for i in range(20)])
    task.path.write_text(
        "instruction: Answer.\nexamples:\n  - e.jsonl  # the data\n# how it is judged\nmetric: exact_match\n"
        "fields:\n  input: input\n  output: output\n\n# the end\n"
    )
    text = fix_task(read_task(tmp_path / "a"), tmp_path / "out").task.read_text()
    assert "# how it is judged\nmetric: exact_match\n" in text and text.endswith("# the end\n")
    assert "# the data" not in text and "fields" not in text


def test_a_dev_that_stands_in_the_test_whole_is_left_out_and_the_copy_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    write(folder / "train.jsonl", [row(i, output=f"answer {i}") for i in range(30)])
    for name in ("dev", "test"):
        write(folder / f"{name}.jsonl", [row(i, output=f"answer {i}") for i in range(40, 52)])
    files = ", ".join(f"{name}: {name}.jsonl" for name in ("train", "dev", "test"))
    (folder / "task.yaml").write_text(f"instruction: Answer.\nexamples: {{{files}}}\n", "utf-8")
    fixed = fix_task(read_task(folder), tmp_path / "out")
    assert {name: len(part) for name, part in read_sets(read_task(fixed.task)).items()} == {"train": 30, "test": 12}
    assert any("No row of dev is left" in line for line in fixed.lines)


def test_masks_are_the_same_for_the_same_value_in_all_files_and_in_documents(tmp_path: Path) -> None:
    rows = [row(i, output=f"answer {i}") for i in range(20)]
    rows[0]["input"] += " Write to Jane@corp.org or call my phone 4155552671."
    rows[0]["output"] = "4155552671"
    rows[1] = {"input": "Which address is it?", "output": '{"mail": "jane@corp.org", "phone": 4155552671}'}
    rows[2]["group"] = "joe@corp.org"
    rows[3]["input"] = "From joe@corp.org: my password: hunter2abc"
    folder = tmp_path / "a"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "d.txt").write_text("Ask jane@corp.org.")
    task = task_of(folder, rows, keys="corpus: docs\n")
    fixed = fix_task(task, tmp_path / "out", mask=True)
    written = rows_of(tmp_path / "out" / "examples.jsonl")
    assert written[0]["input"].endswith("Write to <EMAIL_1> or call my phone <PHONE_1>.")
    assert written[0]["output"] == "<PHONE_1>"
    assert json.loads(written[1]["output"]) == {"mail": "<EMAIL_1>", "phone": "<PHONE_1>"}
    assert written[2]["group"] == "<EMAIL_2>" and written[3]["input"] == "From <EMAIL_2>: my password: <SECRET_1>"
    (document,) = read_corpus(read_task(fixed.task).corpus or Path())
    assert (document.id, document.text) == ("d.txt", "Ask <EMAIL_1>.")
    everything = "".join(p.read_text("utf-8") for p in (tmp_path / "out").iterdir())
    assert not any(value in everything.lower() for value in ("jane", "joe", "hunter2", "4155552671"))
    assert "secret" in changed(fixed) and "document d.txt" in changed(fixed)["email"]


def test_a_masked_copy_lists_no_change_under_an_id_that_holds_personal_data(tmp_path: Path) -> None:
    rows = [row(i, id=f"joe{i}@corp.org", output=f"answer {i}") for i in range(20)]
    rows[3]["output"] = " answer 3"
    rows[5] = {**rows[4], "id": "ann@corp.org"}
    fixed = fix_task(task_of(tmp_path / "a", rows), tmp_path / "out", mask=True)
    assert {"whitespace", "exact_duplicate"} <= set(changed(fixed))
    assert "corp.org" not in (tmp_path / "out" / "changes.jsonl").read_text("utf-8")


def test_without_mask_personal_data_stay(tmp_path: Path) -> None:
    rows = [row(i, output=f"{i}@corp.org") for i in range(20)]
    assert fix_task(task_of(tmp_path / "a", rows), tmp_path / "out").changes == ()


def test_the_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    task = task_of(tmp_path / "a", [row(i) for i in range(20)])
    with pytest.raises(DataError, match="not empty"):
        fix_task(task, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["e.jsonl", "task.yaml"]


def test_conversations_are_kept(tmp_path: Path) -> None:
    def talk(i: int) -> dict[str, Any]:
        turns = [
            ("user", row(i)["input"]),
            ("assistant", f"Which {i}?"),
            ("user", f"The {i}th\u200b."),
            ("assistant", f"So {i}."),
        ]
        return {"messages": [{"role": role, "content": text} for role, text in turns]}

    task = task_of(tmp_path / "a", [talk(i) for i in range(20)])
    fixed = fix_task(task, tmp_path / "out")
    old, new = read_sets(task)[None], read_sets(read_task(fixed.task))[None]
    assert [e.turns for e in new] == [e.turns for e in old] and new[3].input == "The 3th."


def test_a_copy_never_stands_where_the_task_would_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "d.txt").write_text("One.")
    task = task_of(folder, [row(i) for i in range(20)], keys="corpus: docs\n")
    with pytest.raises(DataError, match="stands in the corpus"):
        fix_task(task, folder / "docs" / "out")
    assert [p.name for p in (folder / "docs").iterdir()] == ["d.txt"]
    text = task.path.read_text().replace("e.jsonl", "'**/*.jsonl'").replace("corpus: docs\n", "")
    task.path.write_text(text)
    with pytest.raises(DataError, match="would read the copy, too"):
        fix_task(read_task(task.path), folder / "out")
    assert not list((folder / "out").iterdir())


def test_rows_keep_their_ids_where_rows_before_them_are_left_out(tmp_path: Path) -> None:
    rows = [row(i, output=f"answer {i}") for i in range(20)]
    rows[3]["output"] = ""
    task = task_of(tmp_path / "a", rows)
    new = read_sets(read_task(fix_task(task, tmp_path / "out").task))[None]
    assert [(e.id, e.output) for e in new][3:5] == [("line-5", "answer 4"), ("line-6", "answer 5")]


def test_labels_that_columns_named_stand_in_the_copy(tmp_path: Path) -> None:
    rows = [{"input": row(i)["input"], "rude": i % 2, "toxic": int(i % 3 == 0)} for i in range(20)]
    task = task_of(tmp_path / "a", rows, keys="multi_label: true\nfields: {output: [rude, toxic]}\n")
    copy = read_task(fix_task(task, tmp_path / "out").task)
    assert copy.labels == task.labels == ("rude", "toxic")
    assert [e.output for e in read_sets(copy)[None]] == [e.output for e in read_sets(task)[None]]


def test_a_copy_below_a_symbolic_link_finds_what_the_task_names(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "d.txt").write_text("One.")
    task = task_of(folder, [row(i) for i in range(20)], keys="corpus: docs\n")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    fix_task(task, tmp_path / "link" / "out")
    for folder in (tmp_path / "link" / "out", tmp_path / "far" / "away" / "out"):
        corpus = read_task(folder / "task.yaml").corpus
        assert corpus is not None and [d.id for d in read_corpus(corpus)] == ["d.txt"]


def test_a_mask_covers_a_whole_value_and_never_a_part_of_a_longer_one() -> None:
    texts = ("BSN 111222333, then 1112223334 and 号111222333是", "password: hunter2abc, xhunter2abcx and hunter2abc")
    rows = [Example(str(i), text, "a", ("a",)) for i, text in enumerate(texts)]
    masks = Masks(rows, ())
    assert [masks.example(e)[0].input for e in rows] == [
        "BSN <ID_1>, then 1112223334 and 号<ID_1>是",
        "password: <SECRET_1>, xhunter2abcx and <SECRET_1>",
    ]


def test_ids_that_differ_in_how_a_value_is_written_stay_apart_and_gold_ids_follow_their_documents(
    tmp_path: Path,
) -> None:
    rows = [row(i, id=f"r{i}", output=f"answer {i}", gold_ids=["Joe@corp.org", "joe@corp.org"]) for i in range(20)]
    rows[3]["id"], rows[4]["id"], rows[5]["id"] = "Ann@corp.org", "ann@corp.org", "ANN@corp.org"
    rows[6]["id"], rows[7]["id"] = "+49 30 901820", "+4930901820"
    rows[4]["output"] += " "
    folder = tmp_path / "a"
    folder.mkdir()
    write(folder / "d.jsonl", [{"id": i, "text": f"Text {n}."} for n, i in enumerate(("joe@corp.org", "Joe@corp.org"))])
    fixed = fix_task(task_of(folder, rows, keys="corpus: d.jsonl\n"), tmp_path / "out", mask=True)
    copy = read_task(fixed.task)
    (examples,) = read_sets(copy).values()
    assert [e.id for e in examples[3:6]] == ["<EMAIL_2>", "<EMAIL_2>-2", "<EMAIL_2>-3"]
    assert [e.id for e in examples[6:8]] == ["<PHONE_1>", "<PHONE_1>-2"]
    first, second = (d.id for d in read_corpus(copy.corpus or Path()))
    assert first != second and all(e.gold_ids == (second, first) for e in examples)
    assert [c.id for c in fixed.changes if c.check == "whitespace"] == ["<EMAIL_2>-2"]


def test_names_that_stand_in_masked_data_already_are_not_given_again() -> None:
    rows = [Example(str(i), text, "a", ("a",)) for i, text in enumerate(("ask <EMAIL_2>", "ask joe@corp.org"))]
    assert Masks(rows, ()).example(rows[1])[0].input == "ask <EMAIL_3>"


@pytest.mark.parametrize("depth", [900, 50_000])
def test_an_answer_of_json_that_is_nested_too_deeply_is_masked_as_text(depth: int) -> None:
    text = "[" * depth + "4155552671" + "]" * depth
    example = Example("a", "my phone 4155552671", text, (text,))
    assert Masks([example], ()).example(example)[0].output == text.replace("4155552671", "<PHONE_1>")


VALUES = (
    "my card is 4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00",
    "FR14 2004 1010 0505 0001 3M02 606 and 5500-0000-0000-0004",
    "IBAN DE89370400440532013000, 4012888888881881",
    "tracking id 1234 5678 9012 3456",
    "order 4111111111111111",
    "write to jane@corp.org or call +49 30 901820",
    "my phone is 4155552671",
    "the number 4155552671",
    "BSN 111222333, 111-22-2333",
    "SSN 078-05-1121",
    "part 12345678Z",
    "part 12345678A",
    "Aadhaar 1111 2222 3333",
    "2341 2341 2346",
    "password: hunter2abc",
    "my password is hunter2abc",
    "ip 93.184.216.34",
    "nothing at all",
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4), min_size=2, max_size=12))
def test_nothing_that_is_masked_is_found_again(tmp_path: Path, chosen: list[list[str]]) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    rows = [row(i, output=f"answer {i}") for i in range(14)]
    for i, values in enumerate(chosen):
        rows[i]["input"] += " " + ", ".join(values)
        rows[i]["output"] += " " + json.dumps({values[0]: values[-1]}) if i % 2 else ""
        rows[i]["phone"] = values[-1]
    (folder / "docs").mkdir()
    (folder / "docs" / "d.txt").write_text("\n".join(chosen[0]))
    task = task_of(folder / "a", rows, keys="corpus: ../docs\n")
    copy = read_task(fix_task(task, folder / "out", mask=True).task)
    examples = tuple(e for part in read_sets(copy).values() for e in part)
    assert copy.corpus is not None
    documents = read_corpus(copy.corpus)
    assert [*personal.personal(Material(copy, {None: examples}, examples, documents=documents))] == []
    beside = [r["phone"] for r in rows_of(folder / "out" / "examples.jsonl") if r.get("phone")]
    assert not any(value in text for value in ("jane@", "4111 1111", "DE89 3704") for text in beside)


def test_other_columns_stand_beside_the_rows_and_the_copy_is_read_as_it_is_meant(tmp_path: Path) -> None:
    rows = [row(i, output=f"answer {i}", ticket=f"T-{i}", label="x", subject="Hello there, a title") for i in range(20)]
    task = task_of(tmp_path / "a", rows, keys="fields: {input: input, output: output}\n")
    fixed = fix_task(task, tmp_path / "out")
    written = rows_of(tmp_path / "out" / "examples.jsonl")
    assert [(r["ticket"], r["label"]) for r in written] == [(f"T-{i}", "x") for i in range(20)]
    assert "your other columns stand beside them: ticket, label, subject" in fixed.lines[-1]
    old, new = read_sets(task)[None], read_sets(read_task(fixed.task))[None]
    assert [(e.input, e.output) for e in old] == [(e.input, e.output) for e in new]


def test_a_column_that_would_be_read_otherwise_is_left_out_and_named(tmp_path: Path) -> None:
    rows = [row(i, output=f"answer {i}", context=f"Passage {i}.") for i in range(20)]
    task = task_of(tmp_path / "a", rows, keys="fields: {context: null}\n")
    fixed = fix_task(task, tmp_path / "out")
    assert "left out, as the copy would be read otherwise: context" in fixed.lines[-1]
    assert all(e.context is None for e in read_sets(read_task(fixed.task))[None])


def test_the_copy_says_what_it_is_and_not_how_old_files_were_read(tmp_path: Path) -> None:
    told = "# e.jsonl: separated by semicolons\n# left out, as no field names them: date\n# mine: keep\n"
    keys = f"{told}metric: exact_match  # 20 answers\n"
    task = task_of(tmp_path / "a", [row(i, output=f"answer {i}") for i in range(20)], keys=keys)
    text = task.path.read_text()
    task.path.write_text(text.replace("instruction: Answer.", "instruction: |\n  Answer.\n  # e.jsonl: a line of it"))
    copy = fix_task(read_task(task.path), tmp_path / "out").task
    text = copy.read_text("utf-8")
    assert text.startswith("# A cleaned copy of ../a/task.yaml;") and "# mine: keep" in text and "# 20 answers" in text
    assert "semicolons" not in text and "left out" not in text and "a line of it" in read_task(copy).instruction


def test_a_copy_of_a_task_whose_rows_lie_among_its_documents_does_not_read_them_as_documents(tmp_path: Path) -> None:
    rows = [{"question": f"Where is number {n} of the rooms?", "answer": f"floor {n}"} for n in range(20)]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "docs" / "a.txt").write_text("text")
    keys = "instruction: Answer.\nexamples: docs/rows.jsonl\nmetric: exact_match\ncorpus: docs\n"
    (tmp_path / "task.yaml").write_text(keys)
    fixed = read_task(fix_task(read_task(tmp_path / "task.yaml"), tmp_path / "out").task)
    assert fixed.corpus == tmp_path / "out" / "documents.jsonl"
    assert [d.id for d in read_corpus(fixed.corpus)] == ["a.txt"]
