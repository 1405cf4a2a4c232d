"""Records of a run that are torn, empty, something else, lack a key or hold another type: told by their file, with
exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import rung
from conftest import events
from rung.cli import main
from rung.errors import DamagedRecord, RunError
from rung.serving.mcp_server import McpTools
from small_task import write_task

GONE_ON_FROM = ("finished.json", "decision.json", "report.html", "winner")
"""What is removed, so that `rung run` opens no new test, decides and hands over once more."""


def call(*words: object) -> tuple[int, str]:
    """Exit code and standard error, as the entry point has them: with its traceback where it is a defect."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(said):
        patched.setattr("sys.argv", ["rung", *map(str, words)])
        with contextlib.redirect_stdout(io.StringIO()):
            code = main._call()
    return code, said.getvalue()


def status(place: Path) -> tuple[int, str]:
    try:
        McpTools(place).status("run")
    except RunError as error:
        return 2, f"rung: {error}"
    return 0, ""


def verbs(place: Path) -> dict[str, Callable[[], tuple[int, str]]]:
    run = place / "run"
    return {
        "report": lambda: call("report", run, "--json"),
        "ask": lambda: call("ask", run, "The small door", "--solution", "zero_shot"),
        "bundle": lambda: call("bundle", run, "--out", place / "bundle"),
        "export": lambda: call("export", run, "--to", "messages", "--solution", "rag", "--out", place / "export"),
        "check-bundle": lambda: call("check-bundle", run),
        "drift": lambda: call("drift", run, place / "examples.jsonl"),
        "serve": lambda: call("serve", run, "--port", "0"),
        "status": lambda: status(place),
    }


def broken(text: str, turn: int) -> list[str]:
    """The file in two of five ways, by turns: empty, cut in half, a list, an empty object; and without one key."""
    whole = json.loads(text) if text.startswith("{\n") else None
    first, *rest = [text] if whole is not None else text.splitlines(keepends=True)
    record = whole or json.loads(first)
    gone = list(record)[turn % len(record)]
    lacks = json.dumps({key: value for key, value in record.items() if key != gone})
    return [("", text[: len(text) // 2], "[]\n", "{}\n")[turn % 4], "".join([lacks + "\n", *rest])]


def of_each_kind(run: Path) -> list[Path]:
    """Files of records, one of each kind: of solutions, trials and samples the first. Passages are no record."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in run.rglob("*.json*") if path.parent.name != "index"):
        found.setdefault(re.sub(r"-?\d|solutions/\w+|trials/.*|diagnosis/.*", "", str(path.relative_to(run))), path)
    return list(found.values())


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, fake_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task and, in run/, what came of it. It runs once; each test gets the folder as it was then."""
    monkeypatch.setattr("rung.cli.serve._serve", lambda *_: 0)
    place = tmp_path_factory.getbasetemp() / "broken"
    if not place.is_dir():
        rung.run(write_task(place, fake_model, corpus=True), out=place / "run")
        shutil.copytree(place, place.with_name("whole"))
    shutil.rmtree(place)
    return Path(shutil.copytree(place.with_name("whole"), place))


def remove(run: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink(missing_ok=True)


def is_told(found: tuple[int, str], path: Path) -> bool:
    """Whether it went well, or ended with a message that names what is damaged."""
    code, said = found
    *_, last = said.strip().splitlines() or [""]
    return code in (0, 1) or (code == 2 and last.startswith("rung: ") and (path.name in last or "run/" in last))


def test_no_verb_ends_in_a_traceback_over_a_broken_record(place: Path) -> None:
    asked, turn = verbs(place), 0
    assert {name: verb()[0] for name, verb in asked.items()} == dict.fromkeys(asked, 0)
    for number, path in enumerate(of_each_kind(place / "run")):
        whole = path.read_bytes()
        for text in broken(whole.decode(), number):
            path.write_text(text)
            name = list(asked)[turn := (turn + 1) % len(asked)]
            shutil.rmtree(place / "bundle", ignore_errors=True)
            shutil.rmtree(place / "export", ignore_errors=True)
            found = asked[name]()
            assert is_told(found, path), (name, path, text[:200], found)
        path.write_bytes(whole)


def test_a_run_that_goes_on_over_a_broken_record_says_which(place: Path) -> None:
    remove(place / "run", *GONE_ON_FROM)
    shutil.copytree(place / "run", place / "kept")
    refused = 0
    for number, path in enumerate(of_each_kind(place / "run")):
        path.write_text(broken(path.read_text(), number)[number // 4 % 2])
        found = call("run", place, "--out", place / "run")
        assert is_told(found, path), (path, path.read_text()[:200], found)
        refused += found[0] == 2
        shutil.rmtree(place / "run")
        shutil.copytree(place / "kept", place / "run")
    assert refused > 5


def test_the_message_names_the_file_what_is_wrong_and_what_to_do(place: Path) -> None:
    run = place / "run"
    tail = r"\)\. Put it back from a copy, or run the task again in a new folder\.$"
    for name, text, fact in (
        ("decision.json", "", "it is empty"),
        ("decision.json", "[]", "it is no JSON object"),
        ("events.jsonl", '{"event": \n{"event": "x"}\n', "line 1: it ends in the middle"),
        ("events.jsonl", '{"time": "x", "event": "started"}\n', "it ends before the verdict"),
        ("test_reads.jsonl", "", "it is empty"),
        ("solutions/zero_shot/predictions.dev.jsonl", "", "it is empty"),
        ("events.jsonl", '{"time": "x"}\n', "'event' is missing; another version of rung may have written it"),
        ("solutions/zero_shot/predictions.dev.jsonl", '{"id": "1"}\n', "'text' is missing.*"),
        ("baselines/test/0-most_frequent.jsonl", "", "it has 0 answers to .* examples, or answers to others"),
    ):
        whole = (run / name).read_text()
        (run / name).write_text(text)
        with pytest.raises(DamagedRecord, match=rf"^{re.escape(str(run / name))}: is damaged \({fact}{tail}"):
            read_all(place)
        (run / name).write_text(whole)


def read_all(place: Path) -> None:
    """As a report, and as a run that goes on to its verdict."""
    rung.api.Run(place / "run").predictions("zero_shot", "dev")
    rung.api.Run(place / "run").report()
    kept = Path(shutil.copytree(place / "run", place / "kept"))
    try:
        remove(place / "run", *GONE_ON_FROM)
        rung.run(place, out=place / "run")
    finally:
        shutil.rmtree(place / "run")
        kept.rename(place / "run")


@pytest.mark.parametrize(
    ("verb", "file", "keys", "value"),
    [
        ("report", "decision.json", ("frontier", 0), {"a": 1}),
        ("report", "checks.json", ("findings", 0, "message"), {"a": 1}),
        ("report", "task.json", ("budget", "minutes"), []),
        ("bundle", "finalists.json", ("invention",), 3),
        ("export", "split.json", ("test_digests", "27"), {}),
        ("run", "finalists.json", ("skipped",), 3),
        ("run", "finalists.json", ("closed_book",), 3),
        ("run", "clock.json", ("seconds",), {}),
        ("run", "solutions/rag/predictions.test.jsonl", ("text",), None),
    ],
)
def test_a_value_of_another_type_is_told_by_its_file(
    place: Path, verb: str, file: str, keys: tuple[str | int, ...], value: object
) -> None:
    path = place / "run" / file
    first, *rest = path.read_text().splitlines(keepends=True) if path.suffix == ".jsonl" else [path.read_text()]
    record = json.loads(first)
    *outer, last = keys
    inner = record
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text("".join([json.dumps(record) + "\n", *rest]))
    if verb == "run":
        remove(place / "run", *GONE_ON_FROM)
    asked = verbs(place) | {"run": lambda: call("run", place, "--out", place / "run")}
    code, said = asked[verb]()
    *_, message = said.strip().splitlines()
    assert code == 2 and "Traceback" not in said, said
    assert message.startswith("rung: ") and path.name in message and "damaged" in message


def test_a_solution_whose_record_is_damaged_ends_the_command_and_is_not_given_up(place: Path) -> None:
    run = place / "run"
    remove(run, *GONE_ON_FROM, "finalists.json", "test_reads.jsonl")
    (run / "solutions" / "zero_shot" / "solution.json").write_text("{}")
    code, said = call("run", place, "--out", run)
    assert code == 2 and "solution.json: is damaged" in said
    assert not any(e["event"] == "skipped" and e.get("reason") == "fault" for e in events(run))


def test_a_clock_that_is_torn_ends_nothing(place: Path) -> None:
    remove(place / "run", *GONE_ON_FROM)
    (place / "run" / "clock.json").write_text("")
    code, said = call("run", place, "--out", place / "run")
    assert code == 0, said


@pytest.mark.parametrize("verb", ["report", "bundle"])
def test_answers_that_are_fewer_than_the_verdict_counts_are_damage(place: Path, verb: str) -> None:
    name = json.loads((place / "run" / "decision.json").read_text())["solution"]
    path = place / "run" / "solutions" / name / f"predictions.{'test' if verb == 'report' else 'dev'}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:9])
    code, said = verbs(place)[verb]()
    assert code == 2 and f"{path}: is damaged (it ends in the middle: it has {len(lines) - 1} of {len(lines)}" in said


def test_a_report_says_what_it_does_without(place: Path) -> None:
    run = place / "run"
    name = json.loads((run / "decision.json").read_text())["solution"]
    for file in ("clock.json", "checks.json", "plan.json", "finished.json", f"solutions/{name}/built.json"):
        path = run / file
        path.write_text(path.read_text()[:4])
    (run / "winner" / "solution.json").write_text("")
    code, said = call("report", run)
    assert code == 0 and len(said.strip().splitlines()) == 6, said
    assert f"{run / 'clock.json'}: is damaged (it ends in the middle). The report leaves it out." in said
    assert f"{run / 'finished.json'}: is damaged (it ends in the middle). The report does not rest on it." in said
    assert "winner: solution.json is not what it was" in said
