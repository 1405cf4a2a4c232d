"""Trials: answered in blocks, scored, kept."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rung.errors import OUT_OF_MEMORY
from rung.records import read_lines
from rung.solutions.answer import BLOCK
from rung.testing import FakeModel
from rung.trials.choose import choose, screened
from rung.trials.trial import Trial, attempt, mean_score, read_predictions, try_all
from rung.types import Answer, Prediction, Request
from workshops import COLOURS, exact, workshop_of


def right(request: Request) -> str:
    return COLOURS[int(request.messages[-1].content.split()[-1]) % 3]


def test_answers_are_kept_in_whole_blocks_and_never_asked_for_twice(tmp_path: Path) -> None:
    model = FakeModel(right)
    shop = workshop_of(model, tmp_path)
    path = tmp_path / "p.jsonl"
    first = attempt(shop, shop.solution("a"), shop.inputs.dev, path)
    before = len(model.requests)
    assert attempt(shop, shop.solution("a"), shop.inputs.dev, path) == first and len(model.requests) == before
    path.write_bytes(path.read_bytes()[:-20])  # a torn block is answered again, once
    assert attempt(shop, shop.solution("a"), shop.inputs.dev, path) == first and len(model.requests) == 2 * before


def test_a_kill_while_the_file_is_rewritten_loses_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel(right)
    shop = workshop_of(model, tmp_path, train=10 + 2 * BLOCK)
    examples, path = shop.inputs.train, tmp_path / "p.jsonl"
    first = attempt(shop, shop.solution("a"), examples, path)
    path.write_bytes(path.read_bytes()[:-20])  # the last of three blocks is torn

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, step, killed)
            attempt(shop, shop.solution("a"), examples, path)
        assert len(read_predictions(path)) == len(examples) - 1
    asked = len(model.requests)
    assert attempt(shop, shop.solution("a"), examples, path) == first
    assert len(model.requests) - asked == 10, "only the torn block is answered again"


@pytest.mark.parametrize("failing", [1, BLOCK], ids=["one of a block", "all of a block"])
def test_an_answer_for_which_memory_ran_out_is_asked_for_again(tmp_path: Path, failing: int) -> None:
    full = {f"e{i}" for i in range(failing)}

    def some(request: Request) -> Any:
        number = request.messages[-1].content.split()[-1]
        return MemoryError(OUT_OF_MEMORY) if f"e{number}" in full else right(request)

    model = FakeModel(some)
    shop = workshop_of(model, tmp_path, train=2 * BLOCK)
    solution, examples, path = shop.solution("a"), shop.inputs.train, tmp_path / "p.jsonl"
    first = attempt(shop, solution, examples, path)
    assert sum(p.error is not None for p in first) == failing
    full.clear()
    model.calls.clear()
    again = attempt(shop, solution, examples, path)
    assert mean_score(again) == 1.0 and model.calls == [BLOCK], "the other block is kept"
    assert len(read_predictions(path)) == len(examples), "no answer stands twice in the file"
    assert attempt(shop, solution, examples, path) == again and model.calls == [BLOCK]
    known = attempt(shop, solution, examples, tmp_path / "q.jsonl", known=first)
    assert mean_score(known) == 1.0 and len(read_predictions(tmp_path / "q.jsonl")) == len(examples)


def test_a_failed_answer_scores_zero_and_keeps_its_error(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(lambda _: ValueError("no room")), tmp_path)
    predictions = attempt(shop, shop.solution("a"), shop.inputs.dev, tmp_path / "p.jsonl")
    assert all((p.score, p.error, p.metric_error) == (0.0, "no room", None) for p in predictions)


def test_a_metric_that_raises_scores_zero_for_that_row_and_the_row_says_why(tmp_path: Path) -> None:
    def fragile(answers: Sequence[Answer]) -> list[float]:
        if any(a.text == "blue" for a in answers):
            raise ZeroDivisionError("no blue")
        return exact(answers)

    shop = workshop_of(FakeModel(right), tmp_path, metric=fragile)
    path = tmp_path / "p.jsonl"
    predictions = attempt(shop, shop.solution("a"), shop.inputs.dev, path)
    for p in predictions:
        assert (p.score, p.metric_error) == ((0.0, "ZeroDivisionError: no blue") if p.text == "blue" else (1.0, None))
    assert sum(line["metric_error"] is not None for line in read_lines(path)) == 8
    assert read_predictions(path) == predictions


def test_known_answers_are_written_and_not_asked_for(tmp_path: Path) -> None:
    model = FakeModel(right)
    shop = workshop_of(model, tmp_path)
    known = attempt(shop, shop.solution("a"), shop.inputs.dev[:5], tmp_path / "known.jsonl")
    predictions = attempt(shop, shop.solution("a"), shop.inputs.dev, tmp_path / "p.jsonl", known=known)
    assert len(model.requests) == len(shop.inputs.dev) and predictions[:5] == known
    assert {p.id for p in read_predictions(tmp_path / "p.jsonl")} == {e.id for e in shop.inputs.dev}


def test_an_index_is_not_opened_for_answers_that_are_all_there(tmp_path: Path) -> None:
    from dataclasses import replace

    from rung.types import RetrieverSpec

    shop = workshop_of(FakeModel(right), tmp_path)
    solution = replace(shop.solution("a"), retriever=RetrieverSpec("bm25", 1, 50))
    first = attempt(shop, solution, shop.inputs.dev, tmp_path / "p.jsonl")

    def never(spec: Any) -> Any:
        raise AssertionError("opened")

    closed = replace(shop, inputs=replace(shop.inputs, open_index=never))
    assert attempt(closed, solution, closed.inputs.dev, tmp_path / "p.jsonl") == first


class Shuffled:
    """An executor that runs trials in any order, and counts."""

    def __init__(self, seed: int) -> None:
        self.counts: list[int] = []
        self.random = random.Random(seed)

    def map(self, work: Callable[[Trial], list[Prediction]], trials: Sequence[Trial]) -> list[list[Prediction]]:
        self.counts.append(len(trials))
        places = list(range(len(trials)))
        self.random.shuffle(places)
        done = {place: work(trials[place]) for place in places}
        return [done[place] for place in range(len(trials))]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_an_executor_runs_trials_changes_nothing(tmp_path: Path, seed: int) -> None:
    def some(request: Request) -> str:
        return right(request) if len(request.messages[0].content) % 3 else "?"

    def outcome(name: str, **tools: Any) -> tuple[str, list[Prediction]]:
        from dataclasses import replace

        shop = workshop_of(FakeModel(some), tmp_path / name, tools=tools)
        variants = [replace(shop.solution(f"v{i}"), instruction="x" * i) for i in (3, 4, 5, 6)]
        return choose(shop, variants).name, screened(shop.folder)

    executor = Shuffled(seed)
    assert outcome("shuffled", executor=executor) == outcome("in order")
    assert executor.counts == [4, 2], "all variants of a round are given at once"
    shop = workshop_of(FakeModel(right), tmp_path / "pair", tools={"executor": executor})
    trials = [Trial(shop.solution("a"), [e], tmp_path / f"{e.id}.jsonl") for e in shop.inputs.dev]
    assert [p.id for (p,) in try_all(shop, trials)] == [e.id for e in shop.inputs.dev]


def test_the_mean_counts_unscored_as_zero() -> None:
    one = Prediction("a", "", 0, 0, 0.0, score=1.0)
    assert mean_score([one, Prediction("b", "", 0, 0, 0.0)]) == 0.5
