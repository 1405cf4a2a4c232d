"""HTTP/1.1 on an asyncio connection, no more of it than a fake endpoint needs. Knows nothing of models.

One request at a time a connection: what a client sends before its answer came waits. Bodies need a Content-Length.
Written on asyncio.Protocol because a bench measures clients against it: one answer costs about 60 microseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 411: "Length Required"}
_REASONS |= {429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
JSON, HTML, EVENTS = "application/json", "text/html; charset=utf-8", "text/event-stream; charset=utf-8"


class Received:
    """One request and the ways to answer it. gone: the client closed the connection before the answer's end."""

    __slots__ = ("_connection", "_head", "_lower", "body", "gone", "method", "path", "query", "sent", "unread")

    def __init__(self, connection: Connection, head: bytes, lower: bytes, body: bytes) -> None:
        self._connection = connection
        self._head, self._lower = head, lower
        self.body = body
        method, _, rest = head.partition(b" ")
        target = rest[: rest.find(b" ")].decode("latin-1")
        self.method = method.decode("latin-1")
        self.path, _, query = target.partition("?")
        self.query = {name: values[0] for name, values in parse_qs(query).items()} if query else {}
        self.gone = False
        self.sent: Callable[[], None] | None = None
        self.unread: Callable[[], None] | None = None

    def header(self, name: str) -> str | None:
        """The value of a header; name in lower case."""
        at = self._lower.find(f"\r\n{name}:".encode("latin-1"))
        if at < 0:
            return None
        start = at + len(name) + 3
        end = self._head.find(b"\r\n", start)
        return self._head[start : end if end >= 0 else None].decode("latin-1").strip()

    def reply(
        self, status: int, body: bytes, kind: str = JSON, headers: str = "", *, claims: int | None = None
    ) -> None:
        """A whole answer. headers: lines that end with CRLF. claims: the length that the head says, if it lies."""
        head = (
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\ncontent-type: {kind}\r\n{headers}"
            f"content-length: {len(body) if claims is None else claims}\r\n\r\n"
        )
        self.piece(head.encode("latin-1") + body, last=claims is None)

    def head(self, status: int, kind: str, headers: str = "", *, length: int | None = None) -> None:
        """The head of an answer whose body comes in pieces. length None: chunked."""
        form = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        reason = _REASONS.get(status, "Status")
        head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\n{headers}{form}\r\n\r\n"
        self._connection.write(head.encode("latin-1"))

    def piece(self, data: bytes, *, last: bool = False) -> None:
        """Sends bytes; the last ones make the answer whole. `sent` is called before a client can have read them."""
        if last and not self.gone and self.sent is not None:
            self.sent()
        self._connection.write(data)
        if last:
            self._connection.answered()

    def chunk(self, data: bytes) -> None:
        """A chunk of a chunked body; an empty one ends the answer."""
        self.piece(b"%x\r\n%s\r\n" % (len(data), data), last=not data)

    def drop(self) -> None:
        """Closes the connection, once what was written has left."""
        self._connection.close()


Handler = Callable[[Received], None]


class Connection(asyncio.Protocol):
    """One client's connection. handler: gets each request; open_ones: the set of connections that are open."""

    def __init__(self, handler: Handler, open_ones: set[Connection], requests: Callable[[], int | None]) -> None:
        self._handler = handler
        self._open = open_ones
        self._requests = requests
        self._buffer = b""
        self._answers = 0
        self._now: Received | None = None
        self._last: Received | None = None
        self._closes = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """A reset tells that the client's machine held bytes that its program never read."""
        self._transport = None
        self._open.discard(self)
        if self._now is not None:
            self._now.gone = True
        if exc is not None and self._last is not None and self._last.unread is not None:
            self._last.unread()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if self._now is None:
            self._take()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def answered(self) -> None:
        """The answer to the request is whole; the next one may be read."""
        self._last, self._now = self._now, None
        self._answers += 1
        most = self._requests()
        if self._closes or (most is not None and self._answers >= most):
            self.close()
        elif self._buffer:
            self._take()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _take(self) -> None:
        """Hands on the first request of the buffer, if it is there whole."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        lower = head.lower()
        length = 0
        at = lower.find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(lower[at + 17 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            if b"\r\nexpect: 100-continue" in lower and len(self._buffer) == end + 4:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        exchange = Received(self, head, lower, self._buffer[end + 4 : end + 4 + length])
        self._buffer = self._buffer[end + 4 + length :]
        self._now, self._last = exchange, None
        self._closes = b"\r\nconnection: close" in lower
        if b"\r\ntransfer-encoding: chunked" in lower:
            self._closes = True
            exchange.reply(411, b'{"error": {"message": "send a Content-Length", "code": "length_required"}}')
            return
        self._handler(exchange)
