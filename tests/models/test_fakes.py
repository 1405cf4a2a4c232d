"""The fakes tell the truth: they keep the contracts of the protocols, as the real model does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, ConstraintError, Diverged, ModelError, TrainingError, TruncatedAnswer
from rung.testing import FakeModel, FakeTrainable, tiny_model
from rung.types import (
    DPO,
    Constraint,
    Decoding,
    Message,
    Model,
    PreferenceRow,
    Preferring,
    Progress,
    Request,
    Trainable,
    TrainingOptions,
    TrainingRow,
)

PAIRS = [("where is my card", "card arrival"), ("lost it", "lost"), ("top up", "the top"), ("a", "x y z")]
ROWS = [TrainingRow(q, (Message("system", "Answer."), Message("user", q)), a) for q, a in PAIRS]
OPTIONS = TrainingOptions(5e-3, steps=6, batch_size=3, rank=4, alpha=8, seed=3)


def ask(text: str, adapter: Path | None = None) -> Request:
    turns = (Message("system", "Answer."), Message("user", text))
    return Request(turns, Decoding(9), adapter=str(adapter) if adapter is not None else None)


def models() -> list[Any]:
    return [FakeTrainable({}), tiny_model()]


def test_a_fake_model_lacks_nothing() -> None:
    model: Model = FakeModel({"a": "b"})
    assert [model.name, model.version, model.context_length, model.price] == ["fake", "1", 8192, None]
    model.check(Constraint("labels", ("x",)))
    with pytest.raises(ConstraintError):
        model.check(Constraint("regex", "("))
    assert not isinstance(model, Trainable) and isinstance(FakeTrainable({}), Trainable)


def test_a_prompt_longer_than_the_context_is_an_error_generation() -> None:
    found = FakeModel(lambda r: "one two three", context_length=5).generate([ask("a b c d e"), ask("a b")])
    assert found[0].error is not None and "does not fit the context of 5" in found[0].error
    assert (found[1].text, found[1].finish) == ("one two", "length")


@pytest.mark.parametrize("model", models(), ids=["fake", "tiny"])
def test_a_training_keeps_the_contract(model: Any, tmp_path: Path) -> None:
    whole = model.train(ROWS, OPTIONS, tmp_path / "whole")
    assert whole.parent == tmp_path / "whole" and (whole / "adapter_config.json").is_file()
    content = (whole / "adapter_model.safetensors").read_bytes()

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise BudgetSpent("enough")

    with pytest.raises(BudgetSpent):
        model.train(ROWS, OPTIONS, tmp_path / "torn", on_step=stop)
    steps: list[int] = []
    again = model.train(ROWS, OPTIONS, tmp_path / "torn", on_step=lambda p: steps.append(p.step))
    assert steps == [5, 6], "it goes on behind the step that ended it"
    assert (again / "adapter_model.safetensors").read_bytes() == content
    early = model.train(ROWS, OPTIONS, tmp_path / "torn", until=1)
    assert early != again and (early / "adapter_model.safetensors").read_bytes() != content
    with pytest.raises(TrainingError, match="another training"):
        model.train(ROWS[1:], OPTIONS, tmp_path / "torn", until=3)
    assert model.loss(ROWS, whole) < model.loss(ROWS, None)
    started = model.train(ROWS, replace(OPTIONS, steps=1, learning_rate=1e-6), tmp_path / "next", start=whole)
    assert model.loss(ROWS, started) == pytest.approx(model.loss(ROWS, whole), rel=1e-2)


@pytest.mark.parametrize("model", models(), ids=["fake", "tiny"])
def test_rows_that_are_too_long_are_named_and_refused(model: Any, tmp_path: Path) -> None:
    long = replace(ROWS[0], name="examples.jsonl, line 7", messages=(Message("user", "word " * 9000),))
    assert model.too_long([ROWS[1], long, ROWS[2]]) == [long]
    with pytest.raises(TruncatedAnswer, match="line 7"):
        model.train([*ROWS, long], OPTIONS, tmp_path)
    with pytest.raises(TruncatedAnswer):
        model.loss([long], None)


@pytest.mark.parametrize("model", models(), ids=["fake", "tiny"])
def test_an_adapter_rewritten_on_disk_is_read_afresh_once_released(model: Any, tmp_path: Path) -> None:
    import shutil

    first = model.train(ROWS, replace(OPTIONS, learning_rate=0.05, steps=40), tmp_path / "a")
    other = [replace(row, answer="zz") for row in ROWS]
    second = model.train(other, replace(OPTIONS, learning_rate=0.05, steps=40), tmp_path / "b")
    expected = [model.generate([ask("lost it", folder)])[0].text for folder in (first, second)]
    shutil.rmtree(first)
    shutil.copytree(second, first)
    assert model.generate([ask("lost it", first)])[0].text == expected[0] != expected[1]
    model.release(first)
    assert model.generate([ask("lost it", first)])[0].text == expected[1]


def test_a_fake_learns_a_share_of_its_rows_and_of_what_it_is_taught(tmp_path: Path) -> None:
    rows = [TrainingRow(str(i), (Message("user", f"q{i}"),), f"a{i}") for i in range(40)]
    model = FakeTrainable(lambda r: "no idea", taught=lambda r: "taught")
    options = TrainingOptions(1e-3, steps=20, batch_size=4)
    shares, taught = [], []
    for until in (0, 5, 20):
        folder = model.train(rows, options, tmp_path, until=until)
        found = [g.text for g in model.generate([ask(f"q{i}", folder) for i in range(40)])]
        shares.append(sum(text == f"a{i}" for i, text in enumerate(found)) / 40)
        new = [g.text for g in model.generate([ask(f"new {i}", folder) for i in range(200)])]
        assert set(new) <= {"taught", "no idea"}
        taught.append(new.count("taught") / 200)
    assert shares == [0.0, 0.5, 1.0]
    assert taught[0] == 0.0 and abs(taught[1] - 0.5) < 0.12 and taught[2] == 1.0
    assert {g.text for g in model.generate([ask("q1")])} == {"no idea"}, "the base has learnt nothing"


def test_a_fake_diverges_at_a_rate_that_is_too_high(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="lower learning rate"):
        FakeTrainable({}).train(ROWS, replace(OPTIONS, learning_rate=2.0), tmp_path)


@pytest.mark.parametrize("model", models(), ids=["fake", "tiny"])
def test_a_training_on_pairs_keeps_the_contract(model: Any, tmp_path: Path) -> None:
    assert isinstance(model, Preferring)
    pairs = [PreferenceRow(row.name, row.messages, row.answer, "another answer") for row in ROWS]
    start = model.train(ROWS, OPTIONS, tmp_path / "start")
    steps: list[int] = []

    def to(folder: str, **more: Any) -> Path:
        return Path(model.prefer(pairs, OPTIONS, tmp_path / folder, how=more.pop("how", DPO()), start=start, **more))

    whole = to("whole", on_step=lambda p: steps.append(p.step))
    assert steps[0] == 0 and steps[-6:] == [1, 2, 3, 4, 5, 6]
    steps.clear()
    to("parts", until=2)
    again = to("parts", on_step=lambda p: steps.append(p.step))
    assert steps == [3, 4, 5, 6], "neither the reference nor a step is computed twice"
    assert (again / "adapter_model.safetensors").read_bytes() == (whole / "adapter_model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="holds another training"):
        to("parts", how=DPO(beta=0.5), until=3)
    long = PreferenceRow("long", ROWS[0].messages, "a", "b " * 9000)
    with pytest.raises(TruncatedAnswer):
        model.prefer([*pairs, long], OPTIONS, tmp_path / "long", how=DPO())


def test_a_folder_that_is_no_adapter_of_the_fake_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter"):
        FakeTrainable({}).generate([ask("a", tmp_path)])
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="adapter"):
        FakeTrainable({}).generate([ask("a", tmp_path)])


def test_a_fakes_adapter_is_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    folder = FakeTrainable({}).train(ROWS, OPTIONS, tmp_path)
    assert "card arrival" in bytes(load_file(folder / "adapter_model.safetensors")["learnt"]).decode()


def test_the_fakes_and_the_meter_work_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.modules['torch'] = None\n"
        "from rung.models import metered, speed_of\n"
        "from rung.testing import FakeTrainable\n"
        "from rung.types import *\n"
        "model = metered(FakeTrainable({'hi': 'hello'}))\n"
        "rows = [TrainingRow('1', (Message('user', 'q'),), 'a')]\n"
        "folder = model.train(rows, TrainingOptions(1e-3, steps=2), Path(sys.argv[1]))\n"
        "request = Request((Message('user', 'q'),), Decoding(4), adapter=str(folder))\n"
        "assert model.generate([request])[0].text == 'a'\n"
        "assert speed_of(model).read > 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
