"""Models behind an endpoint, served: each request is a call, told while it is written; the key stays here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from http_server import eventually
from rung.errors import ModelError, Unanswerable
from rung.models import model_version, open_model
from rung.models.streaming import Ask, Piece, Ticket, Whole
from rung.serving.bundle import read_bundle
from rung.serving.engines.endpoint import Proxied
from rung.serving.events import Done, Event, ModelCall
from rung.serving.opening import NamedBundle, answerer_for, open_service
from rung.serving.service import ModelService
from rung.solutions.store import save_solution
from rung.testing import FakeEndpoint
from rung.types import Constraint, Decoding, Generation, Message, Request, Solution

KEY = "sk-secret-0123456789abcdef"
LONG = "one two three four five six seven eight nine ten"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEST_KEY", KEY)
    return tmp_path / "cache"


class Heard(Whole):
    """A Hearer that keeps the pieces, and may do something at the first."""

    def __init__(self, at_first: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.begun_with: list[tuple[int, int]] = []
        self._at_first = at_first

    def begun(self, tokens_in: int, tokens_cached: int) -> None:
        self.begun_with.append((tokens_in, tokens_cached))

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece.text)
        if len(self.pieces) == 1:
            self._at_first()


def request(text: str, *, most: int = 64, constraint: Constraint | None = None) -> Request:
    return Request((Message("user", text),), Decoding(most), constraint)


def proxied(endpoint: FakeEndpoint, **more: Any) -> Proxied:
    answerer = answerer_for(open_model(endpoint.spec(**more)))
    assert isinstance(answerer, Proxied)
    return answerer


def asked(answerer: Proxied, ask: Ask) -> tuple[Generation, Heard]:
    heard = Heard()
    answerer.submit(ask, heard)
    return heard.wait(), heard


def test_an_endpoint_is_served_without_torch() -> None:
    code = "import sys\nfrom rung.models import open_model\nfrom rung.serving.opening import answerer_for\n"
    code += "answerer_for(open_model(sys.argv[1]))\nassert 'torch' not in sys.modules"
    with FakeEndpoint({}) as endpoint:
        done = subprocess.run([sys.executable, "-c", code, endpoint.spec()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_answer_is_told_piece_by_piece_while_it_is_written() -> None:
    with FakeEndpoint({"count": LONG}, per_token_s=0.01) as endpoint:
        answerer = proxied(endpoint)
        generation, heard = asked(answerer, Ask(request("count")))
        answerer.close()
    assert generation.text == "".join(heard.pieces) == LONG
    assert len(heard.pieces) > 3 and len(heard.begun_with) == 1
    assert generation.tokens_in > 0 and generation.tokens_out == 10
    assert (answerer.load().tokens_in, answerer.load().tokens_out) == (generation.tokens_in, 10)


def test_a_constrained_answer_is_told_once_it_was_read() -> None:
    labels = Constraint("labels", ("yes", "no"))
    with FakeEndpoint({"is it?": "yes"}) as endpoint:
        answerer = proxied(endpoint)
        generation, heard = asked(answerer, Ask(request("is it?", constraint=labels)))
        answerer.close()
    assert (generation.text, heard.pieces, generation.error) == ("yes", ["yes"], None)


def test_a_connection_that_breaks_in_an_answer_costs_the_client_nothing() -> None:
    with FakeEndpoint({"count": LONG}, faults=["cut", None], per_token_s=0.001) as endpoint:
        answerer = proxied(endpoint)
        generation, heard = asked(answerer, Ask(request("count")))
        answerer.close()
        assert len(endpoint.calls) == 2
    assert generation.error is None and "".join(heard.pieces) == generation.text == LONG


def test_an_answer_that_begins_in_another_way_after_a_break_is_an_error_and_not_a_mixture() -> None:
    answers = iter(["first of all, this and that and much more", "quite another answer"])

    def changing(messages: Any, body: Any) -> str:
        return next(answers)

    with FakeEndpoint(changing, faults=["cut", None], per_token_s=0.001) as endpoint:
        answerer = proxied(endpoint)
        generation, heard = asked(answerer, Ask(request("count")))
        answerer.close()
    assert heard.pieces and generation.finish == "error" and generation.text == "".join(heard.pieces)
    assert "first of all, this and that and much more".startswith(generation.text)


def test_whoever_leaves_ends_the_call() -> None:
    with FakeEndpoint({"count": LONG}, per_token_s=0.2) as endpoint:
        answerer = proxied(endpoint)
        tickets: SimpleQueue[Ticket] = SimpleQueue()  # the first piece may come before `submit` returns
        heard = Heard(lambda: tickets.get(timeout=30).cancel())
        begun = time.perf_counter()
        tickets.put(answerer.submit(Ask(request("count")), heard))
        generation = heard.wait()
        assert generation.finish == "error" and generation.error == "nobody listens any more"
        assert time.perf_counter() - begun < 1.5  # the whole answer would take 2 s
        assert generation.text == "".join(heard.pieces) != LONG
        assert eventually(lambda: answerer.load().running == 0)
        answerer.close()
        assert endpoint.calls[0].delivered is None


def test_stop_texts_and_top_p_are_sent_and_stop_texts_are_looked_for_too() -> None:
    with FakeEndpoint({"count": LONG}, server="vllm") as endpoint:
        answerer = proxied(endpoint)
        generation, heard = asked(answerer, Ask(request("count"), top_p=0.9, stop=("four", "x")))
        answerer.close()
        assert {key: endpoint.calls[0].body[key] for key in ("top_p", "stop")} == {"top_p": 0.9, "stop": ["four", "x"]}
    assert "".join(heard.pieces) == generation.text == "one two three "


@pytest.mark.parametrize(
    ("ask", "param"),
    [(Ask(request("a"), text="a"), "prompt"), (Ask(request("a"), logprobs=1), "logprobs")],
)
def test_what_an_endpoint_cannot_do_is_said(ask: Ask, param: str) -> None:
    with FakeEndpoint() as endpoint:
        answerer = proxied(endpoint)
        with pytest.raises(Unanswerable) as caught:
            answerer.submit(ask, Heard())
        answerer.close()
    assert caught.value.param == param


def test_no_more_calls_run_at_once_than_its_spec_allows() -> None:
    with FakeEndpoint(per_token_s=0.01) as endpoint:
        answerer = proxied(endpoint, in_flight=3)
        generations = answerer.generate([request(f"{i}") for i in range(12)])
        answerer.close()
        assert [g.text for g in generations] == [f"{i}" for i in range(12)]
        assert endpoint.record.most_at_once <= 3


def test_what_clients_ask_is_not_kept_on_disk_and_each_request_is_a_call(cache: Path) -> None:
    with FakeEndpoint({"my own words": "an answer of its own"}) as endpoint:
        answerer = proxied(endpoint)
        for _ in range(2):
            asked(answerer, Ask(request("my own words")))
        answerer.close()
        assert len(endpoint.calls) == 2
    kept = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert b"an answer of its own" not in kept


def bundle(folder: Path, spec: str) -> NamedBundle:
    save_solution(Solution("zero_shot", "Count.", Decoding(64)), folder)
    (folder / "bundle.json").write_text(json.dumps({"model": spec, "model_version": model_version(spec)}))
    return NamedBundle("counting", read_bundle(folder, bases=(spec,)))


def serve(tmp_path: Path, endpoint: FakeEndpoint) -> ModelService:
    return open_service([bundle(tmp_path / "bundle", endpoint.spec(key_env="TEST_KEY"))])


async def events_of(service: ModelService, call: ModelCall) -> list[Event]:
    events: AsyncIterator[Event] = service.answer(call)
    return [event async for event in events]


def test_a_bundle_of_an_endpoint_answers_and_shows_neither_key_nor_address(tmp_path: Path) -> None:
    async def told() -> tuple[list[Event], str]:
        service = serve(tmp_path, endpoint)
        try:
            return await events_of(service, ModelCall("counting", prompt="count")), repr(service.models())
        finally:
            await service.close(1.0)

    with FakeEndpoint({"count": LONG}, key=KEY, per_token_s=0.002) as endpoint:
        events, models = asyncio.run(told())
        assert [call.key for call in endpoint.calls] == ["equal"]
        address = endpoint.url.removeprefix("http://").removesuffix("/v1")
    done = events[-1]
    assert isinstance(done, Done) and done.text == LONG
    assert len([event for event in events if isinstance(event, Piece)]) > 3
    assert "fake-1" in models and KEY not in models and "127.0.0.1" not in models
    assert KEY not in repr(events) and address not in repr(events)


def test_a_wrong_key_is_an_error_that_shows_neither_key_nor_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def told() -> str:
        service = serve(tmp_path, endpoint)
        try:
            with pytest.raises(ModelError) as caught:
                await events_of(service, ModelCall("counting", prompt="count"))
            return str(caught.value)
        finally:
            await service.close(1.0)

    with FakeEndpoint({"count": LONG}, key="another key than ours") as endpoint:
        error = asyncio.run(told())
    assert "TEST_KEY" in error or "key" in error
    for secret in (KEY, "127.0.0.1", endpoint.url):
        assert secret not in error and secret not in caplog.text


def test_a_prompt_that_does_not_fit_the_endpoint_is_the_clients_fault(tmp_path: Path) -> None:
    async def told() -> None:
        service = serve(tmp_path, endpoint)
        try:
            with pytest.raises(Unanswerable, match="does not fit"):
                await events_of(service, ModelCall("counting", prompt="word " * 9000))
        finally:
            await service.close(1.0)

    with FakeEndpoint(context_length=100) as endpoint:
        asyncio.run(told())


def test_a_service_that_ends_lets_calls_end_first(tmp_path: Path) -> None:
    async def told() -> list[Event]:
        service = serve(tmp_path, endpoint)
        answering = asyncio.create_task(events_of(service, ModelCall("counting", prompt="count")))
        await asyncio.sleep(0.1)
        await service.close(5.0)
        return await answering

    with FakeEndpoint({"count": LONG}, per_token_s=0.03) as endpoint:
        done = asyncio.run(told())[-1]
    assert isinstance(done, Done) and done.text == LONG
