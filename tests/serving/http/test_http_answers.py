"""Answers over HTTP: whole and streamed, of bases and bundles, with what was asked of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from http_server import HTTP, Server, Start, WordByWord, chat_body
from rung.types import Constraint, Request


def says(request: Request) -> str:
    return f"the answer to {request.messages[-1].content}" if request.messages else "goes on"


def events(response: httpx.Response) -> list[Any]:
    """The chunks of a stream; None stands for [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [None if line == "[DONE]" else json.loads(line) for line in lines]


def complete(server: Server, **body: Any) -> httpx.Response:
    return HTTP.post(f"{server.url}/v1/completions", json={"model": "fake", **body})


def test_a_chat_is_answered_in_the_form_of_openai(start: Start) -> None:
    reply = start(WordByWord(says)).chat().json()
    assert reply.pop("id").startswith("chatcmpl-") and reply.pop("created") > 1_700_000_000
    assert reply == {
        "object": "chat.completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "the answer to hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 4,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
        "rung": {"solution": None, "sources": [], "refused": False, "fault": None},
    }


def test_a_stream_begins_with_the_role_and_ends_with_usage_and_done(start: Start) -> None:
    server = start(WordByWord(says))
    first, *pieces, last, usage, done = events(server.chat(stream=True, stream_options={"include_usage": True}))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [p["choices"][0]["delta"]["content"] for p in pieces] == ["the", " answer", " to", " hi"]
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert last["rung"]["sources"] == []
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 4
    assert all(chunk["usage"] is None for chunk in (first, *pieces, last))
    assert done is None
    assert {chunk["id"] for chunk in (first, *pieces, last, usage)} == {first["id"]}
    assert all("usage" not in chunk for chunk in events(server.chat(stream=True)) if chunk)


def test_a_bundle_tells_its_sources_beside_the_answer(start: Start) -> None:
    server = start(WordByWord(lambda request: "30 days [1]"))
    reply = server.chat("handbook", "How long is leave?").json()
    assert reply["choices"][0]["message"]["content"] == "30 days"
    assert reply["rung"]["solution"] == "rag" and reply["rung"]["refused"] is False
    (source,) = reply["rung"]["sources"]
    assert source == {
        "number": 1,
        "id": "leave",
        "title": "Handbook",
        "page": 3,
        "last_page": None,
        "source": None,
        "text": "Leave is 30 days.",
        "cited": True,
        "supports": True,
    }
    chunks = [chunk for chunk in events(server.chat("handbook", "How long is leave?", stream=True)) if chunk]
    assert [chunk["rung"]["sources"] for chunk in chunks if "rung" in chunk] == [[source]]
    assert chunks[-1]["choices"] and "rung" in chunks[-1]


def test_several_choices_have_seeds_of_their_own_and_their_prompt_counts_once(start: Start) -> None:
    answerer = WordByWord(says)
    reply = start(answerer).chat(n=3, temperature=1, seed=7).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert sorted(ask.request.decoding.seed for ask in answerer.asks) == [7, 8, 9]
    assert reply["usage"]["prompt_tokens"] == 1 and reply["usage"]["completion_tokens"] == 12
    assert all("rung" in choice for choice in reply["choices"])


def test_sampled_answers_without_a_seed_differ_and_greedy_ones_need_none(start: Start) -> None:
    answerer = WordByWord(says)
    server = start(answerer)
    for _ in range(2):
        server.chat(temperature=1)
    assert len({ask.request.decoding.seed for ask in answerer.asks}) == 2
    server.chat()
    assert answerer.asks[-1].request.decoding.seed == 0


def test_streamed_choices_come_side_by_side(start: Start) -> None:
    chunks = [chunk for chunk in events(start(WordByWord(says)).chat(n=2, stream=True)) if chunk]
    texts = {0: "", 1: ""}
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "the answer to hi", 1: "the answer to hi"}


def test_what_is_asked_reaches_the_model(start: Start) -> None:
    answerer = WordByWord(says)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    ]
    asked = {"max_completion_tokens": 3, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": "x", "user": "u"}
    more = {"response_format": form, "messages": messages, "logprobs": True, "top_logprobs": 2, "seed": -1}
    assert start(answerer).chat(**asked, **more).status_code == 200
    (ask,) = answerer.asks
    assert [(m.role, m.content) for m in ask.request.messages] == [("system", "Be short."), ("user", "one\ntwo")]
    assert ask.request.decoding.max_new_tokens == 3 and ask.request.decoding.temperature == 0.5
    assert ask.request.decoding.seed == 2**63 - 1
    assert (ask.top_p, ask.stop, ask.logprobs) == (0.9, ("x",), 2)
    assert ask.request.constraint == Constraint("json_schema", schema)


def test_top_p_says_nothing_of_greedy_answers(start: Start) -> None:
    answerer = WordByWord(says)
    start(answerer).chat(temperature=0, top_p=0.5)
    assert answerer.asks[0].top_p == 1.0


def test_log_probabilities_stand_beside_the_text(start: Start) -> None:
    server = start(WordByWord(says))
    content = server.chat(logprobs=True, top_logprobs=1).json()["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content] == ["the", " answer", " to", " hi"]
    assert content[0]["bytes"] == list(b"the") and content[0]["top_logprobs"][0]["logprob"] == -0.5
    assert server.chat().json()["choices"][0]["logprobs"] is None
    streamed = [c["choices"][0]["logprobs"] for c in events(server.chat(logprobs=True, stream=True)) if c]
    assert [one["content"][0]["token"] for one in streamed if one] == ["the", " answer", " to", " hi"]


def test_a_base_continues_a_prompt_in_the_older_form(start: Start) -> None:
    answerer = WordByWord(lambda request: "and so on")
    server = start(answerer)
    reply = complete(server, prompt=["one", "two"], logprobs=1, max_tokens=5).json()
    assert reply["object"] == "text_completion" and [c["index"] for c in reply["choices"]] == [0, 1]
    first = reply["choices"][0]
    assert first["text"] == "and so on" and first["finish_reason"] == "stop"
    assert first["logprobs"] == {
        "tokens": ["and", " so", " on"],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [{"and": -0.5}, {" so": -0.5}, {" on": -0.5}],
        "text_offset": [0, 3, 6],
    }
    assert {ask.text for ask in answerer.asks} == {"one", "two"}
    streamed = [c for c in events(complete(server, prompt="one", logprobs=0, stream=True)) if c]
    assert [c["choices"][0]["text"] for c in streamed] == ["and", " so", " on", ""]
    assert [c["choices"][0]["logprobs"]["text_offset"] for c in streamed[:-1]] == [[0], [3], [6]]
    assert answerer.asks[-1].request.decoding.max_new_tokens == 16


def test_a_prompt_to_a_bundle_is_its_input(start: Start) -> None:
    answerer = WordByWord(says)
    reply = complete(start(answerer), model="handbook", prompt="How long is leave?").json()
    assert reply["choices"][0]["text"] and reply["rung"]["sources"]
    assert answerer.asks[0].text is None and answerer.asks[0].request.decoding.max_new_tokens == 12


def test_models_are_listed_with_their_parents(start: Start) -> None:
    server = start(WordByWord(says))
    base, bundle = HTTP.get(f"{server.url}/v1/models").json()["data"]
    assert base["id"] == "fake" and base["parent"] is None and base["max_model_len"] == 8192
    assert bundle["id"] == "handbook" and bundle["parent"] == "fake" and bundle["root"] == "handbook"
    assert bundle["rung"] == {"kind": "bundle", "solution": "rag", "context": True}
    assert base["rung"]["context"] is False
    assert HTTP.get(f"{server.url}/v1/models/handbook").json() == bundle
    assert HTTP.get(f"{server.url}/v1/models/some/thing").status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_fails_is_told_without_its_words(start: Start, stream: bool) -> None:
    response = start(WordByWord(lambda request: ValueError("/secret/path"))).chat(stream=stream)
    assert "secret" not in response.text
    assert response.status_code == 500 and response.json()["error"]["type"] == "server_error"


def test_a_stream_of_what_cannot_be_answered_has_the_status_of_its_refusal(start: Start) -> None:
    server = start(WordByWord(lambda request: ValueError("prompt of 9 tokens does not fit the context of 8")))
    response = server.chat(stream=True)
    assert response.status_code == 400 and response.json()["error"]["param"] == "messages"


def test_a_proxy_is_told_to_pass_a_stream_on_as_it_comes(start: Start) -> None:
    assert start(WordByWord(says)).chat(stream=True).headers["X-Accel-Buffering"] == "no"


def test_the_context_of_an_input_comes_in_the_field_of_rung(start: Start) -> None:
    answerer = WordByWord(says)
    assert start(answerer).chat("handbook", "How long?", rung={"context": "Of a nurse."}).status_code == 200
    assert "Of a nurse." in answerer.asks[0].request.messages[-1].content


def test_a_context_for_a_model_that_takes_none_is_refused_by_its_name(start: Start) -> None:
    refused = start(WordByWord(says)).chat(rung={"context": "Of a nurse."})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "rung.context"


def test_a_cut_answer_that_is_not_the_form_that_was_demanded_has_a_fault(start: Start) -> None:
    answerer = WordByWord(says)
    server, form = start(answerer), {"response_format": {"type": "json_object"}}
    reply = server.chat("handbook", max_tokens=2, **form).json()
    assert reply["choices"][0]["finish_reason"] == "length" and "not JSON" in reply["rung"]["fault"]
    server.chat("handbook", **form)
    assert [ask.request.decoding.max_new_tokens for ask in answerer.asks] == [2, 1024]


def test_half_a_character_of_an_answer_breaks_nothing(start: Start) -> None:
    response = start(WordByWord(lambda request: "half \ud83d of it")).chat()
    assert response.json()["choices"][0]["message"]["content"] == "half ? of it"


def test_what_no_field_needs_is_taken(start: Start) -> None:
    body = chat_body(user="me", metadata={"a": "b"}, store=False, tools=[], frequency_penalty=0, logit_bias={}, odd=1)
    server = start(WordByWord(says))
    assert HTTP.post(f"{server.url}/v1/chat/completions", json=body).status_code == 200
