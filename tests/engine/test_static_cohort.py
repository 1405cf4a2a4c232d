"""Rows that join and leave while they are answered in static steps get the answers that they get in plain passes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from test_adapters import OTHER, PLAIN, save_adapter
from test_attention_kinds import both, ids
from test_decode import DATE, LABELS, RECORD

from rung.engine import continuous, live_rows, static_cohort, static_steps
from rung.engine.continuous import Running
from rung.engine.decode import decode
from rung.engine.grammar import Grammars
from rung.engine.live_rows import LiveRow
from rung.engine.prefill import Job
from rung.engine.static_steps import StaticStep, steps_of
from rung.engine.tree_engine import TreeEngine
from rung.models.continuous import Continuous
from rung.testing import tiny_model
from rung.types import Decoding, Message, Request

STOPS = frozenset({2, 7, 19})
START = ids(70, 0)


@pytest.fixture(autouse=True)
def _small_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_steps, "LEAST_STEPS", 0)
    monkeypatch.setattr(static_steps, "_AHEAD", 16)
    monkeypatch.setattr(static_cohort, "LEAST_SHARED", 150)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(3)


@pytest.fixture
def engine(model: Any) -> Iterator[Any]:
    found = model.engine
    limits, ways = found.limits, replace(found.ways, given_up={})
    found.ways.static = True
    yield found
    found.limits, found.ways, found.static_steps = limits, ways, None
    found.on_make_room.clear()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    names = ["all layers", "another rank", "two projections", "one layer", "DoRA"]
    return [save_adapter(folder / str(i), tiny_folder, i, **{**PLAIN, **OTHER}[name]) for i, name in enumerate(names)]


def expected_of(engine: TreeEngine, rows: Sequence[LiveRow]) -> list[list[int] | None]:
    engine.ways.static = False
    found = {place: tokens for batch in decode(engine, [row.job for row in rows], STOPS) for place, tokens in batch}
    engine.ways.static = True
    return [found[i] for i in range(len(rows))]


def one_round(running: Running) -> list[LiveRow]:
    return [*running.admit(), *running.choose(), *running.advance()]


def answered(running: Running, rows: Sequence[LiveRow], *, every: int = 1) -> None:
    """Rows join one after the other, one every so many rounds, and are answered to the end."""
    left, rounds = list(rows), 0
    while left or running.waiting or running.running:
        if left and rounds % every == 0:
            running.add(left.pop(0))
        one_round(running)
        rounds += 1


def steps_taken(engine: TreeEngine) -> int:
    return sum(step.count for step in steps_of(engine)._kept.values())


def rows_of(count: int, most: int = 40, **more: Any) -> list[LiveRow]:
    jobs = [Job((START if i % 3 else []) + ids(4 + 5 * i % 23, i), 3 + i * 7 % most, **more) for i in range(count)]
    return [LiveRow(job, STOPS) for job in jobs]


# ---- the same answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["windows and sinks", "windows and caps", "values wider than keys"])
@pytest.mark.parametrize("every", [1, 5])
def test_rows_that_join_one_by_one(kind: str, every: int) -> None:
    _, engine = both(kind)
    engine.ways.static = True
    rows = rows_of(14)
    answered(Running(engine), rows, every=every)
    assert not engine.ways.given_up and steps_taken(engine) > 10
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_grammars_sampling_and_log_probabilities(engine: Any, model: Any) -> None:
    grammars = Grammars(model.chat.answer_tokens(), engine.vocabulary)
    rows = []
    for i in range(16):
        constraint = [LABELS, DATE, RECORD, None][i % 4]
        matcher = grammars.matcher(constraint) if constraint is not None else None
        prompt = model.encode([Message("user", f"What is it? {i}")])
        rows.append(LiveRow(Job(prompt, 60, 0.5 * (i % 2), i, matcher, top_p=0.9), STOPS, 2 if i == 3 else None))
    answered(Running(engine), rows, every=3)
    assert not engine.ways.given_up and steps_taken(engine) > 10
    assert [row.answer for row in rows] == expected_of(engine, rows)
    assert [chosen.id for chosen in rows[3].chosen] == rows[3].answer
    assert all(chosen.logprob <= 0 and len(chosen.top) == 2 for chosen in rows[3].chosen)


def test_adapters_of_all_kinds_come_and_go(tiny: Any, adapters: list[str]) -> None:
    engine = tiny.engine
    engine.ways.static = True
    rows = rows_of(20)
    names = [*adapters, None, None]
    for i, row in enumerate(rows):  # first one adapter alone, then all, then the base alone
        name = adapters[0] if i < 3 else None if i > 17 else names[i % len(names)]
        row.job = replace(row.job, adapter=name)
    running = Running(engine)
    answered(running, rows, every=4)
    assert not engine.ways.given_up and steps_taken(engine) > 10
    assert [row.answer for row in rows] == expected_of(engine, rows)
    assert not any(step.lent for step in steps_of(engine)._kept.values())


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_joining_ending_and_going(
    tiny: Any, adapters: list[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, draw = tiny.engine, random.Random(seed)
    engine.ways.static = True
    monkeypatch.setattr(static_steps, "_MOST_KEPT", draw.choice([2, 12]))
    monkeypatch.setattr(continuous, "_JOINING", 150)
    starts = [ids(draw.randrange(40, 120), 900 + i) for i in range(3)]
    names = [None, *adapters[: draw.randrange(4)]]
    rows, running = list[LiveRow](), Running(engine, slots=draw.choice([1, 8]))
    limits, dropped = engine.limits, set[int]()
    engine.limits = replace(limits, rows=draw.choice([6, 64]))
    try:
        for _ in range(70):
            for _ in range(draw.choice([0, 0, 1, 3])):
                start = draw.choice([*starts, []])
                job = Job(start + ids(draw.randrange(1, 30), draw.randrange(50)), draw.randrange(1, 50))
                rows.append(LiveRow(replace(job, adapter=draw.choice(names)), STOPS))
                running.add(rows[-1])
            if rows and draw.random() < 0.1:
                number = draw.randrange(len(rows))
                rows[number].dropped = True
                dropped.add(number)
            one_round(running)
        answered(running, [])
    finally:
        engine.limits = limits
    expected = expected_of(engine, rows)
    assert not engine.ways.given_up and steps_taken(engine) > 10
    for number, (row, theirs) in enumerate(zip(rows, expected, strict=True)):
        assert theirs is not None
        assert row.answer == theirs if number not in dropped else row.answer == theirs[: len(row.answer)], number


# ---- what is kept, and what is given up ---------------------------------------------------------------


def test_what_many_prompts_begin_with_is_stored_once(engine: Any) -> None:
    running = Running(engine)
    first = LiveRow(Job(START + ids(3, 1), 90), frozenset())
    running.add(first)
    one_round(running)
    rows = [LiveRow(Job(START + ids(3, 2 + i), 60), frozenset()) for i in range(9)]
    for row in rows:
        running.add(row)
        one_round(running)
    standing = running._static._standing
    assert standing is not None and running.running == 10
    assert 64 <= standing.step.rows.shared_tokens < 2 * 64, "once, though each joined by itself"
    answered(running, [])
    assert [row.answer for row in rows] == [
        ids_ for batch in decode(engine, [row.job for row in rows], ()) for _, ids_ in sorted(batch)
    ]


@pytest.mark.parametrize("at", [1, 4, 15])
def test_where_a_step_fails_rows_wait_again_and_lose_nothing(
    engine: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    call, calls = StaticStep.__call__, []

    def failing(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == at:
            raise RuntimeError("no kernel for this")
        return call(self, *given)

    monkeypatch.setattr(StaticStep, "__call__", failing)
    rows = rows_of(9)
    answered(Running(engine), rows, every=2)
    assert engine.ways.given_up == {"static answers": "no kernel for this"} and len(calls) == at
    assert not len(steps_of(engine)), "its memory is free again"
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_a_step_that_differs_is_given_up_before_a_token_is_chosen_from_it(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend = static_steps.StaticRows.attend
    monkeypatch.setattr(static_steps.StaticRows, "attend", lambda *given, **more: 1.5 * attend(*given, **more))
    rows = rows_of(5)
    answered(Running(engine), rows)
    assert "differ from those of a plain pass" in engine.ways.given_up["static answers"]
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_where_memory_runs_out_fewer_rows_run_and_the_way_is_kept(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put = static_steps.StaticRows.put

    def full(self: Any, cache: Any, arranged: Any, into: Any) -> None:
        if self.shape.rows > 4:
            raise torch.OutOfMemoryError("out of memory")
        put(self, cache, arranged, into)

    monkeypatch.setattr(static_steps.StaticRows, "put", full)
    rows = rows_of(12)
    answered(Running(engine), rows)
    assert not engine.ways.given_up and steps_taken(engine)
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_rows_that_need_more_memory_than_there_may_be_stay_in_plain_passes(engine: Any) -> None:
    engine.limits = replace(engine.limits, cache_bytes=700 * engine.cache_bytes_per_token)
    rows = [LiveRow(Job(ids(400, 5), 300), frozenset()), *rows_of(6)]
    rows[0].job = replace(rows[0].job, most=120)
    answered(Running(engine), rows)
    assert not engine.ways.given_up
    assert steps_of(engine).bytes <= 1.5 * 700 * engine.cache_bytes_per_token
    for row, theirs in zip(rows[1:], expected_of(engine, rows[1:]), strict=True):
        assert row.answer == theirs
    assert len(rows[0].answer) == 120


def test_rows_whose_adapter_computes_no_numbers_leave_the_others_alone(tiny: Any, adapters: list[str]) -> None:
    engine = tiny.engine
    engine.ways.static = True
    wild = engine.adapters.plain_ones([adapters[0]])[adapters[0]]
    assert wild is not None
    rows = [LiveRow(Job(START + ids(3, i), 9, adapter=adapters[i % 2]), STOPS) for i in range(12)]
    expected = expected_of(engine, rows)
    running, before = Running(engine), wild.row.clone()
    try:
        wild.row.fill_(1e36)
        engine.clear_prefix_cache()
        answered(running, rows, every=3)
    finally:
        wild.row.copy_(before)
    assert not engine.ways.given_up and steps_taken(engine)
    assert [row.answer for row in rows[1::2]] == expected[1::2]


def test_a_row_that_was_just_handed_over_waits_again_once(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, calls = static_steps.StaticRows.put, list[int]()

    def full(self: Any, cache: Any, arranged: Any, into: Any) -> None:
        calls.append(len(into))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        put(self, cache, arranged, into)

    monkeypatch.setattr(static_steps.StaticRows, "put", full)
    running, rows = Running(engine), rows_of(4, 60)
    for row in rows[:2]:  # two cohorts, which join in one round
        running.add(row)
        running.admit()
    running.choose()
    running.advance()
    assert len(calls) == 2 and running.waiting == 2 and not running.running
    answered(running, rows[2:])
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_a_step_that_no_row_could_enter_is_given_back(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as for_a_while:
        for_a_while.setattr(static_steps.StaticRows, "put", full)
        running, rows = Running(engine), rows_of(3, 60)
        running.add(rows[0])
        one_round(running)
        assert running.waiting == 1 and not len(steps_of(engine))
        assert not running.advance(), "nothing is there to be read"
        answered(running, [])
        assert not rows[0].failed, "alone it is answered in plain passes"
    answered(running, rows[1:])
    assert not engine.ways.given_up and steps_taken(engine)
    assert [row.answer for row in rows] == expected_of(engine, rows)


def test_a_cohort_that_had_no_room_says_nothing_of_one_that_gets_its_place_in_memory(engine: Any) -> None:
    running = Running(engine)
    engine.limits = replace(engine.limits, cache_bytes=1)
    for row in rows_of(6, 9):
        answered(running, [row])
    assert not steps_taken(engine)
    assert not len(running._static._tried)


def test_rows_that_are_let_go_give_their_step_back(engine: Any) -> None:
    for _ in range(2):
        running = Running(engine)
        running.add(rows_of(1, 60)[0])
        one_round(running)
        (step,) = steps_of(engine)._kept.values()
        assert step.lent and step.count == 1
        running.close()
        assert not step.lent and not len(steps_of(engine)) and not running.running


def test_shared_columns_that_nobody_sees_any_more_are_free_again(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_cohort, "LEAST_SHARED", 0)
    running, rows = Running(engine, slots=1), list[LiveRow]()
    for number, most in enumerate((6, 60, 60, 60)):  # the first start is gone when the last ones come
        start = ids(96, 500 + number)
        for _ in range(3):
            rows.append(LiveRow(Job(start + ids(3, len(rows)), most), frozenset()))
            running.add(rows[-1])
            one_round(running)
    standing = running._static._standing
    assert standing is not None and not running._cohorts
    assert standing.step.rows.shared_tokens == 3 * 96 and standing.step.shape.shared < 4 * 96
    answered(running, [])
    engine.clear_prefix_cache()
    plain = {i: got for batch in decode(engine, [row.job for row in rows], ()) for i, got in batch}
    assert [row.answer for row in rows] == [plain[i] for i in range(len(rows))]


def test_a_server_that_failed_or_ends_gives_its_steps_back(model: Any, engine: Any) -> None:
    server = Continuous(model)
    request = Request((Message("user", "What is it?"),), Decoding(60))
    read = static_cohort.StaticCohort.read
    with patch.object(static_cohort.StaticCohort, "read", lambda cohort: [*read(cohort), None]):  # a mistake
        (answer,) = server.generate([request])
    assert answer.error
    assert not len(steps_of(engine))
    server.generate([request])
    assert steps_taken(engine)
    server.close()
    assert not len(steps_of(engine))


@pytest.mark.parametrize("static", [True, False])
def test_a_row_that_ends_as_memory_runs_out_is_told_of(
    engine: Any, static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.ways.static = static
    take = live_rows._take
    short, long = (LiveRow(Job(ids(9, i), most), frozenset()) for i, most in enumerate((5, 20)))
    failed = list[LiveRow]()

    def full(row: LiveRow, *given: Any) -> list[int]:
        if row is long and short.ended and not failed:
            failed.append(row)
            raise torch.OutOfMemoryError("out of memory")
        return take(row, *given)

    monkeypatch.setattr(live_rows, "_take", full)
    running, told = Running(engine), list[LiveRow]()
    running.add(short)
    running.add(long)
    while running.waiting or running.running:
        told += one_round(running)
    assert failed == [long] and told.count(short) == 5 and len(long.answer) == 20
