from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export_cases import INPUTS, make_adapter, make_bundle
from rung.cli.export import export
from rung.errors import RungError


def rung_export(*words: object) -> Result:
    return CliRunner().invoke(export, [str(word) for word in words])


@pytest.fixture(scope="module")
def bundle(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = make_adapter(tiny_folder, tmp_path_factory.mktemp("adapter"))
    return make_bundle(tiny_folder, tmp_path_factory.mktemp("bundle"), adapter)


def test_the_list_names_every_export_with_a_line_about_it() -> None:
    lines = rung_export("--list").output.splitlines()
    assert {"peft", "merged", "gguf", "ollama"} <= {line.split()[0] for line in lines}
    assert json.loads(rung_export("--list", "--json").output)["exports"]["merged"].endswith(".")


def test_an_export_prints_its_parity_and_how_to_use_it(bundle: Path, tmp_path: Path) -> None:
    done = rung_export(bundle, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert f"{len(INPUTS)} of {len(INPUTS)} answers equal (100.0 %)" in done.output
    assert f'AutoModelForCausalLM.from_pretrained("{tmp_path}/out")' in done.output
    again = rung_export(bundle, "--to", "merged", "--out", tmp_path / "out")
    assert isinstance(again.exception, RungError) and "--force" in str(again.exception)


def test_an_export_that_is_not_tested_says_so_loudly_and_in_json(bundle: Path, tmp_path: Path) -> None:
    done = rung_export(bundle, "--to", "peft", "--out", tmp_path / "out", "--no-parity")
    assert done.exit_code == 0 and "NOT TESTED" in done.stderr
    done = rung_export(bundle, "--to", "peft", "--out", tmp_path / "json", "--no-parity", "--json")
    record = json.loads(done.stdout)
    assert (record["export"], record["parity"], record["untested"]) == ("peft", None, "--no-parity")
    assert record["folder"] == str(tmp_path / "json")


def test_an_export_that_answers_otherwise_ends_with_1_and_names_its_files(tiny_folder: Path, tmp_path: Path) -> None:
    # Recorded answers that neither the export nor the bundle gives.
    bundle = make_bundle(tiny_folder, tmp_path / "bundle", None, text="never said")
    from rung.serving.exports.export import ExportSource
    from rung.serving.exports.source import SourceOptions, read_source

    def without_again(folder: Path, options: SourceOptions, **more: object) -> ExportSource:
        source = read_source(folder, options)
        source.again = None
        return source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rung.serving.exports.source.read_source", without_again)
        done = rung_export(bundle, "--to", "merged", "--out", tmp_path / "out")
    assert done.exit_code == 1 and f"{tmp_path}/out.failed" in done.stderr
    assert (tmp_path / "out.failed" / "export.json").is_file() and not (tmp_path / "out").exists()


def test_the_tests_of_promptfoo_are_as_many_as_are_recorded_and_merged_is_no_option_of_peft(
    bundle: Path, tmp_path: Path
) -> None:
    assert rung_export(bundle, "--to", "promptfoo", "--rows", 1, "--out", tmp_path / "out").exit_code == 0
    assert len(json.loads((tmp_path / "out" / "tests.json").read_text())) == len(INPUTS)
    done = rung_export(bundle, "--to", "peft", "--merged", "--out", tmp_path / "peft")
    assert isinstance(done.exception, RungError) and "--merged: changes nothing of peft" in str(done.exception)


@pytest.mark.parametrize("words", [[], ["somewhere"], ["--to", "merged"]])
def test_a_bundle_and_what_to_write_are_both_needed(words: list[str]) -> None:
    done = rung_export(*words)
    assert done.exit_code == 2 and "--to merged" in done.output


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    done = rung_export(tmp_path / "none", "--to", "merged")
    assert isinstance(done.exception, RungError) and "no such folder" in str(done.exception)
    done = rung_export(tmp_path, "--to", "onnx")
    assert isinstance(done.exception, RungError) and "there is no export 'onnx'" in str(done.exception)
