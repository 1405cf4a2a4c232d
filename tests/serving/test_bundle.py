"""A bundle whose base model is no longer where it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rung.bundles.recorded import RecordedExample, write_recorded
from rung.errors import RunError
from rung.models import model_version
from rung.serving.bundle import open_bundle, read_bundle
from rung.solutions.store import save_solution
from rung.types import Decoding, Document, Example, Query, RetrieverSpec, Solution


def test_of_an_older_bundle_too_a_base_that_was_moved_is_named_with_how_to_say_its_new_place(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    winner = tmp_path / "run" / "winner"
    save_solution(Solution("zero_shot", "Answer.", Decoding(4)), winner)
    note = {"model": f"{base}", "model_version": model_version(str(base))}
    (winner / "bundle.json").write_text(json.dumps(note))
    (tmp_path / "run" / "task.json").write_text(json.dumps(note))
    base.rename(tmp_path / "moved")
    for folder in (tmp_path / "run", winner):
        with pytest.raises(RunError) as caught:
            open_bundle(folder)
        assert f"its base model {base} is no longer there" in str(caught.value)
        assert f"named in {winner / 'bundle.json'}" in str(caught.value) and "--base PATH" in str(caught.value)
    moved = str(tmp_path / "moved")
    assert open_bundle(winner, base=moved).model.version == note["model_version"]
    assert open_bundle(winner).model.version == note["model_version"], "its place is known now"
    (winner / "bundle.json").write_text(json.dumps({**note, "model": str(tmp_path / "moved")}))
    assert open_bundle(winner).model.version == note["model_version"]


@pytest.mark.parametrize("key", ["embedder", "reranker"])
def test_a_folder_of_the_search_that_was_moved_is_named_with_the_place_where_its_new_one_goes(
    tiny_folder: Path, tmp_path: Path, key: str
) -> None:
    winner, gone = tmp_path / "winner", str(tmp_path / "gone")
    spec = replace(RetrieverSpec("dense", 1, 60), **{key: gone})  # type: ignore[arg-type]
    save_solution(Solution("rag", "Answer.", Decoding(4), retriever=spec), winner, passages=[Document("a", "b")])
    note = {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder))}
    (winner / "bundle.json").write_text(json.dumps(note))
    with pytest.raises(RunError) as caught:
        open_bundle(winner)
    assert f"its {key} {gone} is no longer there" in str(caught.value)
    assert f'"{key}" into {winner / "solution.json"}' in str(caught.value)


def test_a_folder_that_is_none_and_a_solution_that_a_bundle_does_not_hold_are_told_as_what_they_are(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"no such folder\. Name the folder of a bundle, or a run folder"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(RunError, match="neither a bundle nor a run folder"):
        read_bundle(tmp_path)
    bundle = tmp_path / "shipped"
    save_solution(Solution("rag", "Answer.", Decoding(4)), bundle)
    note = {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder))}
    (bundle / "bundle.json").write_text(json.dumps(note))
    with pytest.raises(RunError, match="is a file"):
        read_bundle(bundle / "bundle.json")
    with pytest.raises(RunError, match=r"is a bundle, which holds one solution \(rag\) and no 'few_shot'"):
        read_bundle(bundle, solution="few_shot")
    assert read_bundle(bundle, solution="rag").solution.name == "rag"


def test_a_solution_says_which_parts_of_an_input_it_was_never_tested_with(tiny_folder: Path, tmp_path: Path) -> None:
    run, note = tmp_path / "run", {"model": str(tiny_folder), "model_version": model_version(str(tiny_folder))}
    for folder in (run / "winner", run / "solutions" / "few_shot"):
        save_solution(Solution("few_shot", "Answer.", Decoding(4)), folder)
    (run / "winner" / "bundle.json").write_text(json.dumps(note))
    (run / "task.json").write_text(json.dumps(note))
    asked = [Query("0", "door", "of a nurse", "Say it.")]
    assert open_bundle(run).notes(asked) == [], "it holds no examples, so that nothing is known"
    write_recorded(run / "winner", [RecordedExample(Example("1", "x", "y", ("y",), context="of a boat"), "y")])
    for solution in (None, "few_shot"):
        (said,) = open_bundle(run, solution=solution).notes(asked)
        assert said.startswith("instruction: no input that this solution was tested with has an instruction")
