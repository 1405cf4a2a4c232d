"""How much may be computed and kept at once, found from the memory that is free when a model is loaded.

Where memory is ample the caps decide, so that equal lists are cut into equal batches on equal machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

import torch

_SHARES = {"cpu": (1 / 16, 1 / 32), "cuda": (1 / 3, 1 / 9)}  # of the free memory; a GPU serves the model alone
# Of the caches themselves; a batch needs about twice as much while its prompts are read.
_MOST = {"cpu": (256 << 20, 256 << 20), "cuda": (24 << 30, 8 << 30)}
_LEAST = 32 << 20


@dataclass(frozen=True)
class Limits:
    """cache_bytes: keys and values of the rows of one batch. kept_bytes: of beginnings, over all calls.

    rows: answered at once; from here on a step is bound by arithmetic. scored_tokens: of prompts and given answers
    that go through the network at once.
    """

    cache_bytes: int
    kept_bytes: int
    rows: int
    scored_tokens: int


def limits_of(device: torch.device) -> Limits:
    """For a network that is already in the device's memory."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    free = free_bytes(device)
    cache, kept = (max(_LEAST, min(m, int(free * s))) for m, s in zip(_MOST[kind], _SHARES[kind], strict=True))
    rows, tokens = {"cpu": (128, 4_096), "cuda": (512, 65_536)}[kind]
    return Limits(cache, kept, rows, tokens)


def give_back() -> None:
    """Returns to the system what was freed and is kept by glibc for later, which grows with every new size of batch."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; of the machine, or of the control group it is shared out to, for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):  # no Linux: half of what the machine has
        pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}) else 0
        free = pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages > 0 else 4 << 30
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text("utf-8").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text("utf-8"))
        return min(free, int(most) - used) if most != "max" else free
    except (OSError, ValueError):
        return free
