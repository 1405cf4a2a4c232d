"""Files of every format are read by what they hold, and what was recognised is told."""

from __future__ import annotations

import datetime
import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rung.data.formats import data_files, files_of, read_table
from rung.data.rows import Table
from rung.errors import DataError

ROWS = [{"input": f"where is parcel {i}", "output": ("late", "lost")[i % 2]} for i in range(20)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def table(folder: Path, name: str, content: str | bytes) -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path)


def values(found: Table) -> list[dict[str, object]]:
    assert not found.problems
    return [dict(row.values) for row in found.rows]


@pytest.mark.parametrize(
    ("name", "content", "how"),
    [
        ("a.jsonl", JSONL, ""),
        ("a.ndjson", JSONL, ""),
        ("a.json", JSONL, "one record a line (JSONL)"),
        ("a.json", json.dumps(ROWS), ""),
        ("a.jsonl", json.dumps(ROWS), "one JSON list, not one record a line"),
        ("a.jsonl", json.dumps(ROWS, indent=1), "one JSON list, not one record a line"),
        ("a.jsonl", "\n".join(json.dumps(r, indent=1) for r in ROWS), "objects one after the other"),
        ("a.json", "".join(json.dumps(r, indent=1) for r in ROWS), "objects one after the other"),
        ("a.json", json.dumps({"version": 1, "data": ROWS}), 'the records are the list "data" inside one object'),
        ("a.json", json.dumps({k: [r[k] for r in ROWS] for k in ("input", "output")}), "an object of columns"),
        ("a.json", json.dumps({k: {str(i): r[k] for i, r in enumerate(ROWS)} for k in ("input", "output")}),
         "an object of columns"),
        ("a.json", json.dumps({"columns": ["input", "output"], "index": [0], "data": [[*r.values()] for r in ROWS]}),
         "columns and data apart"),
        ("a.txt", JSONL, 'JSON, although the name ends in ".txt"'),
        ("a.csv", JSONL, 'JSON, although the name ends in ".csv"'),
        ("a.jsonl.gz", gzip.compress(JSONL.encode()), ""),
        ("a.jsonl", gzip.compress(JSONL.encode()), "packed by gzip"),
        ("a.jsonl.gz", JSONL, "not packed, although the name ends in .gz"),
        ("a.jsonl", JSONL.encode("utf-8-sig"), "UTF-8 with a byte-order mark"),
        ("a.jsonl", JSONL.encode("utf-16"), "UTF-16"),
        ("a.jsonl", JSONL.encode("utf-16-be"), "UTF-16 without a mark"),
        ("a.jsonl", JSONL.replace("\n", "\r\n"), ""),
        ("a.jsonl", JSONL.replace("\n", "\r"), ""),
        ("a.jsonl", JSONL.replace("\n", ",\n"), ""),
        ("a.jsonl", "\ufeff" + JSONL[:9] + JSONL[9:].replace("\n{", "\n\ufeff{", 1), "byte-order mark"),
    ],
)  # fmt: skip
def test_rows_are_the_same_however_json_is_written(tmp_path: Path, name: str, content: str | bytes, how: str) -> None:
    found = table(tmp_path, name, content)
    assert values(found) == ROWS
    assert found.columns == ["input", "output"]
    assert how in "; ".join(found.how) and bool(found.how) == bool(how)


def test_records_by_name_keep_the_name_as_id(tmp_path: Path) -> None:
    found = table(tmp_path, "a.json", json.dumps({f"q{i}": row for i, row in enumerate(ROWS)}))
    assert values(found)[3] == {"id": "q3", **ROWS[3]}


def test_one_conversation_is_a_row_and_not_a_list_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert values(table(tmp_path, "a.json", json.dumps(row))) == [row]


def test_nan_is_a_missing_value_and_its_rows_are_named(tmp_path: Path) -> None:
    found = table(tmp_path, "a.jsonl", '{"input": "a", "score": NaN}\n{"input": "b", "score": 1}\n')
    assert [row["score"] for row in values(found)] == [None, 1]
    assert found.how == ("NaN in line 1 is read as a missing value",)


@pytest.mark.parametrize("rows", ['[{"input": "a"}, {"input": NaN}]', '{"input":\n"a"}\n{"input":\nNaN}'])
def test_nan_in_a_whole_text_of_json_blames_no_other_row(tmp_path: Path, rows: str) -> None:
    found = table(tmp_path, "a.json", rows)
    assert [row["input"] for row in values(found)] == ["a", None]
    assert found.how[-1] == "NaN is read as a missing value"


def test_a_bad_line_is_a_problem_with_its_line_and_the_others_are_read(tmp_path: Path) -> None:
    found = table(tmp_path, "a.jsonl", JSONL + '{"input": \n[1]\n' + JSONL)
    assert len(found.rows) == 40
    assert [problem.where for problem in found.problems] == ["a.jsonl, line 21", "a.jsonl, line 22"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"data": {"items": ROWS}}, "data.items"),
        ({"took": 3, "hits": {"total": {"value": 20}, "hits": ROWS}}, "hits.hits"),
        ({"name": "tickets", "results": ROWS}, "results"),
    ],
)
def test_a_list_of_records_is_found_inside_objects(tmp_path: Path, value: object, place: str) -> None:
    found = table(tmp_path, "a.json", json.dumps(value))
    assert values(found) == ROWS
    assert found.how == (f'the records are the list "{place}" inside one object',)


def test_records_by_name_inside_one_object_are_found(tmp_path: Path) -> None:
    found = table(tmp_path, "a.json", json.dumps({"tickets": {f"q{i}": row for i, row in enumerate(ROWS)}}))
    assert values(found)[3] == {"id": "q3", **ROWS[3]}


def test_a_list_beside_a_text_is_a_part_of_one_record(tmp_path: Path) -> None:
    row = {"text": "Ann met Bob", "entities": [{"name": "Ann"}, {"name": "Bob"}], "meta": {"authors": [{"name": "A"}]}}
    assert values(table(tmp_path, "a.jsonl", json.dumps(row))) == [row]


def test_values_that_mongodb_exports_as_objects_are_read_and_told(tmp_path: Path) -> None:
    query = {"at": {"$gte": {"$date": "2024-01-01"}}}
    row = {"_id": {"$oid": "5f"}, "input": "a", "output": {"$numberInt": "1"}, "query": query}
    found = table(tmp_path, "a.jsonl", json.dumps(row) + "\n" + json.dumps(row))
    assert values(found) == [{"_id": "5f", "input": "a", "output": "1", "query": query}] * 2
    assert found.how == ('values that MongoDB exports as objects, such as {"$oid": …}, are read in _id, output',)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'input': 'a'}", "single quotes, as Python prints them (write rows with json.dumps), at column 2"),
        ('{"input": None}', "Python's None, which JSON writes null, at column 11"),
        ('{"input": True}', "Python's True, which JSON writes true, at column 11"),
        ('{"input": ObjectId("5f")}', "ObjectId(…), as MongoDB's shell prints it"),
        ("# rows of May", "a comment, which JSON does not know, at column 1"),
        ('{"input": "a",}', 'a comma too many before "}"'),
        ('{"input": "a\tb"}', "a line end or tab inside a text"),
        ('{"input": "a', "Unterminated string starting at column 11"),
    ],
)
def test_what_people_write_instead_of_json_is_named(tmp_path: Path, line: str, says: str) -> None:
    (problem,) = table(tmp_path, "a.jsonl", f"{JSONL}{line}\n").problems
    assert says in problem.text


# ---- Parquet, Arrow, Excel ------------------------------------------------------------------


def arrow_table(**columns: object):  # type: ignore[no-untyped-def]
    pa = pytest.importorskip("pyarrow")
    return pa.table(columns or {k: [row[k] for row in ROWS] for k in ("input", "output")})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.stream.arrow", "a.csv"])
def test_columnar_files_are_read_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    content = arrow_table()
    import pyarrow as pa
    from pyarrow import feather, parquet

    path = tmp_path / name
    if name == "a.stream.arrow":
        with pa.ipc.new_stream(path, content.schema) as writer:
            writer.write_table(content)
    elif "parquet" in name or "csv" in name:
        parquet.write_table(content, path)
    else:
        feather.write_feather(content, path)
    found = read_table(path)
    assert values(found) == ROWS
    assert found.rows[2].where == f"{name}, row 3" and found.rows[2].key == "row-3"
    assert found.how == (("Parquet, although the name ends in .csv",) if name == "a.csv" else ())


def test_typed_values_become_plain_ones(tmp_path: Path) -> None:
    day = datetime.date(2024, 2, 29)
    content = arrow_table(
        n=[1, None], x=[1.5, float("nan")], d=[day, None], b=[True, None], t=[datetime.datetime(2024, 1, 2, 3), None],
        m=[[{"role": "user", "score": float("nan")}], []], __index_level_0__=[5, 6],
    )  # fmt: skip
    from pyarrow import parquet

    parquet.write_table(content, tmp_path / "a.parquet")
    assert values(read_table(tmp_path / "a.parquet")) == [
        {"n": 1, "x": 1.5, "d": "2024-02-29", "t": "2024-01-02T03:00:00", "b": True,
         "m": [{"role": "user", "score": None}]},
        {"n": None, "x": None, "d": None, "t": None, "b": None, "m": []},
    ]  # fmt: skip


def test_labels_kept_as_numbers_get_their_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["late", "lost"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    content = arrow_table(text=["a", "b", "c"], label=[1, 0, -1])
    content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    from pyarrow import parquet

    parquet.write_table(content, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert [row["label"] for row in values(found)] == ["lost", "late", None]
    assert found.how == ("the numbers in label are given as the names that the file has for them",)


def test_a_workbook_gives_its_one_table(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.create_sheet("notes").append(["made by hand"])
    sheet = book.active
    sheet.append(["Parcels of 2024"])
    sheet.append([" input ", "output", "when", None])
    for i in range(12):
        sheet.append([f"q {i}", i, datetime.datetime(2024, 1, 2), None])
    sheet.append([None, "", None])
    book.save(tmp_path / "a.xlsx")
    found = read_table(tmp_path / "a.xlsx")
    assert len(found.rows) == 12
    assert found.rows[1].where == "a.xlsx, row 4"
    assert found.rows[1].values == {"input": "q 1", "output": 1, "when": "2024-01-02"}
    assert found.how == ('the sheet "Sheet"', "a title above the header is left out")


def workbook(path: Path, rows: list[list[object]], merged: str = "") -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if merged:
        book.active.merge_cells(merged)
    book.save(path)
    return path


def test_a_cell_merged_over_rows_stands_in_each(tmp_path: Path) -> None:
    rows: list[list[object]] = [["label", "text"], ["a", "t1"], [None, "t2"], [None, "t3"], ["b", "t4"], [None, "t5"]]
    found = read_table(workbook(tmp_path / "a.xlsx", rows, "A2:A4"))
    assert [row.values["label"] for row in found.rows] == ["a", "a", "a", "b", None]
    assert found.how == ("a cell that is merged over several rows is read in each of them",)


def test_names_of_groups_of_columns_above_a_header_are_a_title(tmp_path: Path) -> None:
    rows = [["Ticket", None, "Outcome"], ["id", "text", "label"], *([i, f"t {i}", "a"] for i in range(9))]
    found = read_table(workbook(tmp_path / "a.xlsx", rows, "A1:B1"))
    assert found.columns == ["id", "text", "label"] and len(found.rows) == 9


def test_formulas_that_nobody_computed_are_refused_and_their_errors_are_missing_values(tmp_path: Path) -> None:
    rows: list[list[object]] = [["text", "label"], *([f"t {i}", '=UPPER("a")'] for i in range(9))]
    with pytest.raises(DataError, match='the column "label" holds formulas without values'):
        read_table(workbook(tmp_path / "a.xlsx", rows))
    with pytest.raises(DataError, match='the column "label" holds formulas without values'):
        read_table(workbook(tmp_path / "c.xlsx", [row[::-1] for row in rows]))
    rows = [["text", "label"], *([f"t {i}", "#N/A" if i == 4 else "a"] for i in range(9))]
    found = read_table(workbook(tmp_path / "b.xlsx", rows))
    assert [row.values["label"] for row in found.rows].count(None) == 1
    assert found.how == ("errors of formulas, such as #N/A, are read as missing values (row 6)",)


def test_carriage_returns_of_excel_are_no_words(tmp_path: Path) -> None:
    rows: list[list[object]] = [["text", "label"], *([f"one_x000D_\ntwo {i}", "a"] for i in range(9))]
    assert read_table(workbook(tmp_path / "a.xlsx", rows)).rows[0].values["text"] == "one\r\ntwo 0"


@pytest.mark.parametrize(
    ("package", "name", "content"),
    [
        ("pyarrow", "a.parquet", b"PAR1PAR1"),
        ("openpyxl", "a.xlsx", None),
        ("zstandard", "a.csv.zst", b"\x28\xb5\x2f\xfd1234"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    package: str, name: str, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    if content is None:
        pytest.importorskip("openpyxl").Workbook().save(path)
    else:
        path.write_bytes(content)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r'pip install "rung\[files\]"'):
        read_table(path)


# ---- places ---------------------------------------------------------------------------------


def test_a_folder_and_a_glob_give_their_files_of_rows_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv.gz", "notes.txt", ".hidden.csv", "readme.md", "c/d.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [p.name for p in files_of(str(tmp_path), Path("/"))] == ["a.csv.gz", "b.jsonl"] == [
        p.name for p in data_files(tmp_path)
    ]  # fmt: skip
    assert files_of("*", tmp_path) == [tmp_path / "a.csv.gz", tmp_path / "b.jsonl"]
    assert files_of("**/*.tsv", tmp_path) == [tmp_path / "c" / "d.tsv"]
    assert files_of("notes.txt", tmp_path) == [tmp_path / "notes.txt"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "data[1].csv").write_text("x")
    assert files_of("data[1].csv", tmp_path) == [tmp_path / "data[1].csv"]


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text("x")
    assert files_of("~/a.csv", Path("/")) == [tmp_path / "a.csv"]
    with pytest.raises(ValueError, match=r"names ~/b.csv, which does not exist \(.*/b.csv\). The path begins at the"):
        files_of("~/b.csv", Path("/"))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.jsonl", "test.jsonl"),
        ("train-00000-of-2.jsonl", "test-00000-of-1.jsonl.gz"),
        ("a_train.csv", "a_test.csv"),
    ],
)
def test_a_folder_that_holds_a_split_is_not_mixed(tmp_path: Path, train: str, test: str) -> None:
    (tmp_path / train).write_text("x")
    (tmp_path / "train-00001-of-2.jsonl").write_text("x")
    assert len(files_of(".", tmp_path)) == 2
    (tmp_path / test).write_text("x")
    with pytest.raises(ValueError, match=rf"holds .*{test}.*, .*train.*. Write examples: {{train: …, dev"):
        files_of(".", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [("*.csv", "matches no file"), ("*.md", "matches no file of rows but a.md"), ("empty", "a folder without files")],
)
def test_a_place_without_rows_says_so(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"names .*{says}"):
        files_of(text, tmp_path)


def saved(folder: Path, name: str) -> Path:
    """A dataset as `Dataset.save_to_disk` writes it."""
    content = arrow_table()
    import pyarrow as pa

    path = folder / name
    path.mkdir(parents=True)
    with pa.ipc.new_stream(path / "data-00000-of-00001.arrow", content.schema) as writer:
        writer.write_table(content)
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return path


def test_a_dataset_saved_to_disk_is_read_without_its_library(tmp_path: Path) -> None:
    saved(tmp_path, "set")
    (file,) = files_of("set", tmp_path)
    assert values(read_table(file)) == ROWS


def test_the_splits_of_a_saved_dataset_are_kept_apart(tmp_path: Path) -> None:
    for name in ("train", "test"):
        saved(tmp_path / "sets", name)
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(ValueError, match=r"splits test, train. Write examples: {test: sets/test, train: sets/train}"):
        files_of("sets", tmp_path)
    assert len(files_of("sets/train", tmp_path)) == 1


def test_a_saved_dataset_names_no_files_elsewhere(tmp_path: Path) -> None:
    path = saved(tmp_path, "set")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(ValueError, match="cannot be read as a saved dataset"):
        files_of("set", tmp_path)


def test_a_dataset_of_the_hub_is_the_files_that_its_library_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, "set") / "data-00000-of-00001.arrow"
    asked: list[object] = []

    def load_dataset(*names: str, split: str | None) -> object:
        asked.append((*names, split))
        one = SimpleNamespace(cache_files=[{"filename": str(file)}])
        return one if split else {"train": one, "test": one}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert files_of("hf:org/name/config:train", tmp_path) == [file]
    assert asked == [("org/name", "config", "train")]
    with pytest.raises(ValueError, match=r"several splits. Name one of them: hf:org/name:train, hf:org/name:test"):
        files_of("hf:org/name", tmp_path)
    with pytest.raises(ValueError, match="Write hf:OWNER/NAME"):
        files_of("hf:a/b:train[:10]", tmp_path)


def test_without_the_library_of_the_hub_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'names hf:org/name, which needs a package more: pip install "rung\[hf\]"'):
        files_of("hf:org/name", tmp_path)
