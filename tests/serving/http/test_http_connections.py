"""Clients that go, wait or dawdle, and a server that ends."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from http_server import HTTP, Server, Start, WordByWord, chat_body, connected, eventually
from rung.serving.http.limits import HttpLimits
from rung.types import Request

LONG = " ".join(["word"] * 400)


def long(request: Request) -> str:
    return LONG


def head(length: int | None, *more: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def posted(server: Server, **more: object) -> socket.socket:
    body = json.dumps(chat_body(**more)).encode()  # type: ignore[arg-type]
    return connected(server, head(len(body)) + body)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_nobody_waits_for_ends(start: Start, stream: bool) -> None:
    answerer = WordByWord(long, wait_s=0.02)
    server = start(answerer)
    connection = posted(server, stream=stream)
    assert eventually(lambda: answerer.now == 1)
    connection.close()
    assert eventually(lambda: len(answerer.cancelled) == 1)
    assert eventually(lambda: not server.setup.in_flight)
    assert server.chat(max_tokens=1).status_code == 200


def test_an_answer_that_is_not_read_ends_and_holds_up_nobody(start: Start) -> None:
    answerer = WordByWord(lambda request: "yes " * (3 if request.decoding.max_new_tokens < 9 else 1) + "a" * 10_000_000)
    server = start(answerer, limits=HttpLimits(write_s=0.5))
    body = json.dumps(chat_body(stream=True, max_tokens=100)).encode()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", server.port))
    slow.sendall(head(len(body)) + body)
    assert eventually(lambda: answerer.asks)
    assert server.chat(max_tokens=3).status_code == 200
    assert eventually(lambda: not server.setup.in_flight)
    slow.settimeout(5)
    with suppress(ConnectionError):  # the server has ended it
        while slow.recv(1 << 20):
            pass
    slow.close()


def test_a_head_that_does_not_come_whole_is_not_waited_for(start: Start) -> None:
    server = start(WordByWord(long), limits=HttpLimits(header_s=0.3))
    for data in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: "):
        with connected(server, data) as connection:
            assert b" 408 " in connection.recv(200)
    with connected(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        reply = b""
        while not reply.endswith(b"}"):
            reply += connection.recv(2000)
        assert b" 200 " in reply
        connection.sendall(b"GET /hea")  # the next one on the same connection
        assert b" 408 " in connection.recv(200)


def test_half_a_body_is_not_waited_for(start: Start) -> None:
    server = start(WordByWord(long), limits=HttpLimits(body_s=0.3))
    with connected(server, head(1000) + b'{"model"') as connection:
        assert b" 408 " in connection.recv(200)


def test_a_body_that_is_too_large_is_refused_whether_its_length_is_told_or_not(start: Start) -> None:
    server = start(WordByWord(long), limits=HttpLimits(body_bytes=10_000))
    reply = HTTP.post(f"{server.url}/v1/chat/completions", json=chat_body(text="a" * 3_000_000))
    assert reply.status_code == 413 and reply.json()["error"]["code"] == "body_too_large"
    with connected(server, head(None, "Transfer-Encoding: chunked")) as connection:
        started = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - started < 3:  # it never ends
                connection.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        assert time.monotonic() - started < 3
    with connected(server, head(20_000, "Expect: 100-continue")) as connection:
        assert b" 413 " in connection.recv(200)
    assert server.chat(max_tokens=2).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends_with_a_timeout(start: Start, stream: bool) -> None:
    answerer = WordByWord(long, wait_s=0.05)
    server = start(answerer, limits=HttpLimits(answer_s=0.3))
    reply = server.chat(stream=stream)
    if stream:
        error, done = reply.text.strip().split("\n\n")[-2:]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout" and done == "data: [DONE]"
    else:
        assert reply.status_code == 504 and reply.json()["error"]["code"] == "timeout"
    assert eventually(lambda: len(answerer.cancelled) == 1)


def test_a_server_that_ends_lets_what_runs_end_and_takes_no_more(start: Start) -> None:
    answerer = WordByWord(lambda request: "a b c")
    answerer.gate.clear()
    server = start(answerer)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.chat)
        assert eventually(lambda: answerer.now == 1)
        server.tell(signal.SIGTERM)
        assert eventually(lambda: HTTP.get(f"{server.url}/ready").status_code == 503)
        assert HTTP.get(f"{server.url}/health").status_code == 200
        late = server.chat()
        assert late.status_code == 503 and late.headers["Retry-After"] == "5"
        assert late.json()["error"]["code"] == "draining"
        answerer.gate.set()
        assert running.result().json()["choices"][0]["message"]["content"] == "a b c"
    server.thread.join(20)
    assert server.code == [0]
    assert "1 request" in server.said[0]


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_end_in_time_is_cut_and_told_so(start: Start, stream: bool) -> None:
    server = start(WordByWord(long, wait_s=0.05), grace_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.chat, stream=stream)
        assert eventually(lambda: server.setup.in_flight)
        time.sleep(0.2)
        assert server.end() == 0
        reply = running.result()
    assert reply.status_code == (200 if stream else 503)
    assert "the server ended" in reply.text
    assert server.said[-1] == "rung: 1 answer was cut."


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(start: Start, sent: signal.Signals, code: int) -> None:
    answerer = WordByWord(long)
    answerer.gate.clear()
    server = start(answerer, grace_s=60.0)
    asking = threading.Thread(target=lambda: server.chat())
    asking.start()
    assert eventually(lambda: answerer.now == 1)
    server.tell(sent)
    assert server.end(sent) == code
    answerer.gate.set()
    asking.join(10)


def test_many_clients_at_once_are_answered_each_with_its_own(start: Start) -> None:
    server = start(WordByWord(lambda request: f"to {request.messages[-1].content}"))
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda i: server.chat(text=f"q{i}", stream=bool(i % 2)).text, range(64)))
    for i, text in enumerate(replies):
        assert f"to q{i}" in text or f'" q{i}"' in text
