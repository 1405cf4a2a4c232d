"""Records on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from rung.records import append_lines, from_record, read_lines, write_lines


@dataclass(frozen=True)
class Part:
    mean: float


@dataclass(frozen=True)
class Whole:
    name: str
    first: Part
    other: Part | None = None
    parts: tuple[Part, ...] = ()
    counts: tuple[tuple[str, int, Part | None], ...] = ()
    names: tuple[str, ...] | None = None


def test_a_line_with_half_of_a_surrogate_pair_is_written_and_read_back(tmp_path: Path) -> None:
    records = [{"text": "é"}, {"text": "half \ud83d of it, é"}]
    write_lines(tmp_path / "a.jsonl", records)
    append_lines(tmp_path / "a.jsonl", records[1:])
    assert read_lines(tmp_path / "a.jsonl") == [*records, records[1]]
    assert (tmp_path / "a.jsonl").read_text("utf-8").startswith('{"text": "é"}\n')


def test_a_dataclass_comes_back_from_json_with_all_that_is_in_it() -> None:
    for whole in (
        Whole("a", Part(0.5)),
        Whole("b", Part(0.5), Part(1), (Part(2), Part(3)), (("x", 1, Part(4)), ("y", 2, None)), ("z",)),
    ):
        assert from_record(Whole, json.loads(json.dumps(asdict(whole)))) == whole
    assert from_record(Whole, {"name": "a", "first": {"mean": 0.5}}) == Whole("a", Part(0.5)), "of an older version"


@pytest.mark.parametrize(
    "change", [{"more": 1}, {"first": 1}, {"first": {"mean": 1, "more": 2}}, {"parts": None}, {"counts": [["x", 1]]}]
)
def test_a_record_of_something_else_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_record(Whole, {"name": "a", "first": {"mean": 0.5}} | change)
    with pytest.raises(TypeError, match="first"):
        from_record(Whole, {"name": "a"})
