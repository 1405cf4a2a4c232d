"""Latency as a client sees it: one request at a time, or as many at once as the task names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hashed_embedder import Hashed
from rung.errors import NO_REPLY, BudgetSpent
from rung.ladder import candidate_costs
from rung.ladder.candidate_costs import machine_seconds, measure_latency
from rung.ladder.climbed import Built
from rung.records import read_json
from rung.retrieval.dense import Dense
from rung.retrieval.fused import Fused
from rung.retrieval.library import SearchedBy
from rung.runs import Files
from rung.testing import FakeModel
from rung.types import Decoding, Document, Example, Generation, Prediction, Request, RetrieverSpec, Score, Solution

DEV = tuple(Example(f"e{i}", f"question {i}", str(i), (str(i),)) for i in range(20))
SEEN = tuple(Prediction(e.id, "7", 100, 1, 0.1, tokens_cached=40) for e in DEV)
FEW_SHOT = Built(Solution("few_shot", "Answer.", Decoding(8)), SEEN, Score(0.5, 0.4, 0.6, 20))


class Endpoint(FakeModel):
    """A FakeModel whose requests can be timed. fails: every so many requests one gets no reply."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__(lambda _: "7")
        self.asked: list[tuple[int, int]] = []
        self.fails = fails

    def timed(self, requests: Sequence[Request], concurrency: int) -> list[Generation]:
        self.asked.append((len(requests), concurrency))
        failed = Generation("", 0, 0, 600.0, "error", f"{NO_REPLY}: status 500")
        return [
            failed if self.fails and i % self.fails == 0 else Generation("7", 9, 1, 0.5 + i / 100, first_token_s=0.2)
            for i in range(len(requests))
        ]


def timed(
    folder: Path, model: FakeModel, concurrency: int, left: float | None = None, each: float = 0.0, **more: Any
) -> Any:
    """latency.json of a solution. left: dollars in the purse. each: dollars that a request is expected to cost. more:
    built and library, where they differ from FEW_SHOT and none."""
    run: Any = SimpleNamespace(
        files=Files(folder),
        listener=SimpleNamespace(progress=lambda *_: None),
        model=model,
        inputs=SimpleNamespace(dev=DEV, task=SimpleNamespace(concurrency=concurrency), library=more.get("library")),
        ledger=SimpleNamespace(purse=None if left is None else SimpleNamespace(left=left)),
    )
    measure_latency(run, replace(more.get("built", FEW_SHOT), usd_per_answer=each))
    return read_json(folder / "solutions" / "few_shot" / "latency.json") or {}


@pytest.mark.parametrize(("concurrency", "asked"), [(1, 16), (4, 16), (10, 40)])
def test_an_endpoint_is_timed_with_as_many_requests_in_flight_as_the_task_names(
    tmp_path: Path, concurrency: int, asked: int
) -> None:
    model = Endpoint()
    found = timed(tmp_path, model, concurrency)
    assert model.asked == [(asked, concurrency)] and model.calls == []
    assert (found["n"], found["failed"], found["concurrency"]) == (asked, 0, concurrency)
    assert found["first_token_p50"] == found["first_token_p95"] == 0.2
    assert 0.5 < found["p50"] < found["p95"] < 0.5 + asked / 100 and len(found["seconds"]) == asked
    assert found["tokens_cached"] == 40


def test_requests_that_fail_are_counted_and_do_not_make_latency_look_longer_or_shorter(tmp_path: Path) -> None:
    found = timed(tmp_path, Endpoint(fails=4), 1)
    assert (found["n"], found["failed"]) == (12, 4) and found["p95"] < 1


def test_where_no_answer_comes_there_is_no_latency(tmp_path: Path) -> None:
    found = timed(tmp_path, Endpoint(fails=1), 1)
    assert (found["n"], found["failed"]) == (0, 16) and "p50" not in found and machine_seconds(found) == []


def test_no_more_requests_are_timed_than_half_of_the_dollars_that_are_left_allow(tmp_path: Path) -> None:
    model = Endpoint()
    assert timed(tmp_path / "a", model, 1, left=1.0, each=0.05)["n"] == 10
    assert timed(tmp_path / "b", model, 1, left=0.0, each=0.05)["n"] == 0
    assert timed(tmp_path / "c", model, 1, left=0.0)["n"] == 16
    assert [n for n, _ in model.asked] == [10, 16]


def test_a_budget_that_ends_while_requests_are_timed_ends_the_timing_alone(tmp_path: Path) -> None:
    class Dear(Endpoint):
        def timed(self, requests: Sequence[Request], concurrency: int) -> list[Generation]:
            raise BudgetSpent("the budget in dollars does not suffice")

    assert timed(tmp_path, Dear(), 1)["n"] == 0


@pytest.mark.parametrize("concurrency", [1, 4, 50])
def test_on_this_machine_requests_at_once_are_one_batch_and_each_takes_as_long_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    clock, sizes = [0.0], list[int]()

    def answer(_: object, __: object, queries: Sequence[object], **___: object) -> None:
        sizes.append(len(queries))
        clock[0] += 0.1 * len(queries)

    monkeypatch.setattr("rung.solutions.answer.answer", answer)
    monkeypatch.setattr("rung.ladder.candidate_costs.time.perf_counter", lambda: clock[0])
    found = timed(tmp_path, FakeModel(lambda _: "7"), concurrency)
    size = min(concurrency, len(DEV))  # no more can be asked at once without asking the same twice
    assert set(sizes) == {size} and found["concurrency"] == size
    assert found["n"] == size * (len(sizes) - 1) and found["p50"] == pytest.approx(0.1 * size)
    # The machine is paid for once for all that it answers at once.
    assert machine_seconds(found) == pytest.approx([0.1] * found["n"])
    assert found["failed"] == 0 and "first_token_p50" not in found


def test_what_an_index_keeps_of_dev_queries_does_not_make_latency_look_shorter(tmp_path: Path) -> None:
    embedder, passages = Hashed(), (Document("a", "question 1"), Document("b", "question 2"))
    dense = Dense(embedder, passages)
    dense.search([e.query for e in DEV], 1)
    embedder.texts.clear()
    spec = RetrieverSpec("fused", 1, 100)
    retrieving = replace(FEW_SHOT, solution=replace(FEW_SHOT.solution, retriever=spec))
    library = SearchedBy(passages, Fused([dense], passages))
    timed(tmp_path, FakeModel(lambda _: "7"), 2, built=retrieving, library=library)
    assert embedder.texts[:4] == [e.input for e in DEV[:4]] and embedder.texts.count(DEV[0].input) > 1


def test_older_records_are_of_one_request_at_a_time() -> None:
    assert machine_seconds({"seconds": [1.0, 2.0]}) == [1.0, 2.0] and machine_seconds({}) == []
    assert candidate_costs._percentiles("", []) == {}
