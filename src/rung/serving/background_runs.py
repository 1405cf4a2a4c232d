"""Runs that go on in a process of their own, whoever started them: begun, looked at, and read when they have ended.

Beside the run folder NAME stands NAME.job: the command and its process, what it says, and the JSON object that it ends
with. A run belongs to nobody: it goes on when the server that began it ends, and another server can look at it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rung.errors import DamagedRecord, RunError
from rung.records import write_json
from rung.resume import record_of, recorded
from rung.runs import events, is_finished

State = Literal["running", "finished", "unfinished", "stopped", "failed"]
_SAID = 5  # last lines of what a run says
_MOST_READ = 20_000  # bytes of it


@dataclass(frozen=True)
class RunStatus:
    """A run as it stands now.

    state: unfinished: its budget ended, and the same call with a larger one goes on; stopped: killed, and the same call
    goes on; failed: error says why. stage: what was begun last. minutes: of all commands on the run. said: its last
    lines. verdict: choice, solution and headline, where there is one. error: kind and message.
    """

    folder: str
    state: State
    stage: str
    minutes: float
    said: tuple[str, ...] = ()
    verdict: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def begin_run(task: Path, folder: Path, options: Sequence[str], *, cwd: Path) -> RunStatus:
    """Begins or continues a run of a task in `folder`, and returns at once. options: further words of `rung run`.

    Raises RunError where a run is going on there already, or nothing can be written.
    """
    if _alive(folder):
        raise RunError(f"{folder}: a run is going on here already. Ask for its status, or wait until it ends.")
    job = job_of(folder)
    command = [sys.executable, "-m", "rung", "run", str(task), "--out", str(folder), "--json", *options]
    try:
        job.mkdir(parents=True, exist_ok=True)
        with (job / "result.json").open("wb") as out, (job / "said.log").open("wb") as err:
            process = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
    except OSError as error:
        raise RunError(f"{job}: a run cannot be begun ({error.strerror}). Name another folder.") from error
    write_json(job / "job.json", {"command": command, "pid": process.pid, "began": time.time()})
    _OWN[process.pid] = process
    return status_of(folder)


_OWN: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this one has begun: it must ask for their end, or they stay as zombies that look alive."""


def status_of(folder: Path) -> RunStatus:
    """Raises RunError where there is no run, or a record of it is damaged."""
    job = job_of(folder)
    if not (folder / "task.json").is_file() and not job.is_dir():
        raise RunError(f"{folder}: there is no run here. Begin one with run, or name another folder.")
    running = _alive(folder)
    result = {} if running else _result(job / "result.json")
    decision = recorded(folder / "decision.json")
    verdict = None
    if decision is not None and not running:
        verdict = {key: decision.get(key) for key in ("choice", "solution", "headline")}
    state: State = "stopped"
    if running:
        state = "running"
    elif "error" in result and result.get("exit") not in (130, 143):
        state = "failed"
    elif is_finished(folder):
        state = "finished"
    elif verdict is not None:
        state = "unfinished"
    seconds = record_of(folder / "clock.json").get("seconds", 0)
    error = result.get("error") if state == "failed" else None
    return RunStatus(
        str(folder), state, _stage(folder), round(seconds / 60, 1), _said(job / "said.log"), verdict, error
    )


def job_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.job")


def _alive(folder: Path) -> bool:
    """Whether the process that was begun for the folder still runs."""
    try:
        pid = record_of(job_of(folder) / "job.json").get("pid")
    except DamagedRecord as damaged:
        fact = "A run that goes on here holds its folder, and is not begun twice"
        raise RunError(f"{damaged.file}: is damaged ({damaged.fact}). Delete it. {fact}.") from None
    if not isinstance(pid, int):
        return False
    if pid in _OWN:
        return _OWN[pid].poll() is None
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    with contextlib.suppress(OSError):  # another process may have got the number since
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.fsencode(folder) in words
    return True


def _stage(folder: Path) -> str:
    """The last event of a run, in words: building few_shot."""
    log = events(folder)
    if not log:
        return "reading and checking the data"
    solution = log[-1].get("solution")
    return f"{log[-1]['event']} {solution}" if solution else str(log[-1]["event"])


def _said(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MOST_READ))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-_SAID:]


def _result(path: Path) -> dict[str, Any]:
    """The object that the command ended with; nothing where it was killed."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
