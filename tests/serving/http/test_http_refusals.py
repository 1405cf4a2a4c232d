"""What gets no answer over HTTP, and how that is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from http_server import HTTP, Server, Start, WordByWord, chat_body, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), WordByWord(lambda request: "yes")) as one:
        yield one


def sent(server: Server, body: bytes, path: str = "/v1/chat/completions", kind: str = "application/json") -> Any:
    return HTTP.post(server.url + path, content=body, headers={"Content-Type": kind} if kind else {})


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"].endswith((".", "'"))
    return error


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"top_k": 5}, "top_k"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"seed": 2**63}, "seed"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format"),
        ({"rung": {"contxt": "a"}}, "rung.contxt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ({"model": 5}, "model"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_honoured_is_named(server: Server, more: dict[str, Any], param: str) -> None:
    error = refused(server.chat(**more), 400)
    assert error["param"] == param and error["message"].startswith(param)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 8}, "n"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({}, "prompt"),
    ],
    ids=str,
)
def test_a_field_of_a_completion_that_cannot_be_honoured_is_named(
    server: Server, more: dict[str, Any], param: str
) -> None:
    response = sent(server, json.dumps({"model": "fake", **more}).encode(), "/v1/completions")
    assert refused(response, 400)["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b'{"model": "\xff"}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "\\ud83d"}]}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "a"}], "seed": ' + b"9" * 5_000 + b"}",
        b'{"model": "fake", "messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema",'
        b' "json_schema": {"schema": {"maximum": 1e999}}}}',
    ],
    ids=range(11),
)
def test_what_is_no_json_of_a_request_is_a_bad_request(server: Server, body: bytes) -> None:
    refused(sent(server, body), 400)


def test_of_a_key_that_stands_twice_the_last_one_counts(server: Server) -> None:
    body = b'{"model": "nobody", "model": "fake", "messages": [{"role": "user", "content": "a"}]}'
    assert sent(server, body).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_a_body_that_a_foreign_page_could_send_is_refused(server: Server, kind: str) -> None:
    refused(sent(server, json.dumps(chat_body()).encode(), kind=kind), 415)


def test_unknown_models_paths_and_methods_are_told_in_one_form(server: Server) -> None:
    assert refused(server.chat("nobody"), 404)["code"] == "model_not_found"
    assert refused(HTTP.get(f"{server.url}/v2/models"), 404)["code"] == "unknown_path"
    response = HTTP.get(f"{server.url}/v1/chat/completions")
    refused(response, 405)
    assert response.headers["Allow"] == "POST"
    refused(HTTP.options(f"{server.url}/v1/chat/completions"), 405)


def test_a_full_queue_says_when_to_come_again(start: Start) -> None:
    response = start(WordByWord(lambda request: "yes", most=0)).chat()
    assert refused(response, 429)["code"] == "queue_full"
    assert response.headers["Retry-After"] == "3"


def test_a_request_keeps_the_id_that_it_came_with(server: Server) -> None:
    url = f"{server.url}/health"
    assert HTTP.get(url, headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert len(HTTP.get(url, headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]) == 32
