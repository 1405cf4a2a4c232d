from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rung.errors import ModelError
from rung.models.endpoint.proxies import proxy_for
from rung.models.endpoint.transport import UNREACHABLE, ConnectionFault, Hidden, Reply, Transport, Unsent

KEY = "sk-secret-0123456789"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server:
    """Answers raw requests with raw bytes. `answer` gets the head and body of each; it may close the writer."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.requests, self.connections = answer, [], 0
        self.closed: list[asyncio.Event] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        gone = asyncio.Event()
        self.closed.append(gone)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                self.requests.append(head + body)
                await self.answer(head + body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            gone.set()
            writer.close()


@asynccontextmanager
async def serving(answer: Answer | bytes, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Any]:
    """(server, transport) on loopback."""

    async def always(request: bytes, writer: asyncio.StreamWriter) -> None:
        assert isinstance(answer, bytes)
        writer.write(answer)

    server = Server(always if isinstance(answer, bytes) else answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    transport = Transport(f"{scheme}://{host}:{server.port}/v1", **options)
    try:
        yield server, transport
    finally:
        await transport.aclose()
        listener.close()
        await others_end()


async def others_end() -> None:
    """Until the tasks of servers have noticed that their connections are closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=1.0)
        for task in late:
            task.cancel()
    await asyncio.sleep(0)


async def get(transport: Transport, path: str = "/x", timeout_s: float = 5.0, **more: Any) -> Reply:
    return await transport.exchange("GET", path, headers=more.pop("headers", {}), timeout_s=timeout_s, **more)


async def fault_of(transport: Transport, **more: Any) -> ConnectionFault:
    with pytest.raises(ConnectionFault) as raised:
        await get(transport, **more)
    return raised.value


def test_a_request_carries_path_host_headers_and_body() -> None:
    async def go() -> None:
        async with serving(OK) as (server, transport):
            headers = {"authorization": Hidden(lambda: f"Bearer {KEY}"), "content-type": "application/json"}
            reply = await transport.exchange("POST", "/chat?v=1", headers=headers, body=b"{}", timeout_s=5)
            head, body = server.requests[0].split(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            assert lines[0] == "POST /v1/chat?v=1 HTTP/1.1" and body == b"{}"
            assert f"host: 127.0.0.1:{server.port}" in lines and f"authorization: Bearer {KEY}" in lines
            assert (reply.status, reply.body, reply.headers) == (200, b"ok", {"content-length": "2"})
            assert 0 < reply.first_byte_s <= reply.seconds < 5

    asyncio.run(go())


def test_one_connection_serves_many_requests_and_a_closing_server_gets_a_new_one() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        closing = b"last" in request
        writer.write(OK.replace(b"content", b"connection: close\r\ncontent") if closing else OK)

    async def go() -> None:
        async with serving(answer) as (server, transport):
            for path in ("/a", "/b", "/last", "/c"):
                assert (await get(transport, path)).body == b"ok"
            assert server.connections == 2

    asyncio.run(go())


def test_never_more_connections_than_the_limit() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(OK)

    async def go() -> None:
        async with serving(answer, most_connections=3) as (server, transport):
            replies = await asyncio.gather(*(get(transport) for _ in range(20)))
            assert [r.body for r in replies] == [b"ok"] * 20
            assert server.connections == 3

    asyncio.run(go())


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nx-end: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nx-empty:\r\nx-two: 1\r\nX-Two: 2\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 429 Many\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["chunked", "until closed", "1.0", "no content", "interim replies", "headers", "redirect", "nothing in gzip"],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_every_way_to_delimit_a_body_is_read_in_whatever_pieces_it_comes(raw: bytes, body: bytes, step: int) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(raw), step):
            writer.write(raw[at : at + step])
            await asyncio.sleep(0)
        if b"content-length" not in raw and b"chunked" not in raw and b" 204 " not in raw:
            writer.close()

    async def go() -> None:
        async with serving(answer) as (server, transport):
            for _ in range(2):
                reply = await get(transport)
                assert reply.body == body
                assert reply.status == int(raw.rsplit(b"HTTP/1.", 1)[1][2:5])
                assert "link" not in reply.headers and "x-end" not in reply.headers
            assert reply.headers.get("x-two", "1, 2") == "1, 2"
            assert len(server.requests) == 2  # nothing is followed

    asyncio.run(go())


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "truncated"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n", "truncated"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "truncated"),
        (b"", "closed"),
        (b"SSH-2.0-OpenSSH\r\n", "not http"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "not http"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not http"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"a" * 5000, "too large"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"a" * 5000, "too large"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000, "too large"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx", "not http"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
            + gzip.compress(b"ab", mtime=0)[:-9],
            "truncated",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
            + 2 * gzip.compress(b"ab", mtime=0),
            "not http",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n" + gzip.compress(b"a" * 5000),
            "too large",
        ),
    ],
)
def test_what_is_no_whole_reply_is_a_fault_and_its_connection_is_closed(raw: bytes, kind: str) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    async def go() -> None:
        async with serving(answer, most_body=4000) as (server, transport):
            fault = await fault_of(transport)
            assert (fault.kind, fault.stale) == (kind, False)
            assert len(server.requests) == 1
            assert not transport._idle

    asyncio.run(go())


def test_a_compressed_body_is_inflated_though_nobody_asked_for_it() -> None:
    body = gzip.compress(b"plain", mtime=0)

    async def go() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
        async with serving(head + body) as (_, transport):
            assert (await get(transport)).body == b"plain"

    asyncio.run(go())


def test_no_request_is_sent_twice_and_a_kept_connection_that_was_closed_is_told() -> None:
    """The server takes the second request of every connection and closes without a byte of a reply: it may have done
    what was asked for."""
    counts: dict[int, int] = {}

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        counts[id(writer)] = counts.get(id(writer), 0) + 1
        if counts[id(writer)] == 2:
            writer.close()
        else:
            writer.write(OK)

    async def go() -> None:
        async with serving(answer) as (server, transport):
            assert (await get(transport)).body == b"ok"
            fault = await fault_of(transport)
            assert (fault.kind, fault.stale) == ("closed", True)
            assert server.connections == 1 and len(server.requests) == 2
            assert (await get(transport)).body == b"ok" and server.connections == 2

    asyncio.run(go())


def test_a_request_whose_reply_began_is_never_sent_again() -> None:
    counts: dict[int, int] = {}

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        counts[id(writer)] = counts.get(id(writer), 0) + 1
        if counts[id(writer)] == 2:
            writer.write(b"H")
            writer.close()
        else:
            writer.write(OK)

    async def go() -> None:
        async with serving(answer) as (server, transport):
            await get(transport)
            assert (await fault_of(transport)).kind == "truncated"
            assert len(server.requests) == 2

    asyncio.run(go())


def test_when_one_kept_connection_was_closed_the_others_that_were_idle_for_longer_are_not_used() -> None:
    first: asyncio.Event | None = None

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"/stale" in request:
            writer.close()
            return
        if b"/wait" in request:
            assert first is not None
            await first.wait()
        writer.write(OK)

    async def go() -> None:
        nonlocal first
        first = asyncio.Event()
        async with serving(answer) as (server, transport):
            waiting = [asyncio.create_task(get(transport, "/wait")) for _ in range(3)]
            while len(server.requests) < 3:
                await asyncio.sleep(0.001)
            first.set()
            await asyncio.gather(*waiting)
            fault = await fault_of(transport, path="/stale")
            assert fault.stale and server.connections == 3
            await get(transport)
            assert server.connections == 4

    asyncio.run(go())


def test_a_body_without_a_length_that_is_cut_off_by_closing_is_no_whole_reply() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of")
        await asyncio.sleep(5)

    async def go() -> None:
        async with serving(answer) as (_, transport):
            begun = asyncio.Event()
            asked = asyncio.create_task(get(transport, on_data=lambda data, at: begun.set()))
            await begun.wait()
            await transport.aclose()
            with pytest.raises(ConnectionFault) as raised:
                await asked
            assert raised.value.kind == "truncated"

    asyncio.run(go())


def test_exchanges_that_wait_for_a_connection_send_nothing_after_the_close() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def go() -> None:
        async with serving(answer, most_connections=1) as (server, transport):
            tasks = [asyncio.create_task(get(transport)) for _ in range(3)]
            while not server.requests:
                await asyncio.sleep(0.001)
            await transport.aclose()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends] == [ConnectionFault, ModelError, ModelError]
            await asyncio.sleep(0.01)
            assert len(server.requests) == 1 and not transport._open

    asyncio.run(go())


def test_bytes_that_nobody_asked_for_never_become_the_next_reply() -> None:
    async def go() -> None:
        async with serving(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil") as (server, transport):
            for _ in range(3):
                assert (await get(transport)).body == b"ok"
            assert server.connections == 3

    asyncio.run(go())


def test_connections_that_were_idle_for_long_are_not_used_again() -> None:
    async def go() -> None:
        async with serving(OK, idle_s=0.0) as (server, transport):
            await get(transport)
            await get(transport)
            assert server.connections == 2

    asyncio.run(go())


def test_timeouts_close_the_connection_and_a_later_shorter_one_holds_too() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"slow" in request:
            writer.write(OK[:-1])
            await asyncio.sleep(5)
        writer.write(OK)

    async def go() -> None:
        async with serving(answer) as (_, transport):
            await get(transport, timeout_s=100)  # its timer is still set when the next exchange begins
            fault = await fault_of(transport, path="/slow", timeout_s=0.05)
            assert fault.kind == "timeout" and "0.05 s" in fault.detail
            await asyncio.sleep(0.01)
            assert not transport._open
            assert (await get(transport)).body == b"ok"

    asyncio.run(go())


def test_an_exchange_in_time_is_not_ended_by_the_timer_of_an_earlier_one() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(OK)

    async def go() -> None:
        async with serving(answer) as (server, transport):
            for _ in range(4):
                assert (await get(transport, timeout_s=1.0)).body == b"ok"
            assert server.connections == 1

    asyncio.run(go())


def test_waiting_for_a_free_connection_counts_into_the_timeout() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(OK)

    async def go() -> None:
        async with serving(answer, most_connections=1) as (_, transport):
            first = asyncio.create_task(get(transport))
            await asyncio.sleep(0.05)
            fault = await fault_of(transport, timeout_s=0.05)
            assert fault.kind == "timeout" and "in use" in fault.detail
            assert (await first).body == b"ok"

    asyncio.run(go())


def test_a_cancelled_exchange_closes_its_connection_and_frees_its_room() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b"slow" in request:
            await asyncio.sleep(0.1)
        writer.write(OK)

    async def go() -> None:
        async with serving(answer, most_connections=1) as (server, transport):
            task = asyncio.create_task(get(transport, "/slow"))
            await asyncio.sleep(0.03)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await get(transport)).body == b"ok"
            await asyncio.wait_for(server.closed[0].wait(), 2)

    asyncio.run(go())


def test_an_exchange_that_is_cancelled_while_it_waits_was_not_sent() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(OK)

    async def go() -> None:
        found: list[type[BaseException]] = []

        async def noted(transport: Transport) -> None:
            try:
                await get(transport)
            except asyncio.CancelledError as gone:
                found.append(type(gone))
                raise

        async with serving(answer, most_connections=1) as (_, transport):
            tasks = [asyncio.create_task(noted(transport)) for _ in range(2)]
            await asyncio.sleep(0.03)
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert found == [Unsent, asyncio.CancelledError]
            assert (await get(transport)).body == b"ok"

    asyncio.run(go())


def test_data_is_handed_over_as_it_comes_and_stays_in_the_body() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b"data: a\n\n", b"data: b\n\n"):
            await asyncio.sleep(0.03)
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")

    async def go() -> None:
        seen: list[tuple[bytes, float]] = []
        async with serving(answer) as (_, transport):
            reply = await get(transport, on_data=lambda data, at: seen.append((data, at)))
        assert [data for data, _ in seen] == [b"data: a\n\n", b"data: b\n\n"]
        assert reply.body == b"data: a\n\ndata: b\n\n"
        assert 0.02 < seen[0][1] < seen[1][1] <= reply.seconds

    asyncio.run(go())


def test_what_the_taker_of_data_raises_comes_out_as_it_is() -> None:
    def take(data: bytes, at: float) -> None:
        raise ZeroDivisionError("mine")

    async def go() -> None:
        async with serving(OK) as (_, transport):
            with pytest.raises(ZeroDivisionError, match="mine"):
                await get(transport, on_data=take)
            assert (await get(transport)).body == b"ok"

    asyncio.run(go())


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nevil: 1"},
        {"x": "a\nb"},
        {"x": "a\0b"},
        {"x y": "a"},
        {"x:": "a"},
        {"": "a"},
        {"Host": "elsewhere"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"authorization": Hidden(lambda: f"Bearer {KEY}\n")},
        {"x": "\N{EURO SIGN}"},
    ],
    ids=str,
)
def test_a_header_can_inject_nothing_and_its_value_is_not_told(headers: dict[str, str | Hidden]) -> None:
    async def go() -> None:
        async with serving(OK) as (server, transport):
            with pytest.raises(ModelError) as raised:
                await get(transport, headers=headers)
            assert not server.requests
            shown = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=True).format())
            assert KEY not in shown

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/a b", "/a\r\nx: y", "/é"])
def test_a_path_can_inject_nothing(path: str) -> None:
    async def go() -> None:
        async with serving(OK) as (server, transport):
            with pytest.raises(ModelError, match="no request may hold"):
                await get(transport, path)
            assert not server.requests

    asyncio.run(go())


@pytest.mark.parametrize(
    "raw",
    [b"", b"SSH", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"],
)
def test_a_key_is_in_no_frame_of_an_error(raw: bytes) -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.close()

    def refuse(data: bytes, at: float) -> None:
        raise ValueError("refused")

    async def go() -> None:
        async with serving(answer) as (server, transport):
            headers = {"authorization": Hidden(lambda: f"Bearer {KEY}")}
            for on_data in (None, refuse):
                try:
                    await get(transport, headers=headers, on_data=on_data)
                except (ConnectionFault, ValueError) as error:
                    told = traceback.TracebackException.from_exception(error, capture_locals=True)
                    assert KEY not in "".join(told.format())
            assert KEY.encode() in server.requests[0]
            assert KEY not in repr(headers) + repr(transport) + repr(vars(transport))

    asyncio.run(go())


def test_a_key_that_the_server_repeats_is_taken_out_of_the_reply() -> None:
    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        body = f'{{"error": "wrong key {KEY}"}}'.encode()
        head = f"HTTP/1.1 401 No\r\nx-key: {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    async def go() -> None:
        async with serving(answer) as (_, transport):
            reply = await get(transport, headers={"authorization": Hidden(lambda: f"Bearer {KEY}")})
            assert KEY not in repr(reply) and b"<key>" in reply.body and reply.headers["x-key"] == "<key>"

    asyncio.run(go())


def test_nothing_listening_and_an_unknown_name_are_told_apart() -> None:
    async def go() -> None:
        for url, kind in (("http://127.0.0.1:9/v1", "connection refused"), ("http://x.invalid/v1", "name not found")):
            transport = Transport(url)
            fault = await fault_of(transport)
            assert fault.kind == kind in UNREACHABLE
            await transport.aclose()

    asyncio.run(go())


def test_a_closed_transport_says_so() -> None:
    async def go() -> None:
        async with serving(OK) as (_, transport):
            await transport.aclose()
            with pytest.raises(ModelError, match="closed"):
                await get(transport)

    asyncio.run(go())


@pytest.mark.parametrize(
    "url",
    ["api.openai.com/v1", "ftp://host/v1", "http:///v1", "http://host:x/v1", "http://h/v1?a=1", "http://me:hunter2@h/"],
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ModelError) as raised:
        Transport(url)
    assert "hunter2" not in str(raised.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) of localhost, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate of the test's server")
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "cert.pem", folder / "key.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_a_certificate_is_checked(certificate: tuple[Path, Path]) -> None:
    async def go() -> None:
        async with serving(OK, tls=server_tls(certificate)) as (server, transport):
            assert (await fault_of(transport)).kind == "certificate"
            assert not server.requests
            trusted = ssl.create_default_context(cafile=str(certificate[0]))
            trusting = Transport(f"https://localhost:{server.port}/v1", tls=trusted)
            for _ in range(2):
                assert (await get(trusting)).body == b"ok"
            wrong_name = Transport(f"https://127.0.0.1:{server.port}/v1", tls=trusted)
            assert (await fault_of(wrong_name)).kind == "certificate"
            await trusting.aclose()
            await wrong_name.aclose()

    asyncio.run(go())


def test_tls_with_a_plain_server_says_what_may_be_wrong() -> None:
    async def go() -> None:
        async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (server, _):
            transport = Transport(f"https://localhost:{server.port}/v1", connect_timeout_s=0.5)
            assert (await fault_of(transport)).kind in ("tls", "connect timeout")
            await transport.aclose()

    asyncio.run(go())


@pytest.mark.parametrize("connect_timeout_s", [0.2, 60.0])
def test_a_plain_server_that_says_nothing_to_a_handshake_hints_at_http(connect_timeout_s: float) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def wait(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async def go() -> None:
        server = await asyncio.start_server(wait, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = Transport(f"https://127.0.0.1:{port}/v1", connect_timeout_s=connect_timeout_s)
        with pytest.raises(ConnectionFault, match=r"http:// instead of https://"):
            await transport.exchange("GET", "/models", headers={}, timeout_s=0.5)
        await transport.aclose()
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # what was closed tells so in the loop's next turns

    asyncio.run(go())


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_is_closed_during_the_handshake_hints_at_http(reset: bool) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async def go() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = Transport(f"https://127.0.0.1:{port}/v1")
        fault = await fault_of(transport)
        assert fault.kind == "tls" and "http:// instead of https://" in fault.detail, fault
        await transport.aclose()
        server.close()
        await asyncio.sleep(0.05)  # the server's side closes

    asyncio.run(go())


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_proxy_tunnels_tls_and_gets_its_password_but_not_the_key(
    allowed: bool, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        if not allowed:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        port = int(head.split(b" ")[1].rsplit(b":", 1)[1])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(relay(reader, back), relay(there, writer), return_exceptions=True)

    async def go() -> None:
        listener = await asyncio.start_server(proxy, "127.0.0.1", 0)
        at = listener.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pass%20word@127.0.0.1:{at}")
        # Loopback is never proxied; a name that stands for it here, as the certificate does, is.
        monkeypatch.setattr("rung.models.endpoint.proxies.is_loopback", lambda host: False)
        async with serving(OK, tls=server_tls(certificate)) as (server, _):
            trusted = ssl.create_default_context(cafile=str(certificate[0]))
            transport = Transport(f"https://localhost:{server.port}/v1", tls=trusted)
            headers = {"authorization": Hidden(lambda: KEY)}
            if allowed:
                for _ in range(2):
                    assert (await get(transport, headers=headers)).body == b"ok"
                assert len(heads) == 1 and KEY.encode() in server.requests[1]
                fault = await fault_of(Transport(f"https://localhost:{server.port}/v1"))
                assert fault.kind == "certificate" and f"localhost:{server.port} behind" in fault.detail
            else:
                fault = await fault_of(transport, headers=headers)
                assert fault.kind == "proxy" and "407" in fault.detail
            assert heads[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % server.port)
            assert b"proxy-authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in heads[0] and KEY.encode() not in heads[0]
            assert "pass" not in repr(transport._proxy)
            await transport.aclose()
        listener.close()
        await others_end()

    asyncio.run(go())


def test_a_plain_request_through_a_proxy_carries_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with serving(OK) as (server, _):
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
            transport = Transport("http://models.example/v1")
            assert (await get(transport)).body == b"ok"
            assert server.requests[0].startswith(b"GET http://models.example/v1/x HTTP/1.1\r\nhost: models.example\r\n")
            await transport.aclose()

    asyncio.run(go())


def test_which_proxy_leads_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    monkeypatch.setenv("HTTPS_PROXY", "https://secure:2")
    monkeypatch.setenv("NO_PROXY", "inside.example,.corp")
    for scheme, host, expected in [
        ("https", "api.openai.com", "secure"),
        ("http", "api.openai.com", "all"),
        ("https", "inside.example", None),
        ("https", "x.corp", None),
        ("http", "127.0.0.1", None),
        ("http", "localhost", None),
        ("http", "::1", None),
        ("http", "localhost.evil.example", "all"),
    ]:
        found = proxy_for(scheme, host, 443)
        assert (found.host if found else None) == expected, host
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hunter2@secure:2")
    with pytest.raises(ModelError, match="HTTPS_PROXY names a socks5 proxy") as raised:
        proxy_for("https", "api.openai.com", 443)
    assert "hunter2" not in str(raised.value)


def test_where_the_system_has_no_certificates_those_of_certifi_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    tls = Transport("https://api.example/v1")._tls
    assert tls is not None and tls.check_hostname and tls.verify_mode == ssl.CERT_REQUIRED
    assert tls.cert_store_stats()["x509_ca"] > 50


def test_a_missing_parser_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ModelError, match=r'pip install "rung\[endpoint\]"'):
        Transport("http://127.0.0.1:1/v1")
