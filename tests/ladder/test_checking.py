"""What `rung check` and the head of a run share."""

from __future__ import annotations

import json
from pathlib import Path

from rung.data.vectors import _vectors
from rung.ladder.checking import check_task
from small_task import write_task


def test_the_vectors_of_the_checks_are_freed_whether_or_not_the_examples_can_be_split(tmp_path: Path) -> None:
    task = write_task(tmp_path, Path("smollm2-135m-instruct"))
    assert check_task(task).split is not None and not _vectors.cache_info().currsize
    examples = tmp_path / "examples.jsonl"
    rows = [{**json.loads(line), "group": "one"} for line in examples.read_text("utf-8").splitlines()]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    checked = check_task(task)
    assert checked.split is None and [f.check for f in checked.errors] == ["split"]
    assert not _vectors.cache_info().currsize
