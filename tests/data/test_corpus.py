from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rung.data import corpus
from rung.data.corpus import check_gold_ids, read_corpus, read_documents
from rung.errors import DataError
from rung.types import Document, Example


def test_a_folder_gives_its_texts_in_order_with_paths_as_ids(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two", "a/x.md": "# Fees\n\nNone.", ".git/c.txt": "no", "p.png": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_corpus(tmp_path) == (
        Document("a/x.md", "# Fees\n\nNone.", "Fees", markdown=True),
        Document("b.txt", "two"),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.jsonl", '{"id": 1, "text": "a", "title": "t"}\n{"text": "b"}\n'), ("c.csv", "id,text,title\n1,a,t\n,b,\n")],
)
def test_a_file_gives_one_document_a_row(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    second = "line-2" if name == "c.jsonl" else "line-3"
    assert read_corpus(tmp_path / name) == (Document("1", "a", "t"), Document(second, "b"))


def test_every_file_of_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "russian.md").write_bytes("Где мой заказ".encode("cp1251"))
    (folder / "packed.txt").write_bytes(gzip.compress(b"text"))
    (folder / "zero.txt").write_bytes(b"a text with a\0zero")
    with pytest.raises(DataError) as caught:
        read_corpus(folder)
    assert "docs/russian.md: line 1: byte 1 of the line (0xc3) is not UTF-8" in str(caught.value)
    assert "docs/packed.txt: is no text but a packed or binary file" in str(caught.value)
    assert "docs/zero.txt: holds a NUL character" in str(caught.value)


def test_a_document_in_windows_1252_is_read_and_told(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("le café – naïf".encode("cp1252"))
    assert read_corpus(tmp_path)[0].text == "le café – naïf"
    (finding,) = read_documents(tmp_path).findings
    assert (finding.check, finding.severity, finding.row) == ("document_encoding", "warning", "old.txt")
    assert "read as Windows-1252" in finding.message


def test_documents_without_text_are_left_out_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "empty.txt").write_text(" \n")
    with pytest.raises(
        DataError, match=r"docs: no document can be read. docs/empty.txt: holds no text, so it is no document"
    ):
        read_corpus(folder)
    (folder / "full.txt").write_text("text")
    rows = tmp_path / "c.jsonl"
    rows.write_text('{"id": "a", "text": ""}\n{"id": "b", "text": "b"}\n')
    for path, row in ((folder, "empty.txt"), (rows, "c.jsonl, line 1")):
        assert len(read_corpus(path)) == 1
        (finding,) = read_documents(path).findings
        assert (finding.check, finding.row) == ("empty_document", row)


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    for name in ("a.md", "b.png", "c.png", "d.odt", ".e.png"):
        (tmp_path / name).write_text("text")
    (finding,) = read_documents(tmp_path).findings
    assert (finding.check, finding.severity, finding.count) == ("unread_documents", "warning", 3)
    assert "3 of 4 files are not read (2 × .png, 1 × .odt)" in finding.message


def mixed(folder: Path) -> Path:
    """A broken PDF, an empty file and a packed one."""
    folder.mkdir()
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "empty.txt").write_text("")
    (folder / "old.zip").write_bytes(b"PK\3\4")
    return folder


def test_of_a_folder_without_a_document_every_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_corpus(mixed(tmp_path / "docs"))
    first, *lines = str(caught.value).splitlines()
    assert first == "docs: none of its 3 files is a document that can be read."
    assert [line.split(":")[0].strip() for line in lines] == ["docs/broken.pdf", "docs/empty.txt", "1 × .zip"]


def test_files_of_the_task_are_no_documents_by_whatever_way_they_are_reached(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "more").mkdir(parents=True)
    for name in ("a.txt", "more/b.txt", "more/rows.txt"):
        (folder / name).write_text(name)
    (tmp_path / "other.txt").write_text("other")
    (folder / "more" / "linked.txt").symlink_to(tmp_path / "other.txt")
    (tmp_path / "way").symlink_to(folder)
    left_out = (tmp_path / "way" / "more" / "rows.txt", tmp_path / "other.txt")
    for corpus_folder in (folder, tmp_path / "way"):
        assert [d.id for d in read_corpus(corpus_folder, left_out)] == ["a.txt", "more/b.txt"]


def test_files_that_give_documents_and_those_that_do_not_add_up(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "docs")
    for name in ("a.txt", "b.md"):
        (folder / name).write_text("text")
    (folder / "rows.csv").write_text("id,text\n1,one\n2,two\n")
    (folder / "no.csv").write_text("id,text\n1,\n")
    read = corpus.read_documents(folder)
    assert (len(read.documents), read.files, read.found) == (4, 3, 7)
    said = [f.message for f in read.findings if not f.row]
    assert said[0] == "docs: 1 of 7 files cannot be read, and is left out."
    assert said[1].startswith("docs: 1 of 7 files is not read (1 × .zip)")
    assert {f.row for f in read.findings if f.row} == {"broken.pdf", "empty.txt", "no.csv, line 2"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "1", "body": "a"}, "body"),
        ({"_id": "1", "Text": "a", "title": ""}, "Text, _id"),
        ({"id": "1", "fees of 2024": "a", "date": "b"}, "fees of 2024; not read: date"),
        ({"id": "1", "question": "q", "answer": "a"}, "answer; not read: question"),
    ],
)
def test_columns_with_other_names_are_read_and_told(tmp_path: Path, row: dict[str, str], told: str) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps(row))
    assert read_corpus(tmp_path / "c.jsonl") == (Document("1", "a"),)
    (finding,) = read_documents(tmp_path / "c.jsonl").findings
    assert (finding.check, finding.severity) == ("document_form", "note")
    assert finding.message == f"c.jsonl: documents are read from the column {told}."


@pytest.mark.parametrize("text", ["ORCHESTRA of Utrecht", "PARENTAL LEAVE: 26 weeks"])
def test_a_text_that_begins_as_a_binary_file_does_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert read_corpus(tmp_path / "a.txt") == (Document("a.txt", text),)


def test_one_file_of_text_is_one_document_however_long_its_line(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("word " * 2_400_000)
    (document,) = read_corpus(tmp_path / "book.txt")
    assert document.id == "book.txt" and len(document.text) == 12_000_000


def test_an_absent_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="docs: no such file or folder"):
        read_corpus(tmp_path / "docs")


def test_gold_ids_that_name_no_document_are_found(tmp_path: Path) -> None:
    documents = [Document("fees.md", "a"), Document("cards.md", "b")]
    good = Example("1", "q", "a", ("a",), gold_ids=("fees.md",), row="e, line 1")
    bad = Example("2", "q", "a", ("a",), gold_ids=("fees.md", "crads.md"), row="e, line 2")
    (finding,) = check_gold_ids([good, bad], documents)
    assert (finding.check, finding.severity, finding.row, finding.ids) == (
        "unknown_gold_id", "warning", "e, line 2", ("2",),
    )  # fmt: skip
    assert 'Did you mean "cards.md"?' in finding.message


def test_unknown_gold_ids_of_many_examples_are_counted_and_few_are_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(corpus, "nearest", lambda word, words: asked.append(word))
    examples = [Example(str(i), "q", "a", ("a",), gold_ids=(f"x{i}",), row=f"line {i}") for i in range(500)]
    found = check_gold_ids(examples, [Document("a", "text")])
    assert len(asked) == 20
    assert len(found) == 201 and "500 in all" in found[-1].message
