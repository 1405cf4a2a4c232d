"""Servers for bench/serving.py, each in a process of its own, and adapters for them: random, in PEFT's format."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANK = 16
STRENGTH = 0.3  # size of an adapter's change to a layer's weights, as a share of theirs: answers differ from the base's
CONTEXT = 2048  # tokens of a request at the peer
PATIENCE_S = 600  # for one answer
KEY = "key-of-the-bench"  # for loading adapters; rung wants one
PORT = "PORT"  # in a command: a free one is put there
UP_S = 300.0  # a server may take so long to start


@dataclass(frozen=True)
class Server:
    """A server that answers. base: what it calls the base model. pid: of the process that was started."""

    url: str
    base: str
    pid: int

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Raises HTTPError where the server refuses."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=120).read()

    def load(self, name: str, folder: Path) -> None:
        self.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.resolve())})

    def memory_mb(self) -> float:
        """What the process and its children hold in memory."""
        import psutil  # type: ignore[import-untyped]

        process = psutil.Process(self.pid)
        return float(sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))) / 2**20


def model_folder(spec: str) -> Path:
    from rung.models.catalogue import ensure_model

    return Path(spec) if Path(spec).is_dir() else ensure_model(spec)


def write_adapter(base: Path, folder: Path, seed: int) -> Path:
    """Random factors for every linear layer of the base's blocks."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, torch.Tensor] = {}
    targets: set[str] = set()
    with safe_open(base / "model.safetensors", "pt") as weights:
        for key in sorted(weights.keys()):
            if ".layers." not in key or not key.endswith("_proj.weight"):
                continue
            weight = weights.get_tensor(key).float()
            own = f"base_model.model.{key.removesuffix('.weight')}"
            rows, columns = weight.shape
            a = torch.randn(RANK, columns, generator=generator) / columns**0.5
            b = torch.randn(rows, RANK, generator=generator) * (STRENGTH * weight.std() * (columns / RANK) ** 0.5)
            factors |= {f"{own}.lora_A.weight": a, f"{own}.lora_B.weight": b}
            targets.add(key.split(".")[-2])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(targets),
        "inference_mode": True,
    }
    folder.mkdir(parents=True)
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1), "utf-8")
    return folder


@contextmanager
def rung_server(spec: str, adapters: Path, *, slots: int, threads: int, dtype: str, log: Path) -> Iterator[Server]:
    """rung's server over a base, which loads adapters of that folder."""
    command = [sys.executable, "-m", "rung", "serve", "--base", spec, "--adapters", str(adapters), "--dtype", dtype]
    command += ["--slots", str(slots), "--port", PORT, "--admin-key-env", "RUNG_ADMIN_KEY"]
    command += ["--timeout", str(PATIENCE_S)]
    with _running(command, {"OMP_NUM_THREADS": str(threads), "RUNG_ADMIN_KEY": KEY}, log) as server:
        yield server


@contextmanager
def vllm_server(
    python: Path, base: Path, adapters: Mapping[str, Path], *, threads: int, dtype: str, log: Path
) -> Iterator[Server]:
    """vLLM on the CPU with adapters that it loads at its start."""
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--host", "127.0.0.1"]
    command += ["--port", PORT, "--served-model-name", "base", "--dtype", dtype, "--enforce-eager"]
    command += ["--max-model-len", str(CONTEXT), "--enable-lora", "--max-loras", str(len(adapters))]
    command += ["--max-lora-rank", str(RANK), "--lora-modules", *(f"{n}={path}" for n, path in adapters.items())]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",  # by default it uses one core
    }
    with _running(command, environment, log) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [str(port) if word == PORT else word for word in command],
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            while (base := _base(url)) is None:
                if process.poll() is not None or time.monotonic() - started > UP_S:
                    sys.exit(f"{log.stem} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
                time.sleep(0.3)
            yield Server(url, base, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _base(url: str) -> str | None:
    """The name of the base, once the server answers."""
    try:
        listed = json.loads(urllib.request.urlopen(f"{url}/v1/models", timeout=5).read())["data"]
    except (OSError, ValueError, KeyError):
        return None
    return next((str(model["id"]) for model in listed if not model.get("parent")), None)
