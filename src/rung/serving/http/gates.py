"""What every request passes: it is counted and logged, host and key are checked, and no client is waited for long."""

from __future__ import annotations

import asyncio
import re
import uuid

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rung.errors import Busy
from rung.serving.http.errors import ClientGone, HttpRefusal, refusal_of, unknown_path
from rung.serving.http.logs import RequestRecord
from rung.serving.http.metrics import ServerMetrics
from rung.serving.http.security import ADMIN_PATHS, check_host
from rung.serving.http.setup import ABORT, RECORD, HttpSetup, record_of

_OPEN_PATHS = ("/health", "/ready", "/openapi.json")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SMALL_BODY = 65_536  # bytes; less of a refused request is read and thrown away, more ends the connection
_GONE = 499  # the status of requests that nobody waited for, in logs and metrics alone


class RequestWatch:
    """Outermost. Whatever happens within, the client gets a response, and the log a line."""

    def __init__(self, app: ASGIApp, setup: HttpSetup, metrics: ServerMetrics) -> None:
        self._app, self._setup, self._metrics = app, setup, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(_request_id(headers), scope["method"], scope["path"], _client(scope))
        scope[RECORD] = record
        connection = _Watched(scope, receive, send, headers, self._setup.limits.write_s)
        try:
            await self._app(scope, connection.receive, connection.send)
        except ClientGone:
            record.status = record.status or _GONE
            record.fault = record.fault or "client_gone"
        except Exception as error:
            refusal = refusal_of(error, ready=self._setup.service.ready)
            record.fail(refusal.code or refusal.type, refusal.why)
            if not record.status:
                await refusal.response()(scope, connection.receive, connection.send)
        finally:
            record.status = record.status or _GONE
            self._metrics.count(record)
            self._setup.log.write(record)


class _Watched:
    """A connection during one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: Headers, write_s: float) -> None:
        self._scope, self._receive, self._send, self._write_s = scope, receive, send, write_s
        length = headers.get("content-length", "0")
        self._large = "transfer-encoding" in headers or not length.isdigit() or int(length[:20]) > _SMALL_BODY

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._large = False  # it was read whole
        return message

    async def send(self, message: Message) -> None:
        """Raises ClientGone where the client leaves an answer unread for too long, and ends its connection."""
        record = self._scope[RECORD]
        if message["type"] == "http.response.start":
            record.status = message["status"]
            told = {name for name, _ in message["headers"]}
            more = [(b"x-request-id", record.id.encode())]
            if b"x-content-type-options" not in told:
                more.append((b"x-content-type-options", b"nosniff"))
            if self._large and record.status >= 400 and b"connection" not in told:
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message["headers"], *more]}
        try:
            async with asyncio.timeout(self._write_s):
                await self._send(message)
        except TimeoutError:
            if (abort := self._scope.get(ABORT)) is not None:
                abort()
                await asyncio.sleep(0)  # the connection hears of its end in the loop's next turn
                await asyncio.sleep(0)
            record.fail("slow_reader")
            raise ClientGone from None
        except OSError:
            raise ClientGone from None


class RequestGuard:
    """Host, keys, and whether requests are taken at all. open_paths: of the page, which needs no key to be seen."""

    def __init__(self, app: ASGIApp, setup: HttpSetup, open_paths: frozenset[str]) -> None:
        self._app, self._setup = app, setup
        self._open = open_paths | set(_OPEN_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except (HttpRefusal, Busy) as error:
                response = refused(Request(scope), error, self._setup)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers, path, setup = Headers(scope=scope), scope["path"], self._setup
        if setup.loopback and setup.keys.api is None:
            check_host(headers.get("host"))
        if not path.isprintable():  # routes take a path with a line break behind it for the one without
            raise unknown_path()
        if path in ADMIN_PATHS:
            setup.keys.check_admin(headers.get("authorization"))
        elif path not in self._open:
            setup.keys.check(headers.get("authorization"))
        if scope["method"] == "POST" and not setup.service.ready:
            raise Busy("the server is about to end. Ask another one, or try again later.", 5.0)


def refused(request: Request, error: Exception, setup: HttpSetup) -> Response:
    """The response to a request that fails, noted for the log."""
    refusal = refusal_of(error, ready=setup.service.ready)
    record: RequestRecord = record_of(request)
    record.fail(refusal.code or refusal.type, refusal.why)
    return refusal.response()


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
