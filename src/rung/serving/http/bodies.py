"""The body of a request: read within limits of bytes and time, and checked against its schema."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from rung.serving.http.errors import ClientGone, HttpRefusal
from rung.serving.http.limits import HttpLimits

Body = TypeVar("Body", bound=BaseModel)
_LINGER_S = 0.5
"""A client that sends too much is read for so long, and nothing is kept: it hears why only once it has sent all."""
_CLOSE = {"Connection": "close"}


async def read_body(request: Request, schema: type[Body], limits: HttpLimits) -> Body:
    """The body as its schema. Raises HttpRefusal or ClientGone."""
    return as_schema(schema, await read_object(request, limits))


async def read_object(request: Request, limits: HttpLimits) -> dict[str, Any]:
    """The body as it came. Raises HttpRefusal, also where it is no JSON object, or ClientGone."""
    _check_type(request)
    raw = await _read(request, limits)
    try:
        value = from_json(raw, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise HttpRefusal(400, f"the body is not JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise HttpRefusal(400, "the body must be a JSON object.", code="invalid_json")
    return value


def as_schema(schema: type[Body], value: dict[str, Any]) -> Body:
    """Raises HttpRefusal, which names the field at fault."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise _refused(error, value) from None


def _check_type(request: Request) -> None:
    """A page of another site cannot send this type without being allowed to; it can send others, or none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = "the body must be JSON. Send the header Content-Type: application/json."
        raise HttpRefusal(415, message, code="unsupported_media_type", headers=_CLOSE)


async def _read(request: Request, limits: HttpLimits) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > limits.body_bytes:
        if "expect" not in request.headers:
            await _linger(request)
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limits.body_bytes:
                    break
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        fact = f"the body did not come whole within {limits.body_s:g} seconds."
        raise HttpRefusal(408, fact, code="timeout", headers=_CLOSE) from None
    body.clear()
    await _linger(request)
    raise _too_large(limits)


async def _linger(request: Request) -> None:
    try:
        async with asyncio.timeout(_LINGER_S):
            while (await request.receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


def _too_large(limits: HttpLimits) -> HttpRefusal:
    message = f"the body is larger than {limits.body_bytes:,} bytes, which the server allows. Send less."
    return HttpRefusal(413, message, code="body_too_large", headers=_CLOSE)


def _refused(error: ValidationError, value: dict[str, Any]) -> HttpRefusal:
    """The deepest fault, and rather one of a value than of a type: of the ways in which a field may be written, it is
    about the one that was meant."""
    faults = error.errors(include_url=False, include_input=False)
    fault = max(faults, key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
    message = fault["msg"].removeprefix("Value error, ")
    place = _place(fault["loc"], value, missing=fault["type"] == "missing")
    if not place and ": " in message:
        place, _, message = message.partition(": ")
    return HttpRefusal(400, f"{place}: {message}." if place else f"{message}.", param=place or None)


def _place(loc: Sequence[int | str], value: Any, *, missing: bool) -> str:
    """The path of a field, as messages.0.content: names of types, which pydantic adds, stand in no body."""
    kept: list[str] = []
    for number, part in enumerate(loc):
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif not (missing and number == len(loc) - 1):
            continue
        kept.append(str(part))
    return ".".join(kept)
