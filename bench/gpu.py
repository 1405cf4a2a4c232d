"""rung on one card against transformers + PEFT, Liger and vLLM, and against what the card can do. Under 8 minutes.

    python bench/gpu.py [--json [FILE]] [--task FOLDER] [--seconds 480] [--sizes 1.7b,8b,135m] [--only KIND,…]
    python bench/gpu.py --device cpu      tries every part with a tiny model in a few minutes; nothing is judged

Weights are random; shapes are those of SmolLM2-135M, SmolLM2-1.7B and Llama-3.1-8B, in bfloat16. Rows are token ids
like those of a task with a long instruction (about 560 shared tokens, 20 to 40 own ones, 3 to 6 to learn) or, with
--task-rows and the embedded model, those of the task. The adapter has rank 16 on all linear layers. Every process has
the card for itself, one after the other; the next one only imports meanwhile. Equality is checked first. Liger, vLLM
and bitsandbytes are measured where they are installed; vLLM may be in the Python that $RUNG_VLLM_PYTHON names. What
does not fit into --seconds is skipped, and the report says so: all parts may take up to 1,050 s, and those that come
last (--only run,four_bit,ways,vllm) up to 650 s. --help lists kinds, defaults and exit codes.

--json gives one object, also where the script ends early: device {name, memory_gb, torch, cuda, …, versions of peers or
null} or null, ended (why it ended early, or null), seconds, table [{part, size, ours, unit, against, theirs, reached,
how, target, met, why}] as `gpu_table.table` says, unequal [checks that failed], made_of {rows, model, task}, measures
{"KIND/SIZE/MEASURE": value {…}, seconds or {error} or {skipped}}. In `value`: training has examples_per_s (last half of
the steps), first_steps_s (the first 10), tflops (of tokens really computed), peak_gb; prompts has seconds, first_s;
request has ms_per_token, read_ms; served has seconds, batch_s, ms_per_token; ways and engine have given_up {way:
reason}.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_report import report, short
from gpu_table import lines, table, unequal, value, with_limits

HERE = Path(__file__).parent
MARK = "@measured "  # as in gpu_part, whose import takes seconds
SIZES = ("1.7b", "8b", "135m")
KINDS = {
    "rung": "equality, training, answers, adapters, requests as they come, at each size",
    "transformers": "the same with transformers + PEFT, and training with Liger, at each size",
    "run": "whole runs of `rung run`: one (135m), then eight side by side (135m)",
    "four_bit": "training in 4 bits (8b)",
    "ways": "each way to compute by itself (1.7b)",
    "vllm": "answers of vLLM (1.7b)",
}
"""Kinds of process, and what each measures."""
_EPILOG = "\n".join(
    [
        "kinds of --only:",
        *(f"  {kind:<13}{what}" for kind, what in KINDS.items()),
        "",
        "exit codes:",
        "  0    measured; what was skipped or missed its target stands in the report",
        "  1    a check of equality failed or could not be made",
        "  2    nothing could be measured: a wrong option, or no GPU",
        "  130  interrupted by Ctrl-C; the report and --json have what was measured until then",
    ]
)
LATE = 1.6
LEAST_S = 20.0
"""A process that has no more time than this is not begun."""


@dataclass(frozen=True)
class Process:
    """A process and what it measures. share_s: what it has on a card: what would take longer is not begun, and the
    process is ended after LATE times as long, whatever it is doing."""

    kind: str
    size: str
    measures: tuple[str, ...]
    share_s: float

    def name_of(self, measure: str) -> str:
        return f"{self.kind}/{self.size}/{measure}"


_RUNG = ("equality", "training_32", "prompts", "request", "adapters", "training_8", "served", "engine")
_PEER = ("prompts", "request", "training_32", "training_8", "liger_32", "liger_8")
_WAYS = ("plain", "fused", "fused+static", "fused+static+compiled")


_SHARES = {"135m": (60, 35), "1.7b": (75, 55), "8b": (95, 80), "tiny": (60, 60)}
"""Seconds of rung and of its peers."""


def plan(sizes: Sequence[str], only: Sequence[str]) -> list[Process]:
    """The processes in order: what has a target comes first, what is slow and may be missing last."""
    tiny = "tiny" in sizes
    small, middle, large = ("tiny", "tiny", "tiny") if tiny else ("135m", "1.7b", "8b")
    # It reads libraries from a cold disk, and may ask a network that does not answer.
    found = [Process("limits", "", ("device", "prepare", "matrix", "bandwidth"), 90)]
    for size in sizes:
        ours, theirs = _SHARES[size]
        found.append(Process("rung", size, (("equality_float32",) if size == "135m" else ()) + _RUNG, ours))
        found.append(Process("transformers", size, _PEER, theirs))
    if small in sizes:
        found.append(Process("run", small, ("whole_run",), 90))
    if large in sizes:
        found.append(Process("four_bit", large, ("four_bit",), 60))
    if small in sizes:
        found.append(Process("run", small, ("side_by_side",), 180))
    if middle in sizes:
        found.append(Process("ways", middle, _WAYS[:-1] if tiny else _WAYS, 110))
        found.append(Process("vllm", middle, ("prompts", "request"), 120))
    return [p for p in found if not only or p.kind in (*only, "limits")]


def main() -> None:
    if sys.argv[1:] == ["--part"]:
        part()
        return
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    parser.add_argument(
        "--sizes",
        metavar="SIZE,…",
        help=f"of {', '.join(SIZES)}, with commas; or tiny. Default: {','.join(SIZES)}; with --device cpu: tiny",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="KIND,…",
        help="kinds of process, with commas; the card's limits are always measured",
    )
    parser.add_argument(
        "--task", type=Path, metavar="FOLDER", help="a task folder for whole runs. Default: a made one of 400 rows"
    )
    parser.add_argument("--task-rows", action="store_true", help="train on that task's own rows and ask its prompts")
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything together. Default: 480")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="one object, into FILE or printed")
    options = parser.parse_args()
    sizes, only = asked(options.sizes), asked(options.only)
    options.sizes = sizes or (list(SIZES) if options.device == "cuda" else ["tiny"])
    if (wrong := fault(options, only)) is not None:
        parser.error(wrong)
    if options.device == "cuda" and (missing := no_gpu()) is not None:
        parser.exit(2, missing + "\n")
    sys.exit(measure(options, plan(options.sizes, only)))


def asked(names: str | None) -> list[str]:
    return [name for part in (names or "").split(",") if (name := part.strip())]


def fault(options: argparse.Namespace, only: Sequence[str]) -> str | None:
    """What is wrong with the options, for a message; None where nothing is."""
    for option, names, known in (("--sizes", options.sizes, (*SIZES, "tiny")), ("--only", only, tuple(KINDS))):
        if unknown := [name for name in names if name not in known]:
            return f"{option}: {unknown[0]!r} is not one of {', '.join(known)}."
    if "tiny" in options.sizes and len(options.sizes) > 1:
        return "--sizes: tiny cannot be measured beside other sizes."
    if len(plan(options.sizes, only)) == 1:
        return f"--only {','.join(only)}: nothing of this is measured at --sizes {','.join(options.sizes)}."
    if not options.seconds >= LEAST_S:
        return f"--seconds: {options.seconds:g} is too little; the least is {LEAST_S:.0f}."
    if options.task is not None and not (options.task / "task.yaml").is_file():
        return f"--task: {options.task} is no folder with a task.yaml."
    if options.task_rows and options.task is None:
        return "--task-rows: name the task with --task FOLDER."
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        return f"--json: {Path(options.json).absolute().parent} is no folder."
    return None


def no_gpu() -> str | None:
    """Why no GPU can be measured, and what to do; None where torch can use one."""
    import torch

    if torch.cuda.is_available():
        return None
    built = f"it is built for CUDA {torch.version.cuda}" if torch.version.cuda else "it is built without CUDA"
    return (
        f"torch {torch.__version__} finds no GPU with CUDA here ({built}), so nothing was measured. docs/gpu.md says "
        "under Start what is needed. To try every part on a CPU: python bench/gpu.py --device cpu"
    )


def part() -> None:
    """A process of its own: imports, then waits for what it is given in a line of standard input."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    import gpu_ours
    import gpu_part
    import gpu_peers
    import gpu_runs
    from rung.engine.shared_card import prepare_allocator

    line = sys.stdin.readline()
    if not line.strip():
        return
    given = gpu_part.from_json(line)
    if given.kind not in ("limits", "transformers"):
        prepare_allocator(given.device)  # as at loading
    if given.device == "cuda" and not gpu_part.torch.cuda.is_available():
        sys.exit("There is no CUDA device. On a CPU: --device cpu.")
    kinds: dict[str, Any] = {"rung": gpu_ours.run, "transformers": gpu_peers.run, "ways": gpu_ours.run_ways}
    kinds.get(given.kind, gpu_runs.run)(given)


def measure(options: argparse.Namespace, todo: Sequence[Process]) -> int:
    """All processes; prints progress, the table and what is missing. Returns the exit code."""
    started = time.time()
    out = sys.stderr if options.json == "-" else sys.stdout

    def tell(text: str) -> None:
        print(f"[{time.time() - started:4.0f} s] {text}", file=out, flush=True)

    ended: str | None = None
    code = 0
    with tempfile.TemporaryDirectory(prefix="rung-gpu-") as folder:
        session = Session(options, Path(folder), started + options.seconds, tell)
        found = session.found
        try:
            for process, after in zip(todo, [*todo[1:], None], strict=True):
                session.run(process, after=after)
                if process.kind == "limits" and "value" not in found["limits//device"]:
                    ended, code = f"the device cannot be used. {value(found, 'limits//device:name')[1]}", 2
                    break
        except KeyboardInterrupt:
            ended, code = "interrupted by Ctrl-C", 130
        finally:
            session.end()
    for name in (process.name_of(measure) for process in todo for measure in process.measures):
        found.setdefault(name, {"skipped": f"the script ended before ({ended})"})
    with_limits(found)
    judged = options.device == "cuda" and "tiny" not in options.sizes
    wrong = unequal(found)
    summary = {
        "device": found["limits//device"].get("value"),
        "ended": ended,
        "seconds": round(time.time() - started, 1),
        "made_of": found["limits//prepare"].get("value"),
        "unequal": wrong,
        "table": table(found, lines(options.sizes, judged=judged)),
        "measures": found,
    }
    print(report(summary), file=out, flush=True)
    if options.json:
        text = json.dumps(summary, indent=None if options.json == "-" else 1, ensure_ascii=False)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n", "utf-8")
    return code or (1 if wrong else 0)


class Session:
    """Runs processes one after the other. Where there are processors enough, the next one imports meanwhile.

    found: KIND/SIZE/MEASURE -> what the process said of it; for what it said nothing of, why.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, deadline: float, tell: Any) -> None:
        self.options, self.folder, self.deadline, self.tell = options, folder, deadline, tell
        self.found: dict[str, dict[str, Any]] = {}
        self._ready: dict[Process, subprocess.Popen[str]] = {}
        self._ahead = (os.cpu_count() or 1) >= 8

    def run(self, process: Process, *, after: Process | None) -> None:
        """Runs one, and puts what it says into `found` as it comes. after: the next one, which may import meanwhile."""
        missing = self._missing(process)
        left = self.deadline - time.time()
        if missing is None and left < LEAST_S:
            missing = f"{max(0.0, left):.0f} s were left of --seconds"
        if missing is not None:
            self.tell(f"{process.kind} {process.size}: skipped, {missing}")
            self.found |= {process.name_of(name): {"skipped": missing} for name in process.measures}
            return
        share = left - 2 if self.options.device == "cpu" else min(process.share_s, left - 2)
        child = self._ready.pop(process, None) or self._start(process)
        if after is not None and self._ahead and after.kind != "vllm" and self._missing(after) is None:
            self._ready[after] = self._start(after)
        self._listen(process, child, share, min(LATE * share, left))

    def end(self) -> None:
        """Ends what was started and not needed."""
        for child in self._ready.values():
            _stop(child)

    def _missing(self, process: Process) -> str | None:
        """What keeps a process from being measured; None where nothing is known to."""
        if process.kind == "vllm":
            if self.options.device == "cpu":
                return "vLLM is measured on a GPU only"
            python = os.environ.get("RUNG_VLLM_PYTHON")
            if not python and importlib.util.find_spec("vllm") is None:
                return "vLLM is not installed here, and RUNG_VLLM_PYTHON names no Python that has it"
        if process.kind == "four_bit" and importlib.util.find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed"
        return None

    def _errors_of(self, process: Process) -> Path:
        return self.folder / f"err-{process.kind}-{process.size or 'all'}-{process.measures[0]}"

    def _start(self, process: Process) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "gpu.py"), "--part"]
        if process.kind == "vllm":
            python = os.environ.get("RUNG_VLLM_PYTHON") or sys.executable
            given = {
                "config": str(self.folder / f"config-{process.size}"),
                "prompts": str(self.folder / "prompts.json"),
            }
            numbers = {"new": 32, "few": 16, "many": 80, "share": 0.6}
            command = [python, str(HERE / "gpu_vllm.py"), json.dumps({**given, **numbers})]
        with self._errors_of(process).open("wb") as errors:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # so that what it starts ends with it
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false", **self._ways(process)},
            )

    def _ways(self, process: Process) -> dict[str, str]:
        """On a CPU the ways of a GPU are tried, unless the user chose; compiling for a CPU says nothing of a card."""
        if self.options.device == "cuda" or process.kind != "rung" or os.environ.get("RUNG_WAYS"):
            return {}
        return {"RUNG_WAYS": "fused,static"}

    def given(self, process: Process, share: float) -> dict[str, Any]:
        """What a process is to do, as `gpu_part.from_json` reads it. share: seconds that it has."""
        return {
            "kind": process.kind,
            "size": process.size or ("tiny" if self.options.device == "cpu" else "1.7b"),
            "device": self.options.device,
            "folder": str(self.folder),
            "measures": process.measures,
            "deadline": time.time() + share,
            "task": str(self.options.task.absolute()) if self.options.task else None,
            "task_rows": self.options.task_rows,
        }

    def _listen(self, process: Process, child: subprocess.Popen[str], share: float, most: float) -> None:
        assert child.stdin is not None
        try:
            if process.kind != "vllm":
                with contextlib.suppress(OSError):  # it has ended already, which is told below
                    child.stdin.write(json.dumps(self.given(process, share)) + "\n")
                    child.stdin.close()
            for line in _lines(child, time.time() + most):
                if line.startswith(MARK):
                    said = json.loads(line.removeprefix(MARK))
                    name = process.name_of(said.pop("measure"))
                    self.found[name] = said
                    self.tell(f"{name.replace('//', '/')}: {short(said)}")
            code = child.poll()
        finally:
            _stop(child)
        why = "its time was up" if code is None else f"its process ended with code {code}"
        silent = [name for name in process.measures if process.name_of(name) not in self.found]
        if silent:
            error = {"error": f"{why}. {_tail(self._errors_of(process))}".strip()}
            self.found |= {process.name_of(name): error for name in silent}
            self.tell(f"{process.kind} {process.size}".rstrip() + f": {', '.join(silent)}: {short(error)}")


def _lines(child: subprocess.Popen[str], deadline: float) -> Iterator[str]:
    """What a process prints, until it ends or the deadline (`time.time`) has passed."""
    assert child.stdout is not None
    came: queue.Queue[str | None] = queue.Queue()

    def read(pipe: Any) -> None:
        for line in pipe:
            came.put(line.rstrip("\n"))
        came.put(None)

    threading.Thread(target=read, args=(child.stdout,), daemon=True).start()
    while (left := deadline - time.time()) > 0:
        try:
            line = came.get(timeout=left)
        except queue.Empty:
            return
        if line is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=max(0.1, min(10.0, left)))
            return
        yield line


def _stop(child: subprocess.Popen[str]) -> None:
    """Ends a process and what it started, if it has not ended, and frees the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _tail(path: Path) -> str:
    """The last line of a file of errors; empty where there is none."""
    try:
        lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    main()
