"""The benches of answering and training start, and their measurements run on a tiny model."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("name", ["training", "generation", "tokenizer", "variants", "gpu"])
def test_a_bench_says_how_it_is_used(name: str) -> None:
    done = subprocess.run([sys.executable, str(BENCH / f"{name}.py"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


@pytest.fixture
def options(tmp_path: Path, tiny_folder: Path) -> argparse.Namespace:
    rows = [{"input": f"question {i} of many", "output": ("card", "lost", "top up")[i % 3]} for i in range(96)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(
        f"name: t\ninstruction: Answer with the label. Nothing else.\nexamples: examples.jsonl\n"
        f"metric: label_accuracy\nlabels: [card, lost, top up]\nmodel: {tiny_folder}\n"
    )
    return argparse.Namespace(task=tmp_path, steps=3, batch=4, model=None, inputs=8, demos=3)


def test_the_measurements_of_answering_run(options: argparse.Namespace) -> None:
    import generation

    assert len(generation.rung(options)["texts"]) == 8
    assert set(generation.labels(options)) == {"generated", "constrained", "scored"}
    assert generation.flips(options)["float32"] == dict.fromkeys(("2", "16", "128"), "0 of 8")
    assert generation.adapters(options)["mixed_ratio"] > 0


def test_the_measurements_of_training_run(options: argparse.Namespace, tmp_path: Path, monkeypatch: Any) -> None:
    import training
    import variants

    monkeypatch.setattr(training, "matrix_rate", lambda: 1.0)
    monkeypatch.setattr(variants, "PROBE", 1)
    assert training.rung(options, "short", str(tmp_path))["examples_per_s"] > 0
    assert (tmp_path / "rung-short" / "step-3" / "adapter_config.json").is_file()
    for name in ("LoRA", "activated LoRA", "full"):
        assert variants.variant(options, name)["dev_loss"] > 0
    assert variants.side_by_side(options)["ratio"] > 0
