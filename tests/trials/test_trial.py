"""Trials: answered in blocks, scored, kept."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import NO_REPLY, OUT_OF_MEMORY
from rung.models import metered
from rung.records import read_lines, write_lines
from rung.retrieval.library import Library
from rung.solutions.answer import BLOCK
from rung.testing import FakeModel
from rung.trials.choose import choose, screened
from rung.trials.trial import Trial, attempt, mean_score, read_predictions, try_all
from rung.types import Answer, Generation, Prediction, Request, Retriever, RetrieverSpec
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


class Remote(FakeModel):
    """A model that names the size of its blocks, which doubles with every block. silent: inputs without a reply."""

    def __init__(self, block: int, silent: set[str] | None = None) -> None:
        super().__init__(right)
        self.block, self.silent = block, silent or set()

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self.block *= 2
        return [
            Generation("", 0, 0, 30.0, "error", f"{NO_REPLY} in 30 s: 503")
            if request.messages[-1].content.split()[-1] in self.silent
            else Generation(generation.text, 9, 1, 0.1, tokens_cached=5)
            for request, generation in zip(requests, super().generate(requests), strict=True)
        ]


@pytest.mark.parametrize("wrapped", [False, True])
def test_blocks_are_as_large_as_the_model_wants_them_at_that_moment(tmp_path: Path, wrapped: bool) -> None:
    model = Remote(5)
    shop = workshop_of(metered(model) if wrapped else model, tmp_path, train=100)
    shares: list[float] = []
    shop = replace(shop, tools=replace(shop.tools, tell=lambda _, share: shares.append(share)))
    predictions = attempt(shop, shop.solution("a"), shop.inputs.train, tmp_path / "p.jsonl")
    assert model.calls == [5, 10, 20, 40, 25] and shares == [0.0, 0.05, 0.15, 0.35, 0.75]
    assert mean_score(predictions) == 1.0 and {p.tokens_cached for p in predictions} == {5}
    assert read_predictions(tmp_path / "p.jsonl") == predictions


@pytest.mark.parametrize("seed", range(5))
def test_only_missing_answers_are_asked_for_whatever_the_blocks_were_before(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "p.jsonl"
    shop = workshop_of(Remote(7), tmp_path, train=100)
    examples = shop.inputs.train
    first = attempt(shop, shop.solution("a"), examples, path)
    lines = path.read_bytes().splitlines(keepends=True)
    left = rng.sample(lines, rng.randrange(1, 99))
    path.write_bytes(b"".join(left) + b'{"id": "torn')
    model = Remote(rng.choice([1, 3, 64, 1000]))
    later = replace(shop, tools=replace(shop.tools, model=model))
    assert attempt(later, shop.solution("a"), examples, path) == first
    assert sum(model.calls) == 100 - len(left)
    assert attempt(later, shop.solution("a"), examples, path) == first and sum(model.calls) == 100 - len(left)


def test_progress_says_how_many_examples_are_answered(tmp_path: Path) -> None:
    shop, said = workshop_of(FakeModel(right), tmp_path), set()
    shop = replace(shop, tools=replace(shop.tools, tell=lambda what, _: said.add(what)))
    some = shop.inputs.dev[:2]
    attempt(shop, shop.solution("p"), some, tmp_path / "two.jsonl")
    attempt(shop, shop.solution("p"), some[:1], tmp_path / "one.jsonl")
    assert said == {"answering p, 2 examples", "answering p, 1 example"}


def test_calls_without_a_reply_are_made_again_and_no_others(tmp_path: Path) -> None:
    model = Remote(16, silent={"3", "40", "41"})
    shop = workshop_of(model, tmp_path, train=60)
    solution, examples, path = shop.solution("a"), shop.inputs.train, tmp_path / "p.jsonl"
    first = attempt(shop, solution, examples, path)
    assert [p.id for p in first if p.error] == ["e3", "e40", "e41"] and mean_score(first) == 57 / 60
    model.silent = {"41"}
    model.calls.clear()
    again = attempt(shop, solution, examples, path)
    assert model.calls == [3] and [p.id for p in again if p.error] == ["e41"]
    assert len(read_predictions(path)) == 60, "no answer stands twice in the file"
    known = attempt(shop, solution, examples, tmp_path / "q.jsonl", known=again)
    assert model.calls == [3, 1] and [p.id for p in known] == [e.id for e in examples]


def test_answers_of_an_older_version_are_read(tmp_path: Path) -> None:
    shop = workshop_of(FakeModel(right), tmp_path)
    path = tmp_path / "p.jsonl"
    first = attempt(shop, shop.solution("a"), shop.inputs.dev, path)
    write_lines(path, ({k: v for k, v in line.items() if k != "tokens_cached"} for line in read_lines(path)))
    assert read_predictions(path) == first


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


def test_an_answer_that_a_judge_gave_no_reply_about_is_scored_again_and_no_other(tmp_path: Path) -> None:
    from rung.evaluation.scorer import NoScore, Scorer
    from rung.types import MetricInfo

    silent: set[str] = set()
    seen: list[str] = []

    def judge(answers: Sequence[Answer]) -> list[float]:
        seen.extend(a.query.id for a in answers)
        if silent & {a.query.id for a in answers}:
            raise NoScore(f"{NO_REPLY} from host (503)")
        return [1.0 for _ in answers]

    model = FakeModel(right)
    model.block = 64  # type: ignore[attr-defined]
    shop = workshop_of(model, tmp_path)
    shop = replace(shop, tools=replace(shop.tools, scorer=Scorer(MetricInfo("judge", judge, needs_judge=True))))
    examples, path = shop.inputs.dev[:6], tmp_path / "p.jsonl"
    silent.add(examples[3].id)
    first = attempt(shop, shop.solution("a"), examples, path)
    assert [p.score for p in first] == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    silent.clear()
    seen.clear()
    again = attempt(shop, shop.solution("a"), examples, path)
    assert [p.score for p in again] == [1.0] * 6 and seen == [examples[3].id]


def test_known_answers_are_written_and_not_asked_for(tmp_path: Path) -> None:
    model = FakeModel(right)
    shop = workshop_of(model, tmp_path)
    known = attempt(shop, shop.solution("a"), shop.inputs.dev[:5], tmp_path / "known.jsonl")
    predictions = attempt(shop, shop.solution("a"), shop.inputs.dev, tmp_path / "p.jsonl", known=known)
    assert len(model.requests) == len(shop.inputs.dev) and predictions[:5] == known
    assert {p.id for p in read_predictions(tmp_path / "p.jsonl")} == {e.id for e in shop.inputs.dev}


def test_an_index_is_not_opened_for_answers_that_are_all_there(tmp_path: Path) -> None:

    shop = workshop_of(FakeModel(right), tmp_path)
    solution = replace(shop.solution("a"), retriever=RetrieverSpec("bm25", 1, 50))
    first = attempt(shop, solution, shop.inputs.dev, tmp_path / "p.jsonl")

    class Closed(Library):
        def search(self, spec: RetrieverSpec) -> Retriever:
            raise AssertionError("opened")

    closed = replace(shop, inputs=replace(shop.inputs, library=Closed()))
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
