"""The sample of requests: masked, bounded, each once, and never in the way."""

from __future__ import annotations

import json
import logging
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rung.data.beside.unlabelled import read_unlabelled
from rung.data.fence import Fence
from rung.data.task_file import read_task
from rung.errors import RunError
from rung.serving import sampling
from rung.serving.sampling import RequestSample
from rung.types import Message
from small_task import write_task


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_kept_is_masked_and_what_is_left_in_clear_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "unlabelled.jsonl"
    sample = RequestSample(path, 1.0)
    turns = (Message("user", "I am anna@example.org"), Message("assistant", "Hello."))
    sample.add("Write to anna@example.org, not to bob@example.org", model="a", context="from 81.2.69.142", turns=turns)
    sample.close()
    (row,) = rows_of(path)
    assert row["input"] == "Write to <EMAIL_1>, not to <EMAIL_2>" and row["model"] == "a"
    assert row["context"] == "from <IP_1>" and row["turns"][0]["content"] == "I am <EMAIL_1>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setattr("rung.data.masking.Masks.example", lambda self, example: (example, frozenset()))
    sample = RequestSample(path, 1.0)
    sample.add("Write to carl@example.org", model="a")
    sample.close()
    assert sample.counts == {"not masked": 1} and "carl" not in path.read_text()


def test_a_text_is_kept_once_also_by_a_later_server_and_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.jsonl"
    for _ in range(2):
        sample = RequestSample(path, 1.0, 2)
        for text in ("Where is my card?", "where  is my CARD?", " ", "x" * 200_000, "Two", "Three"):
            sample.add(text, model="a")
        sample.close()
    assert [row["input"] for row in rows_of(path)] == ["Where is my card?", "Two"]
    assert sample.counts == {"kept before": 3, "empty": 1, "too long": 1, "file is full": 1}


def test_a_text_that_two_models_are_asked_is_kept_for_both(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.jsonl"
    for _ in range(2):
        sample = RequestSample(path, 1.0)
        for model in ("a", "b", "a"):
            sample.add("Where is my card?", model=model)
        sample.close()
    assert [row["model"] for row in rows_of(path)] == ["a", "b"]


def test_a_file_that_is_taken_away_begins_anew_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.jsonl"
    sample = RequestSample(path, 1.0, 1)
    sample.add("One", model="a")
    until = time.monotonic() + 10
    while sample.counts.get("kept") != 1 and time.monotonic() < until:
        time.sleep(0.01)
    path.rename(tmp_path / "taken.jsonl")
    sample.add("One", model="a")
    sample.close()
    assert [row["input"] for row in rows_of(path)] == ["One"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_line_that_a_kill_tore_is_cut_off_by_the_next_server(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.jsonl"
    path.write_text('{"input": "One", "model": "a"}\n{"input": "Tw')
    sample = RequestSample(path, 1.0)
    sample.add("Two", model="a")
    sample.close()
    assert [row["input"] for row in rows_of(path)] == ["One", "Two"]


def test_a_share_is_drawn_from_many_threads_and_none_is_lost_without_a_count(tmp_path: Path) -> None:
    sample = RequestSample(tmp_path / "s.jsonl", 0.5, seed=1)
    threads = [
        threading.Thread(target=lambda n=n: [sample.add(f"text {n} {i}", model="a") for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sample.close()
    assert 60 < sample.counts["kept"] < 140 and len(rows_of(tmp_path / "s.jsonl")) == sample.counts["kept"]


def test_a_full_disk_is_counted_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    sample = RequestSample(tmp_path / "s.jsonl", 1.0)
    monkeypatch.setattr(sampling, "append_lines", full)
    with caplog.at_level(logging.WARNING):
        for n in range(5):
            sample.add(f"secret text {n}", model="a")
        sample.close()
    assert sample.counts["failed"] == 5
    assert len(caplog.records) == 1 and "No space left" in caplog.text and "secret text" not in caplog.text


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"note": 1}\n')
    with pytest.raises(RunError, match="something else"):
        RequestSample(path, 1.0)
    with pytest.raises(RunError, match="cannot be kept"):
        RequestSample(tmp_path, 1.0)


def test_the_next_run_reads_it_whatever_the_column_of_the_examples_is_called(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    task = write_task(tmp_path, tmp_path / "model", unlabelled="unlabelled.jsonl", fields={"input": "question"})
    examples = tmp_path / "examples.jsonl"
    examples.write_text(examples.read_text().replace('"input"', '"question"'))
    sample = RequestSample(tmp_path / "unlabelled.jsonl", 1.0)
    sample.add("Where is the ship?", model="a", turns=[Message("user", "Hi"), Message("assistant", "Hello.")])
    sample.add("Where is the house?", model="a")
    sample.close()
    read = read_unlabelled(read_task(task), Fence((), {}), lambda _: None)
    assert [query.input for query in read] == ["Where is the ship?", "Where is the house?"]
    assert len(read[0].turns) == 2
