from __future__ import annotations

import pytest
import torch

from rung.models import memory
from rung.engine.memory import free_bytes, give_back, limits_of

CPU = torch.device("cpu")


def test_some_memory_is_free() -> None:
    assert free_bytes(CPU) > 100 << 20


def test_what_was_freed_is_given_back_and_where_that_cannot_be_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    give_back()


@pytest.mark.parametrize(
    ("free", "cache", "kept"), [(64 << 30, 256, 256), (2 << 30, 128, 64), (0, 32, 32), (-5, 32, 32)]
)
def test_limits_are_a_share_of_what_is_free_within_their_bounds(
    monkeypatch: pytest.MonkeyPatch, free: int, cache: int, kept: int
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    limits = limits_of(CPU)
    assert (limits.cache_bytes, limits.kept_bytes) == (cache << 20, kept << 20)
    assert limits_of(torch.device("cuda")).rows > limits.rows
