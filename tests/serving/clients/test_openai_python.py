"""The `openai` package of Python against a server that runs, as a user of it writes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

import openai
import pytest
import uvicorn
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from live_server import KEY, Live
from rung.models.one_by_one import OneByOne
from rung.serving.http.app import build_app
from rung.serving.http.setup import HttpSetup
from rung.serving.service import ModelService, ServiceLimits
from rung.testing import FakeModel
from rung.types import Request

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Which colour is the door?"}]


class Card(BaseModel):
    colour: Literal["red", "green"]
    found: bool


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_names_that_answer_are_listed_with_their_base(client: OpenAI, live: Live) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {live.base, "tuned", "cards"}
    assert (listed["tuned"].model_extra or {})["parent"] == live.base
    assert client.models.retrieve("cards").id == "cards"


@pytest.mark.parametrize("name", ["tuned", "cards", "tiny"])
def test_the_pieces_of_a_stream_are_the_whole_answer(client: OpenAI, name: str) -> None:
    whole = client.chat.completions.create(model=name, messages=ASKED, max_tokens=12)
    assert whole.usage is not None and 0 < whole.usage.completion_tokens <= 12
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = client.chat.completions.create(
        model=name, messages=ASKED, max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [
        whole.choices[0].finish_reason
    ]
    usage = chunks[-1].usage
    assert not chunks[-1].choices and usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_the_adapter_of_a_bundle_answers_and_not_the_base(client: OpenAI, live: Live) -> None:
    texts = {
        client.chat.completions.create(model=name, messages=ASKED, max_tokens=12).choices[0].message.content
        for name in (live.base, "tuned", "cards")
    }
    assert len(texts) == 3


def test_several_answers_to_one_request_are_sampled(client: OpenAI, live: Live) -> None:
    reply = client.chat.completions.create(model=live.base, messages=ASKED, n=3, temperature=1.0, seed=1, max_tokens=8)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1


def test_an_answer_ends_before_a_stop_text(client: OpenAI, live: Live) -> None:
    whole = client.chat.completions.create(model=live.base, messages=ASKED, max_tokens=24).choices[0].message.content
    assert whole is not None
    stop = whole[8:10]
    reply = client.chat.completions.create(model=live.base, messages=ASKED, max_tokens=24, stop=[stop])
    assert reply.choices[0].message.content == whole[: whole.index(stop)]
    assert reply.choices[0].finish_reason == "stop"


def test_log_probabilities_of_every_token_are_told(client: OpenAI, live: Live) -> None:
    reply = client.chat.completions.create(model=live.base, messages=ASKED, max_tokens=6, logprobs=True, top_logprobs=2)
    told = reply.choices[0].logprobs
    assert told is not None and told.content is not None and reply.usage is not None
    assert len(told.content) in (reply.usage.completion_tokens, reply.usage.completion_tokens - 1)  # the end token
    for token in told.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 2
        assert token.top_logprobs[0].logprob == token.logprob  # greedy
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob


@pytest.mark.parametrize("name", ["tuned", "tiny"])
def test_parse_gives_what_the_schema_says(client: OpenAI, name: str) -> None:
    reply = client.chat.completions.parse(model=name, messages=ASKED, response_format=Card, max_tokens=64)
    assert isinstance(reply.choices[0].message.parsed, Card)


def test_passages_and_a_context_stand_under_a_key_of_their_own(client: OpenAI) -> None:
    reply = client.chat.completions.create(model="cards", messages=ASKED)
    rung = (reply.model_extra or {})["rung"]
    assert [source["id"] for source in rung["sources"]] == ["door"]
    told = client.chat.completions.create(
        model="tuned", messages=ASKED, extra_body={"rung": {"context": "There is a red door in the house."}}
    )
    bare = client.chat.completions.create(model="tuned", messages=ASKED)
    assert told.usage is not None and bare.usage is not None
    assert told.usage.prompt_tokens > bare.usage.prompt_tokens


def test_a_text_is_continued_by_a_base(client: OpenAI, live: Live) -> None:
    reply = client.completions.create(model=live.base, prompt="The card is", max_tokens=6)
    stream = client.completions.create(model=live.base, prompt="The card is", max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == reply.choices[0].text


def test_cached_tokens_are_told(client: OpenAI, live: Live) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "A door, a boat and a lamp. " * 20}]
    for _ in range(2):
        usage = client.chat.completions.create(model=live.base, messages=long, max_tokens=1).usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert 0 < (usage.prompt_tokens_details.cached_tokens or 0) <= usage.prompt_tokens


def test_faults_are_the_exceptions_that_they_should_be(client: OpenAI, live: Live) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=ASKED)
    assert unknown.value.code == "model_not_found" and "nobody" in str(unknown.value)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=live.base, messages=[])
    assert bad.value.param == "messages"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=live.base, messages=ASKED, max_tokens=-1)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


@contextmanager
def busy_server() -> Iterator[str]:
    """One request is being answered, one waits, and there is no room for more."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(_: Request) -> str:
        asked.set()
        go_on.wait(30)
        return "yes"

    service = ModelService({"slow": OneByOne(FakeModel(answer))}, limits=ServiceLimits(most_waiting=1))
    server = uvicorn.Server(uvicorn.Config(build_app(HttpSetup(service)), port=0, lifespan="off", log_config=None))
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    with OpenAI(base_url=url, api_key="none", max_retries=5) as client, ThreadPoolExecutor(2) as pool:
        found = [pool.submit(client.chat.completions.create, model="slow", messages=ASKED)]
        assert asked.wait(10)
        found.append(pool.submit(client.chat.completions.create, model="slow", messages=ASKED))
        until = time.monotonic() + 10
        while not service.load()["slow"].waiting and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield url
        finally:
            go_on.set()
            assert [one.result().choices[0].message.content for one in found] == ["yes", "yes"]
            server.should_exit = True
            serving.join(10)
            listening.close()


def test_a_full_queue_is_a_rate_limit_with_a_time_to_come_back() -> None:
    with busy_server() as url, OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="slow", messages=ASKED)
        assert int(caught.value.response.headers["retry-after"]) >= 1


def test_many_asynchronous_clients_each_get_their_answer(live: Live) -> None:
    names = [live.base, "tuned", "cards"] * 4

    async def streamed(client: AsyncOpenAI, name: str) -> str:
        stream = await client.chat.completions.create(model=name, messages=ASKED, max_tokens=12, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(*(streamed(client, name) for name in names))

    answers = asyncio.run(all_of_them())
    expected = {name: live.chat(name, "Which colour is the door?", max_tokens=12) for name in set(names)}
    assert answers == [expected[name]["choices"][0]["message"]["content"] for name in names]
