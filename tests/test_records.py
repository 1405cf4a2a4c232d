"""Records on disk."""

from __future__ import annotations

from pathlib import Path

from rung.records import append_lines, read_lines, write_lines


def test_a_line_with_half_of_a_surrogate_pair_is_written_and_read_back(tmp_path: Path) -> None:
    records = [{"text": "é"}, {"text": "half \ud83d of it, é"}]
    write_lines(tmp_path / "a.jsonl", records)
    append_lines(tmp_path / "a.jsonl", records[1:])
    assert read_lines(tmp_path / "a.jsonl") == [*records, records[1]]
    assert (tmp_path / "a.jsonl").read_text("utf-8").startswith('{"text": "é"}\n')
