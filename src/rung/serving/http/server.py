"""From an application to a process that listens, and ends in peace when it is told to."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from rung.errors import ServingError
from rung.serving.http.app import build_app
from rung.serving.http.connection import connection_class
from rung.serving.http.logs import log_libraries
from rung.serving.http.setup import HttpSetup

_LARGEST_HEAD = 65_536  # bytes of a request's line and headers
_FORCED = {signal.SIGINT: 130, signal.SIGTERM: 143}
_LAST_S = 3.0  # for what was cut to say so


def listening_socket(host: str, port: int) -> socket.socket:
    """Taken before models are opened, so that a port in use is known at once. Nobody is heard on it yet.

    Raises ServingError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ServingError(f"--host {host}: there is no such address here ({error}).") from None
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
        taken.setblocking(False)
    except OSError as error:
        taken.close()
        fact = f"port {port} of {host} cannot be used ({error.strerror})"
        raise ServingError(f"{fact}. Choose another one with --port; 0 takes a free one.") from None
    return taken


class _Server(uvicorn.Server):
    """Signals are this module's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Signals = asyncio.Queue[signal.Signals]
"""What the process is told, in order."""


@contextmanager
def heard_signals() -> Iterator[Signals]:
    """SIGINT and SIGTERM, as long as the block runs. In the main thread, within a running loop."""
    loop, told = asyncio.get_running_loop(), Signals()
    for one in _FORCED:
        loop.add_signal_handler(one, told.put_nowait, one)
    try:
        yield told
    finally:
        for one in _FORCED:
            loop.remove_signal_handler(one)


async def serve_app(
    setup: HttpSetup,
    listening: socket.socket,
    told: Signals,
    *,
    grace_s: float,
    say: Callable[[str], None] = lambda _: None,
    up: Callable[[], None] = lambda: None,
) -> int:
    """Answers until it is told to end, then takes no more requests and lets those that run end. Returns the exit code:
    0, also where some were cut after `grace_s` seconds; at a second signal that signal's, at once.

    up: called when the server answers. The service is closed at the end. Raises ServingError.
    """
    server = _Server(_config(setup))
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    hearing = asyncio.ensure_future(told.get())
    try:
        await _started(server, serving)
        up()
        await asyncio.wait({serving, hearing}, return_when=asyncio.FIRST_COMPLETED)
        return await _end(setup, told, grace_s, say)
    finally:
        hearing.cancel()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=2 * _LAST_S)
        await setup.service.close(0.0)


async def _end(setup: HttpSetup, told: Signals, grace_s: float, say: Callable[[str], None]) -> int:
    forced = asyncio.ensure_future(told.get())
    draining = asyncio.ensure_future(_drain(setup, grace_s, say))
    await asyncio.wait({draining, forced}, return_when=asyncio.FIRST_COMPLETED)
    code = 0 if draining.done() else _FORCED[forced.result()]
    forced.cancel()
    draining.cancel()
    setup.in_flight.cut()
    await setup.in_flight.idle(0.2 if code else _LAST_S)
    return code


async def _started(server: _Server, serving: asyncio.Future[None]) -> None:
    while not server.started:
        if serving.done():
            error = serving.exception()
            raise ServingError(f"the server cannot listen ({error}). Choose another --port.") from error
        await asyncio.sleep(0.01)


async def _drain(setup: HttpSetup, grace_s: float, say: Callable[[str], None]) -> None:
    setup.service.drain()
    if running := len(setup.in_flight):
        what = "1 request that runs has" if running == 1 else f"{running} requests that run have"
        say(f"rung: no more requests are taken; {what} {grace_s:g} seconds to end.")
    if not await setup.in_flight.idle(grace_s):
        left = len(setup.in_flight)
        say(f"rung: {left} {'answer was' if left == 1 else 'answers were'} cut.")


def _config(setup: HttpSetup) -> uvicorn.Config:
    log_libraries(quiet=setup.log.quiet)
    settings: dict[str, Any] = {
        "http": connection_class(setup.limits.header_s),
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": max(1, round(setup.limits.keep_alive_s)),
        "timeout_graceful_shutdown": round(_LAST_S),
        "h11_max_incomplete_event_size": _LARGEST_HEAD,
    }
    return uvicorn.Config(build_app(setup), **settings)
