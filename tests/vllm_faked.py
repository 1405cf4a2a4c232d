"""A place in which the fake vLLM of `models/vllm/fake` is told what to answer, and says what it was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rung.models.vllm.process import PYTHON

FAKE = Path(__file__).parent / "models" / "vllm" / "fake"


class Place:
    """Where the fake reads what to answer and writes what it saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, **plan: Any) -> None:
        (self.folder / "plan.json").write_text(json.dumps(plan))

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "seen.jsonl").read_text().splitlines()]

    def asked(self, path: str = "/v1/completions") -> list[dict[str, Any]]:
        return [one["body"] for one in self.seen if one.get("path") == path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = tmp_path / "fake"
    place.mkdir()
    monkeypatch.setenv("FAKE_VLLM", str(place))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(PYTHON, raising=False)
    return Place(place)


def adapter_folder(folder: Path, rank: int = 4) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 8}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    factors = {name.format("A"): np.zeros((rank, 8), np.float32), name.format("B"): np.zeros((8, rank), np.float32)}
    save_file(factors, folder / "adapter_model.safetensors")
    return folder
