"""One TCP connection: a request's head must come whole in time, and what nobody reads is not kept for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from rung.serving.http.setup import ABORT

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def connection_class(header_s: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn, whose own waits for half a head as long as the client likes."""

    class HeadInTime(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            inner = self.app

            async def app(scope: Any, receive: Any, send: Any) -> None:
                scope[ABORT] = transport.abort
                await inner(scope, receive, send)

            self.app = app
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._wait_no_more()  # a request is being answered
            elif self._waiting is None and self.timeout_keep_alive_task is None:
                self._wait()  # a head has begun

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(exc)

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # its last answer lies unread
            else:
                super().timeout_keep_alive_handler()

        def _wait(self) -> None:
            self._waiting = self.loop.call_later(header_s, self._too_slow)

        def _wait_no_more(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _too_slow(self) -> None:
            self._waiting = None
            if not self.transport.is_closing():
                self.transport.write(_TOO_SLOW)
                self.transport.close()

    return HeadInTime
