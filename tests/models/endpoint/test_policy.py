from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import pytest

from rung.models.endpoint.gate import FIRST_LIMIT
from rung.models.endpoint.http_connection import OnData
from rung.models.endpoint.policy import BadReply, CallFailed, Calls, Refused
from rung.models.endpoint.rate_limits import seconds_of, wait_asked, wait_for_refill
from rung.models.endpoint.transport import UNREACHABLE, ConnectionFault, Headers, Reply

T = TypeVar("T")
NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: its clock jumps to the next timer."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


def clock() -> float:
    return asyncio.get_running_loop().time()


def reply(status: int = 200, body: bytes = b"ok", seconds: float = 0.0, **headers: str) -> Reply:
    return Reply(status, {k.replace("_", "-"): v for k, v in headers.items()}, body, seconds, seconds)


class Fake:
    """A server in virtual time. answer: gets the number of the request, from 0, and returns or raises its end."""

    def __init__(self, answer: Callable[[int], Reply | ConnectionFault], seconds: float = 1.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.sent: list[float] = []
        self.timeouts: list[float] = []
        self.running = self.peak = 0
        self.most_connections = 1000

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Headers,
        body: bytes | None = None,
        timeout_s: float,
        on_data: OnData | None = None,
    ) -> Reply:
        number = len(self.sent)
        self.sent.append(clock())
        self.timeouts.append(timeout_s)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            end = self.answer(number)
            seconds = end.seconds if isinstance(end, Reply) and end.seconds else self.seconds
            await asyncio.sleep(min(seconds, timeout_s))
            if seconds > timeout_s:
                raise ConnectionFault("timeout", "late")
            if isinstance(end, ConnectionFault):
                raise end
            if on_data:
                on_data(end.body, seconds)
            return Reply(end.status, end.headers, end.body, seconds, seconds)
        finally:
            self.running -= 1


def text(reply: Reply) -> str:
    if reply.body == b"bad":
        raise BadReply("invalid JSON")
    return reply.body.decode()


def calls_to(fake: Fake, in_flight: int | None = 4, timeout_s: float = 600.0, draw: float = 0.5) -> Calls:
    return Calls(fake, in_flight, timeout_s, now=lambda: NOW, draw=lambda: draw)


async def ask(calls: Calls, **more: Any) -> str:
    return await calls.call("/chat", b"{}", accept=text, headers={}, **more)


def script(*ends: Reply | ConnectionFault) -> Callable[[int], Reply | ConnectionFault]:
    """These ends in order, the last one for ever."""
    return lambda number: ends[min(number, len(ends) - 1)]


FAULTS: list[tuple[Reply | ConnectionFault, str]] = [
    (reply(500), "500"),
    (reply(503), "503"),
    (reply(529), "529"),
    (reply(408), "408"),
    (reply(409), "409"),
    (reply(425), "425"),
    (reply(429), "429"),
    (reply(200, b"bad"), "invalid JSON"),
    (ConnectionFault("closed", "x"), "closed"),
    (ConnectionFault("truncated", "x"), "truncated"),
    (ConnectionFault("connection refused", "x"), "connection refused"),
]


@pytest.mark.parametrize(("end", "kind"), FAULTS, ids=[kind for _, kind in FAULTS])
def test_what_may_pass_is_tried_again_and_counted(end: Reply | ConnectionFault, kind: str) -> None:
    async def go() -> None:
        fake = Fake(script(end, end, reply()))
        calls = calls_to(fake)
        assert await ask(calls) == "ok"
        assert calls.faults == {kind: 2} and (calls.sent, calls.answered) == (3, 1)

    run(go())


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 301, 307])
def test_what_no_retry_cures_is_refused_at_once(status: int) -> None:
    body = json.dumps({"error": {"message": "No such\nmodel", "code": "model_not_found"}})

    async def go() -> None:
        fake = Fake(script(reply(status, body.encode(), location="http://elsewhere/")))
        calls = calls_to(fake)
        with pytest.raises(Refused) as raised:
            await ask(calls)
        assert raised.value.status == status and calls.sent == 1 and calls.faults == {str(status): 1}
        if status >= 400:
            assert raised.value.detail == body and str(raised.value) == f"HTTP {status}: No such model"
        else:
            assert "http://elsewhere/" in raised.value.detail

    run(go())


def test_a_want_of_money_that_the_endpoint_says_will_pass_is_waited_for() -> None:
    async def go() -> None:
        calls = calls_to(Fake(script(reply(402, b"in-flight budget", retry_after="7"), reply())))
        assert await ask(calls) == "ok"
        assert clock() >= 7 and calls.limit == 2

    run(go())


class Choosy(Fake):
    """It answers all but the calls to /fail."""

    def __init__(self, end: Reply | ConnectionFault) -> None:
        super().__init__(lambda _: self.end)
        self.failing = end
        self.end: Reply | ConnectionFault = end

    async def exchange(self, method: str, path: str, **more: Any) -> Reply:
        self.end = self.failing if path == "/fail" else reply()
        return await super().exchange(method, path, **more)


@pytest.mark.parametrize("end", [reply(500), reply(200, b"bad"), ConnectionFault("closed", "x")])
def test_a_call_that_always_fails_in_the_same_way_while_others_are_answered_is_given_up(
    end: Reply | ConnectionFault,
) -> None:
    async def go() -> None:
        calls = calls_to(Choosy(end))
        failing = asyncio.create_task(calls.call("/fail", b"{}", accept=text, headers={}))
        while not failing.done():
            await ask(calls)
        with pytest.raises(CallFailed) as raised:
            await failing
        assert raised.value.attempts == 8 and clock() < 60

    run(go())


@pytest.mark.parametrize(("status", "others"), [(500, 0), (503, 9)])
def test_a_call_is_not_given_up_where_no_other_is_answered_or_the_endpoint_has_too_much_to_do(
    status: int, others: int
) -> None:
    async def go() -> None:
        fake = Choosy(reply(status))
        calls = calls_to(fake)
        failing = asyncio.create_task(calls.call("/fail", b"{}", accept=text, headers={}))
        for _ in range(others):
            await asyncio.sleep(10)
            await ask(calls)
        await asyncio.sleep(200)
        fake.failing = reply()
        assert await failing == "ok" and calls.faults[str(status)] > 8

    run(go())


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}, True),
        ({"error": {"code": "billing_hard_limit_reached"}}, True),
        ({"error": {"message": "Insufficient balance"}}, True),
        ({"error": {"message": "Request too large for m on tokens per min (TPM): Limit 9, Requested 12."}}, True),
        (
            [{"error": {"message": "You exceeded your current quota, please check your plan and billing details."}}],
            False,
        ),
        ({"error": {"code": "rate_limit_exceeded"}}, False),
    ],
)
def test_no_money_or_too_large_a_request_is_no_rate_limit(body: Any, refused: bool) -> None:
    async def go() -> None:
        calls = calls_to(Fake(script(reply(429, json.dumps(body).encode()), reply())))
        if refused:
            with pytest.raises(Refused):
                await ask(calls)
            assert calls.sent == 1 and calls.limit == 4
        else:
            assert await ask(calls) == "ok"

    run(go())


def test_what_accept_refuses_is_not_tried_again_and_its_other_errors_pass_through() -> None:
    def refuse(reply: Reply) -> str:
        raise Refused(400, "an error in the body")

    def broken(reply: Reply) -> str:
        raise ZeroDivisionError

    async def go() -> None:
        calls = calls_to(Fake(script(reply())))
        with pytest.raises(Refused):
            await calls.call("/x", b"", accept=refuse, headers={})
        with pytest.raises(ZeroDivisionError):
            await calls.call("/x", b"", accept=broken, headers={})
        assert calls.faults == {"400": 1} and calls.sent == 2
        assert calls._gate.running == 0

    run(go())


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "1.5"}, b"", 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, b"", 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:09 GMT"}, b"", 9.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:09 GMT", "date": "Fri, 15 Jan 2027 08:00:05 GMT"}, b"", 4.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, b"", 0.0),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "nan"}, b"", None),
        ({"retry-after": "-3"}, b"", None),
        ({}, b'[{"error": {"details": [{"retryDelay": "32.5s"}]}}]', 32.5),
        ({}, b"", None),
    ],
)
def test_how_long_an_endpoint_asks_to_wait(headers: Mapping[str, str], body: bytes, seconds: float | None) -> None:
    assert wait_asked(headers, body, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("20", 20.0),
        ("2027-01-15T08:00:30Z", 30.0),
        ("2027-01-15T08:00:30", 30.0),
        (str(int(NOW) + 5), 5.0),
        (str((int(NOW) + 5) * 1000), 5.0),
        ("", None),
        ("1x", None),
        ("s", None),
        ("Mon, 01 Jan 2027 00:00:00 +99999999999999999999", None),
    ],
)
def test_the_forms_of_a_duration(text: str, seconds: float | None) -> None:
    assert seconds_of(text, NOW) == seconds


def limits(limit: str | None, remaining: str, reset: str, of: str = "requests") -> dict[str, str]:
    told = {f"x-ratelimit-remaining-{of}": remaining, f"x-ratelimit-reset-{of}": reset}
    return told | ({f"x-ratelimit-limit-{of}": limit} if limit else {})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        (limits("10000", "9000", "6s"), 0.0),
        (limits("10000", "0", "60s"), 3.0),  # a twentieth of it
        (limits("10000", "100", "60s"), 3.0),
        (limits("3", "0", "60s"), 20.0),  # one request's share
        (limits(None, "0", "1.5s"), 1.5),
        (limits(None, "0", "6m0s"), 60.0),  # no longer than this without a refusal
        (limits("90000", "5", "40s", "tokens"), 2.0),
        (limits("10", "0", "10s") | limits("90000", "5", "40s", "tokens"), 2.0),
        (limits("10", "0", ""), 0.0),
        (limits("0", "0", "60s"), 0.0),  # as gateways say that there is no limit
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-limit": "50"}, 0.0),
        (
            {
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-limit": "50000",
                "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:01:00Z",
            },
            3.0,
        ),
    ],
)
def test_an_allowance_that_is_spent_is_waited_for(headers: Mapping[str, str], seconds: float) -> None:
    assert wait_for_refill(headers, NOW) == pytest.approx(seconds)


def test_a_pause_that_is_asked_for_holds_for_all_calls() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(429, retry_after="30") if n == 0 else reply())
        calls = calls_to(fake, in_flight=2)
        assert await asyncio.gather(*(ask(calls) for _ in range(50))) == ["ok"] * 50
        # The other of the first two was on its way; all later ones come 30 s later, and a little.
        assert fake.sent[:2] == [0.0, 0.0] and 31.0 <= min(fake.sent[2:]) <= 34.0
        assert calls.sent == 51

    run(go())


def test_a_spent_allowance_pauses_before_anything_is_refused() -> None:
    async def go() -> None:
        fake = Fake(lambda n: Reply(200, limits(None, "0", "5s"), b"ok", 0, 0) if n == 0 else reply())
        calls = calls_to(fake, in_flight=1)
        await asyncio.gather(*(ask(calls) for _ in range(3)))
        assert fake.sent == [0.0, 6.0, 7.0] and not calls.faults

    run(go())


def test_without_a_hint_pauses_grow_while_nothing_is_answered() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(429) if n < 6 else reply(), seconds=0.001)
        await ask(calls_to(fake, draw=1.0))
        waits = [later - earlier for earlier, later in zip(fake.sent, fake.sent[1:], strict=False)]
        assert waits == pytest.approx([0.501, 1.001, 2.001, 4.001, 8.001, 16.001])

    run(go())


def test_a_refusal_for_the_rate_halves_once_a_round_and_5xx_never() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(429) if n < 64 else reply(500) if n < 200 else reply())
        calls = calls_to(fake, in_flight=64)
        asked = [asyncio.create_task(ask(calls)) for _ in range(64)]
        await asyncio.sleep(1.01)
        assert calls.faults["429"] == 64 and calls.limit == 32
        await asyncio.gather(*asked)
        assert 32 <= calls.limit <= 64 and calls.faults["500"] == 136

    run(go())


def test_the_named_number_of_calls_is_kept_and_never_passed() -> None:
    async def go() -> None:
        fake = Fake(script(reply()))
        calls = calls_to(fake, in_flight=7)
        await asyncio.gather(*(ask(calls) for _ in range(100)))
        assert fake.peak == 7 == calls.limit and clock() == 15.0  # ceil(100 / 7) rounds

    run(go())


def test_a_halved_limit_grows_back_one_a_round() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(429, retry_after="1") if n == 0 else reply())
        calls = calls_to(fake, in_flight=20)
        work = asyncio.gather(*(ask(calls) for _ in range(2000)))
        await asyncio.sleep(6.5)  # the refusal, the pause and about four rounds
        assert 12 <= calls.limit <= 15
        await work
        assert calls.limit == 20

    run(go())


def test_an_unnamed_number_of_calls_doubles_until_the_endpoint_refuses() -> None:
    """An endpoint that allows 200 at once, and says nothing else."""

    async def go() -> None:
        fake = Fake(lambda n: reply(429) if fake.running > 200 else reply(), seconds=0.05)
        calls = Calls(fake, None, draw=random.Random(1).random)
        await asyncio.gather(*(ask(calls) for _ in range(20_000)))
        assert fake.sent[FIRST_LIMIT - 1] == 0.0 and fake.sent[FIRST_LIMIT] == pytest.approx(0.05)
        assert calls.limit > 100 and calls.answered == 20_000
        ideal = 20_000 * 0.05 / 200
        assert clock() < 2 * ideal

    run(go())


def test_a_server_that_computes_one_after_another_is_not_buried() -> None:
    async def go() -> None:
        free_at = 0.0

        def answer(number: int) -> Reply:
            nonlocal free_at
            free_at = max(free_at, clock()) + 1.0
            return reply(seconds=free_at - clock())

        fake = Fake(answer)
        calls = Calls(fake, None)
        await asyncio.gather(*(ask(calls) for _ in range(400)))
        assert fake.peak <= 4 * FIRST_LIMIT and not calls.faults
        assert clock() == pytest.approx(400.0)

    run(go())


def test_longer_answers_later_do_not_keep_the_number_of_calls_small() -> None:
    """A few short answers, and then answers of ten times their length from a server with room for all."""

    async def go() -> None:
        fake = Fake(lambda n: reply(seconds=0.2 if n < 20 else 2.0))
        calls = Calls(fake, None)
        await asyncio.gather(*(ask(calls) for _ in range(20)))
        await asyncio.gather(*(ask(calls) for _ in range(5000)))
        assert calls.limit > 300

    run(go())


def test_the_deadline_ends_a_call_with_its_last_fault() -> None:
    async def go() -> None:
        fake = Fake(script(reply(), reply(500, b'{"error": {"message": "down"}}')))
        calls = calls_to(fake, timeout_s=60.0)
        await ask(calls)
        begun = clock()
        with pytest.raises(CallFailed, match=r"500 after \d+ attempts: down") as raised:
            await ask(calls)
        assert 30 < clock() - begun <= 60 and raised.value.attempts == len(fake.sent) - 1
        assert raised.value.kind not in UNREACHABLE and calls.faults == {"500": raised.value.attempts}

    run(go())


def test_a_hanging_exchange_leaves_time_for_a_second_one() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(seconds=1e6) if n == 0 else reply())
        calls = calls_to(fake, timeout_s=100.0)
        assert await ask(calls) == "ok"
        assert fake.timeouts[0] == 50.0 and calls.faults == {"timeout": 1}

    run(go())


def test_the_queue_does_not_count_into_the_deadline() -> None:
    async def go() -> None:
        calls = calls_to(Fake(script(reply()), seconds=10.0), in_flight=1, timeout_s=30.0)
        assert await asyncio.gather(*(ask(calls) for _ in range(20))) == ["ok"] * 20

    run(go())


def test_a_call_may_ask_for_fewer_attempts_and_less_time() -> None:
    async def go() -> None:
        calls = calls_to(Fake(script(reply(500))))
        with pytest.raises(CallFailed) as raised:
            await ask(calls, attempts=2)
        assert raised.value.attempts == 2
        with pytest.raises(CallFailed):
            await ask(calls, timeout_s=3.0)
        assert clock() < 10

    run(go())


def test_an_address_where_nothing_ever_answers_fails_fast() -> None:
    async def go() -> None:
        fake = Fake(script(ConnectionFault("connection refused", "Nothing there.")), seconds=0.001)
        calls = calls_to(fake, in_flight=50)
        ends = await asyncio.gather(*(ask(calls) for _ in range(2000)), return_exceptions=True)
        assert all(isinstance(end, CallFailed) and end.kind in UNREACHABLE for end in ends)
        assert clock() < 6.0 and calls.faults["connection refused"] == len(fake.sent) < 3000

    run(go())


def test_an_address_that_answered_before_is_waited_for() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply() if n == 0 or clock() > 100 else ConnectionFault("connection refused", "restarts"))
        calls = calls_to(fake)
        assert [await ask(calls), await ask(calls)] == ["ok", "ok"] and clock() > 100

    run(go())


def test_an_endpoint_that_fell_silent_does_not_cost_every_call_its_whole_time() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply() if n < 4 or clock() > 700 else reply(500), seconds=0.01)
        calls = calls_to(fake, in_flight=4, timeout_s=600.0)
        ends = await asyncio.gather(*(ask(calls) for _ in range(100)), return_exceptions=True)
        assert sum(isinstance(end, CallFailed) for end in ends) > 50
        assert clock() < 1000  # not 25 times 600
        if clock() < 701:
            await asyncio.sleep(100)
        assert await ask(calls) == "ok"

    run(go())


def test_a_pause_longer_than_a_call_may_take_ends_all_that_wait() -> None:
    async def go() -> None:
        fake = Fake(script(reply(429, retry_after="86400")))
        calls = calls_to(fake, in_flight=2)
        ends = await asyncio.gather(*(ask(calls) for _ in range(1000)), return_exceptions=True)
        assert all(isinstance(end, CallFailed) and end.kind == "429" for end in ends)
        assert len(fake.sent) == 2 and clock() < 2.0 and calls._gate.waiting == 0
        with pytest.raises(CallFailed, match="no more calls"):
            await ask(calls)

    run(go())


def test_a_kept_connection_that_was_closed_costs_no_time_and_no_attempt_once_a_call() -> None:
    async def go() -> None:
        stale = ConnectionFault("closed", "x")
        stale.stale = True
        fake = Fake(script(stale, reply(), stale, stale, reply()))
        calls = calls_to(fake)
        assert await ask(calls, attempts=1) == "ok" and clock() == 2.0
        assert await ask(calls, attempts=2) == "ok" and clock() > 5.0, "the second one in a row is waited for"
        assert calls.faults == {"closed": 3} and calls.sent == len(fake.sent) == 5

    run(go())


def test_cancelled_calls_give_their_place_back_wherever_they_are() -> None:
    async def go() -> None:
        fake = Fake(lambda n: reply(500) if n % 3 == 0 else reply(429) if n % 7 == 0 else reply())
        calls = calls_to(fake, in_flight=3)
        tasks = [asyncio.create_task(ask(calls)) for _ in range(300)]
        draw = random.Random(3)
        for _ in range(60):
            await asyncio.sleep(draw.random())
            for task in draw.sample(tasks, 4):
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert Counter(type(end).__name__ for end in ends).keys() == {"str", "CancelledError"}
        assert calls._gate.running == fake.running == 0
        assert await ask(calls) == "ok"

    run(go())


def test_each_attempt_gets_its_own_taker_of_data() -> None:
    async def go() -> None:
        takers: list[list[bytes]] = []

        def watch() -> OnData:
            taken: list[bytes] = []
            takers.append(taken)
            return lambda data, at: taken.append(data)

        await ask(calls_to(Fake(script(reply(500, b"no"), reply()))), watch=watch)
        assert takers == [[b"no"], [b"ok"]]

    run(go())


def test_thousands_of_calls_with_faults_of_every_kind_each_end_once() -> None:
    async def go() -> None:
        draw = random.Random(5)
        sent: Counter[str] = Counter()

        def answer(number: int) -> Reply | ConnectionFault:
            if draw.random() >= 0.2:
                return reply()
            end, kind = draw.choice(FAULTS)
            sent[kind] += 1
            return end

        calls = Calls(Fake(answer, seconds=0.05), 200, draw=draw.random)
        ended: Counter[int] = Counter()

        async def one(number: int) -> None:
            assert await ask(calls) == "ok"
            ended[number] += 1

        await asyncio.gather(*(one(number) for number in range(5000)))
        assert len(ended) == 5000 == ended.total() == calls.answered
        assert calls.faults == sent and calls.sent == 5000 + sent.total()

    run(go())


def test_a_call_costs_the_same_however_many_wait() -> None:
    """Counted in calls of functions, Python's and C's."""

    def cost(many: int) -> float:
        counted = 0

        def count(frame: Any, event: str, arg: Any) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        async def go() -> None:
            calls = calls_to(Fake(lambda n: reply(500) if n % 50 == 0 else reply()))
            await asyncio.gather(*(ask(calls) for _ in range(many)))

        sys.setprofile(count)
        try:
            run(go())
        finally:
            sys.setprofile(None)
        return counted / many

    assert cost(4000) < 1.2 * cost(400)
