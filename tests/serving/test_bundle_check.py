"""Whether a bundle has become worse on a fixed set."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import rung
from bundle_runs import DEV, write_run
from rung.bundles.packing import pack
from rung.cli.main import rung as command
from rung.errors import DataError, MetricError, ModelError, RunError, RungError
from rung.records import write_lines
from rung.serving.bundle_check import CheckOptions, check_answers
from rung.testing import FakeModel


def bundle_in(tmp_path: Path, model: str, name: str = "out", **task: Any) -> Path:
    run = write_run(tmp_path / f"run-{name}", model, "1", **task)
    out = tmp_path / name
    out.mkdir()
    pack(run, "zero_shot", out, dev=DEV)
    return out


def worse(at: int) -> str:
    """The spec of a model of the same version that answers the first `at` inputs wrongly."""

    def says(request: rung.types.Request) -> str:
        number = int(request.messages[-1].content.rpartition(" ")[2])
        return "wrong" if number < at else f"answer {number}"

    rung.register_model("echo:", lambda spec, say: FakeModel(says, name=spec))
    return "echo:model"


def call(*words: object) -> Result:
    return CliRunner().invoke(command, ["check-bundle", *map(str, words)])


def fixed_set(path: Path, n: int = 5) -> Path:
    write_lines(path, ({"id": e.id, "input": e.input, "output": e.output} for e in DEV[10 : 10 + n]))
    return path


def test_a_bundle_that_answers_as_it_was_recorded_passes(tmp_path: Path, echo: str) -> None:
    found = check_answers(bundle_in(tmp_path, echo))
    assert found.passed and found.equal == 1 and found.difference is not None and found.difference.difference == 0
    assert found.after.mean == 0.9 and found.changed == [] and "recorded" in str(found.against)


def test_a_drop_beyond_the_margin_fails_with_the_rows_that_changed(tmp_path: Path, echo: str) -> None:
    out = bundle_in(tmp_path, echo)
    worse(3)
    found = check_answers(out)
    assert not found.passed and [b.id for _, b in found.changed] == ["d0", "d1", "d2", "d3", "d4"]
    assert found.difference is not None and found.difference.difference == pytest.approx(-0.05)
    assert found.equal == 15 / 20
    assert check_answers(out, CheckOptions(margin=0.05)).passed, "a drop of the margin itself passes"


def test_the_command_exits_with_1_for_a_drop_and_says_both_scores(tmp_path: Path, echo: str) -> None:
    out = bundle_in(tmp_path, echo)
    assert call(out).exit_code == 0
    worse(6)
    done = call(out)
    assert done.exit_code == 1, done.output
    assert "now     70 %" in done.stdout and "before  90 %" in done.stdout and "95 % interval" in done.stdout
    assert "d0: 100 -> 0" in done.stdout and "Dropped: the score fell by 20 points. A fall of 2 points" in done.stdout
    assert call(out, "--margin", "20").exit_code == 0
    assert call(out, "--margin", "nan").exit_code == 2


def test_the_json_of_a_check_is_the_baseline_of_the_next_one(tmp_path: Path, echo: str) -> None:
    out, rows = bundle_in(tmp_path, echo), fixed_set(tmp_path / "fixed.jsonl")
    first = call(out, "--examples", rows, "--json")
    assert first.exit_code == 0 and json.loads(first.stdout)["difference"] is None
    (tmp_path / "first.json").write_text(first.stdout)
    assert call(out, "--examples", rows, "--baseline", tmp_path / "first.json").exit_code == 0
    worse(12)
    done = call(out, "--examples", rows, "--baseline", tmp_path / "first.json", "--json")
    record = json.loads(done.stdout)
    assert done.exit_code == 1 and record["passed"] is False and record["n"] == 5
    assert record["difference"]["difference"] == pytest.approx(-0.4)
    assert [row["id"] for row in record["changed"]] == ["d10", "d11"]


def test_a_baseline_of_other_rows_is_refused(tmp_path: Path, echo: str) -> None:
    out, rows = bundle_in(tmp_path, echo), fixed_set(tmp_path / "fixed.jsonl")
    (tmp_path / "first.json").write_text(call(out, "--examples", rows, "--json").stdout)
    more = fixed_set(tmp_path / "more.jsonl", 6)
    with pytest.raises(RunError, match="1 of 6 rows are not in it"):
        check_answers(out, CheckOptions(examples=more, baseline=tmp_path / "first.json"))
    for text in ("[]", "{", '{"answers": 3}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RunError, match="no check of a bundle"):
            check_answers(out, CheckOptions(examples=rows, baseline=tmp_path / "bad.json"))


def test_rows_that_were_taken_out_of_the_set_are_named(tmp_path: Path, echo: str) -> None:
    out, rows = bundle_in(tmp_path, echo), fixed_set(tmp_path / "fixed.jsonl")
    (tmp_path / "first.json").write_text(call(out, "--examples", rows, "--json").stdout)
    fewer = fixed_set(tmp_path / "fewer.jsonl", 4)
    with pytest.raises(RunError, match="1 of its 5 rows are not in the set any more: d14"):
        check_answers(out, CheckOptions(examples=fewer, baseline=tmp_path / "first.json"))


def test_a_baseline_of_another_task_is_refused(tmp_path: Path, echo: str) -> None:
    out, other = bundle_in(tmp_path, echo), bundle_in(tmp_path, echo, "other")
    rows = fixed_set(tmp_path / "fixed.jsonl")
    (tmp_path / "first.json").write_text(call(other, "--examples", rows, "--json").stdout)
    note = json.loads((other / "bundle.json").read_text())
    renamed = {**note, "task": "renamed"}
    (other / "bundle.json").write_text(json.dumps(renamed))
    assert check_answers(out, CheckOptions(examples=rows, baseline=other)).passed, "its instruction is the same"
    (other / "bundle.json").write_text(json.dumps({**renamed, "instruction": "Do something else."}))
    with pytest.raises(RunError, match="its task is renamed"):
        check_answers(out, CheckOptions(examples=rows, baseline=other))
    first = json.loads((tmp_path / "first.json").read_text())
    (tmp_path / "first.json").write_text(json.dumps({**first, "task": "elsewhere"}))
    with pytest.raises(RunError, match="its task is elsewhere"):
        check_answers(out, CheckOptions(examples=rows, baseline=tmp_path / "first.json"))


def test_another_bundle_is_asked_the_same_rows(tmp_path: Path, echo: str) -> None:
    out, other = bundle_in(tmp_path, echo), bundle_in(tmp_path, echo, "other")
    rows = fixed_set(tmp_path / "fixed.jsonl")
    found = check_answers(out, CheckOptions(baseline=other))
    assert found.passed and "recorded in" in str(found.against)
    write_lines(rows, [{"input": "input 77", "output": "answer 77"}, {"input": "input 3", "output": "answer 3"}])
    found = check_answers(out, CheckOptions(examples=rows, baseline=other))
    assert found.equal == 1 and [a.score for a in found.earlier] == [1, 0]


def test_what_is_wrong_is_said_before_a_model_is_loaded(
    tmp_path: Path, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = bundle_in(tmp_path, echo)

    def never(spec: str, say: object) -> FakeModel:
        raise AssertionError("a model was loaded")

    rung.register_model("echo:", never)
    with pytest.raises(RunError, match="there is no such file"):
        check_answers(out, CheckOptions(examples=tmp_path / "none.jsonl"))
    (tmp_path / "rows.jsonl").write_text('{"input": "x"}\n')
    with pytest.raises(DataError):
        check_answers(out, CheckOptions(examples=tmp_path / "rows.jsonl"))
    bare = shutil.copytree(out, tmp_path / "bare")
    note = json.loads((bare / "bundle.json").read_text())
    del note["files"]["parity.jsonl"]
    (bare / "bundle.json").write_text(json.dumps(note))
    (bare / "parity.jsonl").unlink()
    with pytest.raises(RunError, match="holds no examples"):
        check_answers(bare)


def test_a_model_that_answers_nothing_is_no_drop_but_an_error(tmp_path: Path, echo: str) -> None:
    out = bundle_in(tmp_path, echo)
    rung.register_model("echo:", lambda spec, say: FakeModel({}, name=spec))
    with pytest.raises(ModelError, match="no row was answered"):
        check_answers(out)


def test_a_metric_that_is_code_runs_only_where_it_is_trusted(
    tmp_path: Path, echo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run-out").mkdir()
    (tmp_path / "run-out" / "own.py").write_text(
        "import helper\ndef half(p, r):\n    import late\n    return helper.HALF * late.ONE\n"
    )
    (tmp_path / "run-out" / "late.py").write_text("ONE = 1\n")
    (tmp_path / "run-out" / "helper.py").write_text("HALF = 0.5\n")
    out = bundle_in(tmp_path, echo, metric="python:own.py:half", right_or_wrong=False)
    shutil.rmtree(tmp_path / "run-out")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    with pytest.raises(MetricError, match="--trust-code"):
        check_answers(out)
    found = check_answers(out, CheckOptions(trusted=True))
    assert found.after.mean == 0.5
    assert check_answers(out, CheckOptions(trusted=True)).passed, "running the metric left no file that is refused"


def test_where_a_judge_scored_the_run_its_stand_in_scores_the_check(tmp_path: Path, echo: str) -> None:
    out = bundle_in(tmp_path, echo, metric="judge", judge={"fallback": "token_f1"})
    said: list[str] = []
    assert check_answers(out, say=said.append).metric.name == "token_f1"
    assert any("judge" in line for line in said)


def test_groups_widen_the_interval(tmp_path: Path, echo: str) -> None:
    out = bundle_in(tmp_path, echo)
    rows = tmp_path / "rows.jsonl"
    write_lines(rows, ({"input": e.input, "output": e.output, "group": f"{i // 5}"} for i, e in enumerate(DEV)))
    grouped, single = check_answers(out, CheckOptions(examples=rows)).after, check_answers(out).after
    assert grouped.mean == single.mean and grouped.high - grouped.low > single.high - single.low


def test_every_refusal_is_a_message_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(RungError, match="there is no such folder"):
        check_answers(tmp_path / "none")
