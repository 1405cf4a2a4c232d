"""What surrounds the recording of a graph, on the CPU: torch's own parts are replaced by ones that tell their use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from rung.engine import capture


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
