"""What a bundle holds, and that it can be copied anywhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rung
from bundle_runs import DEV, write_run
from rung.bundles.packing import pack
from rung.bundles.recorded import MOST, read_recorded, recorded_of
from rung.errors import RunError
from rung.models import model_version, open_model
from rung.records import read_json, write_json
from rung.serving.bundle import Bundle, read_bundle
from rung.serving.watching.requests import known_inputs
from rung.types import Decoding, Example, Message, Prediction, Solution, Trainable, TrainingOptions, TrainingRow


def packed(run: Path, out: Path, name: str = "zero_shot", **how: Any) -> Path:
    out.mkdir(parents=True)
    pack(run, name, out, dev=DEV, **how)
    return out


def note_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle.json").read_text())  # type: ignore[no-any-return]


def texts_of(folder: Path) -> str:
    return "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md"))


def test_a_copied_bundle_answers_by_itself(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    moved = Path(shutil.move(out, tmp_path / "elsewhere"))
    shutil.rmtree(tmp_path / "run")
    assert rung.load(moved)("input 7") == "answer 7"
    assert str(tmp_path) not in texts_of(moved)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, echo: str) -> None:
    run = write_run(tmp_path / "run", echo, "1")
    first, second = (packed(run, tmp_path / name) for name in ("a", "b"))
    assert (first / "bundle.json").read_bytes() == (second / "bundle.json").read_bytes()


@pytest.mark.parametrize("name", ["solution.json", "parity.jsonl"])
def test_a_changed_or_missing_file_is_refused_by_name(tmp_path: Path, echo: str, name: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    with (out / name).open("a") as file:
        file.write("\n")
    with pytest.raises(RunError, match=f"{name} is not what it was"):
        read_bundle(out)
    (out / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing"):
        read_bundle(out)


def test_a_file_that_the_bundle_does_not_list_is_refused_where_it_would_be_read(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    (out / "LICENSE").write_text("mine")
    with (out / "README.md").open("a") as file:
        file.write("Ask Ada about it.\n")
    assert read_bundle(out).solution.name == "zero_shot"
    (out / "adapter").mkdir()
    (out / "adapter" / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"adapter/model\.safetensors is no file of this bundle"):
        read_bundle(out)


@pytest.mark.parametrize("name", ["metric/__pycache__/own.cpython-312.pyc", "adapter/model.tmp.safetensors"])
def test_no_name_keeps_a_file_out_of_sight(tmp_path: Path, echo: str, name: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"")
    with pytest.raises(RunError, match="is no file of this bundle"):
        read_bundle(out)


def test_a_link_to_a_folder_hides_nothing(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (out / "adapter").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="adapter is no file of this bundle"):
        read_bundle(out)
    (out / "adapter").unlink()
    (out / "README.md").rename(tmp_path / "card")
    (out / "README.md").symlink_to(tmp_path / "card")  # as the cache of the hub holds files
    assert read_bundle(out).solution.name == "zero_shot"


def test_a_list_of_files_that_leads_out_of_the_bundle_is_refused(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    note = note_in(out)
    write_json(out / "bundle.json", {**note, "files": {"../run/task.json": "0", **note["files"]}})
    with pytest.raises(RunError, match="no file of the bundle"):
        read_bundle(out)
    for files in ({}, None, []):
        write_json(out / "bundle.json", {**note, "files": files})
        with pytest.raises(RunError, match="does not list the bundle's files"):
            read_bundle(out)


def test_a_bundle_of_a_newer_format_and_a_damaged_one_are_refused(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    write_json(out / "bundle.json", {**note_in(out), "format": 3})
    with pytest.raises(RunError, match="formats 1 to 2"):
        read_bundle(out)
    for damaged in ('{"model": ', "[" * 100_000, json.dumps({**note_in(out), "base": "x"})):
        (out / "bundle.json").write_text(damaged)
        with pytest.raises(RunError, match="cannot be read as a bundle"):
            read_bundle(out)


def test_a_record_of_a_run_that_is_torn_is_named_with_what_to_do(tmp_path: Path, echo: str) -> None:
    run, out = write_run(tmp_path / "run", echo, "1"), tmp_path / "out"
    (run / "decision.json").write_text('{"choice": "pro')
    for reads in (lambda: rung.load(run), lambda: rung.bundle(run, out=out)):
        with pytest.raises(RunError, match=r"decision\.json: is damaged \(.*run the task again in a new folder"):
            reads()
    (run / "task.json").write_text("")
    for reads in (lambda: rung.load(run), lambda: rung.bundle(run, "zero_shot", out=out), lambda: known_inputs(run)):
        with pytest.raises(RunError, match=r"task\.json: is damaged \("):
            reads()
    assert not out.exists()


def test_recorded_answers_come_back_as_they_were(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out")
    found = read_recorded(out)
    assert [(a.query, a.example.references) for a in found] == [(e.query, e.references) for e in DEV]
    assert [a.score for a in found].count(0.0) == 2 and found[3].text == "nothing"


def test_at_most_a_hundred_dev_examples_are_recorded_and_those_without_an_answer_are_not() -> None:
    dev = [Example(str(i), "x", "y", ("y",)) for i in range(300)]
    answers = [Prediction(e.id, "", 1, 0, 0.0, error="no reply" if e.id == "0" else None, score=0.0) for e in dev]
    found = recorded_of(dev, answers, {"5": "g"}, 0)
    assert len(found) == MOST and "0" not in {a.example.id for a in found}
    assert found == recorded_of(dev, answers, {"5": "g"}, 0)


def test_a_bundle_without_examples_holds_no_row_of_the_data(tmp_path: Path, echo: str) -> None:
    out = packed(write_run(tmp_path / "run", echo, "1"), tmp_path / "out", examples=False)
    assert not (out / "parity.jsonl").exists() and "input 7" not in texts_of(out)
    assert read_bundle(out).recorded == []


def test_an_adapter_names_its_base_without_a_path(tmp_path: Path, echo: str) -> None:
    base = tmp_path / "models" / "my-base"
    base.mkdir(parents=True)
    adapter = tmp_path / "training"
    write_json(adapter / "base.json", {"model": str(base), "base": str(base), "version": "1234"})
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": str(base), "peft_type": "LORA"})
    run = write_run(tmp_path / "run", str(base), "1234", Solution("lora", "Answer.", Decoding(4), adapter=str(adapter)))
    out = packed(run, tmp_path / "out", "lora")
    assert read_json(out / "adapter" / "base.json") == {"model": "my-base", "base": "my-base", "version": "1234"}
    config = read_json(out / "adapter" / "adapter_config.json") or {}
    assert config["base_model_name_or_path"] == "my-base"
    assert str(tmp_path) not in texts_of(out) and note_in(out)["trained"] == "adapter"
    assert str(base) in (run / "solutions" / "lora" / "adapter" / "base.json").read_text(), "the run keeps its own"


def test_the_files_of_an_adapter_may_be_read_by_whoever_may_read_the_rest(tmp_path: Path, echo: str) -> None:
    adapter = tmp_path / "training"
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA"})
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "adapter_model.safetensors").chmod(0o600)
    run = write_run(tmp_path / "run", echo, "1", Solution("lora", "Answer.", Decoding(4), adapter=str(adapter)))
    out = packed(run, tmp_path / "out", "lora")
    modes = {path.stat().st_mode for path in out.rglob("*") if path.is_file()}
    assert len(modes) == 1 and modes != {(adapter / "adapter_model.safetensors").stat().st_mode}


def test_an_embedder_that_was_a_folder_is_named_by_its_content(
    tmp_path: Path, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rung.solutions.store import save_solution
    from rung.types import Document, RetrieverSpec

    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    embedder = tmp_path / "mini"
    embedder.mkdir()
    (embedder / "config.json").write_text("{}")
    run = write_run(tmp_path / "run", echo, "1")
    spec = RetrieverSpec("dense", 1, 60, embedder=str(embedder))
    save_solution(
        Solution("rag", "Answer.", Decoding(4), retriever=spec),
        run / "solutions" / "rag",
        passages=[Document("a", "b")],
    )
    out = packed(run, tmp_path / "out", "rag")
    assert str(tmp_path) not in texts_of(out)
    found = read_bundle(out).solution.retriever
    assert found == replace(spec, embedder=str(embedder)), "the place is known on this machine"
    moved = embedder.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="its embedder mini is not known on this machine"):
        read_bundle(out)
    monkeypatch.setenv("RUNG_BASE", str(moved))
    assert read_bundle(out).solution.retriever == replace(spec, embedder=str(moved))


def test_a_bundle_of_a_catalogue_model_names_it_by_name_and_the_hub_as_what_it_came_from(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "smollm2-135m-instruct", "abc")
    note = note_in(packed(run, tmp_path / "out"))
    assert note["model"] == "smollm2-135m-instruct" and note["licenses"] == {"base": "apache-2.0", "data": "unknown"}
    assert note["base"] == {
        "kind": "catalogue",
        "hub": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "exact": False,
        "revision": None,
    }


def test_a_version_is_the_models_own(tiny_folder: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", str(tiny_folder), model_version(str(tiny_folder)))
    note = note_in(packed(run, tmp_path / "out"))
    assert note["model"] == tiny_folder.name and note["model_version"] == model_version(str(tiny_folder))


@pytest.mark.parametrize("full", [False, True])
def test_a_trained_solution_answers_the_same_from_its_bundle_over_a_base_that_lies_elsewhere(
    full: bool, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    model = open_model(str(base))
    rows = [TrainingRow("r", (Message("user", "Where is my card?"),), "the card")]
    options = TrainingOptions(3e-3 if full else 3e-2, steps=10, batch_size=1, full=full)
    assert isinstance(model, Trainable)
    adapter = model.train(rows, options, tmp_path / "training")
    solution = Solution("lora", "Answer.", Decoding(8), adapter=str(adapter))
    ours = Bundle(solution, model, None).answer(["Where is my card?"])[0].text
    out = packed(write_run(tmp_path / "run", str(base), model.version, solution), tmp_path / "out", "lora")
    assert str(tmp_path) not in texts_of(out) and note_in(out)["trained"] == ("weights" if full else "adapter")
    moved = base.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(tmp_path / "training")
    assert ours and rung.load(out, base=moved)("Where is my card?") == ours
