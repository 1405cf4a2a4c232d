from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from rung.engine.buckets import bucket
from rung.engine.capture import Captured, GraphMemory
from rung.engine.variables import WAYS as VARIABLE
from rung.engine.ways import ANSWERS, TRAINING, Ways, ways_of

CPU = torch.device("cpu")


def test_a_cpu_computes_plainly_and_a_gpu_in_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ways_of(CPU) == Ways()
    assert ways_of(torch.device("cuda", 0)) == Ways(fused=True, static=True, compiled=True)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("plain", Ways()),
        ("PLAIN", Ways()),
        ("fused, static", Ways(fused=True, static=True)),
        ("Compiled,", Ways(compiled=True)),
    ],
)
def test_ways_are_named_by_a_variable(named: str, expected: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, named)
    assert ways_of(CPU) == expected == ways_of(torch.device("cuda"))


def test_a_way_that_is_given_up_keeps_its_reason() -> None:
    ways = Ways(fused=True, static=True)
    ways.give_up("static", "it cannot be recorded")
    assert (ways.fused, ways.static, ways.given_up) == (True, False, {"static": "it cannot be recorded"})


def test_a_way_that_fails_in_answers_may_still_train() -> None:
    ways = Ways(static=True)
    ways.give_up("static", "it cannot be recorded", of=ANSWERS)
    assert ways.takes("static", TRAINING) and not ways.takes("static", ANSWERS) and not ways.takes("fused", TRAINING)
    assert ways.given_up == {"static answers": "it cannot be recorded"}


def test_buckets_hold_every_count_with_little_padding() -> None:
    for count in range(1, 5_000):
        size = bucket(count)
        assert size >= count and size == bucket(size)
        assert count <= 128 or size < 1.25 * count + 1
    assert len({bucket(count) for count in range(1, 32_769)}) == 1 + 8 * 4
    assert bucket(3, least=1) == 3 and bucket(5, least=4) == 5


def test_captured_work_reads_what_stands_in_its_tensors() -> None:
    given, calls = torch.ones(3), []

    def work() -> torch.Tensor:
        return given * 2

    captured = Captured(work, CPU, GraphMemory(CPU), before=lambda: calls.append(1))
    assert captured().tolist() == [2, 2, 2]
    given.fill_(4)
    assert captured().tolist() == [8, 8, 8] and len(calls) == 2


def test_a_pool_that_had_graphs_and_has_none_any_more_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = iter(range(9))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    memory = GraphMemory(CPU)
    assert memory.pool == 0
    memory.add(first := Captured(lambda: 1, CPU, memory), 5)
    assert memory.pool == (own := memory.pool), "graphs share it"
    del first
    assert memory.pool != own


def test_everything_is_recorded_on_one_stream_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries keep a workspace for each stream, also when nothing is recorded on it any more."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    first, second = (GraphMemory(torch.device("cuda:77")) for _ in range(2))
    assert first.stream is second.stream is not GraphMemory(torch.device("cuda:78")).stream


def test_work_that_cannot_be_recorded_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            done.append(f"{self.name} waits for {other.name}")

    def work() -> None:
        done.append("work")
        if done.count("work") == 2:
            raise RuntimeError("called a synchronizing CUDA operation")

    current = Stream("current")
    for name, stand_in in {
        "current_stream": lambda _: current,
        "stream": lambda _: nullcontext(),
        "set_stream": lambda stream: done.append(f"{stream.name} is set"),
        "get_sync_debug_mode": lambda: 0,
        "set_sync_debug_mode": lambda _: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    memory = GraphMemory(CPU)
    memory.stream = Stream("other")
    captured = Captured(work, CPU, memory)
    with pytest.raises(RuntimeError, match="synchronizing"):
        captured._record(CPU, memory)
    waits = ["other waits for current", "work", "work", "current waits for other", "current is set"]
    assert done == waits and not captured.replays
