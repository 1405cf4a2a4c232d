"""Rows that join and leave: who goes first, what their caches take, and what happens when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.engine import continuous
from rung.engine.cohorts import PassKind
from rung.engine.continuous import Running
from rung.engine.decode import decode
from rung.engine.live_rows import LiveRow
from rung.engine.prefill import Job
from rung.testing import tiny_model

STOPS = frozenset({0})


@pytest.fixture(scope="module")
def engine() -> Any:
    return tiny_model(3).engine


@pytest.fixture(autouse=True)
def limits(engine: Any) -> Iterator[None]:
    before = engine.limits
    yield
    engine.limits = before


def row(length: int, most: int, first: int = 1) -> LiveRow:
    return LiveRow(Job([1 + (first + i) % 60 for i in range(length)], most), STOPS)


def one_round(running: Running) -> list[LiveRow]:
    return [*running.admit(), *running.choose(), *running.advance()]


def ended(running: Running) -> None:
    while running.waiting or running.running:
        one_round(running)


def test_a_short_prompt_does_not_wait_for_a_long_one(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_JOINING", 64)
    engine.limits = replace(engine.limits, prefix_bytes=1 << 30, cache_bytes=1 << 30)
    running = Running(engine)
    long, other, short = row(400, 4), row(300, 4, 7), row(20, 4, 3)
    for one in (long, other, short):
        running.add(one)
    counts = []
    while not long.answer:
        before = engine.computed_tokens
        one_round(running)
        counts.append(engine.computed_tokens - before)
        assert short.answer and not other.read, "long ones go one after another"
    ended(running)
    assert len(counts) == 7 and max(counts) <= 64 + 20 + 2, "each round reads a part"
    assert long.cached == other.cached == 0, "what it read itself was not there before"
    expected = {place: ids for batch in decode(engine, [long.job, other.job, short.job], STOPS) for place, ids in batch}
    assert [long.answer, other.answer, short.answer] == [expected[i] for i in range(3)]


def test_prompts_whose_start_was_read_before_join_together(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_JOINING", 100)
    engine.limits = replace(engine.limits, prefix_bytes=1 << 30, cache_bytes=1 << 30)
    running, start = Running(engine), [5, 6, 7, 8] * 16
    prompts = [LiveRow(Job([*start, 10 + i, 11, 12], 4), STOPS) for i in range(6)]
    running.add(prompts[0])
    ended(running)
    for one in prompts[1:]:
        running.add(one)
    running.admit()
    assert running.running == 5 and not running.waiting, "their own tokens are few"
    ended(running)
    expected = {place: ids for batch in decode(engine, [one.job for one in prompts], STOPS) for place, ids in batch}
    assert [one.answer for one in prompts] == [expected[i] for i in range(6)]


def test_caches_that_are_joined_have_room_for_what_they_hold(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_COHORTS", 1)
    engine.limits = replace(engine.limits, cache_bytes=1 << 30)
    running = Running(engine)
    running.add(row(500, 3))
    one_round(running)
    for first in range(8):
        running.add(row(10 + first, 200, first))
        one_round(running)
    kept = sum(cohort.cache.own_bytes for cohort in running._cohorts)
    assert running.running == 8 and kept <= 8 * (10 + 8 + 2 * 64) * engine.cache_bytes_per_token


def test_caches_are_not_joined_where_they_would_grow_too_large(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_COHORTS", 1)
    token = engine.cache_bytes_per_token
    engine.limits = replace(engine.limits, cache_bytes=1700 * token)
    running = Running(engine)
    rows = [row(1000, 20), *(row(20, 20, first) for first in range(4))]
    for one in rows:
        running.add(one)
        one_round(running)
        assert sum(cohort.cache.own_bytes for cohort in running._cohorts) <= 1700 * token
    assert running.running == 5
    ended(running)
    expected = {place: ids for batch in decode(engine, [one.job for one in rows], STOPS) for place, ids in batch}
    assert [one.answer for one in rows] == [expected[i] for i in range(5)]


def test_answers_that_grow_take_no_more_memory_than_there_is(engine: Any) -> None:
    token = engine.cache_bytes_per_token
    engine.limits = replace(engine.limits, cache_bytes=900 * token)
    running = Running(engine)
    rows = [row(10 + i, 150, i) for i in range(8)]
    for one in rows:
        running.add(one)
    most = 0
    while running.waiting or running.running:
        running.admit()
        running.choose()
        running.advance()
        most = max(most, running.running)
        kept = sum(cohort.cache.own_bytes for cohort in running._cohorts)
        assert running.running <= 1 or kept <= 1.6 * 900 * token
    expected = {place: ids for batch in decode(engine, [one.job for one in rows], STOPS) for place, ids in batch}
    assert [one.answer for one in rows] == [expected[i] for i in range(8)] and most == 8


def test_whole_weights_take_turns(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setattr(Running, "_kind", lambda *_: PassKind(None, False))
    running = Running(engine)
    rows = [LiveRow(Job([1, 2], 2, adapter=str(tmp_path / name)), STOPS) for name in "abab"]
    for one in rows:
        running.add(one)
    chosen, _ = running._chosen_to_join()
    assert list(chosen.values()) == [[rows[0], rows[2]]]


def test_after_memory_ran_out_fewer_rows_run_for_a_while_only(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_PATIENCE", 4)
    running = Running(engine)
    rows = [row(10 + i, 60, i) for i in range(8)]
    for one in rows:
        running.add(one)
    one_round(running)
    assert running.running == 8
    with monkeypatch.context() as patch:
        patch.setattr(engine, "forward", _without_memory)
        running.choose()
        running.advance()
    one_round(running)
    assert running.running == 4
    for _ in range(8):
        one_round(running)
    assert running.running == 8


def test_a_row_for_which_memory_does_not_suffice_is_tried_once_more(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(engine)
    one, times = row(10, 4), [0]
    forward = engine.forward

    def first_fails(*given: Any) -> Any:
        times[0] += 1
        return _without_memory() if times[0] == 1 else forward(*given)

    monkeypatch.setattr(engine, "forward", first_fails)
    running.add(one)
    ended(running)
    assert len(one.answer) == 4 and not one.failed
    monkeypatch.setattr(engine, "forward", _without_memory)
    other = row(10, 4)
    running.add(other)
    assert one_round(running) == [] and one_round(running) == [other] and other.failed


def _without_memory(*_: Any) -> Any:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
