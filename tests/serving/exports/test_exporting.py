from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from export_cases import ask_of
from rung.errors import ExportError
from rung.evaluation.metrics import METRICS
from rung.serving.bundle import Packed
from rung.serving.exports import EXPORTS, export_named, register_export
from rung.serving.exports.export import (
    HERE,
    Export,
    Exported,
    ExportOptions,
    ExportSource,
    NamedCheck,
    NoRuntime,
    ParityAsk,
)
from rung.serving.exports.exporting import check_options, check_place, export
from rung.types import Decoding, Solution

ASKS = tuple(ask_of(f"{i}", "yes") for i in range(10))


class Speaks:
    """A runtime that says the same to all."""

    name, holds = "a runtime", True

    def __init__(self, text: str, checks: Sequence[NamedCheck] = ()) -> None:
        self._text, self._checks = text, checks

    def answers(self, asks: Sequence[ParityAsk]) -> list[str]:
        return [self._text] * len(asks)

    def checks(self, asks: Sequence[ParityAsk]) -> Sequence[NamedCheck]:
        return self._checks

    def close(self) -> None:
        self._text = "closed"


def source(tmp_path: Path, asks: Sequence[ParityAsk] = ASKS) -> ExportSource:
    packed = Packed(tmp_path, Solution("s", "Answer.", Decoding(8)), "tiny", "v", {}, tmp_path / "bundle.json")
    return ExportSource(packed, tmp_path, asks, "recorded on dev")


def made(runtime: object | None) -> Export:
    def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
        (folder / "file").write_text("weights")
        return Exported(("file",), (f"use {HERE}/file",))

    if runtime is None:
        return Export("made", "Made up.", write)
    return Export("made", "Made up.", write, lambda *_: runtime)  # type: ignore[arg-type,return-value]


def test_an_export_that_answers_alike_is_kept_with_what_was_found(tmp_path: Path) -> None:
    report = export(source(tmp_path), made(Speaks("yes")), tmp_path / "out", ExportOptions())
    assert report.folder == tmp_path / "out" and not report.faults
    assert report.notes == [f"use {tmp_path}/out/file"]
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["parity"]["equal"], record["parity"]["share"]) == (10, 1.0)
    assert str(tmp_path) not in json.dumps(record)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_how_it_is_used_stands_in_the_folder_without_its_place(tmp_path: Path) -> None:
    export(source(tmp_path), made(Speaks("yes")), tmp_path / "out", ExportOptions())
    notes = (tmp_path / "out" / "NOTES.md").read_text()
    assert "- use ./file\n" in notes and "as made" in notes and str(tmp_path) not in notes


@pytest.mark.parametrize(
    "options", [ExportOptions(merged=True), ExportOptions(quantise="f16"), ExportOptions(runtime_python=Path("python"))]
)
def test_an_option_that_changes_nothing_is_refused_and_the_exports_that_heed_it_are_named(
    options: ExportOptions,
) -> None:
    with pytest.raises(ExportError, match=r"changes nothing of peft\. Leave it out; it is for .*gguf"):
        check_options(export_named("peft"), options)
    check_options(export_named("gguf"), options)


def test_an_export_that_answers_otherwise_is_kept_aside_and_leaves_an_earlier_one_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text("good")
    report = export(source(tmp_path), made(Speaks("no")), tmp_path / "out", ExportOptions())
    assert report.folder == tmp_path / "out.failed" and "only 0 of 10 answers are equal" in report.faults[0]
    assert (tmp_path / "out" / "export.json").read_text() == "good" and (tmp_path / "out.failed" / "file").is_file()


def test_a_check_that_fails_fails_the_export_though_the_answers_are_alike(tmp_path: Path) -> None:
    runtime = Speaks("yes", [NamedCheck("end token", False, "it is 5")])
    report = export(source(tmp_path), made(runtime), tmp_path / "out", ExportOptions())
    assert report.faults == ("end token: it is 5",) and report.folder.name == "out.failed"


@pytest.mark.parametrize("parity", [True, False])
def test_what_was_not_tested_says_so(tmp_path: Path, parity: bool) -> None:
    runtime = NoRuntime("it is not installed")
    report = export(source(tmp_path), made(runtime), tmp_path / "out", ExportOptions(), parity=parity)
    assert report.untested == ("it is not installed" if parity else "--no-parity") and report.folder.name == "out"


@pytest.mark.parametrize("parity", [True, False])
def test_data_has_nothing_that_answers_and_is_not_called_untested(tmp_path: Path, parity: bool) -> None:
    report = export(source(tmp_path), made(None), tmp_path / "out", ExportOptions(), parity=parity)
    assert report.untested is None and report.parity is None


def test_without_examples_the_user_is_told_how_to_give_some(tmp_path: Path) -> None:
    report = export(source(tmp_path, ()), made(Speaks("yes")), tmp_path / "out", ExportOptions())
    assert report.untested is not None and "--parity FILE" in report.untested


def test_where_recorded_answers_differ_the_bundle_answers_anew_in_float32(tmp_path: Path) -> None:
    told = source(tmp_path)
    told.again = lambda asks: [replace(ask, text="no") for ask in asks]
    report = export(told, made(Speaks("no")), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == 10 and report.parity.as_recorded == 0
    assert any("0 of 10 equal the recorded answers" in line for line in report.parity.lines())


def test_answers_in_float32_do_not_excuse_a_score_below_that_of_the_recorded_ones(tmp_path: Path) -> None:
    told = source(tmp_path, [replace(ask, references=("yes",)) for ask in ASKS])
    told.metric = METRICS["exact_match"]
    told.again = lambda asks: [replace(ask, text="no") for ask in asks]
    report = export(told, made(Speaks("no")), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == 10
    (fault,) = report.faults
    assert "drops by 100.0 points from the recorded answers" in fault and report.folder.name == "out.failed"


def test_a_quantised_export_is_compared_with_what_was_recorded(tmp_path: Path) -> None:
    def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
        return Exported((), quantised=True)

    def never(asks: Sequence[ParityAsk]) -> Sequence[ParityAsk]:
        raise AssertionError("the bundle is asked")

    told = source(tmp_path)
    told.again = never
    report = export(told, Export("q", "", write, lambda *_: Speaks("no")), tmp_path / "out", ExportOptions())
    assert report.parity is not None and not report.faults
    assert any(line.startswith("no score") for line in report.parity.lines())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
        raise ExportError("it cannot be")

    with pytest.raises(ExportError):
        export(source(tmp_path), Export("made", "", write), tmp_path / "out", ExportOptions())
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def write(source: ExportSource, folder: Path, options: ExportOptions) -> Exported:
        (folder / "half").write_text("weights")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ExportError, match="No space left on device"):
        export(source(tmp_path), Export("made", "", write), tmp_path / "out", ExportOptions())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(ExportError, match="--force"):
        check_place(tmp_path, force=False)
    check_place(tmp_path, force=True)
    check_place(tmp_path / "new", force=False)


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("years")
    (tmp_path / "link").symlink_to(mine)
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed" / "notes").write_text("mine, too")
    for place, why in ((mine, "no earlier export"), (tmp_path / "link", "a link"), (mine / "thesis", "a file")):
        with pytest.raises(ExportError, match=why):
            check_place(place, force=True)
    with pytest.raises(ExportError, match="no earlier export"):
        export(source(tmp_path), made(Speaks("no")), tmp_path / "out", ExportOptions())
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link", "mine", "notes", "out.failed", "thesis"]


def test_the_card_and_the_licences_go_along(tmp_path: Path) -> None:
    told = source(tmp_path)
    (tmp_path / "README.md").write_text("# The card")
    licences = {"base": "apache-2.0", "data": "cc-by-4.0"}
    told.packed = replace(told.packed, note={"licenses": licences})
    export(told, made(Speaks("yes")), tmp_path / "out", ExportOptions())
    assert (tmp_path / "out" / "BUNDLE.md").read_text() == "# The card"
    assert json.loads((tmp_path / "out" / "export.json").read_text())["licenses"] == licences


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("tickets", "tickets"),
        ("../../x", "x"),
        ("--trust-remote-code", "trust-remote-code"),
        ("$(a) b\n", "a-b"),
        ("/", "s"),
    ],
)
def test_a_strangers_name_is_no_path_no_option_and_no_command(tmp_path: Path, task: str, name: str) -> None:
    told = source(tmp_path)
    told.packed = replace(told.packed, note={"task": task})
    assert told.name == name


def test_every_named_export_is_there_and_says_what_it_writes() -> None:
    for name in ("peft", "merged", "gguf", "ollama"):
        found = export_named(name)
        assert (found.name, found.about.endswith(".")) == (name, True)


def test_an_unknown_export_is_named_with_one_that_is_like_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="Did you mean merged"):
        export_named("merge")
    monkeypatch.setattr("rung.serving.exports.EXPORTS", dict(EXPORTS))
    with pytest.raises(ExportError, match="is taken"):
        register_export("peft", "somewhere:ELSE")
