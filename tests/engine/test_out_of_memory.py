from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine import adapter_held, prefill, tree_answers
from rung.engine.decode import logprobs
from rung.engine.kv_cache import RowCache
from rung.engine.memory import MemoryLimits, Shortage
from rung.engine.out_of_memory import is_out_of_memory
from rung.errors import OUT_OF_MEMORY, OutOfMemory
from rung.testing import tiny_model
from rung.types import Constraint, Decoding, Message, Request, TrainingOptions, TrainingRow

TEXTS = [
    "",
    "a",
    "the card",
    "What is my answer?",
    "x" * 40,
    "1 2 3",
    "日本",
    "a longer question about a card",
    "b",
    "c",
]
LABELS = Constraint("labels", ("card", "card arrival", "the answer", "no"))
ALLOCATORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("could not create a primitive"),  # oneDNN
    MemoryError(),
]


def ask(text: str, constraint: Constraint | None = None, most: int = 16) -> Request:
    return Request((Message("system", "Answer."), Message("user", text)), Decoding(most), constraint)


def requests() -> list[Request]:
    return [ask(text, LABELS if i % 2 else None) for i, text in enumerate(TEXTS)]


class Allocator:
    """A KV cache that has room for so many rows; in prefill, or from the second decode step on."""

    def __init__(self, patch: pytest.MonkeyPatch, rows: int, error: Exception, *, late: bool = False) -> None:
        self.worked: list[int] = []
        self.failed: list[int] = []
        allocator = self

        class Limited(RowCache):
            steps = 0

            def __init__(self, lengths: torch.Tensor, *more: Any) -> None:
                super().__init__(lengths, *more)
                self.began = len(lengths)
                if not late:
                    self.check()

            def expect(self, counts: Any) -> None:
                self.steps += 1
                if late and self.steps == 2:
                    self.check()
                super().expect(counts)

            def check(self) -> None:
                if self.began > rows:
                    allocator.failed.append(self.began)
                    raise error
                allocator.worked.append(self.began)

        patch.setattr(prefill, "RowCache", Limited)


def test_memory_that_ran_out_while_a_graph_was_recorded_is_known_behind_the_error_that_ends_the_recording() -> None:
    ended = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    assert not is_out_of_memory(ended)
    for inner, expected in ((ALLOCATORS[0], True), (ValueError("a shape"), False)):
        try:
            try:
                raise inner
            finally:
                raise ended
        except RuntimeError as error:
            assert is_out_of_memory(error) == expected


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", ALLOCATORS, ids=lambda e: type(e).__name__ + str(e)[:4])
def test_answers_do_not_depend_on_how_little_memory_there_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception, late: bool
) -> None:
    expected = [(g.text, g.tokens_out, g.finish) for g in tiny_model().generate(requests())]
    model = tiny_model()
    allocator = Allocator(monkeypatch, 3, error, late=late)
    assert [(g.text, g.tokens_out, g.finish) for g in model.generate(requests())] == expected
    assert allocator.failed and max(allocator.worked) <= 3


def test_later_batches_are_as_small_as_those_that_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    allocator = Allocator(monkeypatch, 3, ALLOCATORS[0])
    model.generate(requests())
    allocator.failed.clear()
    model.generate(requests())
    assert allocator.failed == [], "no batch of the second call is too large"
    assert model.engine.limits.rows > 3, "rows did not cut the batch, so that short prompts may still come in many rows"


def test_one_row_that_does_not_fit_is_an_error_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    expected = [g.text for g in model.generate(requests())]
    whole = tree_answers.prefill

    def limited(engine: Any, jobs: Any, batch: list[int], shared: Any) -> Any:
        if any(len(jobs[i].prompt) > len(model.encode(ask("x" * 39).messages)) for i in batch):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(engine, jobs, batch, shared)

    monkeypatch.setattr(tree_answers, "prefill", limited)
    limits = model.engine.limits
    found = model.generate(requests())
    failed = [i for i, g in enumerate(found) if g.error is not None]
    assert failed == [4] and found[4].error == "out of memory" and found[4].text == ""
    assert [g.text for i, g in enumerate(found) if i != 4] == [text for i, text in enumerate(expected) if i != 4]
    assert model.engine.limits == limits, "the long row says nothing of the others"
    (alone,) = model.generate(requests()[4:5])
    assert alone.error == OUT_OF_MEMORY, "beside others or by itself, the same row has the same answer"


def test_a_passing_shortage_lowers_the_limits_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    limits = model.engine.limits
    with monkeypatch.context() as patch:
        Allocator(patch, 5, ALLOCATORS[0])
        model.generate(requests())
    lowered = model.engine.limits
    assert lowered.cache_bytes < limits.cache_bytes
    most = requests()[0].decoding.max_new_tokens
    assert lowered.cache_bytes >= 5 * most * model.engine.cache_bytes_per_token, "half of what failed still fits"
    calls = 0
    while model.engine.limits.cache_bytes < 2 * lowered.cache_bytes and calls < 100:
        model.generate([ask(text, most=2) for text in TEXTS * 4])
        calls += 1
    assert 0 < calls < 100


def test_limits_come_back_later_each_time_that_memory_runs_out() -> None:
    limits = MemoryLimits(cache_bytes=1000, prefix_bytes=1, rows=64, scored_tokens=1)

    def batches_until_raised(shortage: Shortage, lowered: MemoryLimits) -> int:
        for n in range(1, 1000):
            if (raised := shortage.after_success(lowered, 1, lowered.cache_bytes)) != lowered:
                assert (raised.cache_bytes, raised.rows) == (2 * lowered.cache_bytes, limits.rows)
                return n
        raise AssertionError("never raised")

    shortage = Shortage()
    lowered = shortage.lowered(limits, 64, 100)
    assert shortage.after_success(lowered, 1, 10) == lowered, "a small batch says nothing"
    waited = [batches_until_raised(shortage, lowered)]
    for _ in range(2):
        lowered = shortage.lowered(lowered, 64, 100)
        waited.append(batches_until_raised(shortage, lowered))
    assert waited[0] < waited[1] < waited[2]


def test_memory_that_runs_out_while_an_adapter_is_loaded_is_freed_and_the_adapter_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    rows = [TrainingRow("r", (Message("user", "a"),), "b")]
    folder = model.train(rows, TrainingOptions(1e-2, steps=1, batch_size=1), tmp_path)
    asked = Request((Message("user", "a"),), Decoding(4), adapter=str(folder))
    expected = model.generate([asked])[0].text
    model.release(folder)
    read, failures = adapter_held.read_plain, [ALLOCATORS[0]]

    def load(*given: Any) -> Any:
        found = read(*given)
        if failures:
            raise failures.pop()
        return found

    monkeypatch.setattr(adapter_held, "read_plain", load)
    assert model.generate([asked])[0].text == expected
    model.release(folder)
    failures += [ALLOCATORS[1]] * 2
    with pytest.raises(OutOfMemory, match="memory ran out"):
        model.generate([asked])
    assert model.generate([asked])[0].text == expected


def test_memory_that_suffices_for_no_row_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    Allocator(monkeypatch, 0, ALLOCATORS[1])
    with pytest.raises(OutOfMemory, match="any of 10 requests, even one at a time"):
        model.generate(requests())


def test_a_prefix_that_does_not_fit_is_computed_with_each_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, expected = tiny_model(), [g.text for g in tiny_model().generate(requests())]

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.engine, "compute", full)
    assert [g.text for g in model.generate(requests())] == expected


def test_given_answers_are_scored_alike_with_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    rows = [(model.encode(ask(text).messages), model.encode_answer(label)) for text in TEXTS for label in ("no", "yes")]
    expected = logprobs(model.engine, None, rows)
    whole = model.engine.hidden_of

    def limited(tree: Any, *more: Any, **named: Any) -> Any:
        if len(tree.chains) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return whole(tree, *more, **named)

    monkeypatch.setattr(model.engine, "hidden_of", limited)
    for found, row in zip(logprobs(model.engine, None, rows), expected, strict=True):
        assert found == pytest.approx(row, abs=1e-4)


def test_other_failures_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(is_out_of_memory(error) for error in ALLOCATORS)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    model = tiny_model()
    Allocator(monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        model.generate(requests())
