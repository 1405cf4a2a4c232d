"""A server that runs: `rung serve` in a process of its own, over a tiny model with two bundles and some adapters."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.models import model_version
from rung.solutions.store import save_solution
from rung.types import Decoding, Document, RetrieverSpec, Solution
from serving_servers import write_adapter

KEY, ADMIN_KEY = "key-of-the-tests", "admin-key-of-the-tests"
PASSAGES = tuple(Document(noun, f"Every {noun} is {colour}.") for noun, colour in (("door", "red"), ("boat", "green")))
UP_S = 120.0


@dataclass(frozen=True)
class Live:
    """url: without /v1. base: the name of the base. adapters: the folder that may be loaded from; it holds `first` and
    `second`. Bundles: `tuned` has an adapter, `cards` searches passages."""

    url: str
    base: str
    adapters: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(
        self, path: str, body: object = None, *, key: str | None = KEY, method: str | None = None
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON (or text) and headers of the reply. body: None asks with GET; bytes are sent as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, _read(reply.read()), reply.headers
        except urllib.error.HTTPError as error:
            return error.code, _read(error.read()), error.headers

    def chat(self, model: str, text: str = "Which colour?", **more: Any) -> dict[str, Any]:
        asked = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        status, reply, _ = self.ask("/v1/chat/completions", asked)
        assert status == 200, reply
        return dict(reply)

    def load(self, name: str, path: str, **more: str) -> tuple[int, Any]:
        asked = {"lora_name": name, "lora_path": path, **more}
        return self.ask("/v1/load_lora_adapter", asked, key=ADMIN_KEY)[:2]

    def unload(self, name: str) -> tuple[int, Any]:
        return self.ask("/v1/unload_lora_adapter", {"lora_name": name}, key=ADMIN_KEY)[:2]

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric of the server over its labels. label: of those with this one, as kind="out"."""
        _, text, _ = self.ask("/metrics", key=ADMIN_KEY)
        lines = [line for line in text.splitlines() if line.partition(" ")[0].partition("{")[0] == name]
        assert lines, f"no metric {name} in:\n{text}"
        return sum(float(line.rpartition(" ")[2]) for line in lines if label in line)


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")


def write_bundles(folder: Path, model: Path) -> list[str]:
    """Two bundles over the model, as `rung serve` takes them: NAME=PATH."""
    note = json.dumps({"model": str(model), "model_version": model_version(str(model)), "instruction": "Say a colour."})
    tuned = Solution("lora", "Say a colour.", Decoding(12), adapter=str(write_adapter(model, folder / "made", seed=7)))
    cards = Solution("rag", "Say a colour.", Decoding(12), retriever=RetrieverSpec("bm25", 1, 100))
    for name, solution, passages in (("tuned", tuned, ()), ("cards", cards, PASSAGES)):
        save_solution(solution, folder / name, passages=passages)
        (folder / name / "bundle.json").write_text(note, "utf-8")
    return [f"{name}={folder / name}" for name in ("tuned", "cards")]


@contextmanager
def live_server(folder: Path, model: Path) -> Iterator[Live]:
    """The process, which ends with the block. It computes in float32, so that answers are the same on every machine."""
    base = Path(shutil.copytree(model, folder / "tiny"))
    adapters = folder / "adapters"
    for seed, name in enumerate(("first", "second")):
        write_adapter(base, adapters / name, seed=seed)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "rung",
        "serve",
        *write_bundles(folder, base),
        "--port",
        str(port),
        "--dtype",
        "float32",
    ]
    command += ["--adapters", str(adapters), "--api-key-env", "RUNG_API_KEY", "--admin-key-env", "RUNG_ADMIN_KEY"]
    environment = {"RUNG_API_KEY": KEY, "RUNG_ADMIN_KEY": ADMIN_KEY, "OMP_NUM_THREADS": "1"}
    live = Live(f"http://127.0.0.1:{port}", "tiny", adapters)
    log = folder / "server.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _wait_until_ready(live, process, log)
            yield live
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(live: Live, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + UP_S
    while True:
        try:
            if live.ask("/health")[0] == 200:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"the server did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
        time.sleep(0.2)
