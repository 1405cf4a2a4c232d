"""Errors as OpenAI writes them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from rung.errors import NO_REPLY, Busy, RungError, ServingError, Unanswerable, UnknownModel
from rung.serving.http.json_text import json_bytes

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class HttpRefusal(Exception):
    """A request that gets no answer. param: the field at fault. code: of the fault, for programs.

    why: for the server's log alone, where the message does not say it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        why: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        self.why = why

    @property
    def type(self) -> str:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return _TYPES.get(self.status, kind)

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        return Response(json_bytes(self.body()), self.status, self.headers, "application/json")


def unknown_path() -> HttpRefusal:
    return HttpRefusal(404, "there is no such path. /openapi.json lists them.", code="unknown_path")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def refusal_of(error: Exception, *, ready: bool = True) -> HttpRefusal:
    """What a client is told of an error. ready: whether the server takes requests.

    A fault of the model, or of rung, is not told in its own words: they may name places on this machine.
    """
    if isinstance(error, HttpRefusal):
        return error
    if isinstance(error, TimeoutError):
        return HttpRefusal(504, "the answer took longer than the server allows. Ask for fewer tokens.", code="timeout")
    if isinstance(error, Busy):
        wait = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
        if not ready:
            return HttpRefusal(503, f"{error}", code="draining", headers={**wait, "Connection": "close"})
        return HttpRefusal(429, f"{error}", code="queue_full", headers=wait)
    if isinstance(error, UnknownModel):
        return HttpRefusal(404, f"{error}", param="model", code="model_not_found")
    if isinstance(error, Unanswerable):
        return HttpRefusal(400, f"{error}", param=error.param)
    if isinstance(error, ServingError):
        return HttpRefusal(400, f"{error}")
    if isinstance(error, RungError) and str(error).startswith(NO_REPLY):
        return HttpRefusal(504, "the model did not reply in time. Try again.", code="no_reply", why=str(error))
    fault = str(error) if isinstance(error, RungError) else f"{type(error).__name__}{place_of(error)}"
    return HttpRefusal(500, "the model failed at this request. The server's log says why.", code="failed", why=fault)


def place_of(error: BaseException) -> str:
    """Where it was raised, for the log: the words of an unexpected error may hold what a client wrote."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f" at {code.co_filename}:{trace.tb_lineno} ({code.co_name})"
