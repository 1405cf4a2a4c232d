"""How much may be computed and kept at once: upper bounds when a model is loaded, and what is free before each batch.

Where memory is ample the upper bounds decide, so that equal lists are cut into equal batches on equal machines. On a
GPU they come from its whole memory, since others that hold some of it may go.
torch is imported where a GPU is asked, so that a list of models need not wait for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Shares for the KV cache and the prefix cache, of what is free at loading; with CUDA, of the whole memory.
_SHARES = {"cpu": (1 / 16, 1 / 32), "cuda": (1 / 3, 1 / 9), "mps": (1 / 6, 1 / 18)}
# Upper bounds of the caches themselves; a batch needs about twice as much during prefill.
_MOST = {"cpu": (256 << 20, 256 << 20), "cuda": (24 << 30, 8 << 30), "mps": (4 << 30, 1 << 30)}
_LEAST = 32 << 20
# The share of what is free before a batch that its cache may take. A CPU's is large, so that it seldom decides.
_ROOM = {"cpu": 1 / 4, "cuda": 2 / 5, "mps": 1 / 4}
_MARGIN = {"cpu": 0, "cuda": 512 << 20, "mps": 0}  # bytes left for what is not counted, and for others
_ROWS = {"cpu": 128, "cuda": 512, "mps": 256}
_SCORED_TOKENS = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}
_UNKNOWN = 4 << 30  # bytes that are assumed to be free where no platform says
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Of control groups, by version: the limit, what is used, and the file pages that are given up when memory is wanted.
_NEW_FILES = ("memory.max", "memory.current", ("active_file", "inactive_file"))
_OLD_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))


@dataclass(frozen=True)
class MemoryLimits:
    """What one batch and the caches may use.

    cache_bytes: of the KV cache of one batch, at most. prefix_bytes: of the prefix cache, which outlives a call, at
    most. rows: answered at once; more of them bring no speed. scored_tokens: tokens of prompts and given answers that
    go through the network at once. prefix_calls: a prefix that so many calls did not ask for is dropped, unless the
    cache is small (`TreeEngine.prefix`).
    """

    cache_bytes: int
    prefix_bytes: int
    rows: int
    scored_tokens: int
    prefix_calls: int = 32


@dataclass
class Shortage:
    """How the limits were lowered since memory ran out.

    before: the limits to return to; None: they are not lowered. full: batches that used most of the lowered limits and
    worked. patience: so many of them raise the limits again; each new shortage doubles it.
    """

    before: MemoryLimits | None = None
    full: int = 0
    patience: int = 8

    def lowered(self, limits: MemoryLimits, rows: int, cache_bytes: int) -> MemoryLimits:
        """The limits with at most so many rows and bytes."""
        self.patience *= 2 if self.before is not None else 1
        self.before, self.full = self.before or limits, 0
        return replace(limits, rows=min(limits.rows, rows), cache_bytes=min(limits.cache_bytes, cache_bytes))

    def after_success(self, limits: MemoryLimits, rows: int, cache_bytes: int) -> MemoryLimits:
        """The limits after a batch of so many rows and bytes that worked: twice as large after `patience` full ones."""
        if self.before is None:
            return limits
        self.full += 2 * rows > limits.rows or 2 * cache_bytes > limits.cache_bytes
        if self.full < self.patience:
            return limits
        before, self.full = self.before, 0
        rows, cache_bytes = min(before.rows, 2 * limits.rows), min(before.cache_bytes, 2 * limits.cache_bytes)
        if rows == before.rows and cache_bytes == before.cache_bytes:
            self.before = None
        return replace(limits, rows=rows, cache_bytes=cache_bytes)


def limits_of(device: torch.device) -> MemoryLimits:
    """For a network that is already in the device's memory."""
    kind = device.type if device.type in _SHARES else "cpu"
    base = total_bytes(device) if kind == "cuda" else free_bytes(device)
    cache, prefixes = (max(_LEAST, min(m, int(base * s))) for m, s in zip(_MOST[kind], _SHARES[kind], strict=True))
    return MemoryLimits(cache, prefixes, _ROWS[kind], _SCORED_TOKENS[kind])


def room_of(device: torch.device, limits: MemoryLimits) -> int:
    """Bytes that the KV cache of the next batch may take: the limit, or a share of what is free now.

    Asks the device, which takes up to 0.1 ms: call it for a batch, not for a token.
    """
    kind = device.type if device.type in _SHARES else "cpu"
    free = int((free_bytes(device) - _MARGIN[kind]) * _ROOM[kind])
    return min(limits.cache_bytes, max(_LEAST, free))


def give_back(device: torch.device | None = None) -> None:
    """Hands freed memory back to the operating system, and to the device where one is named.

    glibc keeps freed pages of the heap, and every new batch shape adds more. Other C libraries need nothing.
    """
    if device is not None:
        from rung.engine.devices import empty_cache

        empty_cache(device)
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; for a CPU that of the machine, or of the control group that the process runs in.

    What torch's allocator keeps of a GPU without using it counts as free, but for what recorded graphs keep.
    """
    if device.type == "cuda":
        from rung.engine.capture import graph_bytes

        unused = reserved_bytes(device) - used_now(device) - graph_bytes(device)
        return driver_bytes(device)[0] + max(0, unused)
    if device.type == "mps":
        return _free_of_mps()
    return free_host_bytes()


def driver_bytes(device: torch.device) -> tuple[int, int]:
    """Of a GPU with CUDA: (bytes that no process holds, all bytes)."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return int(free), int(total)


def reserved_bytes(device: torch.device) -> int:
    """What torch's allocator holds of a GPU with CUDA, in use or kept for later."""
    import torch

    return int(torch.cuda.memory_reserved(device))


def used_now(device: torch.device) -> int:
    """What tensors of this process hold of a GPU with CUDA."""
    import torch

    return int(torch.cuda.memory_allocated(device))


def free_host_bytes() -> int:
    """Free memory of the machine, or of the control group that the process runs in."""
    if sys.platform == "win32":
        return _free_on_windows()
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):  # macOS and other Unixes
        free = _half_of_the_machine()
    return min([free, *(most - used for most, used in _groups())])


def used_bytes(device: torch.device) -> int | None:
    """The most memory that this process has used so far, on a GPU where it computes there; None where nobody says."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def total_bytes(device: torch.device) -> int:
    """Memory of a GPU; for a CPU that of the machine, or what its control group may use. Does not change with the load.

    Where no platform says, the memory that is free.
    """
    return driver_bytes(device)[1] if device.type == "cuda" else total_host_bytes()


def total_host_bytes() -> int:
    """Memory of the machine, or what the control group of the process may use."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return free_host_bytes()
    return min([whole, *(most for most, _ in _groups())])


def _groups() -> Iterator[tuple[int, int]]:
    """(limit, used bytes less file pages) of the control groups with a limit that the process is in, of both versions.

    A limit holds for all groups within a group: one of a batch system or a service lies above the process's own. In a
    container the groups above its own are not seen, and its own is the root of what is.
    """
    try:
        lines = _OWN_GROUPS.read_text("utf-8").splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _GROUPS / "memory" if controllers else _GROUPS
        group = root / inner.strip().lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            if (found := _limit_and_use(folder, *(_OLD_FILES if controllers else _NEW_FILES))) is not None:
                yield found


def _limit_and_use(group: Path, limit: str, use: str, pages: tuple[str, str]) -> tuple[int, int] | None:
    """None without a limit, and where the files cannot be read. Version 1 writes no limit as 2^63, less a page."""
    try:
        most = (group / limit).read_text("utf-8").strip()
        if most == "max" or int(most) >= 1 << 60:
            return None
        counts = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())
        used = int((group / use).read_text("utf-8")) - sum(int(counts.get(name, 0)) for name in pages)
        return int(most), used
    except (OSError, ValueError):
        return None


def _half_of_the_machine() -> int:
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        return pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages > 0 else _UNKNOWN
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _free_of_mps() -> int:
    """What Metal recommends at most, less what it holds; older versions of torch do not say."""
    import torch

    try:
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory())
    except (AttributeError, RuntimeError):
        return _half_of_the_machine()


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "a", "b", "c", "d", "e")),
    )


def _free_on_windows() -> int:
    """Available physical memory, by GlobalMemoryStatusEx."""
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    try:
        kernel: Any = ctypes.windll.kernel32  # type: ignore[attr-defined]
        if kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status.available)
    except (AttributeError, OSError):
        pass
    return _UNKNOWN
