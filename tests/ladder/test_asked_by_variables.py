"""What RUNG_CARDS and RUNG_WAYS ask of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rung.data.task_file import read_task
from rung.errors import ModelError
from rung.ladder import RunOptions, run
from rung.ladder.model_records import _summed
from rung.ladder.opening import open_models
from rung.records import read_json
from rung.report.html import write_report
from rung.testing import Silent
from small_task import write_task


@pytest.mark.parametrize("variable", ["RUNG_CARDS", "RUNG_WAYS"])
def test_a_value_that_is_not_allowed_stops_a_run_before_its_folder_is_made(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    task = write_task(tmp_path / "task", tiny_folder, examples=36)
    with pytest.raises(ModelError, match=f"environment variable {variable}: 'nonsense' is no"):
        run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",)), Silent())
    assert not (tmp_path / "run").exists()


def test_cards_that_are_not_there_are_told_once_and_the_run_goes_on(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CARDS", "4")
    task = read_task(write_task(tmp_path / "task", tiny_folder, examples=36, teacher=str(tiny_folder)))
    heard = Silent()
    assert open_models(task, None, heard).models
    assert sum("RUNG_CARDS asks for 4 cards" in line for line in heard.said) == 1


@pytest.mark.parametrize(("ways", "taken"), [("fused,static", ["fused", "static"]), ("", None)])
def test_a_run_records_in_which_ways_it_was_computed_and_its_report_says_it(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, ways: str, taken: list[str] | None
) -> None:
    monkeypatch.setenv("RUNG_WAYS", ways)
    task = write_task(tmp_path / "task", tiny_folder, examples=36)
    folder = run(task, RunOptions(out=tmp_path / "run", only=("zero_shot",), finish=True), Silent())
    page = write_report(folder).read_text("utf-8")
    assert "Machine" in page and "<h2>Models" not in page
    if taken is None:
        assert not (folder / "models.json").exists() and "; ways: " not in page
        return
    (record,) = (read_json(folder / "models.json") or {})[tiny_folder.name]["computed"]
    assert (record["device"], record["ways"], record["given_up"], record["cards"]) == ("cpu", taken, {}, 1)
    assert "; ways: fused, static" in page


def test_commands_that_computed_otherwise_are_all_recorded() -> None:
    plain: dict[str, Any] = {"device": "cuda", "ways": [], "given_up": {}, "cards": 1}
    fused = {**plain, "ways": ["fused"]}
    assert _summed({}, {"computed": [fused]})["computed"] == [fused], "also after a version that kept nothing of it"
    assert _summed({"computed": [fused]}, {"computed": [fused]})["computed"] == [fused]
    assert _summed({"computed": [fused]}, {"computed": [plain]})["computed"] == [fused, plain]
    assert _summed({"computed": [fused]}, {"engine": "vllm"}) == {"engine": "vllm", "computed": [fused]}
    assert "computed" not in _summed({"usd": 1.0}, {"usd": 2.0})
