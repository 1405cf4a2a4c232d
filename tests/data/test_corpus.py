from __future__ import annotations

from pathlib import Path

import pytest

from rung.data import corpus
from rung.data.corpus import check_gold_ids, read_corpus
from rung.errors import DataError
from rung.types import Document, Example


def test_a_folder_gives_its_texts_in_order_with_paths_as_ids(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two", "a/x.md": "# Fees\n\nNone.", ".git/c.txt": "no", "p.pdf": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_corpus(tmp_path) == (Document("a/x.md", "# Fees\n\nNone.", "Fees"), Document("b.txt", "two"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("c.jsonl", '{"id": 1, "text": "a", "title": "t"}\n{"text": "b"}\n'), ("c.csv", "id,text,title\n1,a,t\n,b,\n")],
)
def test_a_file_gives_one_document_a_row(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    second = "line-2" if name == "c.jsonl" else "line-3"
    assert read_corpus(tmp_path / name) == (Document("1", "a", "t"), Document(second, "b"))


def test_every_bad_file_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "empty.txt").write_text(" \n")
    (folder / "latin.md").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_corpus(folder)
    assert "latin.md, line 1: byte 3" in str(caught.value)
    (folder / "latin.md").write_text("fine")
    with pytest.raises(DataError, match=r"docs/empty.txt: holds no text"):
        read_corpus(folder)


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
