"""Batch jobs: every call answered once, whatever happens to the job or to the process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rung.errors import BudgetSpent, ModelError
from rung.models.endpoint import batch_jobs
from rung.models.endpoint.batch_api import BatchReply, Exchange, line_of
from rung.models.endpoint.batch_jobs import BatchCall, BatchJobs
from rung.models.endpoint.call_cache import CallCache
from rung.models.endpoint.http_connection import ConnectionFault, Reply
from rung.models.endpoint.transport import Transport
from rung.models.purse import Purse
from rung.testing.endpoint import FakeEndpoint

pytest.importorskip("httptools")

USD = 0.001  # of every answer
Wrap = Callable[[Exchange], Exchange]


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CallCache]:
    cache = CallCache(tmp_path / "calls.sqlite")
    yield cache
    cache.close()


def calls(n: int, worst_usd: float = 0.0, start: int = 0) -> dict[str, BatchCall]:
    def body(i: int) -> dict[str, Any]:
        return {"model": "fake-1", "messages": [{"role": "user", "content": f"q{i}"}], "max_tokens": 5}

    return {f"key-{i}": BatchCall(body(i), worst_usd) for i in range(start, start + n)}


def answered(
    endpoint: FakeEndpoint,
    store: CallCache,
    wanted: Mapping[str, BatchCall],
    *,
    wrap: Wrap = lambda exchange: exchange,
    purse: Purse | None = None,
    scope: str = "here",
    said: list[str] | None = None,
    stop_after: int | None = None,
    usd_of: Callable[[Mapping[str, Any]], float | None] = lambda _: USD,
) -> dict[str, BatchReply]:
    """The replies, by a process of its own. stop_after: it is killed when it was given so many of them."""

    async def sleep(_: float) -> None:
        await asyncio.sleep(0.005)

    async def main() -> dict[str, BatchReply]:
        transport = Transport(endpoint.url)
        jobs = BatchJobs(
            wrap(transport.exchange),
            {},
            store,
            scope=scope,
            say=(said if said is not None else []).append,
            purse=purse,
            usd_of=usd_of,
            sleep=sleep,
        )
        replies: dict[str, BatchReply] = {}
        try:
            async for some in jobs.answers(wanted):
                assert not replies.keys() & some.keys()
                replies |= some
                if stop_after is not None and len(replies) >= stop_after:
                    raise Killed
        finally:
            await transport.aclose()
        return replies

    return asyncio.run(main())


def texts(replies: Mapping[str, BatchReply]) -> dict[str, str]:
    return {key: r.body["choices"][0]["message"]["content"] for key, r in replies.items() if r.status == 200}


def jobs_of(endpoint: FakeEndpoint) -> list[Any]:
    return list(endpoint._service._batches.batches.values())


def at(
    method: str, path: str, do: Callable[[], None], *, after: bool = True, times: int = 1
) -> Callable[[Exchange], Exchange]:
    """Wraps an exchange: `do` is called at the first exchanges of that kind, behind or before them."""
    seen = [0]

    def wrap(exchange: Exchange) -> Exchange:
        async def wrapped(verb: str, where: str, **more: Any) -> Reply:
            hit = (verb, where.partition("?")[0]) == (method, path) and seen[0] < times
            seen[0] += hit
            if hit and not after:
                do()
            reply = await exchange(verb, where, **more)
            if hit and after:
                do()
            return reply

        return wrapped

    return wrap


def kill() -> None:
    raise Killed


def lose() -> None:
    raise ConnectionFault("closed", "The connection was closed.")


# ---- every call is answered once ------------------------------------------------------------


def test_every_call_gets_its_own_answer_and_the_job_is_forgotten(store: CallCache) -> None:
    with FakeEndpoint({f"q{i}": f"to q{i}" for i in range(30)}) as endpoint:
        replies = answered(endpoint, store, calls(30))
        assert texts(replies) == {f"key-{i}": f"to q{i}" for i in range(30)}
        assert len(jobs_of(endpoint)) == 1 and endpoint.charged == 30 and store.jobs() == {}


def test_more_calls_than_a_file_may_hold_become_several_jobs(store: CallCache, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = calls(25)
    with FakeEndpoint() as endpoint:
        monkeypatch.setattr(batch_jobs, "MOST_CALLS", 10)
        assert len(texts(answered(endpoint, store, wanted))) == 25
        assert [len(job.lines) for job in jobs_of(endpoint)] == [10, 10, 5]
    line = len(batch_jobs.line_of("key-10", wanted["key-10"].body))
    with FakeEndpoint() as endpoint:
        monkeypatch.setattr(batch_jobs, "MOST_CALLS", 50_000)
        monkeypatch.setattr(batch_jobs, "MOST_BYTES", 12 * line)
        assert len(texts(answered(endpoint, store, wanted))) == 25
        assert [len(job.lines) for job in jobs_of(endpoint)] == [12, 12, 1]
    with FakeEndpoint() as endpoint:
        monkeypatch.setattr(batch_jobs, "MOST_BYTES", 200_000_000)
        monkeypatch.setattr(batch_jobs, "_MOST_REPLY_BYTES", 20 * (1000 + 4 * 5))
        assert len(texts(answered(endpoint, store, wanted))) == 25
        assert [len(job.lines) for job in jobs_of(endpoint)] == [20, 5]


@pytest.mark.parametrize("ways", [{"batch_fails": 0.4}, {"batch_answers": 0.6}], ids=["lines fail", "it expires"])
def test_what_a_job_did_not_answer_is_asked_again_at_most_three_times(store: CallCache, ways: dict[str, float]) -> None:
    with FakeEndpoint(**ways) as endpoint:
        replies = answered(endpoint, store, calls(40))
        assert len(replies) == 40 and 2 <= len(jobs_of(endpoint)) <= 3
        assert endpoint.charged == len(texts(replies)) > 30 and endpoint.record.paid_again() == []
        failed = [reply for reply in replies.values() if reply.status != 200]
        assert all(reply.error and reply.may_pass for reply in failed)


def test_a_call_that_is_refused_is_not_asked_again(store: CallCache) -> None:
    wanted = calls(20) | {"long": BatchCall(calls(1)["key-0"].body | {"model": "no such model"})}
    with FakeEndpoint() as endpoint:
        replies = answered(endpoint, store, wanted)
        assert len(jobs_of(endpoint)) == 1 and len(texts(replies)) == 20
        assert replies["long"].status == 404 and "no such model" in replies["long"].error
        assert not replies["long"].may_pass


def test_a_cancelled_job_keeps_what_it_answered_and_the_rest_is_asked_again(store: CallCache) -> None:
    def cancel() -> None:
        jobs_of(endpoint)[0].made -= 500.0
        endpoint._service._batches.cancel("batch_1")
        endpoint.change(batch_s=0.0)

    with FakeEndpoint(batch_s=1000.0) as endpoint:
        replies = answered(endpoint, store, calls(20), wrap=at("GET", "/batches/batch_1", cancel))
        assert len(texts(replies)) == 20 and endpoint.charged == 20
        assert [len(job.lines) for job in jobs_of(endpoint)] == [20, 10]


def test_a_job_that_the_provider_finds_faulty_ends_in_errors_that_say_why(store: CallCache) -> None:
    def spoil() -> None:
        for job in jobs_of(endpoint):
            job.errors = ["the model takes no batches"]

    with FakeEndpoint() as endpoint:
        replies = answered(endpoint, store, calls(20), wrap=at("POST", "/batches", spoil, times=9))
        assert len(jobs_of(endpoint)) == 3 and endpoint.charged == 0
        assert {reply.status for reply in replies.values()} == {0}
        assert "has failed: the model takes no batches" in replies["key-0"].error


def test_where_too_many_tokens_wait_jobs_get_smaller_and_come_one_by_one(store: CallCache) -> None:
    def wrap(exchange: Exchange) -> Exchange:
        async def wrapped(verb: str, where: str, **more: Any) -> Reply:
            reply = await exchange(verb, where, **more)
            if verb == "GET" and where.startswith("/batches/"):
                state = json.loads(reply.body)
                if state["request_counts"]["total"] > 6:
                    error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}
                    state |= {"status": "failed", "errors": {"data": [error]}}
                    state |= {"output_file_id": None, "error_file_id": None}
                    return replace(reply, body=json.dumps(state).encode())
            return reply

        return wrapped

    with FakeEndpoint() as endpoint:
        assert len(texts(answered(endpoint, store, calls(20), wrap=wrap))) == 20
        assert max(len(job.lines) for job in jobs_of(endpoint)[-3:]) <= 6


# ---- a process that is killed, a connection that breaks -------------------------------------


@pytest.mark.parametrize("after", [True, False], ids=["made", "not made"])
def test_a_job_whose_making_was_cut_short_is_found_again_or_made_anew(store: CallCache, after: bool) -> None:
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), wrap=at("POST", "/batches", kill, after=after))
        assert len(jobs_of(endpoint)) == int(after)
        assert len(texts(answered(endpoint, store, calls(20)))) == 20
        assert len(jobs_of(endpoint)) == 1 and endpoint.charged == 20 and store.jobs() == {}


def test_a_job_under_way_is_waited_for_by_the_next_command(store: CallCache) -> None:
    with FakeEndpoint(batch_s=0.2) as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), wrap=at("GET", "/batches/batch_1", kill))
        # The next command wants some of its answers, and others.
        replies = answered(endpoint, store, calls(30, start=10))
        assert set(replies) == {f"key-{i}" for i in range(40)}
        assert [len(job.lines) for job in jobs_of(endpoint)] == [20, 20] and endpoint.charged == 40


def test_a_job_is_forgotten_only_when_its_answers_have_been_taken(store: CallCache) -> None:
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), stop_after=1)
        assert list(store.jobs()) == ["batch_1"]
        assert len(texts(answered(endpoint, store, calls(20)))) == 20 and endpoint.charged == 20


def test_a_job_that_was_noted_twice_by_a_kill_is_one_job(store: CallCache) -> None:
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), stop_after=1)
        record = store.jobs()["batch_1"]
        store.drop_job("batch_1")
        store.add_job(f"pending {record['name']}", record | {"id": ""})
        store.add_job("batch_1", record)
        assert len(texts(answered(endpoint, store, calls(20)))) == 20
        assert len(jobs_of(endpoint)) == 1 and store.jobs() == {}


def test_a_reply_that_is_lost_makes_no_second_job(store: CallCache) -> None:
    with FakeEndpoint() as endpoint:
        assert len(texts(answered(endpoint, store, calls(20), wrap=at("POST", "/batches", lose)))) == 20
        assert len(jobs_of(endpoint)) == 1 and endpoint.charged == 20


def test_a_job_that_may_have_been_made_is_not_forgotten_when_the_list_of_jobs_is_refused(
    store: CallCache, tmp_path: Path
) -> None:
    def wrap(exchange: Exchange) -> Exchange:
        async def wrapped(verb: str, where: str, **more: Any) -> Reply:
            listing = verb == "GET" and where.startswith("/batches?")
            return await exchange(verb, where.replace("/batches?", "/nothing?") if listing else where, **more)

        return at("POST", "/batches", lose)(wrapped)

    purse = Purse(tmp_path / "purse.json", 1.0)
    with FakeEndpoint() as endpoint:
        with pytest.raises(ModelError):
            answered(endpoint, store, calls(20, 0.02), wrap=wrap, purse=purse)
        assert len(store.jobs()) == 1 and purse.reserved == pytest.approx(0.4)
        assert len(texts(answered(endpoint, store, calls(20, 0.02), purse=purse))) == 20
        assert len(jobs_of(endpoint)) == 1 and endpoint.charged == 20 and store.jobs() == {}


def test_a_network_that_comes_back_ends_nothing(store: CallCache) -> None:
    with FakeEndpoint() as endpoint:
        for method, path in (("POST", "/files"), ("GET", "/batches/batch_1"), ("GET", "/files/file-2/content")):
            wrap = at(method, path, lose, after=False, times=5)
            assert len(texts(answered(endpoint, store, calls(20), wrap=wrap))) == 20


def test_a_job_or_a_file_that_the_provider_has_lost_is_made_anew(store: CallCache) -> None:
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), stop_after=1)
        batches = endpoint._service._batches
        batches.files.pop(str(batches.batches["batch_1"].output))
        said: list[str] = []
        assert len(texts(answered(endpoint, store, calls(20), said=said))) == 20
        assert any("is gone, and with it the answers in it" in line for line in said)
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), stop_after=1)
        store.add_job("batch_99", store.jobs()["batch_3"] | {"id": "batch_99"})
        store.drop_job("batch_3")
        assert len(texts(answered(endpoint, store, calls(20)))) == 20


def test_jobs_of_another_model_are_left_alone(store: CallCache) -> None:
    with FakeEndpoint(batch_s=0.05) as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20), wrap=at("GET", "/batches/batch_1", kill))
        assert len(texts(answered(endpoint, store, calls(20), scope="there"))) == 20
        assert list(store.jobs()) == ["batch_1"] and len(jobs_of(endpoint)) == 2


def test_an_endpoint_without_batches_says_so_and_costs_nothing(store: CallCache, tmp_path: Path) -> None:
    def refuse(exchange: Exchange) -> Exchange:
        async def wrapped(verb: str, where: str, **more: Any) -> Reply:
            return await exchange(verb, where.replace("/files", "/nothing"), **more)

        return wrapped

    purse = Purse(tmp_path / "purse.json", 1.0)
    with FakeEndpoint() as endpoint, pytest.raises(ModelError, match=r"leave out `batch: true`"):
        answered(endpoint, store, calls(20, 0.01), wrap=refuse, purse=purse)
    assert purse.spent == purse.reserved == 0 and store.jobs() == {}


# ---- dollars --------------------------------------------------------------------------------


def test_the_worst_case_of_a_job_is_reserved_before_it_is_sent_and_settled_afterwards(
    store: CallCache, tmp_path: Path
) -> None:
    purse, held = Purse(tmp_path / "purse.json", 1.0), list[float]()
    with FakeEndpoint() as endpoint:
        look = at("POST", "/files", lambda: held.append(purse.reserved), after=False)
        answered(endpoint, store, calls(20, 0.02), wrap=look, purse=purse)
    assert held == [pytest.approx(0.4)]
    assert purse.spent == pytest.approx(20 * USD) and purse.reserved == 0


def test_what_cannot_be_reserved_at_once_is_sent_when_a_job_is_settled(store: CallCache, tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 0.1)
    with FakeEndpoint() as endpoint:
        assert len(texts(answered(endpoint, store, calls(30, 0.0049), purse=purse))) == 30
        assert [len(job.lines) for job in jobs_of(endpoint)] == [20, 10]
    assert purse.spent == pytest.approx(30 * USD)


def test_where_not_one_call_can_be_afforded_the_budget_is_spent(store: CallCache, tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 0.1)
    with FakeEndpoint() as endpoint, pytest.raises(BudgetSpent):
        answered(endpoint, store, calls(20, 0.2), purse=purse)
    assert purse.spent == purse.reserved == 0 and endpoint.charged == 0


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_a_job_of_an_earlier_command_is_counted_once(store: CallCache, tmp_path: Path, ends: str) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    with FakeEndpoint(batch_s=0.05) as endpoint:
        with pytest.raises(Killed):
            wrap = at("GET", "/batches/batch_1", kill)
            answered(endpoint, store, calls(20, 0.02), wrap=wrap, purse=purse)
        if ends == "closed":
            purse.close()
        purse = Purse(tmp_path / "purse.json", 1.0)
        assert purse.spent >= 0.4  # all that the job may cost
        before = purse.spent - 0.4
        answered(endpoint, store, calls(20, 0.02), purse=purse)
        assert purse.spent == pytest.approx(before + 20 * USD)
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20, 0.02, start=50), purse=purse, stop_after=1)
        other = Purse(tmp_path / "another run.json", 1.0)
        answered(endpoint, store, calls(20, 0.02, start=50), purse=other)
        assert other.spent == 0.0 and other.left == 1.0


def test_answers_that_were_charged_and_lost_count_as_the_most_that_they_can_cost(
    store: CallCache, tmp_path: Path
) -> None:
    purse = Purse(tmp_path / "purse.json", 2.0)
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            answered(endpoint, store, calls(20, 0.02), purse=purse, stop_after=1)
        batches = endpoint._service._batches
        batches.files.pop(str(batches.batches["batch_1"].output))
        purse.close()
        purse = Purse(tmp_path / "purse.json", 2.0)
        answered(endpoint, store, calls(20, 0.02), purse=purse)
        assert purse.spent == pytest.approx(0.4 + 20 * USD)


def test_a_job_gives_nothing_back_to_a_purse_that_was_begun_anew(store: CallCache, tmp_path: Path) -> None:
    path = tmp_path / "purse.json"
    with FakeEndpoint(batch_s=0.05) as endpoint:
        with pytest.raises(Killed):
            wrap = at("GET", "/batches/batch_1", kill)
            answered(endpoint, store, calls(20, 0.02), wrap=wrap, purse=Purse(path, 1.0))
        path.unlink()
        purse = Purse(path, 1.0)
        answered(endpoint, store, calls(20, 0.02), purse=purse)
        assert purse.spent >= 0.0 and purse.left is not None and purse.left <= 1.0


def test_a_reply_that_does_not_tell_its_charge_counts_with_the_share_that_was_reserved_for_it(
    store: CallCache, tmp_path: Path
) -> None:
    purse = Purse(tmp_path / "purse.json", 2.0)

    def told(body: Mapping[str, Any]) -> float | None:
        return None if body["choices"][0]["message"]["content"] == odd else USD

    with FakeEndpoint() as endpoint:
        odd = texts(answered(endpoint, store, calls(20)))["key-3"]
        answered(endpoint, store, calls(20, 0.02), purse=purse, usd_of=told)
    assert purse.spent == pytest.approx(0.02 + 19 * USD)


def test_a_job_that_was_never_made_gives_its_dollars_back(store: CallCache, tmp_path: Path) -> None:
    purse = Purse(tmp_path / "purse.json", 1.0)
    with FakeEndpoint() as endpoint:
        with pytest.raises(Killed):
            wrap = at("POST", "/batches", kill, after=False)
            answered(endpoint, store, calls(20, 0.02), wrap=wrap, purse=purse)
        purse.close()
        purse = Purse(tmp_path / "purse.json", 1.0)
        answered(endpoint, store, calls(20, 0.02), purse=purse)
        assert purse.spent == pytest.approx(20 * USD)


def test_half_of_a_surrogate_pair_does_not_spoil_a_file_of_calls() -> None:
    body = {"messages": [{"role": "user", "content": "half \ud83d of it, é"}]}
    assert json.loads(line_of("key", body).decode())["body"] == body
