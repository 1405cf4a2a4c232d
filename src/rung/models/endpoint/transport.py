"""Exchanges with one server over HTTP/1.1: a bounded pool of kept connections, TLS, proxies, timeouts.

Knows nothing of language models, retries or rate limits. It never follows a redirect, and never sends a request twice:
a request may be paid for, and what it makes may be made twice. A fault says where sending it again at once is worth it.

Keys: a header that holds one is given as `Hidden`, is read when the request is written, and is in no variable when
something raises. A server that repeats the key in its reply gets it replaced by "<key>".
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rung import __version__
from rung.errors import ModelError
from rung.models.endpoint.http_connection import CLOSED, TIMEOUT, ConnectionFault, HttpConnection, OnData, Reply
from rung.models.endpoint.proxies import PROXY, Proxy, Tunnel, proxy_for

if TYPE_CHECKING:
    from httptools import HttpResponseParser

__all__ = ["UNREACHABLE", "ConnectionFault", "Hidden", "Reply", "Transport", "Unsent"]

NAME, REFUSED, CERTIFICATE, TLS = "name not found", "connection refused", "certificate", "tls"
UNREACHABLE_KIND, CONNECT_TIMEOUT = "unreachable", "connect timeout"
UNREACHABLE = frozenset({NAME, REFUSED, CERTIFICATE, TLS, UNREACHABLE_KIND, CONNECT_TIMEOUT, PROXY})
"""Kinds of faults before a connection stands. Where no exchange ever succeeded, they say that the address is wrong."""

MOST_CONNECTIONS = 1000
MOST_BODY = 256 * 2**20  # bytes
_FEWEST_CONNECTIONS = 8
_HAPPY_EYEBALLS_S = 0.25  # RFC 8305
_PLAIN_HTTP = "Is the address http:// instead of https://?"
_SHORT_SECRET = 8  # characters; a shorter one is not searched for in replies
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"[\x21-\x7e]*")
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "proxy-authorization"}


class Unsent(asyncio.CancelledError):
    """An exchange was cancelled before its request was sent: nobody can have charged it."""


class Hidden:
    """The value of a header that nobody may see, such as one with a key. `read` is called when a request is written."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def reveal(self) -> str:
        return self._read()

    def __repr__(self) -> str:
        return "<key>"


Headers = Mapping[str, "str | Hidden"]


class Transport:
    """Exchanges with the server at base_url. Use it from one event loop, and `aclose()` it there.

    base_url: http or https, with the path before every path of an exchange. most_connections: open at once; further
    exchanges wait for one within their timeout. connect_timeout_s: name, TCP, proxy and TLS together. idle_s: a kept
    connection that was idle for longer is closed, since routers forget it in silence. most_body: bytes of a reply.
    tls: another context than the system's, as for a private authority.
    Raises ModelError for an address or a proxy that cannot be used, and where httptools is missing.
    """

    def __init__(
        self,
        base_url: str,
        *,
        most_connections: int = MOST_CONNECTIONS,
        connect_timeout_s: float = 15.0,
        idle_s: float = 30.0,
        most_body: int = MOST_BODY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._secure, self._host, self._port, self._prefix = _address(base_url)
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self.authority = f"{bracketed}:{self._port}"
        standard = self._port == (443 if self._secure else 80)
        self._host_header = bracketed if standard else self.authority
        self.most_connections = _within_open_files(most_connections)
        self._connect_timeout_s, self._idle_s, self._most_body = connect_timeout_s, idle_s, most_body
        self._proxy = proxy_for("https" if self._secure else "http", self._host, self._port)
        needs_tls = self._secure or (self._proxy is not None and self._proxy.secure)
        self._tls = (tls or _tls()) if needs_tls else None
        self._parser = _parser()
        self._room = asyncio.Semaphore(self.most_connections)
        self._idle: list[HttpConnection] = []  # the last used comes first, so that surplus ones grow old
        self._open: set[HttpConnection] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"Transport({self.authority})"

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
        """One request and its whole reply, whatever its status. path: behind base_url, with its query.

        on_data: gets every piece of the body as it comes, with the seconds since the request was sent; the reply still
        holds the whole body. Raises ConnectionFault; ModelError for a header or path that may not be sent.
        A cancelled exchange closes its connection, and raises Unsent where its request was not sent yet.
        """
        if self._closed:
            raise self._is_closed()
        sent = False

        def send() -> bytes:
            nonlocal sent
            sent = True
            return self._request(method, path, headers, body)

        begun = time.perf_counter()
        if self._room.locked():
            await self._wait_for_room(timeout_s)
        else:
            await self._room.acquire()
        try:
            reply = await self._exchange(send, on_data, begun + timeout_s)
        except asyncio.CancelledError:
            if not sent:
                raise Unsent from None
            raise
        except ConnectionFault as fault:
            if fault.kind == TIMEOUT:
                hint = f" {_PLAIN_HTTP}" if _PLAIN_HTTP in fault.detail else ""
                fault.detail = f"No whole reply came within {timeout_s:.4g} s.{hint}"
            raise
        finally:
            self._room.release()
        return _without_keys(reply, headers)

    async def aclose(self) -> None:
        """Close every connection, those in use too. Nothing can be sent afterwards."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()
        for _ in range(10):  # asyncio tells of a closed connection in its next turns
            if not self._open:
                return
            await asyncio.sleep(0)

    def _is_closed(self) -> ModelError:
        return ModelError(f"The connections to {self.authority} are closed. Open the model again.")

    async def _wait_for_room(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._room.acquire()
        except asyncio.CancelledError:
            raise Unsent from None
        except TimeoutError:
            detail = f"All {self.most_connections} connections were in use for {timeout_s:.4g} s."
            raise ConnectionFault(TIMEOUT, detail) from None

    async def _exchange(self, send: Callable[[], bytes], on_data: OnData | None, deadline: float) -> Reply:
        connection = self._kept()
        if connection is None:
            return await self._on(await self._connect(deadline), send, on_data, deadline)
        try:
            return await self._on(connection, send, on_data, deadline)
        except ConnectionFault as fault:
            fault.stale = fault.kind == CLOSED  # RFC 9112, section 9.3.1
            while fault.stale and self._idle:  # they were idle for longer, and are mostly closed as well
                self._idle.pop().abort()
            raise

    async def _on(
        self, connection: HttpConnection, send: Callable[[], bytes], on_data: OnData | None, deadline: float
    ) -> Reply:
        try:
            if self._closed:  # while this exchange waited for a connection
                raise self._is_closed()
            reply = await connection.send(send, deadline, on_data)
        except BaseException:  # cancelled, too: the rest of this reply must not meet the next request
            connection.abort()
            raise
        if connection.usable and not self._closed:
            connection.idle_since = time.perf_counter()
            self._idle.append(connection)
        return reply

    def _kept(self) -> HttpConnection | None:
        oldest = time.perf_counter() - self._idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, deadline: float) -> HttpConnection:
        where = self.authority if self._proxy is None else f"the proxy {self._proxy.host}:{self._proxy.port}"
        left = deadline - time.perf_counter()
        try:
            async with asyncio.timeout(min(self._connect_timeout_s, left)):
                return await (self._directly() if self._proxy is None else self._through(self._proxy))
        except TimeoutError:
            hint = f" {_PLAIN_HTTP}" if self._secure and self._proxy is None else ""
            kind = TIMEOUT if left < self._connect_timeout_s else CONNECT_TIMEOUT
            raise ConnectionFault(kind, f"{where} did not accept a connection.{hint}") from None
        except ConnectionError as error:
            if self._secure and self._proxy is None and not _is_refused(error):  # closed during the handshake
                said = error.strerror or str(error) or "the connection was closed"
                raise ConnectionFault(TLS, f"No TLS with {where}: {said}. {_PLAIN_HTTP}") from None
            raise _fault_of(error, where) from None
        except OSError as error:  # ssl's errors are among them
            raise _fault_of(error, where) from None

    async def _directly(self) -> HttpConnection:
        return await self._opened(self._host, self._port, self._tls if self._secure else None)

    async def _through(self, proxy: Proxy) -> HttpConnection:
        loop = asyncio.get_running_loop()
        outer = self._tls if proxy.secure else None
        if not self._secure:  # a proxy takes plain requests with the whole address in them
            return await self._opened(proxy.host, proxy.port, outer)
        transport, tunnel = await loop.create_connection(Tunnel, proxy.host, proxy.port, ssl=outer)
        try:
            await tunnel.open(proxy, self.authority)
            connection = self._new()
            assert self._tls is not None
            inner = await loop.start_tls(transport, connection, self._tls, server_hostname=self._host)
            assert inner is not None
        except ssl.SSLError as error:  # of the server, or of a proxy that reads what is sent
            transport.abort()
            raise _fault_of(error, f"{self.authority} behind {proxy.host}:{proxy.port}") from None
        except BaseException:
            transport.abort()
            raise
        connection.tunnelled(inner)
        self._open.add(connection)
        return connection

    async def _opened(self, host: str, port: int, tls: ssl.SSLContext | None) -> HttpConnection:
        race = _HAPPY_EYEBALLS_S if host[-1:].isalpha() else None  # an address needs no race between addresses
        transport, connection = await asyncio.get_running_loop().create_connection(
            self._new, host, port, ssl=tls, happy_eyeballs_delay=race
        )
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # answers may take minutes
        self._open.add(connection)
        return connection

    def _new(self) -> HttpConnection:
        return HttpConnection(self._parser, self._most_body, self._open.discard)

    def _request(self, method: str, path: str, headers: Headers, body: bytes | None) -> bytes:
        """The bytes of a request. Whatever raises here has no key in a variable of this frame."""
        target = f"{self._prefix}{path}"
        _check_target(method, target)
        through = self._proxy if not self._secure else None
        if through is not None:
            target = f"http://{self._host_header}{target}"
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host_header}", "accept-encoding: identity"]
        if body is not None or method != "GET":
            lines.append(f"content-length: {len(body or b'')}")
        if through is not None and through.authorization:
            lines.append(f"proxy-authorization: {through.authorization}")
        if "user-agent" not in headers:
            lines.append(f"user-agent: rung/{__version__}")
        for name, given in headers.items():
            value = given.reveal() if isinstance(given, Hidden) else given
            if not _may_be_named(name) or not _VALUE.fullmatch(value):
                del lines, value
                raise ModelError(
                    f"The header {name!r} was not sent: its value holds a line break or a character that no header "
                    "may hold, or the header is rung's own. A key is often copied with a space or line end too many."
                )
            lines.append(f"{name}: {value}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


@lru_cache(64)
def _check_target(method: str, target: str) -> None:
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise ModelError(f"Not sent: {method!r} {target!r} holds a character that no request may hold.")


@lru_cache(64)
def _may_be_named(name: str) -> bool:
    """Whether a caller's header may have this name."""
    return _TOKEN.fullmatch(name) is not None and name.lower() not in _OWN_HEADERS


def _address(base_url: str) -> tuple[bool, str, int, str]:
    """(whether TLS, host, port, path prefix). Raises ModelError without showing what may be a password."""
    parts = urlsplit(base_url)
    if "@" in parts.netloc:
        raise ModelError("The endpoint's address holds a user or password. Keys belong into the environment.")
    try:
        port = parts.port
    except ValueError:
        raise ModelError(f"The endpoint {base_url} has no number as its port. Write https://HOST:PORT/v1.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ModelError(f"{base_url!r} is no address of an endpoint. Write https://HOST/v1 or http://HOST:PORT/v1.")
    if parts.query or parts.fragment:
        raise ModelError(f"The endpoint {base_url} has a query or fragment. Name the address up to its path only.")
    secure = parts.scheme == "https"
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    return secure, host, port or (443 if secure else 80), parts.path.rstrip("/")


def _parser() -> type[HttpResponseParser]:
    try:
        from httptools import HttpResponseParser
    except ImportError:
        raise ModelError('Endpoints need httptools. Install it with: pip install "rung[endpoint]"') from None
    return HttpResponseParser


def _tls() -> ssl.SSLContext:
    """The system's certificates; certifi's where the system has none (as with Pythons built elsewhere)."""
    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    if context.cert_store_stats()["x509_ca"] or (folder and any(Path(folder).iterdir())):
        return context
    try:
        import certifi
    except ImportError:
        raise ModelError(
            "This machine has no certificates to check a server with. Install them: pip install certifi, "
            "or set SSL_CERT_FILE to a file that holds them."
        ) from None
    context.load_verify_locations(certifi.where())
    return context


def _within_open_files(wanted: int) -> int:
    """wanted, or fewer where the process may not open so many files: half of the limit is left for everything else."""
    try:
        import resource
    except ImportError:  # Windows
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(_FEWEST_CONNECTIONS, soft // 2))


def _fault_of(error: OSError, where: str) -> ConnectionFault:
    said = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return ConnectionFault(NAME, f"The name of {where} is not known to this machine's name service: {said}.")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConnectionFault(CERTIFICATE, f"The certificate of {where} was not accepted: {error.verify_message}.")
    if isinstance(error, ssl.SSLError):
        return ConnectionFault(TLS, f"No TLS with {where}: {said}. {_PLAIN_HTTP}")
    if _is_refused(error):
        return ConnectionFault(REFUSED, f"Nothing accepts connections at {where}.")
    return ConnectionFault(UNREACHABLE_KIND, f"No connection to {where}: {said}.")


def _is_refused(error: OSError) -> bool:
    # Where a name has several addresses, asyncio tells of all their errors in one text.
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _without_keys(reply: Reply, headers: Headers) -> Reply:
    """The reply with "<key>" in place of every hidden value that the server repeats."""
    for given in headers.values():
        if not isinstance(given, Hidden):
            continue
        secret = given.reveal().rsplit(" ", 1)[-1]  # without "Bearer"
        if len(secret) < _SHORT_SECRET:
            continue
        found = secret.encode("latin-1")
        if found in reply.body or any(secret in value for value in reply.headers.values()):
            shown = {name: value.replace(secret, "<key>") for name, value in reply.headers.items()}
            reply = replace(reply, headers=shown, body=reply.body.replace(found, b"<key>"))
    return reply
