"""The verbs as a user types them: what they print, and how they refuse."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from broken import BROKEN, Broken
from click.testing import CliRunner, Result

from rung.cli.main import VERBS, rung
from rung.errors import RungError
from rung.serving.bundle import Bundle
from rung.solutions.store import load_solution, save_solution
from rung.testing import FakeModel
from rung.types import Decoding, Solution
from small_task import write_task


def call(*words: object) -> Result:
    return CliRunner().invoke(rung, [str(word) for word in words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    place = tmp_path_factory.mktemp("cli")
    done = call("run", write_task(place, tiny_folder, corpus=True), "--out", place / "run", "--only", "zero_shot,rag")
    assert done.exit_code == 0, done.output
    return place / "run"


def test_help_names_every_verb() -> None:
    shown = call("--help").output
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    done = call(verb, "--help")
    assert done.exit_code == 0 and len(done.output.splitlines()) > 5


def test_the_final_screen_has_at_most_25_lines(finished: Path) -> None:
    shown = call("report", finished).output
    warned = len(json.loads((finished / "decision.json").read_text())["warnings"])
    assert 5 < len(shown.splitlines()) <= 25 + 4 * warned, "warnings are never cut"
    assert json.loads((finished / "decision.json").read_text())["headline"].split(":")[0] in shown
    assert (finished / "report.html").is_file()


def test_ask_answers_with_any_solution_of_the_run(finished: Path) -> None:
    done = call("ask", finished, "The small door please", "--solution", "rag", "--verbose")
    assert done.exit_code == 0, done.output
    assert "passages" in done.output


def test_ask_names_the_solutions_there_are(finished: Path) -> None:
    done = call("ask", finished, "x", "--solution", "lora")
    assert isinstance(done.exception, RungError) and "zero_shot" in str(done.exception)


def test_ask_answers_the_other_lines_when_one_is_too_long(finished: Path) -> None:
    lines = "The small door please\n" + "x" * 3000 + "\nThe old boat please\n"
    done = CliRunner().invoke(rung, ["ask", str(finished), "--solution", "rag", "--lines"], input=lines)
    assert isinstance(done.exception, RungError) and "1 of 3 inputs" in str(done.exception)
    assert "input 2: prompt of" in done.stderr
    assert [bool(line) for line in done.stdout.splitlines()] == [True, False, True]


def test_ask_takes_standard_input_as_one_input_unless_lines_are_asked_for(finished: Path) -> None:
    mail = "Dear all,\n\nthe small door is open.\nYours\n"
    one = CliRunner().invoke(rung, ["ask", str(finished), "--solution", "rag", "--verbose"], input=mail)
    many = CliRunner().invoke(rung, ["ask", str(finished), "--solution", "rag", "--verbose", "--lines"], input=mail)
    assert one.stderr.count("tokens in") == 1 and many.stderr.count("tokens in") == 3


def test_ask_gives_each_line_one_line_of_output_empty_ones_too(finished: Path) -> None:
    text = "\nThe small door please\n\n  \nThe old boat please\n\n"
    done = CliRunner().invoke(rung, ["ask", str(finished), "--solution", "rag", "--lines"], input=text)
    assert [bool(line) for line in done.stdout.split("\n")[:-1]] == [False, True, False, False, True, False]
    assert done.exit_code == 0


def test_ask_shows_the_model_a_context_and_an_instruction(finished: Path) -> None:
    plain = call("ask", finished, "door", "--solution", "zero_shot", "--verbose")
    more = call(
        "ask", finished, "door", "--solution", "zero_shot", "--verbose", "--context", "red", "--instruction", "Say it"
    )
    tokens = [int(done.output.split(" tokens in")[0].rsplit(" ", 1)[1]) for done in (plain, more)]
    assert more.exit_code == 0 and tokens[1] > tokens[0]


def test_ask_answers_the_last_turn_of_a_conversation(finished: Path, tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    turns = [("user", "red"), ("assistant", "x"), ("user", "door")]
    chat.write_text(json.dumps([{"role": role, "content": content} for role, content in turns]))
    assert call("ask", finished, "--solution", "zero_shot", "--messages", chat).exit_code == 0
    chat.write_text(json.dumps([{"role": role, "content": content} for role, content in turns[:2]]))
    done = call("ask", finished, "--solution", "zero_shot", "--messages", chat)
    assert done.exit_code != 0 and "ends with a user turn" in str(done.exception)
    chat.write_text(json.dumps([{"role": ["user"], "content": "x"}, {"role": "user", "content": "door"}]))
    done = call("ask", finished, "--solution", "zero_shot", "--messages", chat)
    assert isinstance(done.exception, RungError) and "no conversation that can be answered" in str(done.exception)
    chat.write_text(json.dumps([{"role": "user", "content": " "}]), "utf-8-sig")
    done = call("ask", finished, "--solution", "zero_shot", "--messages", chat)
    assert isinstance(done.exception, RungError) and "nothing to answer" in str(done.exception)


def test_ask_says_that_an_answer_was_cut_and_not_of_one_that_ends_where_its_room_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeModel({"a": "two words", "b": "three short words"})
    bundle = Bundle(Solution("s", "Answer.", Decoding(2)), model, None)
    monkeypatch.setattr("rung.serving.bundle.open_bundle", lambda *_, **__: bundle)
    done = CliRunner().invoke(rung, ["ask", "run", "--lines"], input="a\nb\n")
    assert done.stdout == "two words\nthree short\n"
    assert "input 2: the answer was cut at 2 tokens" in done.stderr and "input 1" not in done.stderr


def test_a_system_turn_that_the_instruction_holds_is_not_said_twice(finished: Path, tmp_path: Path) -> None:
    chat, tokens = tmp_path / "chat.json", []
    for system in ("", "Answer with the colour.", "Answer with the size."):
        turns = [{"role": "system", "content": system}] if system else []
        chat.write_text(json.dumps([*turns, {"role": "user", "content": "The old door please"}]))
        done = call("ask", finished, "--solution", "zero_shot", "--messages", chat, "--verbose")
        tokens.append(int(done.output.split(" tokens in")[0].rsplit(" ", 1)[1]))
    assert tokens[0] == tokens[1] < tokens[2]


def test_what_the_task_says_is_not_said_to_a_solution_without_an_instruction(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    bare = replace(load_solution(folder / "solutions" / "zero_shot"), name="bare", instruction="")
    save_solution(bare, folder / "solutions" / "bare")
    chat, tokens = tmp_path / "chat.json", []
    for system in ("", "Answer with the colour.", "Answer with the size."):
        turns = [{"role": "system", "content": system}] if system else []
        chat.write_text(json.dumps([*turns, {"role": "user", "content": "The old door please"}]))
        done = call("ask", folder, "--solution", "bare", "--messages", chat, "--verbose")
        tokens.append(int(done.output.split(" tokens in")[0].rsplit(" ", 1)[1]))
    assert tokens[0] == tokens[1] < tokens[2]


def test_ask_says_that_its_input_is_in_another_encoding(finished: Path) -> None:
    done = CliRunner().invoke(rung, ["ask", str(finished), "--solution", "rag"], input="Größe\n".encode("latin-1"))
    assert isinstance(done.exception, RungError) and "Convert it" in str(done.exception)


def test_ask_without_a_run_says_what_to_name(tmp_path: Path) -> None:
    done = call("ask", tmp_path / "nowhere", "x")
    assert isinstance(done.exception, RungError) and "no such folder" in str(done.exception)


def test_report_of_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text("{}")
    done = call("report", tmp_path)
    assert isinstance(done.exception, RungError) and "same rung run command" in str(done.exception)


def test_init_writes_a_task_that_can_be_read(tmp_path: Path, tiny_folder: Path) -> None:
    from rung.data.task_file import read_task

    write_task(tmp_path, tiny_folder)
    (tmp_path / "task.yaml").unlink()
    assert call("init", tmp_path / "examples.jsonl").exit_code == 0
    task = read_task(tmp_path / "task.yaml")
    assert task.metric == "label_accuracy" and set(task.labels or ()) == {"red", "green", "blue"}
    written = (tmp_path / "task.yaml").read_text("utf-8")
    assert "# model: {endpoint: " in written and "# models: " in written
    again = call("init", tmp_path / "examples.jsonl")
    assert isinstance(again.exception, RungError) and "--force" in str(again.exception)


def test_models_lists_the_catalogue() -> None:
    done = call("models")
    assert "smollm2-135m-instruct" in done.output and "Apache-2.0" in done.output
    assert "{endpoint: https://host/v1, name: NAME}" in done.output


def test_an_endpoint_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rung.testing import FakeEndpoint

    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    with FakeEndpoint() as endpoint:
        for name in (f"{endpoint.url}#fake-1", endpoint.spec()):
            done = call("models", "check", name)
            assert done.exit_code == 0 and f"{endpoint.url} is reached" in done.output, done.output
    gone = call("models", "check", f"{endpoint.url}#fake-1")
    assert isinstance(gone.exception, RungError) and "connection refused" in str(gone.exception)


@pytest.mark.parametrize("name", ["https://host/v1", "https://me:sk-secret-0123456789@host/v1#m", "{not json"])
def test_an_endpoint_that_is_named_wrongly_is_one_clear_error(name: str) -> None:
    done = call("models", "check", name)
    assert isinstance(done.exception, RungError) and "sk-secret" not in f"{done.exception}{done.output}"


def test_models_lists_others_with_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    shown = call("models").output
    row = next(line for line in shown.splitlines() if "Qwen/Qwen3-0.6B" in line).split()
    assert row == ["Qwen/Qwen3-0.6B", "596", "M", "2.2", "GB", "2.9", "GB", "unknown", "Apache-2.0"]
    own = [line.split() for line in shown.splitlines() if line.startswith("  smollm2-135m-instruct")]
    assert [row[:3] for row in own] == [["smollm2-135m-instruct", "135", "M"]]
    assert "unknown until `rung models check smollm2-135m-instruct` has timed it" in shown


def test_a_model_in_place_of_a_command_names_the_command() -> None:
    assert "rung models check some/model" in call("models", "some/model").output


def test_a_model_is_checked(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    done = call("models", "check", tiny_folder)
    assert done.exit_code == 0, done.output
    for fact in (
        "path:",
        "of 2 layers fused",
        "context:       2,048 tokens",
        "<|im_end|>",
        "LoRA adapters",
        "tokens a second",
    ):
        assert fact in done.output, done.output


def test_a_model_on_the_slower_path_is_said_to_be_so_once(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "mamba"))
    (folder / "config.json").unlink()
    sizes = {"vocab_size": 300, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2}
    MambaForCausalLM(MambaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=2)).save_pretrained(folder)
    remarks: list[str] = []
    listening, logger = logging.Handler(logging.WARNING), logging.getLogger("transformers")
    listening.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(listening)
    try:
        checked = call("models", "check", folder)
        task = write_task(tmp_path, folder)
        done = call("run", task, "--out", tmp_path / "run", "--only", "zero_shot")
        asked = call("ask", tmp_path / "run", "--solution", "zero_shot", "x")
    finally:
        logger.removeHandler(listening)
    assert checked.output.count("as transformers computes it") == 1 and " 0.0 GB" not in checked.output
    assert "weights take" in checked.output and " KB" not in checked.output
    assert " ".join(done.stderr.split()).count("runs as transformers computes it, slower") == 1, done.stderr
    assert asked.exit_code == 0 and "transformers" not in asked.output
    assert remarks == [], "what it says of kernels that are not installed is for its own users"


def test_a_model_that_cannot_be_loaded_is_one_clear_error_of_its_check(tmp_path: Path) -> None:
    done = call("models", "check", "no-such-model")
    assert isinstance(done.exception, RungError) and "`rung models` lists" in str(done.exception)


def test_demo_lists_the_demos() -> None:
    assert len(call("demo", "--list").output.splitlines()) == 3


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_is_one_clear_error(name: str, tmp_path: Path) -> None:
    case: Broken = BROKEN[name]
    done = call("run", case.build(tmp_path), "--out", tmp_path / "run")
    assert isinstance(done.exception, RungError), f"{name}: {done.exception!r}"
    assert case.says in str(done.exception)
    assert not (tmp_path / "run").exists(), "nothing is written before the input is known to be good"


@pytest.mark.parametrize("name", list(BROKEN)[::37])
def test_the_process_exits_with_2_and_no_traceback(name: str, tmp_path: Path) -> None:
    task = BROKEN[name].build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "rung", "run", task, "--out", tmp_path / "run"], capture_output=True, text=True
    )
    said = f"\n{done.stderr}"  # how the file was read may stand before the message
    assert done.returncode == 2 and "\nrung: " in said and "Traceback" not in said


def test_a_wrong_verb_names_the_nearest() -> None:
    done = subprocess.run([sys.executable, "-m", "rung", "rnu"], capture_output=True, text=True)
    assert done.returncode == 2 and "'run'" in done.stderr


@pytest.mark.parametrize(
    ("option", "kind"), [(["--port", "notaport"], "a whole number"), (["--grace", "soon"], "a number")]
)
def test_a_value_that_is_no_number_is_told_in_plain_words(
    option: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rung.cli.main import _call

    monkeypatch.setattr(sys, "argv", ["rung", "serve", *option, "x"])
    assert _call() == 2
    assert f"{option[0]}': '{option[1]}' is not {kind}." in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "goes_on"), [("run", True), ("models", False)])
def test_ctrl_c_promises_that_the_command_goes_on_only_where_it_does(
    verb: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rung.cli import main as command

    def interrupted() -> int:
        raise KeyboardInterrupt

    for module, name, value in (
        (command, "_call", interrupted),
        (command.signal, "signal", lambda *_: None),
        (sys, "argv", ["rung", verb, "check", "x"]),
    ):
        monkeypatch.setattr(module, name, value)
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr().err
    assert ended.value.code == 130 and "interrupted." in said and ("the same command continues" in said) == goes_on


def test_a_ctrl_c_that_a_library_swallows_is_said_again() -> None:
    swallowing = """
import os, signal, time
from rung.cli import main
def call():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
    except BaseException:
        pass
    time.sleep(9)
    return 0
main._call = call
main.main()
"""
    done = subprocess.run([sys.executable, "-c", swallowing], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130 and "interrupted" in done.stderr and "Traceback" not in done.stderr
