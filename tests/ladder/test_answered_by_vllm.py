"""A run whose answers come from vLLM, and whose adapter is rung's own, against the fake vLLM."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import rung
from rung.bundles.packing import note_of_run
from rung.cli.bundle import bundle
from rung.errors import ModelError, RunError
from rung.ladder import RunOptions, _how_to_go_on, _where, run
from rung.ladder.checking import check_task
from rung.ladder.going_on import command
from rung.models import open_model
from rung.models.local import LocalModel
from rung.models.vllm.process import PYTHON
from rung.records import write_json
from rung.report.html import write_report
from rung.report.reading import read_run
from rung.testing import Silent
from rung.types import Budget
from small_task import COLOURS, write_task
from vllm_faked import Place
from vllm_faked import fake as fake


def record(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


@pytest.fixture
def told(fake: Place, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A vLLM that always says the same colour."""
    local = open_model(str(tiny_folder))
    assert isinstance(local, LocalModel)
    says = local.chat.encode_answer(COLOURS[0])
    fake.plan(answers={"base": says, "*": says})
    monkeypatch.setenv(PYTHON, sys.executable)
    return fake


def test_a_whole_run_is_answered_by_vllm_with_an_adapter_that_rung_trained(
    told: Place, tmp_path: Path, tiny_folder: Path
) -> None:
    task = write_task(tmp_path / "task", tiny_folder, examples=36, engine="vllm")
    out = tmp_path / "run"
    folder = run(task, RunOptions(out=out, only=("zero_shot", "lora")), Silent())
    answers = [
        json.loads(line)["text"]
        for name in ("zero_shot", "lora")
        for line in (folder / "solutions" / name / "predictions.dev.jsonl").read_text().splitlines()
    ]
    assert set(answers) == {COLOURS[0]}
    assert (folder / "solutions" / "lora" / "adapter" / "adapter_model.safetensors").is_file()
    assert told.asked("/v1/load_lora_adapter")

    assert record(folder / "plan.json")["start_s"] > 0

    written, models = record(folder / "task.json"), record(folder / "models.json")
    assert written["engine"] == "vllm" and written["machine"]["answers"] == "vLLM unknown"
    assert models[tiny_folder.name]["answered_by"]["vllm"] >= len(answers)
    decision = record(folder / "decision.json")
    assert any("came from vLLM unknown." in text for text in [*decision["warnings"], *decision["reasons"]])
    assert "vLLM unknown" in write_report(folder).read_text("utf-8")
    assert note_of_run(folder / "solutions" / "lora", written)["engine"] == "vllm"

    assert read_run(folder).asking[-2:] == ["--engine", "vllm"]
    packed = CliRunner().invoke(bundle, [str(folder), "lora", "--out", str(tmp_path / "bundle")])
    assert f"Ask it with: rung ask {tmp_path / 'bundle'} --engine vllm " in packed.output

    with pytest.raises(RunError, match=r"begun with engine vllm.*asks for engine local.*Go on with --engine vllm"):
        run(task, RunOptions(out=out, only=("zero_shot",), engine="local"), Silent())
    assert rung.load(folder, solution="lora", engine="vllm")("anything") == COLOURS[0]


def test_the_command_chooses_the_engine_and_a_missing_vllm_is_an_error(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    task = write_task(tmp_path / "task", tiny_folder)
    with pytest.raises(ModelError, match=r"vLLM is not installed here.*RUNG_VLLM_PYTHON"):
        run(task, RunOptions(out=tmp_path / "run", engine="vllm"), Silent())
    assert not [f for f in check_task(task).findings if f.check == "without_vllm"]
    task = write_task(tmp_path / "task", tiny_folder, engine="vllm")
    (missing,) = [f for f in check_task(task).errors if f.check == "without_vllm"]
    assert "vLLM is not installed here" in missing.message


@pytest.mark.parametrize("engine", ["local", "vllm"])
def test_the_command_that_goes_on_names_the_engine_that_the_command_named(engine: str) -> None:
    ledger = SimpleNamespace(spent=None, budget=Budget())
    task = SimpleNamespace(path="task.yaml", engine=engine)
    for named in (False, True):
        first = SimpleNamespace(exhaustive=False, engine_named=named, ledger=ledger)
        state: Any = SimpleNamespace(inputs=SimpleNamespace(task=task), folder="run", first=first)
        options = RunOptions(engine=engine if named else None)  # type: ignore[arg-type]
        for told in (command(state, None, ()), _how_to_go_on(Path("task.yaml"), options)):  # type: ignore[arg-type]
            assert (f"--engine {engine}" in told) == named


def test_the_command_that_tries_more_names_the_folder_that_was_used(tmp_path: Path) -> None:
    used = _how_to_go_on(Path("my tasks/task.yaml"), RunOptions(out=Path("a run")))
    assert "rung run 'my tasks/task.yaml' --out 'a run' --again. " in used
    assert "rung run task.yaml --again. " in _how_to_go_on(Path("task.yaml"), RunOptions())
    first = SimpleNamespace(exhaustive=False, engine_named=False, ledger=SimpleNamespace(spent=None, budget=Budget()))
    inputs = SimpleNamespace(task=SimpleNamespace(path="task.yaml", engine="local"))
    state: Any = SimpleNamespace(inputs=inputs, folder=Path("runs/t"), first=first)
    out = command(state, None, ()).split("--out ")[1]  # type: ignore[arg-type]
    assert Path(out) == Path.cwd() / "runs/t", "a report is read from another folder, too"


def test_a_new_run_says_that_the_one_beside_it_was_begun_with_another_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("runs/t/task.json"), {"identity": "x", "basis": "x"})
    said = _where(Path("runs/t-2"), "t", {"basis": "y", "engine": "vllm"}, RunOptions(engine="vllm"))
    assert "runs/t was begun with engine local" in said and "--engine local goes on" in said


@pytest.mark.parametrize(("spec", "may"), [("smollm2-135m", True), ("x:4bit", False), ("http://host/v1#m", False)])
def test_a_bundle_says_that_vllm_answered_where_it_may_have(tmp_path: Path, spec: str, may: bool) -> None:
    task = {"engine": "vllm", "models": [{"name": "m", "spec": spec}], "model_versions": {"m": "v"}, "home": "v"}
    assert (note_of_run(tmp_path / "zero_shot", task).get("engine") == "vllm") == may
