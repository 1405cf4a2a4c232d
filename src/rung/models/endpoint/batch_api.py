"""OpenAI's batch interface: files of calls, jobs made of them, files of replies. Exchanges, and what they hold.

Knows nothing of which calls to send, of dollars, or of what is in a reply.
Source: https://platform.openai.com/docs/guides/batch (limits, states, files); RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rung.errors import ModelError
from rung.models.endpoint.http_connection import ConnectionFault, Reply
from rung.models.endpoint.policy import may_pass

MOST_CALLS, MOST_BYTES = 50_000, 200_000_000
"""Of one file."""

OVER = {
    "completed": "is completed",
    "failed": "has failed",
    "expired": "has expired",
    "cancelled": "was cancelled",
}
"""States in which a job is over, in words."""

GONE = "gone"
"""The code of the error of a job that the provider does not know any more."""

T = TypeVar("T")
Headers = Mapping[str, Any]
JsonObject = Mapping[str, Any]

_TRIES = 8  # of one exchange
_LONGEST_PAUSE_S = 60.0  # between two tries
_EXCHANGE_S, _FILE_S = 60.0, 600.0
_PAGES = 100  # of the provider's list of jobs
_DAY_S = 86_400.0
_NAMED = "rung"  # the field of a job's metadata that holds the name which rung gave it
_SHOWN = 300  # characters of what a provider says


class Exchange(Protocol):
    """As `Transport.exchange`."""

    async def __call__(
        self, method: str, path: str, *, headers: Headers, body: bytes | None = None, timeout_s: float
    ) -> Reply: ...


@dataclass(frozen=True)
class BatchReply:
    """What came for one call. status: 200 with the body of a reply; another with `error`; 0: nothing came."""

    status: int
    body: JsonObject = field(default_factory=dict)
    error: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the same call may be answered when it is asked again."""
        return self.status == 0 or may_pass(self.status)


class BatchRefused(ModelError):
    """An exchange that was refused for good, with its status."""

    def __init__(self, status: int, message: str) -> None:
        advice = " The endpoint may have no batch interface: leave out `batch: true`." if status in (404, 405) else ""
        super().__init__(f"{message}.{advice}")
        self.status = status


class NoBatchReply(ModelError):
    """An exchange that got no usable reply in several tries. pause: seconds to wait before another one."""

    def __init__(self, message: str, pause: float) -> None:
        super().__init__(message)
        self.pause = pause


class BatchApi:
    """The exchanges. All raise BatchRefused, or NoBatchReply after eight tries with growing pauses.

    exchange, headers: as of the transport. sleep: for tests.
    """

    def __init__(self, exchange: Exchange, headers: Headers, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._exchange, self._headers, self._sleep = exchange, headers, sleep

    async def upload(self, lines: Sequence[bytes]) -> str:
        """The id of a new file with these calls."""
        body, kind = _form(b"".join(lines))
        return await self._ask("POST", "/files", _id, body=body, kind=kind, timeout_s=_FILE_S)

    async def create(self, file: str, name: str, about: Mapping[str, str], since: float) -> str:
        """The id of a job of that name, made of a file. It is made once, whatever happens to the exchange.

        about: more metadata. since: when the name was given, in seconds since 1970.
        """
        wanted = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {_NAMED: name, **about},
        }
        body = json.dumps(wanted).encode()
        for left in reversed(range(_TRIES)):
            try:
                return await self._ask("POST", "/batches", _id, body=body, tries=1)
            except NoBatchReply as fault:  # the job may have been made all the same
                await self._sleep(fault.pause)
                try:
                    found = await self.find(name, since)
                except BatchRefused as refusal:  # that the list is refused says nothing of the job
                    raise NoBatchReply(str(refusal), fault.pause) from None
                if found is not None:
                    return found
                if not left:
                    raise
        raise AssertionError

    async def find(self, name: str, since: float) -> str | None:
        """The id of the job of that name in the provider's list, newest first; None where it was never made."""
        after = ""
        for _ in range(_PAGES):
            page = await self._ask("GET", f"/batches?limit=100{after}", _object)
            listed = [one for one in page.get("data") or () if isinstance(one, Mapping)]
            for one in listed:
                if (one.get("metadata") or {}).get(_NAMED) == name:
                    return str(one["id"])
            oldest = listed[-1] if listed else {}
            if not page.get("has_more") or float(oldest.get("created_at") or 0.0) < since - _DAY_S:
                return None
            after = f"&after={oldest['id']}"
        return None

    async def state(self, job: str) -> JsonObject:
        """What the provider says of a job. One that it does not know any more has failed."""
        try:
            return await self._ask("GET", f"/batches/{job}", _object)
        except BatchRefused as refusal:
            if refusal.status != 404:
                raise
            error = {"code": GONE, "message": "the provider does not know it any more"}
            return {"status": "failed", "errors": {"data": [error]}}

    async def replies(self, file: str) -> dict[str, BatchReply] | None:
        """The replies in an output or error file, by key; None where the file is gone."""
        try:
            return await self._ask("GET", f"/files/{file}/content", lambda r: dict(_replies(r.body)), timeout_s=_FILE_S)
        except BatchRefused as refusal:
            if refusal.status != 404:
                raise
            return None

    async def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[Reply], T],
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        timeout_s: float = _EXCHANGE_S,
        tries: int = _TRIES,
    ) -> T:
        """What `read` makes of a reply of status 2xx; where it raises ValueError, the exchange is tried again."""
        headers = {**self._headers, "content-type": kind} if body is not None else self._headers
        pause = 1.0
        for left in reversed(range(tries)):
            try:
                reply = await self._exchange(method, path, headers=headers, body=body, timeout_s=timeout_s)
                if reply.status < 300:
                    return read(reply)
                problem = f"status {reply.status}: {_said(reply.body)}"
                if not may_pass(reply.status):
                    raise BatchRefused(reply.status, f"batch job: {method} {path} was refused with {problem}")
                with suppress(ValueError):
                    pause = max(pause, float(reply.headers.get("retry-after", "")))
            except ConnectionFault as fault:
                problem = fault.detail.rstrip(".")
            except ValueError as error:
                problem = str(error)
            pause = min(pause, _LONGEST_PAUSE_S)
            if left:
                await self._sleep(pause)
                pause *= 2
        raise NoBatchReply(
            f"batch job: {method} {path} failed: {problem}. Run the same command again; jobs under way go on.", pause
        )


def line_of(key: str, body: JsonObject) -> bytes:
    """One call, as a line of a file."""
    record = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": dict(body)}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"


def errors_of(state: JsonObject) -> list[tuple[str, str]]:
    """Codes and messages of what made a job fail."""
    data = (state.get("errors") or {}).get("data") or ()
    return [(str(one.get("code") or ""), str(one.get("message") or "").rstrip(".")) for one in data]


def answered_of(state: JsonObject) -> int:
    """How many calls of a job are answered so far."""
    return int((state.get("request_counts") or {}).get("completed") or 0)


def _replies(content: bytes) -> Iterator[tuple[str, BatchReply]]:
    """Key and reply of each line of a file. Lines that cannot be read are left out."""
    for line in content.split(b"\n"):
        try:
            record = json.loads(line)
            key, response, error = str(record["custom_id"]), record.get("response") or {}, record.get("error")
            status, body = int(response.get("status_code") or 0), response.get("body")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if status == 200 and isinstance(body, Mapping):
            yield key, BatchReply(200, body)
        else:
            yield key, BatchReply(0 if status == 200 else status, {}, _message(error or body))


def _form(content: bytes) -> tuple[bytes, str]:
    """A file of calls as multipart/form-data, and the content type with its boundary."""
    boundary = f"rung{uuid.uuid4().hex}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="calls.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    parts = [head.encode(), content, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _object(reply: Reply) -> JsonObject:
    record = json.loads(reply.body)
    if not isinstance(record, Mapping):
        raise ValueError("the reply is no JSON object")
    return record


def _id(reply: Reply) -> str:
    found = _object(reply).get("id")
    if not isinstance(found, str) or not found:
        raise ValueError("the reply has no id")
    return found


def _said(body: bytes) -> str:
    """What an error reply says, in one line."""
    try:
        return _message(json.loads(body))
    except ValueError:
        return _message(body.decode(errors="replace"))


def _message(error: Any) -> str:
    """The message in an error of any shape, in one line."""
    if isinstance(error, Mapping):
        error = error.get("error") or error.get("message") or error.get("code") or error
        if isinstance(error, Mapping):
            error = error.get("message") or error.get("code") or error
    return " ".join(str(error or "no reason was given").split())[:_SHOWN].rstrip(".")
