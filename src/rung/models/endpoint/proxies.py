"""Which proxy leads to a server, from the environment, and the tunnel through it.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY as urllib reads them, on macOS and Windows the system's settings too.
A server on this machine is never asked through a proxy. SOCKS proxies are refused.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote, urlsplit

from rung.errors import ModelError
from rung.models.endpoint.http_connection import ConnectionFault

PROXY = "proxy"
_MOST_ANSWER = 64 * 1024  # bytes of a proxy's answer to CONNECT


@dataclass(frozen=True)
class Proxy:
    """A proxy. authorization: the value of its header, with the password, in no repr; "" where it needs none."""

    secure: bool
    host: str
    port: int
    authorization: str = field(default="", repr=False)


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy that the environment names for this server, or None. Raises ModelError for one that cannot be used."""
    if is_loopback(host) or urllib.request.proxy_bypass(f"{host}:{port}") or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    variable = f"{scheme.upper()}_PROXY" if proxies.get(scheme) else "ALL_PROXY"
    if parts.scheme not in ("http", "https"):
        raise ModelError(
            f"{variable} names a {parts.scheme} proxy, which rung cannot use. Name an HTTP proxy, "
            f"or set NO_PROXY={host} to reach the server without one."
        )
    try:
        at = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ModelError(f"{variable} holds no port number behind the host. Write http://HOST:PORT.") from None
    if not parts.hostname:
        raise ModelError(f"{variable} names no host. Write http://HOST:PORT.")
    return Proxy(parts.scheme == "https", parts.hostname, at, _basic(parts.username, parts.password))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _basic(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


class Tunnel(asyncio.Protocol):
    """Asks a proxy to connect to a server. Behind it the transport carries the server's bytes."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    async def open(self, proxy: Proxy, authority: str) -> asyncio.Transport:
        """authority: host:port of the server. Raises ConnectionFault where the proxy refuses."""
        assert self.transport is not None
        self.transport.write(_connect(proxy, authority))
        status_line = (await self._answer).split(b"\r\n", 1)[0].decode("latin-1")
        parts = status_line.split(" ", 2)
        if len(parts) < 2 or parts[1] != "200":
            raise ConnectionFault(PROXY, f"The proxy {proxy.host}:{proxy.port} answered: {status_line[:200]}")
        return self.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received:
            cast(asyncio.Transport, self.transport).pause_reading()  # until the next protocol takes over
            self._finish(None)
        elif len(self._received) > _MOST_ANSWER:
            self._finish(ConnectionFault(PROXY, "The proxy's answer to CONNECT does not end."))

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(ConnectionFault(PROXY, "The proxy closed the connection without an answer."))

    def _finish(self, fault: ConnectionFault | None) -> None:
        if self._answer.done():
            return
        if fault is None:
            self._answer.set_result(self._received)
        else:
            self._answer.set_exception(fault)
            self._answer.exception()  # read here, so that asyncio does not complain where nobody waits any more


def _connect(proxy: Proxy, authority: str) -> bytes:
    lines = [f"CONNECT {authority} HTTP/1.1", f"host: {authority}"]
    if proxy.authorization:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
