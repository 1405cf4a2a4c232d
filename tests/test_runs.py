"""The folder of a run while a command holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rung.errors import RunError
from rung.runs import held


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
