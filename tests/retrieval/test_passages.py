from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rung.retrieval import passages
from rung.retrieval.passages import PassageFile, by_id, keys_of, read_passages, write_passages
from rung.types import Document

SOME = (
    Document("a", "Text\nwith lines"),
    Document("b#1", "größe \u2028 😀", title="T › H", page=3, last_page=4),
    Document("c", ""),
)


def test_a_file_of_passages_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_passages(tmp_path / "p.jsonl", SOME)
    read = PassageFile(tmp_path / "p.jsonl")
    assert len(read) == 3 and tuple(read) == SOME == tuple(read[i] for i in range(3))
    assert read[-1] == SOME[2] and read[1:] == SOME[1:]
    with pytest.raises(IndexError, match="no passage 3"):
        read[3]


def test_a_torn_last_line_is_no_passage(tmp_path: Path) -> None:
    write_passages(tmp_path / "p.jsonl", SOME)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"id": "d", "te')
    assert tuple(PassageFile(tmp_path / "p.jsonl")) == SOME


def test_an_empty_file_has_no_passages(tmp_path: Path) -> None:
    write_passages(tmp_path / "p.jsonl", ())
    assert tuple(PassageFile(tmp_path / "p.jsonl")) == ()


def test_lines_are_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "_BLOCK", 7)
    write_passages(tmp_path / "p.jsonl", SOME)
    assert tuple(PassageFile(tmp_path / "p.jsonl")[:]) == SOME


def test_many_passages_are_left_in_their_file_and_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_passages(tmp_path / "p.jsonl", SOME)
    assert read_passages(tmp_path / "p.jsonl") == SOME
    monkeypatch.setattr(passages, "FILE_FROM", 1)
    read = read_passages(tmp_path / "p.jsonl")
    assert isinstance(read, PassageFile) and tuple(read) == SOME
    assert read_passages(tmp_path / "none.jsonl") == ()


def test_keys_are_of_what_is_searched_and_all_different() -> None:
    texts = ["same", "other", "same", "same", "other", "last"]
    keys = keys_of([Document(f"d{i}", text) for i, text in enumerate(texts)])
    assert len(set(keys.tolist())) == len(texts)
    moved = keys_of([Document(f"e{i}", text) for i, text in enumerate(sorted(texts))])
    assert sorted(moved.tolist()) == sorted(keys.tolist())
    titled = keys_of([Document("a", "same", title="T"), Document("b", "T\nsame"), Document("c", "same")])
    assert titled[2] == keys[0] and len(set(titled.tolist())) == 3
    assert keys_of([]).shape == (0,) and keys.dtype == np.int64


def test_passages_are_found_by_their_ids_in_memory_and_in_a_file(tmp_path: Path) -> None:
    write_passages(tmp_path / "p.jsonl", SOME)
    for passages_here in (SOME, PassageFile(tmp_path / "p.jsonl")):
        found = by_id(passages_here)
        assert dict(found) == {p.id: p for p in SOME} and found["b#1"] == SOME[1]
        assert "d" not in found and len(found) == 3


def test_passages_of_an_older_version_have_no_last_page(tmp_path: Path) -> None:
    (tmp_path / "passages.jsonl").write_text('{"id": "a", "text": "x", "title": null, "page": 2}\n')
    assert read_passages(tmp_path / "passages.jsonl") == (Document("a", "x", page=2),)
