"""Clients that misbehave, against a server that runs: each gets the right status, and the server lives on."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from http_server import eventually
from live_server import KEY, Live

LONG = {"model": "tiny", "messages": [{"role": "user", "content": "Which colour?"}], "max_tokens": 1900}
CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def lives_on(live: Live) -> Iterator[None]:
    """After each test nothing runs any more, and answers are as before."""
    before = live.chat("tuned")["choices"]
    yield
    assert eventually(lambda: running(live) == 0), "a request runs still"
    assert live.ask("/health")[0] == 200
    assert live.chat("tuned")["choices"] == before


def running(live: Live) -> float:
    return live.metric("rung_requests_running")


def head(path: str, length: int | str, *more: str, key: str = KEY) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


def connected(live: Live, data: bytes = b"", *, receive_bytes: int | None = None) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(10)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect(("127.0.0.1", live.port))
    connection.sendall(data)
    return connection


def posted(live: Live, body: object, *, receive_bytes: int | None = None) -> socket.socket:
    content = json.dumps(body).encode()
    return connected(live, head(CHAT, len(content)) + content, receive_bytes=receive_bytes)


def status_of(live: Live, data: bytes) -> int:
    """Of what the server says to these bytes; 0 where it closes without a word."""
    with connected(live, data) as connection:
        first = connection.recv(64)
    return int(first.split(b" ")[1]) if first else 0


def reset(connection: socket.socket) -> None:
    """Ends the connection at once, without the usual farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# ---- connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["close", "reset"])
def test_a_client_that_goes_in_the_middle_of_a_stream_ends_its_answer(live: Live, end: Callable[..., None]) -> None:
    written = live.metric("rung_tokens_total", 'kind="out"')
    for _ in range(3):
        connection = posted(live, {**LONG, "stream": True})
        assert b"data:" in connection.recv(4096) + connection.recv(4096)
        assert running(live) > 0
        end(connection)
    assert eventually(lambda: running(live) == 0, 3)
    assert live.metric("rung_tokens_total", 'kind="out"') - written < 3 * LONG["max_tokens"]  # type: ignore[operator]


def test_a_client_that_does_not_wait_for_its_whole_answer_ends_it(live: Live) -> None:
    for _ in range(3):
        connection = posted(live, LONG)
        assert eventually(lambda: running(live) > 0, 3)
        reset(connection)
    assert eventually(lambda: running(live) == 0, 3)


def test_slow_readers_do_not_hold_up_others(live: Live) -> None:
    slow = [posted(live, {**LONG, "stream": True}, receive_bytes=2048) for _ in range(4)]
    started = time.monotonic()
    assert live.chat("tuned")["choices"]
    assert time.monotonic() - started < 5
    for connection in slow:
        reset(connection)


def test_half_a_body_is_no_request(live: Live) -> None:
    halves = [connected(live, head(CHAT, 1000) + b'{"model": "tiny", "mess') for _ in range(8)]
    assert live.chat("tuned")["choices"]
    assert running(live) == 0
    for number, connection in enumerate(halves):
        if number % 2:
            reset(connection)
        else:
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert b" 200 " not in connection.recv(100)
            connection.close()


def test_heads_that_never_end_do_not_hold_up_others(live: Live) -> None:
    slow = [connected(live, b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ") for _ in range(50)]
    for connection in slow:
        connection.sendall(b"a")
    assert live.chat("tuned")["choices"]
    for connection in slow:
        connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, to a server that speaks without
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"nothing at all\r\n\r\n",
        head(CHAT, "-1"),
        head(CHAT, "many"),
        head(CHAT, 5, "Content-Length: 7") + b"{}{}{}{}",
        head(CHAT, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"zzz\r\n{}\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
    ids=["tls", "version", "words", "negative", "no number", "two lengths", "bad chunk", "long header"],
)
def test_what_is_no_http_is_refused(live: Live, data: bytes) -> None:
    try:
        status = status_of(live, data)
    except ConnectionError:
        status = 0
    assert status == 0 or 400 <= status < 500


# ---- bodies ---------------------------------------------------------------------------------


def test_a_prompt_of_10_mb_is_refused(live: Live) -> None:
    body = json.dumps({**LONG, "messages": [{"role": "user", "content": "a" * 10_000_000}]}).encode()
    with connected(live, head(CHAT, len(body))) as connection:
        with contextlib.suppress(ConnectionError):  # it may answer before it has read all
            connection.sendall(body)
        assert b" 413 " in connection.recv(100)


def test_a_prompt_longer_than_the_context_is_refused(live: Live) -> None:
    status, reply, _ = live.ask(CHAT, {**LONG, "messages": [{"role": "user", "content": "a door " * 20_000}]})
    assert status == 400 and reply["error"]["param"] == "messages", reply


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"model": "tiny", "messages": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1e999}',
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "seed": ' + b"9" * 5_000 + b"}",
    ],
    ids=[
        "nothing",
        "begun",
        "list",
        "null",
        "text",
        "no utf-8",
        "brackets",
        "deep messages",
        "deep objects",
        "nan",
        "infinite",
        "digits",
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(live: Live, body: bytes) -> None:
    status, reply, _ = live.ask(CHAT, body, method="POST")
    assert 400 <= status < 500 and reply["error"]["message"], reply


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": 0},
        {"max_tokens": 10**30},
        {"max_tokens": "8"},
        {"temperature": -1},
        {"temperature": "hot"},
        {"top_p": 2},
        {"n": 0},
        {"n": 10**6},
        {"stop": [1]},
        {"stop": ["a"] * 1000},
        {"messages": "hello"},
        {"messages": [{"role": "wizard", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "assistant", "content": "a"}], "model": "tuned"},
        {"logprobs": True, "top_logprobs": 10**6},
        {"response_format": {"type": "poem"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "poem"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "#/nowhere"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"pattern": "("}}}},
        {"rung": {"context": 1}},
    ],
    ids=lambda field: json.dumps(field)[:60],
)
def test_a_field_that_cannot_be_honoured_is_named(live: Live, field: dict[str, object]) -> None:
    status, reply, _ = live.ask(CHAT, {**LONG, "max_tokens": 4, **field})
    assert status == 400, reply
    assert reply["error"]["param"].partition(".")[0] in field or "messages" in reply["error"]["param"], reply


def test_extreme_numbers_that_are_allowed_are_answered(live: Live) -> None:
    for more in ({"temperature": 5e-324}, {"temperature": 1, "top_p": 5e-324}, {"seed": -(2**63), "temperature": 2}):
        assert live.ask(CHAT, {**LONG, "max_tokens": 4, **more})[0] == 200, more
    text = "\U000f0000 \U000ffffd \U00100000 \x00 <|im_start|>system\n"
    assert live.ask("/v1/completions", {"model": "tiny", "prompt": text, "max_tokens": 2})[0] == 200


def test_half_a_surrogate_pair_in_a_text_is_no_fault_of_the_server(live: Live) -> None:
    body = b'{"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "\\ud83d"}]}'
    assert live.ask(CHAT, body)[0] in (200, 400)


# ---- names and keys -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody", "../tiny", "tiny\0", "\u202etiny", "a" * 10_000, "", "tuned/../cards"])
def test_an_unknown_model_is_not_found(live: Live, name: str) -> None:
    status, reply, _ = live.ask(CHAT, {**LONG, "model": name})
    assert status in (400, 404) and reply["error"]["message"], reply


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1], KEY.upper(), "x" * 10_000])
def test_a_wrong_key_opens_nothing(live: Live, key: str | None) -> None:
    for path, body in ((CHAT, LONG), ("/v1/models", None), ("/v1/load_lora_adapter", {})):
        assert live.ask(path, body, key=key)[0] == 401, path


def test_the_key_of_clients_loads_no_adapters(live: Live) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        status, reply, _ = live.ask(path, {"lora_name": "a", "lora_path": "first"}, key=KEY)
        assert status in (401, 403), reply
