"""One process of bench/gpu.py: what it is given, and how it says what it measured, until its time is up."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_shapes import SHAPES, read_rows
from rung.models.sizes import Shape
from rung.training.batches import TokenRow

MARK = "@measured "
"""The beginning of a line that is for the parent; libraries print what they like."""
FEW_AND_MANY = (16, 80)
"""New tokens of two answers to one request, whose difference is the time of a token."""


@dataclass(frozen=True)
class Given:
    """What a process is to do.

    kind: of process. size: of SHAPES. device: "cuda" or "cpu". folder: for files; it holds the rows. measures: names,
    in order. deadline: when the process has to be done, as `time.time`. task: a task folder, or none. task_rows:
    whether its rows are trained on, too.
    """

    kind: str
    size: str
    device: str
    folder: Path
    measures: tuple[str, ...]
    deadline: float
    task: Path | None = None
    task_rows: bool = False

    @property
    def small(self) -> bool:
        """Whether this is a try on a CPU, with few steps and short answers."""
        return self.device == "cpu"

    @property
    def shape(self) -> Shape:
        return SHAPES[self.size]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.small else torch.bfloat16

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)

    def rows(self) -> list[TokenRow]:
        name = "rows-tiny.json" if self.shape.vocabulary < 4096 else "rows.json"
        return read_rows(self.folder / name)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()


def from_json(text: str) -> Given:
    read = json.loads(text)
    task = Path(read["task"]) if read["task"] else None
    return Given(**{**read, "folder": Path(read["folder"]), "measures": tuple(read["measures"]), "task": task})


def measured(given: Given, works: Mapping[str, tuple[Callable[[], Any], float]]) -> None:
    """Does the measures in order and says each result. One that fails does not end the others.

    works: name -> (what to do, seconds that it is expected to take on a card). What does not fit is not begun.
    """
    for name in given.measures:
        work, expected = works[name]
        if not given.small and given.left() < expected:
            say(name, skipped=f"about {expected:.0f} s are needed and {max(0.0, given.left()):.0f} s are left")
            continue
        started = time.perf_counter()
        try:
            found = work()
        except ImportError as error:
            say(name, skipped=f"{error.name or error} is not installed")
            continue
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            at = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
            text = (str(error).strip().splitlines() or [""])[0]
            say(name, error=f"{type(error).__name__}: {text[:400]} ({at})")
            traceback.clear_frames(error.__traceback__)
            if given.device == "cuda":
                torch.cuda.empty_cache()
            continue
        say(name, value=found, seconds=round(time.perf_counter() - started, 2))


def say(name: str, **what: Any) -> None:
    print(f"\n{MARK}{json.dumps({'measure': name, **what})}", flush=True)


def ms_per_token(seconds: Callable[[int], float], few: int, many: int, *, times: int = 3) -> float | None:
    """Milliseconds of each token of an answer. Two lengths are timed in turn, and the best of each counts, so that
    reading the prompt does not. None where the longer answer did not take longer: the clock then says nothing.

    seconds: tokens of an answer -> seconds that it took.
    """
    best = {few: float("inf"), many: float("inf")}
    for _ in range(times):
        for new in best:
            best[new] = min(best[new], seconds(new))
    lasted = best[many] - best[few]
    return 1000 * lasted / (many - few) if lasted > 0 else None


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float | None:
    """The most memory that torch held on the GPU since `reset_peak`, in GB; None on a CPU."""
    return round(torch.cuda.max_memory_reserved(device) / 1e9, 2) if device.type == "cuda" else None
