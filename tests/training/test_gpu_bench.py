"""bench/gpu.py: every target has its line, what is missing is said, and each measurement runs on a tiny shape."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gpu
import gpu_equality
import gpu_limits
import gpu_ours
import gpu_part
import gpu_peers
import gpu_runs
import gpu_shapes
import training
from gpu_table import lines, reasons, shown, table, unequal, with_limits
from rung.engine.prefix_tree import grow

Found = dict[str, dict[str, Any]]


def figures() -> Found:
    """What a card might have measured."""
    return {
        "limits//matrix": {"value": {"matrix_tflops": 600.0}},
        "limits//bandwidth": {"value": {"bandwidth_gb_s": 4000.0}},
        "rung/1.7b/training_32": {"value": {"examples_per_s": 800.0, "tflops": 270.0}},
        "transformers/1.7b/training_32": {"value": {"examples_per_s": 114.0}},
        "transformers/1.7b/liger_32": {"skipped": "liger_kernel is not installed"},
        "rung/1.7b/prompts": {"value": {"seconds": 2.0}},
        "transformers/1.7b/prompts": {"value": {"seconds": 8.0}},
        "rung/1.7b/request": {"value": {"ms_per_token": 2.0, "read_bytes": 3.4e9}},
        "rung/1.7b/adapters": {"value": {"mixed_s": 1.1, "base_s": 1.0}},
        "run/135m/whole_run": {"value": {"seconds": 48.0}},
        "run/135m/side_by_side": {"value": {"ended": 7, "runs": 8}},
        "four_bit/8b/four_bit": {"error": "OutOfMemory: no"},
    }


def test_each_figure_stands_beside_its_target_and_is_judged_by_it() -> None:
    found = figures()
    with_limits(found)
    rows = table(found, lines(gpu.SIZES, judged=True))
    met = {(r["part"], r["size"], r["against"]): (r["met"], r["target"]) for r in rows}
    assert met["training, batch 32", "1.7b", "transformers + PEFT"] == ("yes", "at least 5 x")
    assert met["training, batch 32", "1.7b", "Liger"] == ("not measured", "at least 3 x")
    assert met["training, batch 32", "1.7b", "matrix rate"] == ("yes", "at least 40%")
    assert met["training, batch 32", "8b", "matrix rate"] == ("not measured", "at least 40%")
    assert met["training, batch 32", "135m", "transformers + PEFT"] == ("not measured", "at least 5 x")
    assert met["prompts that share a prefix", "1.7b", "generate"] == ("no", "at least 5 x")
    assert met["prompts that share a prefix", "1.7b", "vLLM"] == ("not measured", "at least 0.8 x")
    assert met["one request, a token", "1.7b", "reading the weights"] == ("yes", "at most 3 x")
    assert met["4 adapters in one batch", "1.7b", "the base"] == ("yes", "at most 1.2 x")
    assert met["a whole run", "135m", ""] == ("yes", "at most 60 s")
    assert met["runs side by side", "135m", "all of"] == ("no", "all end")
    assert met["training in 4 bits, batch 8, 2,048 tokens", "8b", ""] == ("not measured", "at most 24 GB")
    said = " ".join(reasons(rows))
    assert "liger_kernel is not installed" in said and "OutOfMemory: no" in said
    assert len(shown(rows).splitlines()) == 1 + len(rows)


def test_a_clock_that_was_disturbed_gives_no_time_of_a_token() -> None:
    assert gpu_part.ms_per_token(lambda new: 1.0 + new / 100, 16, 80) == pytest.approx(10.0)
    assert gpu_part.ms_per_token(lambda new: 1.0 / new, 16, 80) is None


def test_a_time_that_is_not_known_meets_no_target() -> None:
    found = figures()
    found["rung/1.7b/request"]["value"]["ms_per_token"] = None
    with_limits(found)
    (row,) = [r for r in table(found, lines(["1.7b"], judged=True)) if r["against"] == "reading the weights"]
    assert row["met"] == "not measured" and "disturbed" in row["why"]


def test_nothing_is_judged_on_a_cpu() -> None:
    assert all(row["target"] is None for row in table({}, lines(["tiny"], judged=False)))


def test_a_check_of_equality_that_fails_or_breaks_is_named_and_one_that_was_skipped_is_not() -> None:
    found: Found = {
        "rung/1.7b/equality": {"value": {"equal": False}},
        "rung/8b/equality": {"error": "it broke"},
        "rung/135m/equality": {"skipped": "no time"},
        "rung/135m/equality_float32": {"value": {"equal": True}},
    }
    assert unequal(found) == ["rung/1.7b/equality", "rung/8b/equality"]


@pytest.mark.parametrize("key", ["loss_differs", "static_norm_differs", "gradients_differ"])
def test_float32_has_to_agree_in_loss_norm_and_gradients(key: str) -> None:
    small = {f"{kind}{what}": 1e-6 for kind in ("", "static_") for what in ("loss_differs", "norm_differs")}
    found = {"dtype": "float32", "gradients_differ": 1e-6, **small, "answers": 4, "same_answers": 4}
    assert gpu_equality.is_equal(found)
    assert not gpu_equality.is_equal({**found, key: 1e-3})
    assert not gpu_equality.is_equal({**found, "same_answers": 3})


def test_the_plan_holds_every_kind_and_the_limits_come_first() -> None:
    whole = gpu.plan(gpu.SIZES, [])
    assert whole[0].kind == "limits" and whole[0].measures[0] == "device", "what ends the script early is asked first"
    assert {p.kind for p in whole} == {"limits", "rung", "transformers", "run", "four_bit", "ways", "vllm"}
    assert [p.kind for p in gpu.plan(["1.7b"], ["ways"])] == ["limits", "ways"]
    line_places = {p.rpartition(":")[0] for line in lines(gpu.SIZES, judged=True) for p in (line.ours, line.theirs)}
    planned = {p.name_of(m) for p in whole for m in p.measures}
    assert line_places - {""} <= planned


def test_the_parts_that_the_documents_run_afterwards_fit_their_budget() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text("utf-8")
    (found,) = re.findall(r"gpu\.py .*--seconds (\d+) --only ([\w,]+)", page)
    assert sum(p.share_s for p in gpu.plan(gpu.SIZES, found[1].split(","))) <= int(found[0])
    shares = [sum(p.share_s for p in gpu.plan(gpu.SIZES, only)) for only in ([], found[1].split(","))]
    assert all(f"{share:,.0f} s" in (gpu.__doc__ or "") for share in shares)


# ---- options ----------------------------------------------------------------------------------------


def exit_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda *a, **b: pytest.fail("a process was started"))
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code


@pytest.mark.parametrize(
    "words, said",
    [
        (["--only", "ways,foo"], "--only: 'foo' is not one of rung, transformers, run, four_bit, ways, vllm."),
        (["--sizes", "3b"], "--sizes: '3b' is not one of 1.7b, 8b, 135m, tiny."),
        (["--sizes", "tiny,8b"], "tiny cannot be measured beside other sizes"),
        (["--sizes", "135m", "--only", "ways"], "nothing of this is measured at --sizes 135m"),
        (["--seconds", "0"], "--seconds: 0 is too little"),
        (["--task", "none"], "none is no folder with a task.yaml"),
        (["--json", "none/x.json"], "is no folder"),
        (["--task-rows"], "name the task with --task"),
    ],
)
def test_a_wrong_option_is_named_before_any_process_starts(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


def test_help_lists_kinds_sizes_defaults_and_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(monkeypatch, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert {p.kind for p in gpu.plan(gpu.SIZES, [])} == {"limits", *gpu.KINDS}
    for words in (
        *gpu.KINDS.values(),
        "1.7b, 8b, 135m, with commas; or tiny",
        "Default: 480",
        "130 interrupted by Ctrl-C",
    ):
        assert words in said


def test_without_a_gpu_one_message_says_so_before_any_process_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert exit_of(monkeypatch) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "finds no GPU" in said and "--device cpu" in said


@pytest.mark.parametrize("broken", [True, False])
def test_what_was_measured_is_written_where_the_script_ends_early(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(session: gpu.Session, process: gpu.Process, *, after: gpu.Process | None) -> None:
        names = {process.name_of(name): {"error": "it broke"} for name in process.measures}
        versions = dict.fromkeys(("torch", "transformers", "peft"), "1")
        if not broken:
            names["limits//device"] = {"value": {"name": "a card", **versions}}
        session.found |= names
        if process.kind != "limits":
            raise KeyboardInterrupt

    monkeypatch.setattr(gpu.Session, "run", run)
    options = argparse.Namespace(device="cpu", sizes=["tiny"], seconds=60.0, json=str(tmp_path / "x.json"), task=None)
    assert gpu.measure(options, gpu.plan(["tiny"], [])) == (2 if broken else 130)
    written = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert ("it broke" if broken else "Ctrl-C") in written["ended"] and f"Ended early: {written['ended']}" in (
        capsys.readouterr().out
    )
    assert written["measures"]["limits//matrix"] == {"error": "it broke"}
    assert "ended before" in written["measures"]["ways/tiny/plain"]["skipped"]
    assert (written["device"] or {"name": None})["name"] == (None if broken else "a card")


@pytest.mark.parametrize("key", ["loss_differs", "static_norm_differs", "gradients_differ"])
def test_bfloat16_may_round_and_part_at_near_ties_and_no_more(key: str) -> None:
    found = {"dtype": "bfloat16", "loss_differs": 1e-3, "norm_differs": 1e-3, "gradients_differ": 0.02}
    found |= {"static_norm_differs": 1e-3, "answers": 4, "same_answers": 3, "nearly_as_likely": 1}
    assert gpu_equality.is_equal(found)
    assert not gpu_equality.is_equal({**found, key: 0.3})
    assert not gpu_equality.is_equal({**found, "nearly_as_likely": 0})


def test_a_whole_run_that_breaks_has_no_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"seconds": 4.0, "runs": 1, "ended": 0, "errors": ["code 2: no such task"]}
    monkeypatch.setattr(gpu_runs, "side_by_side", lambda given, count: broken)
    with pytest.raises(RuntimeError, match="code 2: no such task"):
        gpu_runs.whole_run(SimpleNamespace())  # type: ignore[arg-type]


# ---- processes ------------------------------------------------------------------------------------


def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> tuple[gpu.Session, list[str]]:
    """A session whose processes run that code."""
    told: list[str] = []
    found = gpu.Session(
        argparse.Namespace(device="cpu", task=None, task_rows=False), tmp_path, time.time() + 60, told.append
    )
    found._ahead = False

    def start(process: gpu.Process) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        with found._errors_of(process).open("wb") as errors:
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, start_new_session=True)

    monkeypatch.setattr(found, "_start", start)
    return found, told


def test_what_a_process_said_before_it_broke_is_kept_and_the_rest_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        f'print(\'{gpu.MARK}\' + \'{{"measure": "prompts", "value": {{"seconds": 1.0}}}}\'); raise SystemExit(\'no\')'
    )
    found, told = session(tmp_path, monkeypatch, code)
    found.run(gpu.Process("rung", "tiny", ("prompts", "request"), 9), after=None)
    said = found.found
    assert said["rung/tiny/prompts"] == {"value": {"seconds": 1.0}}
    assert said["rung/tiny/request"] == {"error": "its process ended with code 1. no"}
    assert len(told) == 2


def test_a_process_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = session(tmp_path, monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "LEAST_S", 1.0)
    found.deadline = time.time() + 3
    found.run(gpu.Process("rung", "tiny", ("prompts",), 9), after=None)
    said = found.found
    assert said["rung/tiny/prompts"]["error"].startswith("its time was up")


def test_a_process_without_time_is_skipped_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = session(tmp_path, monkeypatch, "")
    found.deadline = time.time() + 5
    found.run(gpu.Process("rung", "tiny", ("prompts",), 9), after=None)
    said = found.found
    assert "left of --seconds" in said["rung/tiny/prompts"]["skipped"]


# ---- measurements on a tiny shape -----------------------------------------------------------------


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> gpu_part.Given:
    folder = tmp_path_factory.mktemp("gpu")
    rows = gpu_shapes.made_rows(gpu_shapes.SHAPES["tiny"], count=64)
    gpu_shapes.write_rows(rows, folder / "rows-tiny.json")
    return gpu_part.Given("rung", "tiny", "cpu", folder, (), time.time() + 600)


def test_what_is_given_to_a_process_arrives(
    given: gpu_part.Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = session(tmp_path, monkeypatch, "")
    found.options.task = tmp_path
    read = gpu_part.from_json(json.dumps(found.given(gpu.Process("rung", "tiny", ("prompts", "request"), 9), 9.0)))
    assert 0 < read.left() <= 9
    assert read == gpu_part.Given("rung", "tiny", "cpu", tmp_path, ("prompts", "request"), read.deadline, tmp_path)
    assert given.rows()[0] == gpu_shapes.made_rows(given.shape, count=1)[0]


def test_rung_computes_what_its_peer_computes_and_is_measured(
    given: gpu_part.Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNG_WAYS", "fused,static")
    engine, rows = gpu_ours.engine_of(given, given.dtype), given.rows()
    found = gpu_equality.compared(given, engine, rows[:4])
    assert found["equal"] and found["static_loss_differs"] < 1e-4, found
    monkeypatch.setattr(gpu_equality, "fill", lambda weights: None)  # now each has a first adapter of its own
    assert not gpu_equality.compared(given, engine, rows[:4])["equal"]
    assert gpu_ours.training(given, engine, rows, 8, most=4)["examples_per_s"] > 0
    assert gpu_ours.prompts(given, engine, rows)["seconds"] > 0
    assert gpu_ours.request(given, engine, rows)["read_bytes"] == 4 * sum(
        p.numel() for p in engine.network.parameters()
    )
    assert gpu_ours.adapters(given, engine, rows)["ratio"] > 0


def test_the_peer_is_measured(given: gpu_part.Given) -> None:
    peer = gpu_peers.Peer(given)
    assert gpu_peers.prompts(given, peer.network("plain"), peer.rows)["seconds"] > 0
    assert peer.trained("adapted", 8)["examples_per_s"] > 0


def test_operations_of_a_step_are_those_that_the_bench_of_training_counts(given: gpu_part.Given) -> None:
    network = gpu_shapes.make_network(given.shape, "cpu", given.dtype)
    parameters = sum(p.numel() for p in network.parameters())
    from peft import get_peft_model

    get_peft_model(network, gpu_shapes.lora_config())
    batch = given.rows()[:8]
    expected = training.operations(SimpleNamespace(network=network, parameters=parameters), batch)
    ours, tokens = gpu_limits.operations(given.shape, batch)
    nodes = grow([[*row.prompt, *row.target[:-1]] for row in batch]).nodes
    pairs = sum(n.length * (n.length + 1) / 2 + n.length * (n.end - n.start - n.length) for n in nodes)
    again = 2 * given.shape.layers * pairs * given.shape.queries  # weights of attention, which count there
    assert ours == pytest.approx(expected - again, rel=0.01)
    assert tokens < sum(row.tokens for row in batch)


def test_a_measurement_that_fails_does_not_end_the_others(
    given: gpu_part.Given, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise ValueError("no such thing")

    def lacks() -> None:
        raise ModuleNotFoundError("no module", name="liger_kernel")

    asked = gpu_part.Given(**{**vars(given), "measures": ("a", "b", "c")})
    gpu_part.measured(asked, {"a": (fails, 0), "b": (lacks, 0), "c": (lambda: {"x": 1}, 0)})
    a, b, c = [line for line in capsys.readouterr().out.splitlines() if line]
    assert "ValueError: no such thing" in a and "liger_kernel is not installed" in b and '"x": 1' in c


def test_what_the_processes_read_is_written(given: gpu_part.Given, tmp_path: Path) -> None:
    said = gpu_runs.prepare(gpu_part.Given(**{**vars(given), "folder": tmp_path}))
    assert said == {"rows": "made", "model": "tiny, random weights", "task": "made"}
    assert (tmp_path / "task" / "task.yaml").is_file() and (tmp_path / "config-8b" / "config.json").is_file()
    prompts = gpu_shapes.prompts_of(gpu_shapes.read_rows(tmp_path / "rows.json"), 3)
    assert [580 <= len(prompt) <= 600 for prompt in prompts] == [True] * 3
