"""The folder of a run: while a command holds it, and how it is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.api import Run
from rung.errors import DamagedRecord, RunError
from rung.runs import held, run_of, verdict_of
from rung.serving.mcp_server import McpTools


def test_a_command_that_could_not_begin_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError), held(tmp_path / "runs" / "a"):
        raise ValueError
    assert not (tmp_path / "runs" / "a").exists()


def test_a_folder_with_anything_in_it_stays_and_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path / "a"):
        (tmp_path / "a" / "task.json").write_text("{}")
        with pytest.raises(RunError, match="another rung is working here"), held(tmp_path / "a"):
            pass
        assert (tmp_path / "a" / ".lock").exists()
    assert (tmp_path / "a" / "task.json").exists()


def test_the_run_of_a_bundle_is_found_from_anywhere_in_it_and_no_other(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "colours"
    shipped = run / "exports" / "shipped"
    for path in ("task.json", "split.json", "solutions/rag/solution.json", "exports/shipped/solution.json"):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text("{}")
    link = tmp_path / "link"
    link.symlink_to(shipped)
    for place in (run, run / "solutions" / "rag", shipped, link):
        found = run_of("rag", place)
        assert found is not None and found.resolve() == run.resolve()
    assert run_of("few_shot", shipped) is None and run_of("rag", tmp_path) is None


def test_without_a_verdict_each_way_to_ask_for_it_says_the_same(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no such folder\. Name a folder that rung run wrote"):
        verdict_of(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"not a run folder \(no task.json\)"):
        verdict_of(tmp_path)
    (tmp_path / "task.json").write_text("{}")
    for ask in (lambda: verdict_of(tmp_path), lambda: Run(tmp_path).decision, lambda: McpTools(tmp_path).report(".")):
        with pytest.raises(RunError, match=r"not finished, there is no verdict yet\. Give the same rung run command"):
            ask()
    (tmp_path / "task.json").write_text("")
    with pytest.raises(DamagedRecord, match=r"task\.json"):
        verdict_of(tmp_path)
