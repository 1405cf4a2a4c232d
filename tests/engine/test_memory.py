"""Platforms that are not at hand are simulated: only what is asked of them is tested."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rung.engine import capture, memory, shared_card
from rung.engine.memory import MemoryLimits, free_bytes, give_back, limits_of, room_of
from rung.engine.shared_card import (
    Patience,
    environment_of_others,
    give_back_surplus,
    is_crowded,
    others_bytes,
    prepare_allocator,
)

CPU, CUDA, MPS = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


def test_some_memory_is_free() -> None:
    assert free_bytes(CPU) > 100 << 20


def test_pages_of_files_count_as_free_within_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are given up when memory is wanted; a model that was read before would otherwise be refused."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    before = free_bytes(CPU)
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{60 << 20}\n")
    (tmp_path / "memory.stat").write_text(f"anon {8 << 20}\nactive_file {30 << 20}\ninactive_file {20 << 20}\n")
    assert free_bytes(CPU) == 54 << 20 < before
    assert memory.total_bytes(CPU) == 64 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.total_bytes(CPU) > 64 << 20


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("limited", ["job", ""])
def test_the_limit_of_any_control_group_around_the_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, limited: str
) -> None:
    """A batch system limits the job, and the process runs in a step of it; a container sees its own as the root."""
    root = tmp_path / "memory" if version == 1 else tmp_path
    limit, use = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    total = "total_" if version == 1 else ""
    for folder, most in (("", 1 << 63), ("job", 1 << 62), ("job/step", 1 << 62)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        most = 64 << 20 if folder == limited else most - 4096
        (root / folder / f"memory.{limit}").write_text(f"{most}\n")
        (root / folder / f"memory.{use}").write_text(f"{60 << 20}\n")
        (root / folder / "memory.stat").write_text(f"{total}active_file {30 << 20}\n{total}inactive_file 0\n")
    own = tmp_path / "own"
    own.write_text("3:cpu:/other\n2:memory:/job/step\n" if version == 1 else "3:cpu:/other\n0::/job/step\n")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", own)
    assert free_bytes(CPU) == 34 << 20 and memory.total_bytes(CPU) == 64 << 20


def refuses(error: Exception) -> Any:
    def call(*_: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_freed_memory_is_handed_back_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=trimmed.append))
    give_back()
    assert trimmed == ([0] if platform == "linux" else [])
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl has no such function
    give_back()
    monkeypatch.setattr(ctypes, "CDLL", refuses(TypeError("argument of type 'NoneType' is not iterable")))  # Windows
    give_back()


def test_memory_of_a_gpu_is_handed_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    current = ["cuda:0"]

    @contextmanager
    def chosen(device: torch.device) -> Iterator[None]:
        current.append(str(device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(current[-1]))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    for name in ("cuda:1", "mps", "cpu"):
        give_back(torch.device(name))
    assert emptied == ["cuda:1", "mps"], "a card is the current one while its memory is handed back"


def test_free_memory_on_windows_is_what_its_kernel_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(pointer: Any) -> int:
        pointer._obj.available = 7 << 30
        return 1

    monkeypatch.setattr(sys, "platform", "win32")
    kernel = SimpleNamespace(kernel32=SimpleNamespace(GlobalMemoryStatusEx=status))
    monkeypatch.setattr(ctypes, "windll", kernel, raising=False)
    assert free_bytes(CPU) == 7 << 30
    monkeypatch.delattr(ctypes, "windll")
    assert free_bytes(CPU) == memory._UNKNOWN


@pytest.mark.parametrize(
    "sysconf", [refuses(ValueError("unrecognized configuration name")), None, lambda name: 1 << 16]
)
def test_free_memory_on_a_mac_is_half_of_the_machine_or_a_guess(monkeypatch: pytest.MonkeyPatch, sysconf: Any) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(Path, "read_text", refuses(FileNotFoundError()))
    if sysconf is None:
        monkeypatch.delattr(os, "sysconf")
    else:
        monkeypatch.setattr(os, "sysconf", sysconf)
    found = free_bytes(CPU)
    assert found == ((1 << 31) if sysconf is not None and sysconf.__name__ == "<lambda>" else memory._UNKNOWN)


def test_free_memory_of_a_macs_gpu_is_what_metal_recommends_less_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10 << 30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 4 << 30)
    assert free_bytes(MPS) == 6 << 30
    assert limits_of(MPS).cache_bytes == 1 << 30
    monkeypatch.delattr(torch.mps, "recommended_max_memory")  # older versions of torch
    assert free_bytes(MPS) > 0


@pytest.mark.parametrize(
    ("free", "cache", "prefixes"), [(64 << 30, 256, 256), (2 << 30, 128, 64), (0, 32, 32), (-5, 32, 32)]
)
def test_limits_are_a_share_of_what_is_free_within_their_bounds(
    monkeypatch: pytest.MonkeyPatch, free: int, cache: int, prefixes: int
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    monkeypatch.setattr(memory, "driver_bytes", lambda device: (0, 72 << 30))
    limits = limits_of(CPU)
    assert (limits.cache_bytes, limits.prefix_bytes) == (cache << 20, prefixes << 20)
    on_gpu = limits_of(CUDA)
    assert on_gpu.rows > limits_of(MPS).rows > limits.rows
    assert (on_gpu.cache_bytes, on_gpu.prefix_bytes) == (24 << 30, 8 << 30), "others may free what they hold"
    assert limits_of(torch.device("meta")) == limits


def test_before_a_batch_the_room_is_what_is_free_now(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = MemoryLimits(1 << 30, 1 << 30, 64, 1024)
    for free, room in ((1 << 40, 1 << 30), ((1 << 30) + (512 << 20), 2 * (1 << 30) // 5), (0, 32 << 20)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert room_of(CUDA, limits) == room
    monkeypatch.setattr(memory, "free_bytes", lambda device: 4 << 30)
    assert room_of(CPU, limits) == limits.cache_bytes, "ample memory of a CPU decides nothing"
    assert room_of(CPU, replace(limits, cache_bytes=1)) == 1


def on_a_card(patch: pytest.MonkeyPatch, *, free: int, total: int, reserved: int = 0, used: int = 0) -> None:
    """What a GPU with CUDA says of its memory, in GB of 2^30 bytes."""
    patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free << 30, total << 30))
    patch.setattr(torch.cuda, "memory_reserved", lambda device=None: reserved << 30)
    patch.setattr(torch.cuda, "memory_allocated", lambda device=None: used << 30)


def test_what_torch_keeps_unused_of_a_gpu_is_free_and_what_graphs_keep_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, free=5, total=80, reserved=30, used=10)
    assert free_bytes(CUDA) == 25 << 30
    monkeypatch.setattr(capture, "graph_bytes", lambda device: 8 << 30)
    assert free_bytes(CUDA) == 17 << 30
    monkeypatch.setattr(capture, "graph_bytes", lambda device: 30 << 30)
    assert free_bytes(CUDA) == 5 << 30


def test_what_graphs_took_is_counted_while_any_of_them_is_there() -> None:
    held = capture.GraphMemory(CPU)
    before = capture.graph_bytes(CPU)
    graphs = [capture.Captured(lambda: None, CPU, held) for _ in range(2)]
    for graph, taken in zip(graphs, (100, -5), strict=True):
        held.add(graph, taken)
    assert capture.graph_bytes(CPU) == before + 100
    graphs.pop(0)
    del graph
    assert held.bytes == 100, "the other one may use all of it"
    graphs.clear()
    assert held.bytes == 0
    held.add(graph := capture.Captured(lambda: None, CPU, held), 7)
    assert held.bytes == 7 and graph is not None


def test_what_others_hold_of_a_gpu_is_told_apart_from_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, free=5, total=80, reserved=30, used=10)
    assert others_bytes(CUDA) == 44 << 30, "1 GB may be CUDA's own"
    on_a_card(monkeypatch, free=49, total=80, reserved=30, used=10)
    assert others_bytes(CUDA) == others_bytes(CPU) == 0


def test_unused_memory_of_a_gpu_is_given_back_where_others_share_it_or_it_is_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    for free, reserved, used, expected in ((5, 30, 10, 1), (49, 30, 10, 1), (49, 30, 20, 0), (5, 30, 30, 0)):
        emptied.clear()
        on_a_card(monkeypatch, free=free, total=80, reserved=reserved, used=used)
        give_back_surplus(CUDA)
        assert len(emptied) == expected, (free, reserved, used)
    give_back_surplus(CPU)


def test_a_gpu_is_crowded_where_less_than_half_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, reserved, used, expected in ((30, 20, 10, False), (29, 20, 10, True)):
        on_a_card(monkeypatch, free=free, total=80, reserved=reserved, used=used)
        assert is_crowded(CUDA) == expected
    assert not is_crowded(CPU)


def test_waiting_for_others_ends_after_a_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    slept, now = list[float](), [0.0]
    patience = Patience(slept.append, lambda: now[0])
    assert not patience.wait(CUDA, 0) and not slept, "nobody else holds any"
    while patience.wait(CUDA, 7 << 30):
        now[0] += 1
    assert slept == [1.0, 2.0, 4.0]
    assert "7.5 GB" in caplog.text and "trying again in 4 s" in caplog.text
    now[0] += 100
    assert patience.wait(CUDA, 7 << 30), "a later shortage is waited for again"


def test_torchs_allocator_is_set_up_where_the_user_and_cuda_leave_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    started = [False]
    monkeypatch.setattr(shared_card, "_set_here", set())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started[0])
    monkeypatch.setattr(torch.version, "hip", None)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)
    prepare_allocator("cpu")
    started[0] = True
    prepare_allocator("cuda")
    started[0] = False
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    prepare_allocator("cuda:0")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"
    assert environment_of_others() == dict(os.environ)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ
    prepare_allocator("cuda:0")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in environment_of_others(), "vLLM on several cards fails with it"
    monkeypatch.delattr(torch._C, "_accelerator_setAllocatorSettings")  # an older torch
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    prepare_allocator("cuda:0")
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
