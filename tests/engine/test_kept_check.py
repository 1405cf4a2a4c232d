from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import loading_check
from rung.engine.decode import Job, decode
from rung.engine.engine import Engine
from rung.engine.layers import is_fused, unfuse
from rung.engine.loading_check import checked_engine
from rung.engine.masked_view import MaskedView
from small_networks import small_network

JOBS = [Job([5, 6, 7, 8, 9, 10, 11, 12 + k], 6) for k in range(3)] + [Job([20, 21, 22], 6)]


def answers(engine: Engine) -> dict[int, list[int] | None]:
    return {place: ids for part in decode(engine, JOBS, ()) for place, ids in part}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the networks that were compared with transformers."""
    calls: list[str] = []
    reference_of, check_adapter = loading_check.reference_of, loading_check.check_adapter

    def counting(network: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(network.config.model_type)
        return reference_of(network, *args, **kwargs)

    def of_adapters(engine: Any) -> bool:
        calls.append("adapters")
        return check_adapter(engine)

    monkeypatch.setattr(loading_check, "reference_of", counting)
    monkeypatch.setattr(loading_check, "check_adapter", of_adapters)
    return calls


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "mamba", "bloom", "rwkv"])
def test_a_network_that_was_checked_is_not_checked_again_and_answers_alike(
    name: str, tmp_path: Path, counted: list[str]
) -> None:
    record = tmp_path / "check.json"
    said: list[list[str]] = [[], []]
    first = checked_engine(small_network(name), name, say=said[0].append, record=record)
    found = len(counted)
    assert found and record.is_file()
    again = checked_engine(small_network(name), name, say=said[1].append, record=record)
    assert len(counted) == found
    assert (again.path, again.fused, again.reason) == (first.path, first.fused, first.reason)
    assert (again.head_alone, again.vocabulary) == (first.head_alone, first.vocabulary)
    assert said[0] == said[1]
    assert answers(again) == answers(first)
    flags = ("pads_left", "pads_right", "keeps", "caches", "batches")
    assert [getattr(again, f, None) for f in flags] == [getattr(first, f, None) for f in flags]


def test_layers_that_were_given_up_stay_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, check_tree = tmp_path / "check.json", loading_check.check_tree

    def giving_up(engine: Any, reference: Any) -> None:
        check_tree(engine, reference)
        unfuse(engine.network.model.layers[0])

    monkeypatch.setattr(loading_check, "check_tree", giving_up)
    assert checked_engine(small_network("llama"), "llama", record=record).fused == (1, 2)
    network = small_network("llama")
    assert checked_engine(network, "llama", record=record).fused == (1, 2)
    assert [is_fused(layer) for layer in network.model.layers] == [False, True]


def test_the_check_of_adapters_is_kept_too(tmp_path: Path, counted: list[str]) -> None:
    record = tmp_path / "check.json"
    for expected in (1, 1, 1):
        engine = checked_engine(small_network("llama"), "llama", record=record)
        assert engine.adapters.trainable
        assert counted.count("adapters") == expected
        assert not engine.adapters.plain and engine.fused == (2, 2)


def test_a_way_that_was_given_up_stays_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "check.json"
    monkeypatch.setenv("RUNG_WAYS", "fused")
    with monkeypatch.context() as patch:
        patch.setattr(MaskedView, "attend", lambda *_, **__: 1 / 0)
        first = checked_engine(small_network("llama"), "llama", record=record)
    again = checked_engine(small_network("llama"), "llama", record=record)
    for engine in (first, again):
        assert engine.path == "tree" and engine.fused == (2, 2) and not engine.ways.fused
        assert engine.ways.given_up == {"fused": "division by zero"}


def test_a_way_that_no_check_tried_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    record = tmp_path / "check.json"
    for ways, checked in (("plain", True), ("plain", False), ("fused", True), ("fused", False), ("plain", False)):
        counted.clear()
        monkeypatch.setenv("RUNG_WAYS", ways)
        engine = checked_engine(small_network("llama"), "llama", record=record)
        assert bool(counted) == checked and engine.ways.fused == (ways == "fused") and not engine.ways.given_up


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"path": "tree", "fused": [true]}', '{"path": "padded"}'])
def test_a_damaged_record_is_none(text: str, tmp_path: Path, counted: list[str]) -> None:
    record = tmp_path / "check.json"
    record.write_text(text)
    engine = checked_engine(small_network("llama"), "llama", record=record)
    assert counted and (engine.path, engine.fused) == ("tree", (2, 2))
    assert json.loads(record.read_text())["fused"] == [True, True]


def test_a_network_that_could_not_be_checked_is_checked_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "check.json"
    with monkeypatch.context() as patch:
        patch.setattr(loading_check, "free_bytes", lambda _: 0)
        said: list[str] = []
        assert (
            checked_engine(small_network("llama", dtype=torch.bfloat16), "llama", say=said.append, record=record).path
            == "padded"
        )
        assert "too little memory" in said[0] and not record.exists()
    assert checked_engine(small_network("llama", dtype=torch.bfloat16), "llama", record=record).path == "tree"


def test_a_folder_that_was_loaded_once_is_loaded_without_a_check(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    from rung.models.loading import load_model

    monkeypatch.setenv("RUNG_CACHE", str(tmp_path))
    first = load_model(str(tiny_folder), dtype=torch.float32)
    assert counted
    counted.clear()
    again = load_model(str(tiny_folder), dtype=torch.float32)
    assert not counted and again.engine.fused == first.engine.fused
    load_model(str(tiny_folder), dtype=torch.bfloat16)
    assert counted  # another type is another check
