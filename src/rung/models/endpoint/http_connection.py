"""One HTTP/1.1 connection: it sends a request, parses the reply, and says what broke.

Knows nothing of pools, proxies, retries, keys or language models. The parser is httptools' (llhttp, in C). A reply is
whole or it is a fault: a body that ends early is never handed over as a short answer.
Source: RFC 9112 (HTTP/1.1), section 6.3 for where a body ends, section 8 for incomplete messages.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from httptools import HttpResponseParser

MOST_HEADER_BYTES = 256 * 1024

NOT_HTTP, TOO_LARGE, TRUNCATED, CLOSED, TIMEOUT = "not http", "too large", "truncated", "closed", "timeout"

OnData = Callable[[bytes, float], None]
"""Takes a piece of a body, and the seconds since the request was sent."""


class ConnectionFault(Exception):
    """An exchange that brought no whole reply. kind: a short constant, counted; detail: a sentence, without secrets.

    stale: the connection was kept from an earlier exchange and was closed before any byte of this reply came. Mostly
    the server closed it before the request came, so the request may be sent again at once.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.stale = kind, detail, False


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. Header names are in lower case; values of a header that comes twice are joined by ", ".

    first_byte_s: from sending the request to the first byte of the reply; seconds: to its last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    first_byte_s: float
    seconds: float


class HttpConnection(asyncio.Protocol):
    """Sends one request at a time. `usable` says whether another may follow; a connection in doubt is closed.

    on_lost: called once, with the connection, when it is closed by either side.
    """

    def __init__(
        self, parser: type[HttpResponseParser], most_body: int, on_lost: Callable[[HttpConnection], None]
    ) -> None:
        self._parser_class, self._most_body, self._on_lost = parser, most_body, on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: HttpResponseParser | None = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ends = 0.0
        self._pieces: list[bytes] = []
        self.usable = self._aborted = False
        self.idle_since = 0.0  # in seconds of time.perf_counter

    def send(
        self, request: Callable[[], bytes], deadline: float, on_data: OnData | None = None
    ) -> asyncio.Future[Reply]:
        """Send what `request` returns. The future brings the Reply or raises ConnectionFault.

        deadline: of the whole reply, in seconds of time.perf_counter.

        The request comes as a function because it holds the key: no variable here holds it when something raises.
        """
        assert self._transport is not None and self._waiting is None, "one request at a time"
        self._transport.write(request())
        self._sent = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._waiting = self._loop.create_future()
        self._watch(deadline)
        self._parser = self._parser_class(self)
        self._on_data, self._pieces, self._body_bytes, self._header_bytes = on_data, [], 0, 0
        self._headers: dict[str, str] = {}
        self._status, self._complete, self._keep, self._first_byte_s = 0, False, False, 0.0
        self.usable = False
        return self._waiting

    def _watch(self, deadline: float) -> None:
        """Fail at the deadline. A timer that is still running from an earlier exchange is set anew when it ends."""
        self._deadline = deadline
        if self._timer is not None and self._timer_ends > deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_later(max(0.0, deadline - time.perf_counter()), self._time_is_up)
            self._timer_ends = deadline

    def _time_is_up(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if time.perf_counter() >= self._deadline:
            self._fail(ConnectionFault(TIMEOUT, "No whole reply came in time."))
        else:
            self._watch(self._deadline)

    def abort(self) -> None:
        """Close at once, in whatever state. Whoever waits for a reply gets ConnectionFault."""
        self.usable, self._aborted = False, True
        if self._transport is not None:
            self._transport.abort()

    def tunnelled(self, transport: asyncio.Transport) -> None:
        """Go on over this transport, for which connection_made was not called."""
        self.connection_made(transport)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._parser is None:
            self.abort()  # nobody asked: what follows could be taken for the next reply
            return
        if not self._first_byte_s:
            self._first_byte_s = time.perf_counter() - self._sent
        if not self._status:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except Exception as error:
            # Where on_data raised, its own error is behind httptools' one.
            cause = error.__context__
            self._fail(cause or ConnectionFault(NOT_HTTP, f"The reply is no HTTP/1.1: {error}."))
            return
        if not self._status and self._header_bytes > MOST_HEADER_BYTES:
            self._fail(ConnectionFault(TOO_LARGE, f"The reply has more than {MOST_HEADER_BYTES} bytes of headers."))
        elif self._body_bytes > self._most_body:
            self._fail(ConnectionFault(TOO_LARGE, f"The reply's body is larger than {self._most_body} bytes."))
        elif self._complete:
            self._succeed()

    def eof_received(self) -> None:
        self.usable = False  # asyncio closes the transport next

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting is not None:
            self._succeed() if self._ends_here(error) else self._fail(self._lost(error))
        self._on_lost(self)

    def _ends_here(self, error: Exception | None) -> bool:
        """Whether the server's end of the connection is the end of the body: no header says where else it ends."""
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        return error is None and not self._aborted and self._status >= 200 and not framed

    def _lost(self, error: Exception | None) -> ConnectionFault:
        why = f" ({error})" if error is not None and str(error) else ""
        if not self._first_byte_s:
            return ConnectionFault(CLOSED, f"The connection was closed before any byte of the reply came{why}.")
        return ConnectionFault(TRUNCATED, f"The connection was closed after {self._body_bytes} bytes of the body{why}.")

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # more than the one reply came

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # a trailer behind the chunks
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status = cast(Any, self._parser).get_status_code()
        if self._complete:
            return
        if 100 <= status < 200 and status != 101:
            self._headers = {}  # an interim reply; the final one follows
        else:
            self._status = status

    def on_body(self, data: bytes) -> None:
        if self._complete:
            return
        self._pieces.append(data)
        self._body_bytes += len(data)
        if self._on_data is not None:
            self._on_data(data, time.perf_counter() - self._sent)

    def on_message_complete(self) -> None:
        if self._status and not self._complete:
            self._complete = True
            self._keep = cast(Any, self._parser).should_keep_alive()

    # How an exchange ends.

    def _succeed(self) -> None:
        seconds = time.perf_counter() - self._sent
        try:
            body = _decoded(b"".join(self._pieces), self._headers.get("content-encoding", ""), self._most_body)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        waiting = self._over()
        transport = cast(asyncio.Transport, self._transport)
        self.usable = self._keep and not transport.is_closing()
        if not self.usable:
            transport.close()
        if waiting is not None and not waiting.done():
            waiting.set_result(Reply(self._status, self._headers, body, self._first_byte_s, seconds))

    def _fail(self, error: BaseException) -> None:
        waiting = self._over()
        self.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)

    def _over(self) -> asyncio.Future[Reply] | None:
        waiting, self._waiting, self._parser, self._on_data = self._waiting, None, None, None
        self._pieces = []
        return waiting


def _decoded(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its content encoding. "identity" is asked for; some servers compress nevertheless."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ConnectionFault(NOT_HTTP, f"The reply is encoded as {encoding!r}, which was not asked for.")
    inflater = zlib.decompressobj(47)  # 47: the header tells gzip from zlib
    try:
        plain = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise ConnectionFault(NOT_HTTP, f"The reply says {encoding} and cannot be decompressed: {error}.") from None
    if len(plain) > most:
        raise ConnectionFault(TOO_LARGE, f"The reply's body is larger than {most} bytes.")
    if inflater.unused_data:
        raise ConnectionFault(NOT_HTTP, f"More than one {encoding} stream came as the body.")
    if not inflater.eof:
        raise ConnectionFault(TRUNCATED, f"The {encoding} body ends early.")
    return plain
