"""Work on tensors of fixed addresses, recorded once as a CUDA graph and replayed: one launch for thousands of kernels.

On any other device the work is called each time, so that it can be tested there.
Source: PyTorch's `torch.cuda.graph`; what is recorded must not wait for the device, nor copy from memory of Python.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import torch

Result = TypeVar("Result")

_MEMORIES: WeakSet[GraphMemory] = WeakSet()


class GraphMemory:
    """The memory that recorded graphs share. Graphs of one memory are replayed one at a time, in any order, and what
    one returns is overwritten by the replay of any other."""

    def __init__(self, device: torch.device) -> None:
        self._pool: Any = None
        self.stream: Any = _stream_of(device) if device.type == "cuda" else None
        """Graphs share memory only where they are recorded on one stream."""
        self.device = device
        self._taken, self._graphs = 0, WeakSet[Any]()
        _MEMORIES.add(self)

    @property
    def pool(self) -> Any:
        """Where the next graph is recorded. torch refuses a pool that had graphs and has none any more."""
        if self._pool is None or not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    @property
    def bytes(self) -> int:
        """What recording took; torch gives it to nothing else while any of the graphs is there."""
        return self._taken if self._graphs else 0

    def add(self, graph: Any, taken: int) -> None:
        """Counts what a graph took that was recorded in it."""
        self._taken = self.bytes + max(0, taken)
        self._graphs.add(graph)


class Captured(Generic[Result]):
    """Calls `work`: on a GPU by replaying what it did the first time. What it returns is overwritten by the next call.

    work: reads tensors that the caller fills before each call, and returns tensors. before: called before each time
    that the work itself is called, to set what recording must find, such as gradients that are not there yet.
    Raises whatever the work raises; RuntimeError where it cannot be recorded.
    """

    def __init__(
        self,
        work: Callable[[], Result],
        device: torch.device,
        memory: GraphMemory,
        *,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._before = work, before
        self._graph: Any = None
        self._result: Any = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._record(device, memory)

    def _record(self, device: torch.device, memory: GraphMemory) -> None:
        work, before = self._work, self._before
        current, stream = torch.cuda.current_stream(device), memory.stream
        try:
            stream.wait_stream(current)
            try:
                with torch.cuda.stream(stream):  # libraries choose their kernels and take their memory before recording
                    before()
                    work()
                    with _refusing_to_wait():  # an error while recording would leave torch's allocator in between
                        before()
                        work()
            finally:
                current.wait_stream(stream)  # also where it failed: what was begun still writes to the caller's tensors
            before()
            graph: Any = torch.cuda.CUDAGraph()
            with _recording(graph, memory):
                held = torch.cuda.memory_reserved(device)  # here: it has given back what torch kept for later
                self._result = work()
            memory.add(self, torch.cuda.memory_reserved(device) - held)
        finally:
            torch.cuda.set_stream(current)  # torch stays on the other one where a recording fails
        self._graph = graph

    @property
    def replays(self) -> bool:
        """Whether calls replay a recording, so that tensors which the work makes stay the same ones."""
        return self._graph is not None

    def __call__(self) -> Result:
        if self._graph is None:
            self._before()
            return self._work()
        self._graph.replay()
        result: Result = self._result
        return result


@lru_cache
def _stream_of(device: torch.device) -> Any:
    """The stream on which everything is recorded: libraries keep a workspace for each stream that they ever had."""
    return torch.cuda.Stream(device)


def graph_bytes(device: torch.device) -> int:
    """Bytes of the device that recorded graphs keep for themselves."""
    return sum(memory.bytes for memory in _MEMORIES if memory.device == device)


@contextmanager
def _recording(graph: Any, memory: GraphMemory) -> Iterator[None]:
    """Within: the graph records.

    It begins outside of inference mode: at a process's first graph, torch (up to 2.11) makes the tensors of a seed that
    it fills for each later graph, and what is made in inference mode cannot be filled outside of it. So a training
    would fail behind answers.
    """
    inferring = torch.is_inference_mode_enabled()
    # What other threads do meanwhile, such as NCCL's watchdog, does not end the recording.
    recording = torch.cuda.graph(graph, pool=memory.pool, stream=memory.stream, capture_error_mode="thread_local")
    with (
        torch.inference_mode(False) if inferring else nullcontext(),
        recording,
        torch.inference_mode() if inferring else nullcontext(),
    ):
        yield


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Within: torch raises RuntimeError where Python would wait for the device, which no recording may."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*debug mode is a prototype.*")  # nobody has to know
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
