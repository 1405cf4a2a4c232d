"""A model that vLLM answers and rung trains, against the fake vLLM."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.errors import ModelError, OutOfMemory
from rung.ladder.plan_records import start_record
from rung.models import metered, open_model
from rung.models.check import check_model
from rung.models.loading import load_model
from rung.models.local import LocalModel
from rung.models.vllm import answering_model
from rung.models.vllm.answering_model import VllmModel, open_answered_by_vllm
from rung.models.vllm.process import MORE_FLAGS, PYTHON
from rung.models.vllm.starts import UNKNOWN_START_S
from rung.training.whole import bytes_needed
from rung.types import (
    Constraint,
    Decoding,
    Generation,
    Measured,
    Message,
    Preferring,
    Request,
    TrainingOptions,
    TrainingRow,
)
from vllm_faked import Place, adapter_folder
from vllm_faked import fake as fake

ANSWER, MINE = "red green", "mine"
ROWS = [TrainingRow(f"row {i}", (Message("user", f"colour {i}?"),), "red") for i in range(4)]
ONE_STEP = TrainingOptions(learning_rate=1e-3, steps=1, batch_size=2)


@pytest.fixture(scope="module")
def local(tiny_folder: Path) -> LocalModel:
    return load_model(str(tiny_folder), dtype=torch.float32)


@pytest.fixture
def said() -> list[str]:
    return []


Plans = Callable[..., None]


@pytest.fixture
def plans(fake: Place, local: LocalModel) -> Plans:
    """Tells the fake to answer the base with ANSWER and every adapter with MINE."""

    def plan(**more: Any) -> None:
        encoded = {"base": local.chat.encode_answer(ANSWER), "*": local.chat.encode_answer(MINE)}
        fake.plan(answers=encoded, **more)

    plan()
    return plan


@pytest.fixture
def model(plans: Plans, tiny_folder: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[VllmModel]:
    monkeypatch.setenv(PYTHON, sys.executable)
    monkeypatch.setattr("rung.models.loading.kept_dtype", lambda device: torch.float32)
    opened = open_model(str(tiny_folder), engine="vllm", say=said.append)
    assert isinstance(opened, VllmModel)
    yield opened
    opened.close()


def request(text: str = "colours?", *, adapter: Path | None = None, constraint: Constraint | None = None) -> Request:
    return Request((Message("user", text),), Decoding(24), constraint, str(adapter) if adapter else None)


def texts(generations: list[Generation]) -> list[str]:
    assert [g.error for g in generations] == [None] * len(generations)
    return [g.text for g in generations]


def starts(fake: Place) -> int:
    return sum("words" in one for one in fake.seen)


def trained(model: Any, folder: Path) -> Path:
    return Path(model.train(ROWS, ONE_STEP, folder))


# ---- who does what --------------------------------------------------------------------------


def test_vllm_answers_and_is_started_at_the_first_question_without_weights_here(model: VllmModel, fake: Place) -> None:
    assert not (fake.folder / "seen.jsonl").exists()
    for _ in range(2):
        assert texts(model.generate([request(), request("more")])) == [ANSWER, ANSWER]
    assert starts(fake) == 1 and model._network is None
    assert model.facts()["answered_by"] == {"vllm": 4}


def test_it_is_a_model_that_trains_prefers_and_measures_itself(model: VllmModel, local: LocalModel) -> None:
    assert isinstance(model, Preferring) and isinstance(model, Measured)
    assert (model.version, model.context_length, model.parameters) == (
        local.version, local.context_length, local.parameters,
    )  # fmt: skip
    assert model.count_tokens("a b c") == local.count_tokens("a b c")
    assert model.answers_key != local.answers_key and "vllm" in model.answers_key
    assert model.describe()["answers"] == "vLLM unknown" and "vLLM unknown answers" in str(model.remark)
    assert model._network is None, "none of it loads the network"


def test_rung_trains_and_vllm_answers_with_the_adapter_by_its_folder(
    model: VllmModel, fake: Place, local: LocalModel, tmp_path: Path
) -> None:
    adapter = trained(model, tmp_path / "here")
    assert texts(model.generate([request(adapter=adapter), request()])) == [MINE, ANSWER]
    (loaded,) = fake.asked("/v1/load_lora_adapter")
    assert loaded["lora_path"] == str(adapter.resolve())
    other = trained(local, tmp_path / "there")
    assert model.loss(ROWS, adapter) == pytest.approx(local.loss(ROWS, other))
    assert model.row_losses(ROWS, None) == pytest.approx(local.row_losses(ROWS, None))
    assert model.computed_tokens > 0


def test_an_adapter_that_is_released_is_read_afresh(model: VllmModel, fake: Place, tmp_path: Path) -> None:
    mine = adapter_folder(tmp_path / "mine")
    model.generate([request(adapter=mine)])
    model.release(mine)
    model.generate([request(adapter=mine)])
    assert [one["lora_name"] for one in fake.asked("/v1/load_lora_adapter")] == ["adapter-1", "adapter-2"]


def test_adapters_beyond_what_vllm_holds_are_unloaded_the_oldest_first(
    model: VllmModel, fake: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.models.vllm.child._MOST_HELD", 2)
    one, two, three = (adapter_folder(tmp_path / name) for name in ("one", "two", "three"))
    for adapters in ([one, two], [one], [three]):
        model.generate([request(adapter=adapter) for adapter in adapters])
    assert [one["lora_name"] for one in fake.asked("/v1/unload_lora_adapter")] == ["adapter-2"]


def test_a_higher_rank_than_vllm_was_started_with_starts_it_anew(model: VllmModel, fake: Place, tmp_path: Path) -> None:
    assert texts(model.generate([request(adapter=adapter_folder(tmp_path / "low"))])) == [MINE]
    assert texts(model.generate([request(adapter=adapter_folder(tmp_path / "high", 40))])) == [MINE]
    words = [one["words"] for one in fake.seen if "words" in one]
    assert [w[w.index("--max-lora-rank") + 1] for w in words] == ["16", "64"]


# ---- what vLLM does not take ----------------------------------------------------------------


def test_what_vllm_cannot_answer_with_is_answered_here_and_said_once(
    model: VllmModel, local: LocalModel, fake: Place, tmp_path: Path, said: list[str]
) -> None:
    adapter = trained(local, tmp_path / "here")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "alpha_pattern": {"nothing": 3}}))
    right = texts(local.generate([request(adapter=adapter)]))
    for _ in range(2):
        assert texts(model.generate([request(), request(adapter=adapter)])) == [ANSWER, *right]
    assert [line for line in said if "own engine" in line] == [
        f"{adapter.name} is answered by rung's own engine: vLLM takes no adapter with alpha_pattern."
    ]
    assert model.facts()["answered_by"] == {"vllm": 2, "local": 2}


def test_an_adapter_that_vllm_refuses_is_answered_here(
    model: VllmModel, local: LocalModel, tmp_path: Path, said: list[str]
) -> None:
    adapter = trained(local, tmp_path / "unfit")
    assert texts(model.generate([request(adapter=adapter)])) == texts(local.generate([request(adapter=adapter)]))
    assert any("rank 64 is above max_lora_rank" in line for line in said)


def test_a_request_that_vllm_refuses_is_answered_here(
    model: VllmModel, local: LocalModel, plans: Plans, said: list[str]
) -> None:
    plans(refuses_grammars=True)
    held = request(constraint=Constraint("labels", ("red", "green")))
    assert texts(model.generate([held, request()])) == [*texts(local.generate([held])), ANSWER]
    assert any("this grammar is too large" in line for line in said)


def test_a_request_longer_than_vllms_context_is_answered_here(
    model: VllmModel, local: LocalModel, plans: Plans, said: list[str]
) -> None:
    plans(max_model_len=40)
    long = request("colours " * 60)
    assert texts(model.generate([request(), long])) == [ANSWER, *texts(local.generate([long]))]
    assert any("vLLM has memory for 40 tokens a request" in line for line in said)


def test_a_prompt_that_fits_no_context_is_an_error_of_its_request_alone(model: VllmModel) -> None:
    first, second = model.generate([request("word " * 5000), request()])
    assert first.error is not None and "does not fit the context" in first.error
    assert second.text == ANSWER


def test_a_base_in_4_bits_is_opened_for_the_local_engine_and_said(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rung.models.open_model", lambda spec, say: spec)
    assert open_answered_by_vllm("some:4bit", said.append) == "some:4bit"  # type: ignore[comparison-overlap]
    assert "vLLM knows no base in rung's 4 bits" in said[0]


def test_a_missing_vllm_is_an_error_before_anything_is_read(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(ModelError, match=r"pip install vllm.*RUNG_VLLM_PYTHON"):
        open_model(str(tiny_folder), engine="vllm")


def test_a_python_without_vllm_is_named(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    with pytest.raises(ModelError, match="it has no vLLM"):
        open_model(str(tiny_folder), engine="vllm")


def test_flags_that_cannot_be_read_are_an_error_that_names_them(
    fake: Place, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    monkeypatch.setenv(MORE_FLAGS, "--quantization 'fp8")
    with pytest.raises(ModelError, match=r"RUNG_VLLM_ARGS: it cannot be read"):
        open_model(str(tiny_folder), engine="vllm")


def test_flags_of_the_user_have_answers_of_their_own(
    model: VllmModel, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MORE_FLAGS, "--quantization fp8")
    other = open_model(str(tiny_folder), engine="vllm")
    assert isinstance(other, VllmModel) and other.answers_key.startswith(f"{model.answers_key}-")


# ---- the process and the memory -------------------------------------------------------------


def test_a_vllm_that_dies_in_an_answer_is_started_once_more(
    model: VllmModel, plans: Plans, fake: Place, said: list[str]
) -> None:
    plans(dies=1, delay_s=0.01)
    assert texts(model.generate([request(str(i)) for i in range(4)])) == [ANSWER] * 4
    assert starts(fake) == 2 and any("it is started once more" in line for line in said)


def test_a_vllm_that_dies_again_is_an_error_with_its_log(model: VllmModel, plans: Plans, fake: Place) -> None:
    plans(dies=2, delay_s=0.01)
    with pytest.raises(ModelError, match="vLLM ended while it answered, also when it was started again") as caught:
        model.generate([request(str(i)) for i in range(4)])
    assert "vLLM fakes its start" in str(caught.value) and starts(fake) == 2


def test_a_vllm_that_was_killed_between_two_questions_is_started_again(
    model: VllmModel, fake: Place, tmp_path: Path
) -> None:
    mine = adapter_folder(tmp_path / "mine")
    assert texts(model.generate([request(adapter=mine)])) == [MINE]
    os.kill(_process(model), 9)
    _vllm(model)._process._child.wait()
    assert texts(model.generate([request(adapter=mine)])) == [MINE]
    assert starts(fake) == 2


def test_a_vllm_that_dies_while_it_loads_an_adapter_is_started_again_and_loads_it(
    model: VllmModel, plans: Plans, fake: Place, tmp_path: Path
) -> None:
    plans(dies_loading=1)
    assert texts(model.generate([request(adapter=adapter_folder(tmp_path / "mine"))])) == [MINE]
    assert starts(fake) == 2 and model.facts()["answered_by"] == {"vllm": 1}


def test_an_adapter_is_released_though_vllm_dies_meanwhile(
    model: VllmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = adapter_folder(tmp_path / "mine")
    model.generate([request(adapter=mine)])

    def dies(adapter: Path) -> None:
        raise ModelError("vLLM has ended")

    monkeypatch.setattr(_vllm(model), "release", dies)
    model.release(mine)
    assert mine not in model._child._held


def test_a_ctrl_c_ends_what_was_asked_and_the_next_question_is_answered(
    model: VllmModel, plans: Plans, fake: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans(delay_s=0.2)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rung.models.streaming.Whole.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.generate([request()])
    assert texts(model.generate([request("another")])) == [ANSWER]
    assert _vllm(model).load().running == 0 and starts(fake) == 1


def test_vllm_ends_with_its_model(model: VllmModel, tiny_folder: Path) -> None:
    other = open_model(str(tiny_folder), engine="vllm")
    other.generate([request()])
    process = _process(other)
    del other
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_vllm_ends_before_a_training_that_needs_its_memory_and_starts_at_the_next_question(
    model: VllmModel, fake: Place, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model.generate([request()])
    monkeypatch.setattr(answering_model, "free_bytes", lambda device: 1 << 20)
    trained(model, tmp_path / "here")
    assert not model._child.running and any("vLLM ends until the next question" in line for line in said)
    monkeypatch.setattr(answering_model, "free_bytes", lambda device: 1 << 40)
    assert texts(model.generate([request()])) == [ANSWER] and starts(fake) == 2


def test_vllm_leaves_room_for_all_that_full_fine_tuning_needs(model: VllmModel, local: LocalModel) -> None:
    assert model._training_bytes(replace(ONE_STEP, full=True)) == bytes_needed(local.engine)


def test_a_training_that_runs_out_of_memory_beside_vllm_is_done_again_without_it(
    model: VllmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.generate([request()])
    tries: list[bool] = []
    train = LocalModel.train

    def short(self: LocalModel, *given: Any, **more: Any) -> Path:
        tries.append(model._child.running)
        if model._child.running:
            raise OutOfMemory("memory ran out")
        return train(self, *given, **more)

    monkeypatch.setattr(LocalModel, "train", short)
    assert (trained(model, tmp_path / "here") / "adapter_config.json").is_file()
    assert tries == [True, False]


def test_the_network_here_makes_room_for_vllm(
    model: VllmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(model, tmp_path / "here")
    before = model.computed_tokens
    monkeypatch.setattr(answering_model, "free_bytes", lambda device: 0 if model._network is not None else 1 << 40)
    assert texts(model.generate([request()])) == [ANSWER]
    assert model._network is None and model.computed_tokens > before
    monkeypatch.setattr(answering_model, "free_bytes", lambda device: 0)
    model.close()
    with pytest.raises(OutOfMemory, match=r"vLLM needs .* leave out --engine vllm"):
        model.generate([request()])


def test_what_a_network_computed_with_is_recorded_though_it_made_room_for_vllm(
    model: VllmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cards = {"device": "cuda", "ways": ["fused"], "given_up": {}, "cards": 2}
    monkeypatch.setattr(LocalModel, "facts", lambda network: {"computed": [on_cards]})
    trained(model, tmp_path / "here")
    monkeypatch.setattr(answering_model, "free_bytes", lambda device: 0 if model._network is not None else 1 << 40)
    assert texts(model.generate([request()])) == [ANSWER]
    assert model._network is None and model.facts()["computed"] == [on_cards]
    model.loss(ROWS, None)
    assert model._network is not None and model.facts()["computed"] == [on_cards]


def test_its_speed_is_that_of_vllms_answers_and_of_rungs_training_and_is_kept(
    model: VllmModel, local: LocalModel, fake: Place, tiny_folder: Path
) -> None:
    speed = model.speed()
    assert speed.train == local.speed().train
    asked = len(fake.asked())
    again = open_model(str(tiny_folder), engine="vllm")
    assert isinstance(again, VllmModel) and again.speed() == speed
    assert len(fake.asked()) == asked and again._network is None


def _vllm(model: Any) -> Any:
    return model._child._vllm


def _process(model: Any) -> int:
    return int(_vllm(model)._process._child.pid)


# ---- models check, and plans ---------------------------------------------------------------


def test_models_check_asks_vllm_each_time_and_says_when_a_kept_speed_was_measured(
    plans: Plans, fake: Place, tiny_folder: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    first = dict(check_model(str(tiny_folder), engine="vllm", say=said.append).facts)
    assert first["asked"].startswith("vLLM started in ") and "measured" not in first["speed"]
    assert "timing it …" in said and starts(fake) == 1
    said.clear()
    again = dict(check_model(str(tiny_folder), engine="vllm", say=said.append).facts)
    assert "asked" in again and starts(fake) == 2
    assert again["speed"].startswith(first["speed"]) and ", as measured on 20" in again["speed"]
    assert "timing it …" not in said and any("to time it again" in line for line in said)


def test_models_check_of_a_vllm_that_does_not_answer_is_an_error(
    plans: Plans, fake: Place, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON, sys.executable)
    plans(dies=9)
    with pytest.raises(ModelError, match="vLLM"):
        check_model(str(tiny_folder), engine="vllm")
    fake.plan(fails="no CUDA device", answers={})
    with pytest.raises(ModelError, match="no CUDA device"):
        check_model(str(tiny_folder), engine="vllm")


def test_a_plan_counts_a_minute_for_the_start_of_vllm_until_one_was_measured(model: VllmModel) -> None:
    counted = metered(model)
    assert start_record([counted, counted]) == {"start_s": 2 * UNKNOWN_START_S}
    model.reach()
    assert 0 < start_record([counted])["start_s"] < UNKNOWN_START_S
