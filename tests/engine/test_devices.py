"""Platforms that are not at hand are simulated: only what is chosen and asked of them is tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rung.engine import devices
from rung.engine.devices import best_device, cards, fastest_dtype, remark_on_cards
from rung.errors import ModelError
from rung.models import loading
from rung.models.loading import load_model


def with_gpus(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_a_gpu_is_used_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    with_gpus(monkeypatch, cuda=cuda, mps=mps)
    assert best_device() == expected


@pytest.mark.parametrize(("ratio", "expected"), [(5.0, torch.float32), (0.9, torch.float32), (0.3, torch.bfloat16)])
def test_bfloat16_is_taken_on_a_cpu_only_where_it_is_clearly_faster(
    ratio: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_product_seconds", lambda *_: [1.0, ratio])
    assert fastest_dtype("cpu") == expected


@pytest.mark.parametrize(("multiplies", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_mac_computes_in_bfloat16_only_where_its_system_can(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "_multiplies", lambda dtype, device: multiplies)
    assert fastest_dtype("mps") == expected


def test_a_type_that_a_device_refuses_is_not_an_error() -> None:
    assert devices._multiplies(torch.float32, "cpu")
    assert not devices._multiplies(torch.float32, "mps"), "there is no such device here"


@pytest.mark.parametrize("knows_emulation", [True, False])
@pytest.mark.parametrize(("capability", "expected"), [((9, 0), torch.bfloat16), ((7, 5), torch.float16)])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype, knows_emulation: bool
) -> None:
    def newer(including_emulation: bool = True) -> bool:
        return including_emulation or capability >= (8, 0)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", newer if knows_emulation else lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert fastest_dtype("cuda") == expected


def test_a_clock_is_read_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for kind in ("cuda", "mps", "cpu"):
        devices.synchronize(torch.device(kind))
    assert waited == ["cuda", "mps"]


def test_a_gpu_of_a_mac_that_cannot_run_the_model_leaves_it_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    monkeypatch.setattr(loading, "best_device", lambda: "mps")  # torch has no such device here, so that loading fails
    monkeypatch.setattr(loading, "kept_dtype", lambda device: torch.float32)
    said: list[str] = []
    model = load_model(str(tiny_folder), say=said.append)
    assert model.engine.device.type == "cpu"
    assert len(said) == 1 and "using the CPU" in said[0]


# ---- cards ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ["cuda:0", "cuda:1", "cuda:2"]),
        ("1", ["cuda:0"]),
        ("2", ["cuda:0", "cuda:1"]),
        ("8", ["cuda:0", "cuda:1", "cuda:2"]),
        ("cpu:2", ["cpu", "cpu"]),
    ],
)
def test_a_run_uses_all_cards_or_as_many_as_it_may(
    monkeypatch: pytest.MonkeyPatch, asked: str, found: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("RUNG_CARDS", asked)
    assert cards(torch.device("cpu" if "cpu" in asked else "cuda")) == found


@pytest.mark.parametrize(("asked", "found"), [("1", ["cuda:2"]), ("2", ["cuda:2", "cuda:0"]), ("cpu:2", ["cuda:2"])])
def test_the_card_of_the_model_is_the_first_one(monkeypatch: pytest.MonkeyPatch, asked: str, found: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("RUNG_CARDS", asked)
    assert cards(torch.device("cuda:2")) == found


@pytest.mark.parametrize(
    ("asked", "own", "said"),
    [
        ("", "cuda", None),
        ("3", "cuda", None),
        ("4", "cuda", "RUNG_CARDS asks for 4 cards, and torch sees 3: these are used."),
        ("4", "cpu", "torch sees none with CUDA: the CPU is used."),
        ("1", "cpu", None),
        ("cpu:2", "cpu", None),
        ("cpu:2", "cuda", "RUNG_CARDS=cpu:2 is for models on the CPU, and this one is on cuda: it uses one card."),
    ],
)
def test_cards_that_are_asked_for_and_not_there_are_told(
    monkeypatch: pytest.MonkeyPatch, asked: str, own: str, said: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("RUNG_CARDS", asked)
    remark = remark_on_cards(torch.device(own))
    assert remark is None if said is None else said in (remark or "")


def test_a_number_of_cards_that_is_none_is_an_error_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNG_CARDS", "all")
    with pytest.raises(ModelError, match="RUNG_CARDS"):
        cards(torch.device("cpu"))
