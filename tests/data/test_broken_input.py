"""Every broken task and data file gives one plain error, and no other exception."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from broken import BROKEN, Broken

from rung.data.corpus import read_corpus
from rung.data.examples import read_sets
from rung.data.task_file import read_task
from rung.errors import RungError


def read_everything(path: Path) -> None:
    task = read_task(path)
    read_sets(task)
    if task.corpus is not None:
        read_corpus(task.corpus)


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_broken_input_is_one_error_that_names_the_file(case: Broken, tmp_path: Path) -> None:
    path = case.build(tmp_path / "task")
    with pytest.raises(RungError) as caught:
        read_everything(path)
    message = str(caught.value)
    assert message.startswith(case.file), message
    assert case.says in message
    assert len(message) < 3_000


def test_an_endless_line_is_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    task = read_task(BROKEN["a 40 MB line"].build(tmp_path))
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(RungError, match="longer than 10 MB"):
        read_sets(task)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40_000_000
    assert time.process_time() - start < 2
