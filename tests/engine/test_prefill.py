"""Prompts that are read in parts, so that memory is bounded, answer as those that are read at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_attention_kinds import both, ids

from rung.engine.batch import Batch
from rung.engine.decode import _adapt_limits, decode, logprobs
from rung.engine.masked_view import MOST_DENSE
from rung.engine.memory import Shortage
from rung.engine.prefill import Job, SharedPrefixes, _mixable, cut, prefill
from rung.engine.tree_engine import TreeEngine
from rung.engine.ways import ANSWERS, Ways
from rung.testing import tiny_model

START = ids(40, 0)
PROMPTS = [START + ids(n, n) for n in (3, 50, 9, 120, 1, 30, 31)] + [START + START + ids(n, 9) for n in (4, 70, 6)]


@pytest.fixture(scope="module")
def engine() -> Any:
    return tiny_model(3).engine


def answered(engine: TreeEngine, jobs: list[Job]) -> dict[int, Any]:
    engine.clear_prefix_cache()
    return {place: tokens for batch in decode(engine, jobs, {2, 7}) for place, tokens in batch}


@pytest.mark.parametrize("most", [1, 7, 40, 100])
@pytest.mark.parametrize("rows", [1, len(PROMPTS)])
def test_prompts_in_parts_answer_as_at_once(engine: Any, monkeypatch: pytest.MonkeyPatch, most: int, rows: int) -> None:
    jobs = [Job(prompt, 9) for prompt in PROMPTS[-rows:]]
    expected = answered(engine, jobs)
    lengths: list[int] = []
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", lambda given, *more: (lengths.append(len(given)), forward(given, *more))[1])
    monkeypatch.setattr(engine, "most_tokens", lambda known: most)
    assert answered(engine, jobs) == expected
    assert max(lengths) <= max(most, len(jobs)), "a decode step has a token of each row"


def test_parts_of_a_network_with_windows_have_the_states_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = both("windows and caps")
    jobs = [Job(prompt, 9) for prompt in PROMPTS]
    found = []
    for most in (10_000, 25):
        monkeypatch.setattr(engine, "most_tokens", lambda known, most=most: most)
        with torch.inference_mode():
            shared = SharedPrefixes(engine, [None] * len(jobs), [job.prompt for job in jobs])
            _, last, order = prefill(engine, jobs, list(range(len(jobs))), shared)
        found.append(last[torch.tensor(order).argsort()])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_answers_are_scored_in_parts_that_one_pass_reads(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(prompt, ids(3, i)) for i, prompt in enumerate(PROMPTS)]
    expected = logprobs(engine, None, rows)
    lengths: list[int] = []
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", lambda given, *more: (lengths.append(len(given)), forward(given, *more))[1])
    monkeypatch.setattr(engine, "most_tokens", lambda known: 150)
    for found, wanted in zip(logprobs(engine, None, rows), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert len(lengths) > 2 and max(lengths) <= 150


def test_a_fused_pass_is_short_enough_for_a_mask_that_is_written_out(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.ways, "fused", True)
    for known in (0, 500, 8_000, 60_000):
        most = engine.most_tokens(known)
        assert 256 <= most <= 2_048 and most * (known + most) <= MOST_DENSE


def test_with_gradients_a_long_prefix_is_one_pass(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "most_tokens", lambda known: 8)
    with torch.enable_grad():
        assert len(engine.compute(PROMPTS[0]).ids) == len(PROMPTS[0])
    lengths: list[int] = []
    forward = engine.forward
    monkeypatch.setattr(engine, "forward", lambda given, *more: (lengths.append(len(given)), forward(given, *more))[1])
    engine.compute(PROMPTS[0])
    assert lengths == [len(PROMPTS[0])], "one pass, so that its gradients are those of one"


@pytest.mark.parametrize("path", ["recorded steps", "plain passes"])
def test_batches_leave_room_for_the_buffers_of_recorded_steps(
    engine: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(engine, "ways", Ways(static=path == "recorded steps"))
    jobs = [Job(ids(9, i), 1) for i in range(16)]
    monkeypatch.setattr(engine, "room_bytes", lambda: 8 * 10 * engine.cache_bytes_per_token)  # eight rows of ten tokens
    sizes = [len(batch) for batch in cut(engine, jobs, dict.fromkeys(range(16), 9), list(range(16)))]
    assert sizes == ([4] * 4 if path == "recorded steps" else [8] * 2)
    monkeypatch.setattr(engine, "limits", replace(engine.limits, rows=99, cache_bytes=engine.room_bytes()))
    monkeypatch.setattr(engine, "shortage", shortage := Shortage(before=engine.limits))
    batch = Batch(list(range(sizes[0])), dict.fromkeys(range(16), 9), lambda part: [])
    _adapt_limits(engine, jobs, batch, [batch.places], [])
    assert shortage.full == 1, "such a batch counts as one that used its limits: after some of them they rise again"
    engine.ways.give_up("static", "differs", of=ANSWERS)
    assert len(next(iter(cut(engine, jobs, dict.fromkeys(range(16), 9), list(range(16)))))) == 8


def test_an_adapter_is_looked_at_once_for_all_of_its_prompts(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(engine.adapters, "mixable", lambda adapter: bool(asked.append(adapter)) or adapter != "odd")
    jobs = [Job([1, 2], 1, adapter=[None, "even", "odd"][i % 3]) for i in range(30)]
    groups = _mixable(engine, jobs)
    assert asked == [None, "even", "odd"] and [len(places) for places, _ in groups] == [20, 10]
