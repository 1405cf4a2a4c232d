"""Every broken data file gives one plain error that begins with its name, or is read; no other exception."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rung.data.formats import read_table
from rung.errors import DataError

pa = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")
openpyxl = pytest.importorskip("openpyxl")

LINES = b"".join(json.dumps({"input": f"q {i}", "output": "ab"[i % 2]}).encode() + b"\n" for i in range(30))
CSV = b"input,output\n" + b"".join(b'"q %d",a\n' % i for i in range(30))


def parquet(**columns: object) -> bytes:
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns or {"input": [f"q {i}" for i in range(30)], "n": [1.5] * 30}), file)
    return file.getvalue()


def arrow(**columns: object) -> bytes:
    table = pa.table(columns or {"input": [f"q {i}" for i in range(30)], "n": [1.5] * 30})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def workbook(sheets: dict[str, list[list[object]]] | None = None) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in (sheets or {"data": [["input", "output"], *(["q", i] for i in range(20))]}).items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def archive(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in files.items():
            packed.writestr(name.replace("__", "/"), content)
    return file.getvalue()


BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty JSONL": ("a.jsonl", lambda: b"", "holds no rows"),
    "empty CSV": ("a.csv", lambda: b"", "holds no rows"),
    "empty Parquet": ("a.parquet", lambda: b"", "holds no rows"),
    "only a mark": ("a.csv", lambda: b"\xef\xbb\xbf", "holds no rows"),
    "only blank lines": ("a.tsv", lambda: b"\n\r\n \n", "holds no rows"),
    "only sep=": ("a.csv", lambda: b"sep=;\n", "holds no rows"),
    "a header alone": ("a.csv", lambda: b"sep=;\na;b\n", "a header but no rows"),
    "header and empty rows": ("a.csv", lambda: b"a,b\n,\n,\n", "a header but no rows"),
    "text": ("a.txt", lambda: b"Dear all,\nthis is prose.\nBye\n", "holds plain text, not rows"),
    "unknown suffix": ("a.dat", lambda: b"Dear all", 'files that end in ".dat" cannot be read'),
    "no suffix": ("data", lambda: b"Dear all", 'files that end in "" cannot be read'),
    "PDF": ("a.pdf", lambda: b"%PDF-1.7", "is a PDF"),
    "PDF called CSV": ("a.csv", lambda: b"%PDF-1.7", "is a PDF"),
    "old Excel": ("a.xls", lambda: b"\xd0\xcf\x11\xe0" + bytes(600), "an old Excel file"),
    "SQLite": ("a.db", lambda: b"SQLite format 3\0" + bytes(90), "an SQLite database"),
    "pickle": ("a.csv", lambda: b"\x80\x04\x95" + bytes(90), "a Python pickle"),
    "web page": ("a.json", lambda: b"<!doctype html><title>404</title>", "a web page"),
    "Git LFS": ("a.jsonl", lambda: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "bzip2": ("a.jsonl.bz2", lambda: b"BZh91AY&SY", "packed by bzip2"),
    "zip": ("a.zip", lambda: archive(data__csv=CSV), "a zip archive, no Excel file"),
    "Word": ("a.docx", lambda: archive(word__document=b"<a/>"), "a zip archive, no Excel file"),
    "zeros": ("a.csv", lambda: bytes(5000), "binary data"),
    "noise": ("a.jsonl", lambda: bytes(range(256)) * 20, "binary data"),
    "cut UTF-16": ("a.csv", lambda: "a,b\nx,y\n".encode("utf-16")[:-1], "begins as UTF-16"),
    "Shift-JIS": ("a.csv", lambda: "input,output\n注文はどこですか,配送\n".encode("shift-jis"), "line 2: byte 1"),
    "Polish Windows": ("a.csv", lambda: "input,output\nzażółć gęślą jaźń,tak\n".encode("cp1250"), "line 2: byte 3"),
    "Mac Roman": ("a.csv", lambda: "input,output\nvoilà déjà été là,oui\n".encode("mac-roman"), "line 2: byte"),
    "gzip, cut": ("a.jsonl.gz", lambda: gzip.compress(LINES)[:-9], "cut off or damaged"),
    "gzip, wrong check": ("a.jsonl.gz", lambda: gzip.compress(LINES)[:-8] + bytes(8), "cut off or damaged"),
    "gzip, noise": ("a.jsonl.gz", lambda: b"\x1f\x8b" + bytes(60), "cut off or damaged"),
    "gzip of nothing": ("a.jsonl.gz", lambda: gzip.compress(b""), "holds no rows"),
    "gzip of gzip": ("a.jsonl.gz", lambda: gzip.compress(gzip.compress(LINES)), "is packed twice"),
    "gzip bomb": ("a.jsonl.gz", lambda: gzip.compress(b"\n" * 5_000_000, 9), "its content is larger than"),
    "zstd, cut": ("a.csv.zst", lambda: zstandard.compress(CSV)[:-6], "cut off or damaged"),
    "zstd, noise": ("a.csv.zst", lambda: b"\x28\xb5\x2f\xfd" + b"\xff" * 60, "cut off or damaged"),
    "zstd bomb": ("a.csv.zst", lambda: zstandard.compress(b"\n" * 5_000_000), "its content is larger than"),
    "Parquet, cut": ("a.parquet", lambda: parquet()[:-40], "cannot be read as Parquet"),
    "Parquet, beginning lost": ("a.parquet", lambda: parquet()[40:], "is not a .parquet file"),
    "Parquet with a picture": ("a.parquet", lambda: parquet(a=[b"\xff\xd8"] * 3), 'row 1: "a" holds bytes'),
    "Parquet, infinite": ("a.parquet", lambda: parquet(a=[1.0, float("inf")]), 'row 2: "a" holds an infinite number'),
    "Parquet, long text": ("a.parquet", lambda: parquet(a=["x" * 10_000_001]), 'row 1: "a" is longer than 10 MB'),
    "Parquet without rows": ("a.parquet", lambda: parquet(a=[]), "holds no rows"),
    "Arrow, cut": ("a.arrow", lambda: arrow()[:-200], "cannot be read as Arrow"),
    "text called Arrow": ("a.arrow", lambda: b"hello", "is not a .arrow file"),
    "text called Excel": ("a.xlsx", lambda: b"a,b\n1,2\n", "is not a .xlsx file"),
    "old Feather": ("a.feather", lambda: b"FEA1" + bytes(50), "Feather of version 1"),
    "Excel, cut": ("a.xlsx", lambda: workbook()[:-60], "cut off or damaged"),
    "Excel, a part lost": ("a.xlsx", lambda: archive(xl__workbook=b"<a/>"), "cannot be read as Excel"),
    "Excel without rows": ("a.xlsx", lambda: workbook({"data": []}), "holds no rows"),
    "Excel with a header alone": ("a.xlsx", lambda: workbook({"d": [["May"], ["a", "b"]]}), "a header but no rows"),
    "Excel with two tables": (
        "a.xlsx", lambda: workbook({"de": [["frage", "antwort"], ["a", "b"]], "fr": [["c", "d"], ["e", "f"]]}),
        '2 sheets hold rows, which begin with "de": [frage] [antwort]; "fr": [c] [d]'
    ),
    "Excel column twice": ("a.xlsx", lambda: workbook({"d": [["a", "a"], [1, 2]]}), 'two columns are called "a"'),
    "JSON number": ("a.json", lambda: b"12", "must hold a list of objects, holds a number"),
    "JSON, cut": ("a.json", lambda: b'[{"a": 1}, {"a"', "not valid JSON"),
    "JSON of lists": ("a.json", lambda: b'{"dev": [{"a": 1}], "test": [{"a": 1}]}', "several lists of records: dev"),
    "JSON of numbers": ("a.json", lambda: b"[1, 2]", "item 1: not an object"),
    "JSON, second object broken": ("a.jsonl", lambda: b'{\n"a": 1\n}\n{\n"a" 2\n}\n', "line 4: not valid JSON"),
    "JSON, endless digits": ("a.jsonl", lambda: b'{"a": ' + b"9" * 5000 + b"}", "has over 4,000 digits"),
    "JSON, deep": ("a.json", lambda: b"[" * 200_000, "nested too deeply"),
    "JSON, long text": ("a.json", lambda: b'[{"a": "' + b"x" * 10_000_001 + b'"}]', 'item 1: "a" is longer than 10 MB'),
    "CSV, wrong width": ("a.csv", lambda: CSV + b"a\n", "line 32: 1 field, but the header has 2"),
    "CSV, a zero": ("a.csv", lambda: CSV + b"a\0,b\n", "line 32: holds a NUL byte"),
    "CSV, long line": ("a.csv", lambda: CSV + b"x" * 10_000_001, "line 32: longer than 10 MB"),
    "CSV, two names": ("a.csv", lambda: b"a,a\n1,2\n", 'two columns are called "a"'),
    "CSV, two readings": ("a.csv", lambda: b"a;b,c;d\n" * 9 + b"1;b,c;d\n" * 9, "can be read in two ways"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.data.formats.source.RATIO_COUNTS_FROM", 2_000_000)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_error_that_names_it(name: str, tmp_path: Path) -> None:
    file, content, says = BROKEN[name]
    path = tmp_path / file
    path.write_bytes(content())
    try:
        table = read_table(path)
        message = f"{table.problems[0].where}: {table.problems[0].text}"
    except DataError as error:
        message = str(error)
    assert message.startswith(file), message
    assert says in message
    assert len(message) < 1000


def test_there_are_sixty_broken_files() -> None:
    assert len(BROKEN) >= 60


def test_a_folder_and_an_absent_file_are_named(tmp_path: Path) -> None:
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "no.csv", "no such file")):
        with pytest.raises(DataError, match=says):
            read_table(path)


@pytest.mark.parametrize(("module", "suffix"), [("sheets", "xlsx"), ("columnar", "parquet")])
def test_a_defect_of_rung_is_not_called_a_damaged_file(
    module: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(value: object) -> object:
        raise LookupError("a defect")

    monkeypatch.setattr(f"rung.data.formats.{module}.plain", defect)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(GOOD[suffix])
    with pytest.raises(LookupError, match="a defect"):
        read_table(path)


def read(folder: Path, name: str, content: bytes) -> None:
    """Reads a file; nothing but a DataError may come of it."""
    path = folder / name
    path.write_bytes(content)
    try:
        table = read_table(path)
    except DataError as error:
        assert str(error).startswith(name)
        return
    for row in table.rows:
        assert row.where.startswith(name)
    assert all(problem.where.rsplit(" ", 1)[1].isdecimal() for problem in table.problems)


SUFFIXES = ("jsonl", "json", "csv", "tsv", "txt", "parquet", "arrow", "xlsx", "jsonl.gz", "csv.zst")
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    read(tmp_path, f"a.{suffix}", content)


@fuzz
@given(suffix=st.sampled_from(SUFFIXES[:5]), content=st.text("ab1,;\t|\"'\n\r {}[]:\\.é\0n", max_size=80))
def test_any_text_of_signs_is_read_or_refused(tmp_path: Path, suffix: str, content: str) -> None:
    for encoding in ("utf-8", "utf-16", "cp1252"):
        read(tmp_path, f"a.{suffix}", content.encode(encoding))


@fuzz
@given(data=st.data(), kind=st.sampled_from(("gz", "zst", "parquet", "arrow", "xlsx", "jsonl", "csv")))
def test_a_good_file_with_some_bytes_changed_is_read_or_refused(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    good = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(good)) | st.just(len(good)))
    read(tmp_path, f"a.{kind}", bytes(good[:end]))


GOOD = {
    "gz": gzip.compress(LINES),
    "zst": zstandard.compress(CSV),
    "parquet": parquet(),
    "arrow": arrow(),
    "xlsx": workbook(),
    "jsonl": LINES,
    "csv": CSV,
}
