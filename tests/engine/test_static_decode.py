"""Decode steps of few shapes answer as passes of any shape do, token by token."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_adapters import OTHER, PLAIN, save_adapter
from test_attention_kinds import KINDS, both, ids
from test_decode import DATE, LABELS, LONG, RECORD
from torch.utils._python_dispatch import TorchDispatchMode

from rung.engine import static_rows, static_steps
from rung.engine.answering import BatchAnswers
from rung.engine.decode import decode
from rung.engine.grammar import Grammars
from rung.engine.kv_cache import RowCache
from rung.engine.prefill import Job
from rung.engine.static_decode import static_decoder
from rung.engine.static_rows import StaticRows
from rung.engine.static_steps import StaticSteps
from rung.engine.tree_engine import TreeEngine
from rung.engine.whole_weights import save_weights
from rung.testing import tiny_model
from rung.types import Constraint, Message

STOPS = frozenset({2, 7, 19})
TEXTS = ["", "a", "the card", "What is my answer?", "x" * 40, "1 2 3", "日本", "a longer question about a card"]
START = ids(45, 0)
PROMPTS = [
    *(START + ids(n, n) for n in (3, 11, 1, 6)),
    *(START + ids(40, 70) + ids(n, n + 50) for n in (9, 2, 30)),
    *(START + ids(35, 80) + ids(n, n + 90) for n in (4, 5)),
]


@pytest.fixture(autouse=True)
def _any_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_steps, "LEAST_STEPS", 0)


@pytest.fixture(params=["shared once", "shared by nobody"])
def sharing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_rows, "LEAST_SHARED", 1 if request.param == "shared once" else 1 << 30)
    monkeypatch.setattr(static_rows, "_FEW", 4)  # so that some nodes are copied in both cases


@pytest.fixture(scope="module")
def engine() -> Any:
    return tiny_model(3).engine


@pytest.fixture(autouse=True)
def _as_before(engine: Any) -> Iterator[None]:
    limits, ways = engine.limits, replace(engine.ways, given_up={})
    yield
    engine.limits, engine.ways, engine.static_decoder, engine.static_steps = limits, ways, None, None
    engine.on_make_room.clear()


def answered(engine: TreeEngine, jobs: list[Job], *, static: bool = False) -> dict[int, list[int] | None]:
    engine.ways.static = static
    return {place: tokens for batch in decode(engine, jobs, STOPS) for place, tokens in batch}


def steps_of(engine: TreeEngine) -> int:
    return sum(step.count for step in static_decoder(engine).steps._kept.values())


def assert_equal_both_ways(engine: TreeEngine, jobs: list[Job]) -> None:
    expected, before = answered(engine, jobs), steps_of(engine)
    assert answered(engine, jobs, static=True) == expected
    assert steps_of(engine) > before and not engine.ways.given_up


# ---- kinds of networks ----------------------------------------------------------------------


@pytest.mark.usefixtures("sharing")
@pytest.mark.parametrize("kind", KINDS)
def test_answers_equal_plain_ones_for_windows_caps_and_sinks(kind: str) -> None:
    _, engine = both(kind)
    assert_equal_both_ways(engine, [Job(prompt, 5 + 4 * (i % 4)) for i, prompt in enumerate(PROMPTS)])
    assert_equal_both_ways(engine, [Job(PROMPTS[4], 30)])


def test_numbers_equal_plain_ones_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_steps, "_TOLERANCES", {torch.float32: 1e-5})
    monkeypatch.setattr(static_rows, "LEAST_SHARED", 1)
    _, engine = both("windows and sinks")
    check, compared = StaticSteps._check, list[int]()

    def always(self: StaticSteps, logits: torch.Tensor, plainly: torch.Tensor, rows: Any) -> None:
        check(self, logits, plainly, rows)
        compared.append(len(rows))
        raise static_steps.Differs("so that the next batch is compared again")

    monkeypatch.setattr(StaticSteps, "_check", always)
    for prompts in (PROMPTS, PROMPTS[:1], PROMPTS[2:5]):
        answered(engine, [Job(prompt, 12) for prompt in prompts], static=True)
        engine.ways.given_up.clear()
    assert compared == [9, 1, 3]


# ---- rows -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("sharing")
def test_rows_that_end_at_different_steps_move_to_fewer_rows_and_more_columns(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_steps, "_AHEAD", 16)
    monkeypatch.setattr(static_steps, "_MOST_KEPT", 100)
    jobs = [Job(prompt, 2 + i * i * 3) for i, prompt in enumerate(PROMPTS)]
    assert_equal_both_ways(engine, jobs)
    shapes = {shape for _, _, shape in static_decoder(engine).steps._kept}
    assert len({shape.rows for shape in shapes}) > 1 and len({shape.columns for shape in shapes}) > 1


def test_long_rows_alone_and_lists_longer_than_the_limits(engine: Any) -> None:
    long = [Job([1 + i % 60 for i in range(700)], 20), Job([1 + i % 59 for i in range(500)], 20)]
    assert_equal_both_ways(engine, long[:1])
    expected = answered(engine, [*long, *(Job(prompt, 9) for prompt in PROMPTS)])
    engine.limits = replace(engine.limits, rows=3)
    assert answered(engine, [*long, *(Job(prompt, 9) for prompt in PROMPTS)], static=True) == expected


def test_sampled_rows_draw_the_same_tokens(engine: Any) -> None:
    jobs = [Job(p, 25, temperature=0.3 * (i % 3), seed=i, top_p=1.0 - 0.2 * (i % 2)) for i, p in enumerate(PROMPTS)]
    assert_equal_both_ways(engine, jobs)


# ---- grammars -------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [4, 16])
def test_forced_tokens_and_free_ones_stand_side_by_side(monkeypatch: pytest.MonkeyPatch, wide: int) -> None:
    monkeypatch.setattr(static_steps, "_WIDE", wide)
    model = tiny_model()
    grammars = Grammars(model.chat.answer_tokens(), model.engine.vocabulary)
    kinds: list[Constraint | None] = [LABELS, DATE, RECORD, LONG, None]
    jobs = []
    for i, text in enumerate(TEXTS):
        for kind in kinds:
            matcher = grammars.matcher(kind) if kind is not None else None
            jobs.append(Job(model.encode([Message("user", text)]), 180, 0.5 * (i % 2), i, matcher))
    assert_equal_both_ways(model.engine, jobs)
    assert_equal_both_ways(model.engine, [job for job in jobs if job.matcher is not None][:4])
    assert_equal_both_ways(model.engine, jobs[3:4])


# ---- adapters and weights -------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    names = ["all layers", "another rank", "two projections", "one layer", "DoRA"]
    return {
        name: save_adapter(folder / str(seed), tiny_folder, seed, **{**PLAIN, **OTHER}[name])
        for seed, name in enumerate(names)
    }


@pytest.mark.usefixtures("sharing")
def test_adapters_and_weights_that_take_turns_never_answer_for_each_other(
    tiny: Any, adapters: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_steps, "_MOST_KEPT", 100)
    engine = tiny.engine
    plain = [path for name, path in adapters.items() if name != "DoRA"]
    whole = tmp_path / "whole"
    weights = engine.adapters.begin_whole_training(0)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.05 * torch.randn(weight.shape))
    save_weights(engine.network, whole)
    engine.adapters.end_training()

    def jobs(names: list[str | None]) -> list[Job]:
        return [Job(p, 6 + i % 3, adapter=names[i % len(names)]) for i, p in enumerate(PROMPTS)]

    lists: list[list[str | None]] = [[None], [*plain], [plain[0]], [None, plain[1]], [plain[1]], [plain[2]]]
    lists += [[str(whole)], [None], [adapters["DoRA"]], [plain[0]], [*plain[1:], None], [*plain]]
    expected = [answered(engine, jobs(names)) for names in lists]
    assert len({str(found) for found in expected}) == 9, "each changes something"
    shapes = []
    for _ in range(2):
        for names, theirs in zip(lists, expected, strict=True):
            assert answered(engine, jobs(names), static=True) == theirs
        shapes.append(set(static_decoder(engine).steps._kept))
    assert not engine.ways.given_up
    assert shapes[0] == shapes[1], "what was recorded serves again"
    shutil.copytree(plain[1], tmp_path / "rewritten")
    rewritten = str(tmp_path / "rewritten")
    assert answered(engine, jobs([rewritten]), static=True) == expected[4]
    shutil.copytree(plain[0], tmp_path / "rewritten", dirs_exist_ok=True)
    engine.forget_adapter(rewritten)
    assert answered(engine, jobs([rewritten]), static=True) == expected[2]


def test_weights_that_are_trained_themselves_are_answered_with(engine: Any) -> None:
    jobs = [Job(prompt, 8) for prompt in PROMPTS]
    assert_equal_both_ways(engine, jobs)
    before = answered(engine, jobs)
    trained = engine.adapters.begin_whole_training(0)
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(0.1 * torch.randn(weight.shape))
    changed = answered(engine, jobs)
    assert answered(engine, jobs, static=True) == changed != before
    engine.adapters.end_training()
    assert answered(engine, jobs, static=True) == before


# ---- what is kept, and what is given up -----------------------------------------------------


def test_a_shape_is_kept_for_the_next_call_and_serves_smaller_ones(engine: Any) -> None:
    jobs = [Job(prompt, 12) for prompt in PROMPTS]
    answered(engine, jobs, static=True)
    first = set(static_decoder(engine).steps._kept)
    before = steps_of(engine)
    answered(engine, jobs, static=True)
    answered(engine, jobs[:8], static=True)
    assert set(static_decoder(engine).steps._kept) == first and steps_of(engine) > before
    engine.make_room()
    assert not len(static_decoder(engine).steps) and static_decoder(engine).steps.bytes == 0


def test_rows_are_not_held_twice_and_dropped_steps_are_freed_at_once(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, left = StaticRows.take, list[int]()

    def taken(self: StaticRows, cache: RowCache, arranged: Any) -> None:
        held = [x.untyped_storage() for layer in cache.own for x in layer]
        references = [weakref.ref(x) for layer in cache.own for x in layer]
        assert all(storage.nbytes() for storage in held)
        take(self, cache, arranged)
        left.append(sum(x.untyped_storage().nbytes() for layer in cache.own for x in layer))
        assert not any(reference() is not None for reference in references)

    monkeypatch.setattr(StaticRows, "take", taken)
    gc.collect()
    gc.disable()
    try:
        answered(engine, [Job(prompt, 12) for prompt in PROMPTS], static=True)
        steps = [weakref.ref(step) for step in static_decoder(engine).steps._kept.values()]
        static_decoder(engine).steps.clear()
        assert steps and not any(step() is not None for step in steps)
    finally:
        gc.enable()
    assert left == [0] and not engine.ways.given_up


def test_kept_shapes_stay_within_their_bytes(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.limits = replace(engine.limits, cache_bytes=16 * 256 * engine.cache_bytes_per_token)
    for count in (1, 9, 3, 5):
        assert answered(engine, [Job(p, 12) for p in PROMPTS[:count]], static=True) == answered(
            engine, [Job(p, 12) for p in PROMPTS[:count]]
        )
        assert static_decoder(engine).steps.bytes <= 1.5 * engine.limits.cache_bytes
    assert len(static_decoder(engine).steps)


def test_batches_of_few_steps_are_not_recorded(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_steps, "LEAST_STEPS", 8)
    answered(engine, [Job(prompt, 8) for prompt in PROMPTS], static=True)
    assert not len(static_decoder(engine).steps)
    model = tiny_model(3)
    matcher = Grammars(model.chat.answer_tokens(), model.engine.vocabulary).matcher(
        Constraint("labels", ("no", "not", "nota"))
    )
    jobs = [Job(prompt, 60, matcher=matcher) for prompt in PROMPTS]
    answered(engine, jobs, static=True)
    assert len(static_decoder(engine).steps), "an answer may be long"
    engine.make_room()
    answered(engine, jobs, static=True)
    assert not len(static_decoder(engine).steps), "such answers were short"


def test_steps_to_come_follow_from_what_is_answered_and_from_answers_before(engine: Any) -> None:
    decoder, state = static_decoder(engine), BatchAnswers([Job(PROMPTS[0], 60)], STOPS)
    state.answers, state.new = [[1] * 5], [[1]]
    assert decoder.steps_to_come(state) == 56, "one of the five is still to be read"
    state.answers = [[1] * 30]
    decoder.learn(state)
    state.answers = [[1] * 28]
    assert decoder.steps_to_come(state) == 2
    state.answers = [[1] * 40]
    assert decoder.steps_to_come(state) == 21 and decoder.steps_to_come(BatchAnswers([Job([1], 9)], STOPS)) == 9


def test_rows_move_to_fewer_rows_only_where_many_steps_are_to_come(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_steps, "LEAST_STEPS", 2)
    jobs = [Job(prompt, 3 if i else 16) for i, prompt in enumerate(PROMPTS)]
    assert_equal_both_ways(engine, jobs)
    assert len(static_decoder(engine).steps) == 1, "13 steps to come"
    engine.make_room()
    assert_equal_both_ways(engine, [replace(job, most=30) if not i else job for i, job in enumerate(jobs)])
    assert len(static_decoder(engine).steps) == 2


@pytest.mark.parametrize("at", [1, 2, 9])
def test_a_step_that_fails_gives_the_way_up_and_loses_nothing(
    engine: Any, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    jobs = [Job(prompt, 5 + 4 * (i % 4)) for i, prompt in enumerate(PROMPTS)]
    expected = answered(engine, jobs)
    call, calls = static_steps.StaticStep.__call__, []

    def failing(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == at:
            raise RuntimeError("no kernel for this")
        return call(self, *given)

    monkeypatch.setattr(static_steps.StaticStep, "__call__", failing)
    assert answered(engine, jobs, static=True) == expected
    assert engine.ways.given_up == {"static answers": "no kernel for this"} and engine.ways.static
    assert not len(static_decoder(engine).steps), "its memory is free again"
    assert len(calls) == at


def test_a_step_that_differs_is_given_up(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(prompt, 9) for prompt in PROMPTS]
    expected = answered(engine, jobs)
    attend = static_rows.StaticRows.attend
    monkeypatch.setattr(static_rows.StaticRows, "attend", lambda *given, **more: 1.5 * attend(*given, **more))
    assert answered(engine, jobs, static=True) == expected
    assert "differ from those of a plain pass" in engine.ways.given_up["static answers"]


class _Asked(TorchDispatchMode):
    """The operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["windows in some layers", "windows and caps", "adapters"])
def test_a_recorded_step_waits_for_nothing_and_copies_nothing_from_python(
    tiny: Any, adapters: dict[str, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    work, found = static_steps.StaticStep._work, set[str]()

    def listening(self: Any, tokens: int) -> Any:
        if self.count == 1:  # buffers of adapters are made in the first pass, as before a recording
            return work(self, tokens)
        with _Asked() as asked:
            made = work(self, tokens)
        found.update(asked.names)
        return made

    monkeypatch.setattr(static_steps.StaticStep, "_work", listening)
    monkeypatch.setattr(static_rows, "LEAST_SHARED", 1)
    engine = tiny.engine if kind == "adapters" else both(kind)[1]
    names = [None, *list(adapters.values())[:3]] if kind == "adapters" else [None]
    answered(engine, [Job(p, 30, adapter=names[i % len(names)]) for i, p in enumerate(PROMPTS)], static=True)
    assert "aten.index_put_.default" in found and not engine.ways.given_up
    assert not [name for name in found if any(part in name for part in ("local_scalar", "nonzero", "lift", "unique"))]


def test_compiled_steps_that_fail_or_differ_are_given_up_alone(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(prompt, 15) for prompt in PROMPTS]
    expected = answered(engine, jobs)
    monkeypatch.setattr(static_steps, "_OFTEN", 4)

    @contextmanager
    def failing(on: bool) -> Iterator[None]:
        if on:
            raise RuntimeError("no compiler")
        yield

    @contextmanager
    def differing(on: bool) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if on:
                patch.setattr(type(engine), "logits", lambda self, hidden: logits(self, hidden).mul_(1.5))
            yield

    logits = type(engine).logits
    for taken, reason in ((failing, "no compiler"), (differing, "its numbers differ")):
        monkeypatch.setattr(static_steps.compiled_steps, "taken", taken)
        engine.ways.compiled, engine.static_decoder, engine.static_steps = True, None, None
        assert answered(engine, jobs, static=True) == expected
        assert engine.ways.given_up.pop("compiled answers").startswith(reason) and not engine.ways.given_up
        assert engine.ways.static and engine.ways.compiled


def test_where_memory_runs_out_the_batch_is_halved_and_the_way_is_kept(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(prompt, 9) for prompt in PROMPTS]
    expected = answered(engine, jobs)
    take = static_rows.StaticRows.take

    def full(self: Any, cache: Any, arranged: Any) -> None:
        if len(cache.ends) > 5:
            raise torch.OutOfMemoryError("out of memory")
        take(self, cache, arranged)

    monkeypatch.setattr(static_rows.StaticRows, "take", full)
    assert answered(engine, jobs, static=True) == expected
    assert engine.ways.static and steps_of(engine)
