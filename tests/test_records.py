"""Records on disk."""

from __future__ import annotations

import json
import pickle
import re
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from rung.errors import DamagedRecord
from rung.records import KeptRecord, append_lines, but, damage_behind, from_record, read_json, read_lines, write_lines
from rung.report.reading import models_of
from rung.resume import once_for_all, record_of


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
    "change",
    [
        *({"more": 1}, {"first": 1}, {"first": {"mean": 1, "more": 2}}, {"parts": None}, {"counts": [["x", 1]]}),
        *({"name": 1}, {"name": None}, {"first": {"mean": "1"}}, {"names": "ab"}, {"names": [1]}, {"names": {"a": 1}}),
    ],
)
def test_a_record_of_something_else_is_an_error(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_record(Whole, {"name": "a", "first": {"mean": 0.5}} | change)
    with pytest.raises(TypeError, match="first"):
        from_record(Whole, {"name": "a"})


def test_a_record_that_is_damaged_or_lacks_a_key_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    for text in ("", "  \n", '{"a": ', "[]", "3", "[" * 100_000, "\xff"):
        path.write_text(text, "latin-1")
        with pytest.raises(DamagedRecord, match=rf"^{re.escape(str(path))}: is damaged \(") as caught:
            read_json(path)
        assert caught.value.file == path
    path.write_text('{"name": "a", "first": {}, "parts": [{"mean": 1}]}')
    record = read_json(path)
    assert record is not None and record.get("none") is None and "none" not in record
    for lacks in (
        record,
        record["first"],
        record["parts"][0],
        copy(record),
        but(record, "name", more=1),
        pickle.loads(pickle.dumps(record)),
    ):
        with pytest.raises(DamagedRecord, match=r"a\.json: is damaged \('none' is missing"):
            lacks["none"]
    with pytest.raises(DamagedRecord, match="'mean' is missing"):
        from_record(Whole, record)
    with pytest.raises(KeyError):
        KeptRecord()["none"]
    path.write_text('{"mean": 1}\n{"mean": \n{"mean": 2}\n')
    with pytest.raises(DamagedRecord, match="line 2: "):
        read_lines(path)


@pytest.mark.parametrize("whole", ['{"a": [1, "b\\u00e9c", true], "é": {"b": -1.5e-3, "c": null}}'])
def test_a_record_that_is_cut_anywhere_ends_in_the_middle(tmp_path: Path, whole: str) -> None:
    path, text = tmp_path / "a.json", whole.encode()
    for end in range(1, len(text)):
        path.write_bytes(text[:end])
        with pytest.raises(DamagedRecord, match=r"is damaged \(it ends in the middle\)\."):
            read_json(path)
    path.write_bytes(b'{"a": }' + text)
    with pytest.raises(DamagedRecord, match=r"it is no JSON from line 1, column 7 on"):
        read_json(path)


def test_a_cache_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"mean": ')
    assert once_for_all(tmp_path / "a.json", lambda: {"mean": 1}) == {"mean": 1} == read_json(tmp_path / "a.json")


def test_a_record_that_is_empty_is_not_taken_for_one_that_is_not_there(tmp_path: Path) -> None:
    assert record_of(tmp_path / "a.json") == {}
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DamagedRecord, match="'model' is missing"):
        record_of(tmp_path / "a.json")["model"]


def test_an_error_that_nobody_foresaw_names_the_record_that_was_worked_on(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{"models": [3]}')
    record = read_json(tmp_path / "task.json")
    assert record is not None
    with pytest.raises(TypeError) as caught:
        models_of(record)
    damaged = damage_behind(caught.value)
    assert damaged is not None and damaged.file == tmp_path / "task.json"
    assert damaged.fact.startswith("a value in it is not of the type that report/reading.py, line ")
    with pytest.raises(TypeError) as caught:
        models_of({"models": [3]})
    assert damage_behind(caught.value) is None, "no record of a file is near"
    assert damage_behind(OSError("full")) is None
