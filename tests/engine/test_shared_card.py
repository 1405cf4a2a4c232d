"""Several runs on one card. The card is played: bytes that caches and training passes take, and that others hold."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import engine as engine_module
from rung.engine import memory, prefill
from rung.engine.kv_cache import RowCache
from rung.engine.memory import limits_of
from rung.errors import OutOfMemory
from rung.testing import tiny_model
from rung.training import loop
from rung.training.batches import TokenRow
from rung.training.loop import train
from rung.types import Decoding, Message, Request, TrainingOptions

REQUESTS = [Request((Message("user", "a card " * (1 + i % 4)),), Decoding(8)) for i in range(12)]
OPTIONS = TrainingOptions(1e-3, steps=2, batch_size=4, rank=2)
ROWS = [TokenRow(str(i), tuple(range(5, 30 + i)), (7, 8)) for i in range(4)]


class Card:
    """Memory that several engines share: what does not fit raises as CUDA does. room: its bytes.

    batches: rows of each KV cache that fitted. failed: how often memory ran out.
    """

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.held, self.failed = room, 0, 0
        self.batches: list[int] = []
        self._lock = threading.Lock()
        card = self

        class Limited(RowCache):
            def __init__(self, lengths: torch.Tensor, room: int, *more: Any) -> None:
                super().__init__(lengths, room, *more)
                need = len(lengths) * room * 256  # two layers of two heads of 8 numbers, keys and values, in float32
                card.take(need)
                card.batches.append(len(lengths))
                weakref.finalize(self, card.free, need)

        patch.setattr(prefill, "RowCache", Limited)
        patch.setattr(memory, "free_bytes", lambda device: self.room - self.held)
        patch.setattr(memory, "_LEAST", 0)

    def take(self, count: int) -> None:
        with self._lock:
            if self.held + count > self.room:
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.")
            self.held += count

    def free(self, count: int) -> None:
        with self._lock:
            self.held -= count

    def during(self, count: int, work: Callable[[], Any]) -> Any:
        self.take(count)
        try:
            return work()
        finally:
            self.free(count)


def test_a_batch_is_as_large_as_what_others_leave_free_and_grows_when_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    expected = [g.text for g in model.generate(REQUESTS)]
    card = Card(monkeypatch, 1 << 20)
    sizes = []
    for held in (0, (1 << 20) - 80_000, 0):
        card.batches.clear()
        card.held += held
        assert [g.text for g in model.generate(REQUESTS)] == expected
        card.held -= held
        sizes.append(max(card.batches))
    assert sizes[0] == sizes[2] == len(REQUESTS) > sizes[1] >= 1
    assert not card.failed, "it looked before it took any"


def test_eight_runs_on_one_card_all_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = [tiny_model() for _ in range(8)]
    expected = [g.text for g in models[0].generate(REQUESTS)]
    card = Card(monkeypatch, 150_000)
    add, ended = loop.add_gradients, list[int]()

    def limited(engine: Any, batch: Any, *, micro_tokens: int, **more: Any) -> Any:
        tokens = min(micro_tokens, sum(row.tokens for row in batch))
        return card.during(500 * tokens, lambda: add(engine, batch, micro_tokens=micro_tokens, **more))

    monkeypatch.setattr(loop, "add_gradients", limited)
    for model in models:
        monkeypatch.setattr(model.engine, "waits_for_others", lambda: time.sleep(0.05) is None)  # others will end

    def run(number: int) -> None:
        model = models[number]
        if number % 2:
            assert train(model.engine, ROWS, OPTIONS, tmp_path / str(number)).is_dir()
        else:
            assert [g.text for g in model.generate(REQUESTS)] == expected
        ended.append(number)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(ended) == list(range(8)) and card.held == 0


@pytest.mark.parametrize("others", [0, 1 << 30])
def test_one_row_that_does_not_fit_waits_for_others_and_for_nobody_else(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    model = tiny_model()
    (expected,) = [g.text for g in model.generate(REQUESTS[:1])]
    card, slept = Card(monkeypatch, 1 << 20), list[float]()
    card.held = 1 << 20
    monkeypatch.setattr(engine_module, "others_bytes", lambda device: others)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            card.held = 0  # another run ended

    monkeypatch.setattr(model.engine._patience, "sleep", sleep)
    (found,) = model.generate(REQUESTS[:1])
    assert slept == ([1.0, 2.0] if others else [])
    assert (found.text, found.error) == ((expected, None) if others else ("", "out of memory"))


def test_a_training_of_one_row_waits_for_others_and_then_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, slept, calls = tiny_model(), list[float](), list[bool]()
    add = loop.add_gradients

    def limited(*given: Any, **more: Any) -> Any:
        calls.append(len(slept) >= 2)
        if not calls[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return add(*given, **more)

    monkeypatch.setattr(loop, "add_gradients", limited)
    monkeypatch.setattr(engine_module, "others_bytes", lambda device: 1 << 30)
    monkeypatch.setattr(model.engine._patience, "sleep", slept.append)
    assert train(model.engine, ROWS, OPTIONS, tmp_path / "a").is_dir() and slept == [1.0, 2.0]
    monkeypatch.setattr(loop, "add_gradients", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(OutOfMemory, match="one row at a time"):
        train(model.engine, ROWS, OPTIONS, tmp_path / "b")
    assert slept == [1.0, 2.0, 4.0], "a few seconds in all"


def test_what_can_be_made_again_is_freed_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, freed = tiny_model(), list[str]()
    expected = [g.text for g in model.generate(REQUESTS)]
    card = Card(monkeypatch, 1 << 20)
    monkeypatch.setattr(model.engine, "limits", replace(limits_of(torch.device("cpu")), cache_bytes=1 << 30))
    monkeypatch.setattr(model.engine, "room_bytes", lambda: 1 << 30)  # others took memory between the look and the use
    card.held = (1 << 20) - 30_000

    def free() -> None:
        freed.append("graphs")
        card.held = 0

    model.engine.on_make_room.append(free)
    assert [g.text for g in model.generate(REQUESTS)] == expected and freed == ["graphs"]
