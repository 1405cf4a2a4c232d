"""What surrounds the recording of a graph, on the CPU: torch's own parts are replaced by ones that tell their use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rung.engine import capture
from rung.engine.out_of_memory import is_out_of_memory


@pytest.mark.parametrize("inferring", [False, True])
def test_a_recording_begins_and_ends_outside_of_inference_mode_and_works_within_it(
    inferring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[torch.Tensor] = []
    modes: list[bool] = []

    @contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        seeds.append(torch.empty(1))  # as torch makes it for its first graph
        yield
        modes.append(torch.is_inference_mode_enabled())

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    memory = capture.GraphMemory(torch.device("cpu"))
    before = torch.inference_mode() if inferring else torch.no_grad()
    with before, capture._recording(None, memory):
        modes.append(torch.is_inference_mode_enabled())
        assert not torch.is_grad_enabled()
    assert modes == [inferring, False]
    assert torch.is_grad_enabled()
    seeds[0].fill_(7)  # for a later graph, of a training


def test_a_shortage_of_memory_in_a_recording_is_known_though_its_end_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: Any) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    with (
        pytest.raises(RuntimeError, match="during capture") as raised,
        capture._recording(None, capture.GraphMemory(torch.device("cpu"))),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(raised.value)
