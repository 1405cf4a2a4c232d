"""The files of a user's metric, and what was read from documents, belong to a run's identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rung.ladder.identity import file_hashes, task_record_of
from rung.ladder.loading import with_options
from rung.ladder.options import RunOptions
from rung.types import Document, MetricInfo, ModelSpec, Task


def test_editing_a_file_that_the_metric_imports_makes_another_run(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (tmp_path / "m.py").write_text("from wording import same\ndef f(p, r):\n    return same(p, r)\n")
    (tmp_path / "wording.py").write_text("from wording_rules import VALUE\ndef same(p, r):\n    return VALUE\n")
    (tmp_path / "wording_rules.py").write_text("VALUE = 0.5\n")
    (tmp_path / "unused.py").write_text("")
    examples = (tmp_path / "examples.jsonl",)
    model = (ModelSpec("fake", "fake"),)
    task = Task("t", tmp_path / "task.yaml", "Answer.", examples, "python:m.py:f", model)
    before = file_hashes(task)
    assert set(before) == {"examples.jsonl", "m.py", "wording.py", "wording_rules.py"}
    (tmp_path / "wording_rules.py").write_text("VALUE = 0.9\n")
    assert {name for name, found in file_hashes(task).items() if before[name] != found} == {"wording_rules.py"}


def test_what_a_library_reads_otherwise_makes_another_run_and_plain_texts_do_not(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text('{"input": "a", "output": "b"}\n')
    model = (ModelSpec("fake", "fake"),)
    task = Task("t", tmp_path / "task.yaml", "Answer.", (tmp_path / "examples.jsonl",), "exact_match", model)

    def identity(*documents: Document) -> str:
        record = task_record_of(task, RunOptions(), MetricInfo("m", lambda _: []), {"fake": "1"}, {}, documents)
        return str(record["identity"])

    text, page = Document("a.md", "text", markdown=True), Document("a.pdf", "text", markdown=True)
    assert identity() == identity(text) == identity(Document("a.txt", "text"))  # their files are hashed
    assert len({identity(text), identity(text, page), identity(text, Document("a.pdf", "te xt", markdown=True))}) == 3


def test_an_engine_that_the_task_names_makes_another_run_and_the_default_none(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text('{"input": "a", "output": "b"}\n')
    model = (ModelSpec("fake", "fake"),)
    task = Task("t", tmp_path / "task.yaml", "Answer.", (tmp_path / "examples.jsonl",), "exact_match", model)

    def record(task: Task) -> dict[str, Any]:
        return task_record_of(task, RunOptions(), MetricInfo("m", lambda _: []), {"fake": "1"}, {})

    own, other = record(task), record(replace(task, engine="vllm"))
    assert own["identity"] != other["identity"] and own["basis"] != other["basis"]
    assert with_options(task, RunOptions(engine="vllm")).engine == "vllm"
    assert with_options(replace(task, engine="vllm"), RunOptions()).engine == "vllm"
