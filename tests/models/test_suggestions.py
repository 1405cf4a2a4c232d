from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rung import models
from rung.engine import memory
from rung.models import catalogue, register_model, suggestions
from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL
from rung.models.suggestions import SUGGESTIONS, embedded_speed, known_parameters, next_larger, on_disk, that_fit
from rung.testing import FakeModel
from rung.types import Speed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def with_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(memory, "total_host_bytes", lambda: int(gigabytes * 1e9))


def test_suggestions_go_from_small_to_large_and_need_more_to_train_than_to_hold() -> None:
    weights = [s.shape.parameters for s in SUGGESTIONS]
    assert weights == sorted(weights) and 5 <= len(SUGGESTIONS) <= 6
    for one in SUGGESTIONS:
        assert 2 * one.shape.parameters < one.bytes_to_answer() < one.bytes_to_train()


def test_the_next_larger_model_is_the_smallest_that_is_clearly_larger_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with_memory(monkeypatch, 100)
    assert next_larger(DEFAULT_MODEL, CPU) == "HuggingFaceTB/SmolLM2-360M-Instruct"
    assert next_larger("HuggingFaceTB/SmolLM2-360M-Instruct:4bit", CPU) == "Qwen/Qwen3-0.6B"
    assert next_larger(SUGGESTIONS[-1].hub, CPU) is None, "there is none"
    assert next_larger("somebody/unknown", CPU) is None, "its size is not known"
    with_memory(monkeypatch, 1)
    assert next_larger(DEFAULT_MODEL, CPU) is None, "none fits"


def test_the_size_of_a_local_model_is_read_from_its_files(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = known_parameters(str(tiny_folder))
    assert count is not None and 10_000 < count < 100_000
    with_memory(monkeypatch, 100)
    assert next_larger(str(tiny_folder), CPU) == DEFAULT_MODEL, "the embedded model is the smallest of all"


def test_the_size_of_packed_weights_is_not_guessed(tmp_path: Path) -> None:
    """An 8 B model in GPTQ counts 1 B numbers; a smaller model would be named as a larger one."""
    import torch
    from safetensors.torch import save_file

    packed = {"model.layers.0.q_proj.qweight": torch.zeros(64, 8, dtype=torch.int32), "lm_head.weight": torch.zeros(8)}
    for weights, known in ((packed, None), ({"lm_head.weight": torch.zeros(8)}, 8)):
        save_file(weights, tmp_path / "model.safetensors")
        assert suggestions.known_parameters(str(tmp_path)) == known


def test_a_model_of_another_kind_has_no_next_larger_one() -> None:
    opener = register_model("fake:", lambda spec, say: FakeModel({}))
    try:
        assert models.next_larger(FakeModel({}), "fake:x") is None
    finally:
        models.OPENERS.remove(opener)


def test_what_fits_is_named_from_the_embedded_model_up() -> None:
    assert that_fit(0) == []
    assert that_fit(10**12) == [DEFAULT_MODEL, *(s.hub for s in SUGGESTIONS)]
    assert that_fit(SUGGESTIONS[0].bytes_to_answer()) == [DEFAULT_MODEL, SUGGESTIONS[0].hub]


def test_the_embedded_models_speed_is_the_newest_of_this_machine(cache: Path) -> None:
    from rung.models.speed import machine_kind

    assert embedded_speed() is None
    key = CATALOGUE[DEFAULT_MODEL].sha256[:16]
    (cache / "speed").mkdir(parents=True)
    rates = {"read": 2.0, "write": 3.0, "train": 4.0}
    (cache / "speed" / f"{key}-float32-a.json").write_text(json.dumps({**rates, "machine": "another"}))
    (cache / "speed" / f"{key}-float32-b.json").write_text("{")
    assert embedded_speed() is None
    (cache / "speed" / f"{key}-float32-c.json").write_text(json.dumps({**rates, "machine": f"2 {machine_kind()}"}))
    assert embedded_speed() == Speed(2, 3, 4)


def test_models_of_the_hub_that_are_on_this_machine_are_found(tmp_path: Path, cache: Path) -> None:
    whole = tmp_path / "hub" / "models--org--a-model" / "snapshots" / "1"
    part = tmp_path / "hub" / "models--org--part" / "snapshots" / "1"
    for folder in (whole, part):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (whole / "model.safetensors").write_bytes(b"")
    own = cache / "models" / f"gguf-123-v{catalogue.GGUF_FORMAT}"
    own.mkdir(parents=True)
    (own / "rung.json").write_text('{"source": "my.gguf"}')
    other = tmp_path / "hub" / "models--org--encoder" / "snapshots" / "1"
    other.mkdir(parents=True)
    (other / "model.safetensors").write_bytes(b"")
    for kind in ({"architectures": ["BertModel"]}, {"architectures": ["T5ForConditionalGeneration"]}, []):
        (other / "config.json").write_text(json.dumps(kind and {**kind, "is_encoder_decoder": True}))
        assert [name for name, _ in on_disk()] == ["org/a-model", "my.gguf"]
    (cache / "models" / f"gguf-456-v{catalogue.GGUF_FORMAT}").mkdir()
    (cache / "models" / f"gguf-456-v{catalogue.GGUF_FORMAT}" / "rung.json").write_text("{")
    assert on_disk() == [("org/a-model", whole), ("my.gguf", own)]


def test_a_model_that_is_in_part_in_the_hubs_cache_is_fetched_whole(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at its config alone, or a download that was interrupted, leaves such a snapshot."""
    import huggingface_hub

    part = tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_text("{}")
    asked: list[bool] = []

    def download(repo: str, *, local_files_only: bool = False, **_: Any) -> str:
        asked.append(local_files_only)
        return str(part if local_files_only else tiny_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert catalogue.ensure_model("org/name") == tiny_folder and asked == [True, False]
    assert catalogue.find_model("org/name") == part


def test_nothing_heavy_is_imported_to_list_models() -> None:
    import subprocess
    import sys

    code = "import sys; sys.argv = ['rung', 'models']\nfrom rung.cli.main import main\n"
    code += "try:\n main()\nexcept SystemExit: pass\n"
    code += "bad = {'torch', 'transformers', 'peft', 'scipy', 'sklearn'} & set(sys.modules)\nassert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and suggestions.SUGGESTIONS[0].hub in done.stdout, done.stderr
