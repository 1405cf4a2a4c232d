"""`--json`: one object on standard output of every verb, errors alike, and docs/cli.md has every key."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rung.cli import main as command
from rung.cli.as_json import print_json
from rung.cli.main import VERBS, rung
from rung.errors import DataError
from rung.serving.bundle import Bundle
from rung.testing import FakeModel
from rung.types import Decoding, Solution
from small_task import write_task

WITHOUT = {"serve": "it answers by HTTP", "mcp": "standard output is its protocol's"}
PAGE = (Path(__file__).parent.parent.parent / "docs" / "cli.md").read_text("utf-8")


def section(verb: str) -> str:
    (found,) = [part for part in PAGE.split("\n## ") if verb in part.split("\n")[0].split(", ")]
    return found


def keys_of(verb: str) -> set[str]:
    cells = re.findall(r"^\| ([^|]+) \|", section(verb), re.MULTILINE)
    return {key.split(".")[-1] for cell in cells for key in re.findall(r"`([\w.\[\]]+)`", cell)}


def printed(*words: object, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(rung, [*(str(word) for word in words), "--json"], standalone_mode=False)
    assert done.exception is None, done.output
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["exit"] == code == (done.return_value or 0)
    return record


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_or_a_reason(verb: str) -> None:
    shown = CliRunner().invoke(rung, [verb, "--help"]).output
    assert ("--json" in shown) == (verb not in WITHOUT)
    assert verb in WITHOUT or section(verb)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return write_task(tmp_path, tmp_path / "model")


def test_check_init_convert_and_their_keys(task: Path, tmp_path: Path) -> None:
    checked = printed("check", task)
    assert set(checked) - {"exit"} == keys_of("check") - {"fixed"} - _inner("check")
    assert set(printed("check", task, "--fix", tmp_path / "clean")["fixed"]) == {"folder", "task", "rows", "changes"}
    rows = tmp_path / "examples.jsonl"
    converted = printed("convert", rows, tmp_path / "out.jsonl", "--to", "messages")
    assert set(converted) - {"exit"} == keys_of("convert") and converted["rows"] == 48
    drafted = printed("init", rows, "--force")
    assert set(drafted) - {"exit"} == keys_of("init") - {"input", "output"} and drafted["metric"] == "label_accuracy"


def _inner(verb: str) -> set[str]:
    """Keys of the page that are those of inner objects: in the second column."""
    cells = re.findall(r"^\| [^|]+ \| ([^|]+) \|", section(verb), re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)} - {"findings", "task", "rows"}


def test_ask_models_demo_and_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel({"a": "two words", "b": "three short words"})
    bundle = Bundle(Solution("s", "Answer.", Decoding(2)), model, None)
    monkeypatch.setattr("rung.serving.bundle.open_bundle", lambda *_, **__: bundle)
    asked = printed("ask", "run", "a")
    (answer,) = asked.pop("answers")
    assert answer["text"] == "two words" and answer["error"] is None
    assert set(asked) | set(answer) | {"answers"} == keys_of("ask") | {"exit"}
    assert asked["notes"] == []
    object.__setattr__(bundle, "tested_with", frozenset({"instruction"}))
    asked = printed("ask", "run", "a", "--context", "of a nurse", "--instruction", "Say it.", code=2)
    (note,) = asked["notes"]
    assert note.startswith("context: no input that this solution was tested with has a context of its own.")
    assert set(printed("models")) - {"exit"} == {"cache", "models", "suggestions"} <= keys_of("models")
    assert len(printed("demo", "--list")["demos"]) == 3


def test_review_counts_without_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "synthetic.jsonl"
    rows = [{"id": f"{i}", "input": "x", "output": "red", "origin": {"kind": "new"}, "review": None} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = printed("review", file)
    assert found["counts"]["open"] == 3 and set(found) - {"exit"} <= keys_of("review")


def test_a_verdict_is_printed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("task.json", "decision.json"):
        (tmp_path / name).write_text('{"choice": "prompt"}')
    monkeypatch.setattr("rung.api.Run.report", lambda self: self.folder / "report.html")
    found = printed("report", tmp_path)
    assert set(found) - {"exit"} == {"run", "report", "winner", "decision"} <= keys_of("report")
    assert found["decision"] == {"choice": "prompt"} and found["winner"] is None


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (DataError("rows.csv: no column."), "DataError", 2),
        (ValueError("a defect"), "Defect", 70),
        (SystemExit(143), "Interrupted", 143),
        (KeyboardInterrupt(), "Interrupted", 130),
    ],
)
def test_an_error_is_an_object_too_with_its_exit_code(
    fault: BaseException, kind: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(**_: object) -> int:
        raise fault

    monkeypatch.setattr(command.rung, "main", failing)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    for words in (["rung", "run", "x", "--json"], ["rung", "run", "x"]):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            command.main()
        said = capsys.readouterr()
        assert ended.value.code == code
        if "--json" not in words:
            assert said.out == ""
            continue
        record = json.loads(said.out)
        assert record["error"]["kind"] == kind and record["exit"] == code and record["error"]["message"]


def test_what_is_printed_is_json_that_every_reader_and_standard_output_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert print_json({"text": "é \ud800", "p": float("nan"), "path": Path("x")}, 1) == 1

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(written.getvalue(), parse_constant=refused)
    assert found == {"text": "é \ud800", "p": None, "path": "x", "exit": 1}


def test_a_wrong_command_line_is_an_object_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["rung", "rnu", "--json"])
    assert command._call() == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["kind"] == "UsageError" and "'run'" in said.err


def test_every_exit_code_of_the_code_is_documented() -> None:
    table = set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))
    assert table == {"0", "1", "2", "130", *map(str, (command.DEFECT, command.BROKEN_PIPE, command.TERMINATED))}
