"""What a fake endpoint does with each request: who may call, how many at once, which fault, which answer, and when.

Runs on one event loop. Knows nothing of threads and processes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

from rung.testing.endpoint.batches import Batches
from rung.testing.endpoint.chat import Body, Chat, ChatAnswers, Completion, Rejection
from rung.testing.endpoint.record import Call, Key, Record
from rung.testing.endpoint.switches import Faults, FaultScript, Switches
from rung.testing.endpoint.wire import EVENTS, HTML, JSON, Connection, Received

_PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"
_AT_ONCE = ("429", "429-retry-after", "429-date", "429-headers", "quota")
_HEADERS_OF = {"429-retry-after": "retry-after", "429-date": "date", "429-headers": "headers"}
_PIECES = 10  # of a slow answer
_OWNERS = {"openai": "system", "vllm": "vllm", "llama.cpp": "llamacpp", "llama-cpp-python": "me"}


class Service:
    """The handler of requests. switches may be replaced at any time; it holds for calls that arrive afterwards."""

    def __init__(self, answers: ChatAnswers, switches: Switches, faults: FaultScript | None, seed: int) -> None:
        self.switches = switches
        self.record = Record()
        self.connections: set[Connection] = set()
        self._chat = Chat(answers)
        self._faults = Faults(faults, seed)
        self._batches = Batches(self._answer_line, lambda: self.switches, time.monotonic)
        self._in_flight = 0
        self._tokens = switches.per_second or 0.0
        self._filled = time.monotonic()
        self._streams: set[asyncio.Future[None]] = set()

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self.handle, self.connections, lambda: self.switches.requests_per_connection)

    def handle(self, exchange: Received) -> None:
        """Answers a request, now or later."""
        try:
            self._route(exchange)
        except Rejection as refusal:
            exchange.reply(refusal.status, refusal.body)

    def close(self) -> None:
        """Ends what is under way: connections close without answers."""
        for connection in list(self.connections):
            connection.abort()
        for stream in self._streams:
            stream.cancel()

    # ---- routes -----------------------------------------------------------------------------

    def _route(self, exchange: Received) -> None:
        path, switches = exchange.path.rstrip("/"), self.switches
        if path == "/fake/record":
            told = self.record.summary(calls="calls" in exchange.query)
            return exchange.reply(200, json.dumps(told).encode())
        if switches.server == "llama.cpp" and (exchange.method, path) == ("POST", "/tokenize"):
            content = str(_read(exchange.body).get("content", ""))
            return exchange.reply(200, json.dumps({"tokens": [ord(character) for character in content]}).encode())
        deployment = None
        if switches.azure:
            if not path.startswith("/openai/") or "api-version" not in exchange.query:
                raise Rejection(404, "Resource not found", "404")
            path = path.removeprefix("/openai")
            if path.startswith("/deployments/"):
                deployment, _, rest = path.removeprefix("/deployments/").partition("/")
                path = f"/{rest}"
        elif path.startswith("/v1/"):
            path = path.removeprefix("/v1")
        else:
            raise Rejection(404, f"Invalid URL ({exchange.method} {exchange.path})", None)
        key = self._key(exchange)
        if (exchange.method, path) == ("POST", "/chat/completions"):
            return self._chat_call(exchange, key, deployment)
        if key in ("absent", "unequal") and switches.key is not None:
            raise _unauthorized(key)
        told_or_bytes = self._small(exchange, path)
        body = told_or_bytes if isinstance(told_or_bytes, bytes) else json.dumps(told_or_bytes).encode()
        exchange.reply(200, body, "application/octet-stream" if isinstance(told_or_bytes, bytes) else JSON)

    def _small(self, exchange: Received, path: str) -> dict[str, Any] | bytes:
        """Everything but chat: models, files and batches. A dictionary is JSON; bytes are a file's."""
        parts = path.strip("/").split("/")
        match (exchange.method, *parts):
            case ("GET", "models"):
                names = (self.switches.model, *self.switches.more_models)
                return {"object": "list", "data": [self._listed(name) for name in names]}
            case ("GET", "models", *name):
                if "/".join(name) not in (self.switches.model, *self.switches.more_models):
                    raise Rejection(
                        404, f"The model '{'/'.join(name)}' does not exist", "model_not_found", param="model"
                    )
                return self._listed("/".join(name))
            case ("POST", "files"):
                return self._batches.upload(exchange.body, exchange.header("content-type") or "").told()
            case ("GET", "files", id):
                return self._batches.file(id).told()
            case ("DELETE", "files", id):
                del self._batches.files[self._batches.file(id).id]
                return {"id": id, "object": "file", "deleted": True}
            case ("GET", "files", id, "content"):
                return self._batches.file(id).content
            case ("POST", "batches"):
                return self._batches.create(_read(exchange.body)).told()
            case ("GET", "batches"):
                told = [self._batches.get(id).told() for id in reversed(self._batches.batches)]
                return {"object": "list", "data": told, "has_more": False}
            case ("GET", "batches", id):
                return self._batches.get(id).told()
            case ("POST", "batches", id, "cancel"):
                return self._batches.cancel(id).told()
        raise Rejection(404, f"Invalid URL ({exchange.method} {exchange.path})", None)

    def _listed(self, name: str) -> dict[str, Any]:
        switches = self.switches
        told: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": 1_790_000_000,
            "owned_by": _OWNERS[switches.server],
        }
        if switches.shutdown_date is not None:
            told["shutdown_date"] = switches.shutdown_date
        if switches.tells_context == "meta":
            told["meta"] = {"n_ctx_train": switches.context_length, "n_ctx": switches.context_length}
        elif switches.tells_context != "none":
            told[switches.tells_context] = switches.context_length
        return told

    def _key(self, exchange: Received) -> Key:
        """Whether the wanted key came. The key itself goes no further than this function."""
        if self.switches.azure:
            sent = exchange.header("api-key")
        else:
            header = exchange.header("authorization")
            sent = header[7:] if header is not None and header[:7].lower() == "bearer " else header
        if sent is None:
            return "absent"
        if self.switches.key is None:
            return "present"
        return "equal" if sent == self.switches.key else "unequal"

    # ---- chat -------------------------------------------------------------------------------

    def _chat_call(self, exchange: Received, key: Key, deployment: str | None) -> None:
        """One call: refused at once, or answered after its latency."""
        switches, record = self.switches, self.record
        call = Call(len(record.calls), exchange.path, exchange.body, time.time(), key)
        record.calls.append(call)
        call.fault = self._faults.of(call.number)
        try:
            if switches.key is not None and key != "equal":
                raise _unauthorized(key)
            headers = self._refuse_too_many(call)
            if call.fault in _AT_ONCE:
                record.faults[call.fault] += 1
                raise _too_many(call.fault)
            body = _read(exchange.body)
            completion = self._chat.complete(body, switches, deployment)
        except Rejection as refusal:
            call.status = refusal.status
            told = self._limits(refusal)
            return exchange.reply(refusal.status, refusal.body, JSON, told)
        self._in_flight += 1
        call.in_flight = self._in_flight
        record.most_at_once = max(record.most_at_once, self._in_flight)
        wait = switches.latency_s(call.number) if callable(switches.latency_s) else switches.latency_s
        exchange.sent = lambda: setattr(call, "delivered", time.time())
        exchange.unread = lambda: setattr(call, "delivered", None)
        if body.get("stream") is True and call.fault in (None, "cut", "slow"):
            stream = asyncio.ensure_future(self._stream(exchange, call, completion, body, wait))
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)
        else:
            wait += switches.per_token_s * completion.tokens_out
            self._later(wait, lambda: self._deliver(exchange, call, completion, headers))

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, do)

    def _deliver(self, exchange: Received, call: Call, completion: Completion, headers: str) -> None:
        """The answer of a plain call, or its fault in the place of it."""
        self._in_flight -= 1
        fault = call.fault
        if fault is None:
            self._charge(call, completion)
            return exchange.reply(200, json.dumps(completion.told(call.number)).encode(), JSON, headers)
        self.record.faults[fault] += 1
        if fault in ("cut", "slow", "bad-json", "no-choices"):
            self._charge(call, completion)
        told = completion.told(call.number)
        if fault == "no-choices":
            told["choices"] = []
        body = json.dumps(told).encode()
        if fault in ("drop", "stall"):
            call.status = 0
            return exchange.drop() if fault == "drop" else None
        if fault == "cut":
            exchange.reply(200, body[: len(body) // 2], claims=len(body))
            return exchange.drop()
        if fault == "slow":
            exchange.head(200, JSON, headers, length=len(body))
            return self._drip(exchange, body, self.switches.slow_s / _PIECES)
        call.status = int(fault) if fault in ("500", "503") else 200
        if fault == "500":
            return exchange.reply(500, Rejection(500, "The server had an error.", None).body)
        if fault in ("503", "html"):
            return exchange.reply(call.status, _PAGE, HTML)
        exchange.reply(200, {"bad-json": body[: len(body) // 2], "empty": b""}.get(fault, body))

    def _drip(self, exchange: Received, body: bytes, pause_s: float) -> None:
        """Sends a body in pieces."""
        size = -(-len(body) // _PIECES)

        def send(at: int) -> None:
            last = at + size >= len(body)
            exchange.piece(body[at : at + size], last=last)
            if not last and not exchange.gone:
                self._later(pause_s, lambda: send(at + size))

        self._later(pause_s, lambda: send(0))

    async def _stream(self, exchange: Received, call: Call, completion: Completion, body: Body, wait: float) -> None:
        """A streamed answer: the role at once, the first token after `wait`, each other token after its own time.

        Thought tokens take their time before the first one. A cut one ends in its middle.
        """
        options = body.get("stream_options")
        usage = isinstance(options, dict) and options.get("include_usage") is True
        events = completion.events(call.number, usage=usage)
        pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]
        tokens = completion.tokens_out - completion.thought
        pause = self.switches.slow_s / max(1, tokens) if call.fault == "slow" else self.switches.per_token_s
        if call.fault is not None:
            self.record.faults[call.fault] += 1
        exchange.head(200, EVENTS)
        exchange.chunk(pieces[0])
        await asyncio.sleep(wait + completion.thought * self.switches.per_token_s)
        self._charge(call, completion)
        for place, piece in enumerate(pieces[1:], 1):
            if call.fault == "cut" and place == len(pieces) // 2:
                self._in_flight -= 1
                return exchange.drop()
            exchange.chunk(piece)
            if place < tokens and pause > 0:
                await asyncio.sleep(pause)
        self._in_flight -= 1
        exchange.chunk(b"")

    def _charge(self, call: Call, completion: Completion) -> None:
        call.status, call.charged = 200, True
        call.tokens_in, call.tokens_out = completion.tokens_in, completion.tokens_out
        call.tokens_cached, call.answer = completion.tokens_cached, completion.text

    def _answer_line(self, body: dict[str, Any], raw: bytes) -> tuple[int, dict[str, Any]]:
        """One line of a batch: recorded and charged like a call."""
        call = Call(len(self.record.calls), "batch", raw, time.time(), "equal" if self.switches.key else "absent")
        self.record.calls.append(call)
        try:
            completion = self._chat.complete(body, self.switches)
        except Rejection as refusal:
            call.status = refusal.status
            return refusal.status, {"error": refusal.error}
        self._charge(call, completion)
        call.delivered = time.time()
        return 200, completion.told(call.number)

    # ---- limits -----------------------------------------------------------------------------

    def _refuse_too_many(self, call: Call) -> str:
        """The headers that tell limits, "" where there are none. Raises Rejection for a call beyond a limit."""
        switches = self.switches
        if switches.no_quota:
            self.record.faults["quota"] += 1
            raise _too_many("quota")
        beyond = None
        if switches.most_in_flight is not None and self._in_flight >= switches.most_in_flight:
            beyond = "in-flight"
        elif switches.per_second is not None:
            now = time.monotonic()
            self._tokens = min(switches.per_second, self._tokens + (now - self._filled) * switches.per_second)
            self._filled = now
            if self._tokens < 1:
                beyond = "rate"
            else:
                self._tokens -= 1
        if beyond is not None:
            self.record.faults[beyond] += 1
            call.fault = beyond
            raise _too_many(beyond)
        return self._limit_headers() if switches.tells_limits == "headers" else ""

    def _limits(self, refusal: Rejection) -> str:
        """The headers of a refusal."""
        if refusal.status != 429:
            return ""
        told = _HEADERS_OF.get(str(refusal.cause), "nothing")
        if refusal.cause in ("in-flight", "rate"):
            told = self.switches.tells_limits
        seconds = self.switches.retry_after_s
        if told == "retry-after":
            return f"retry-after: {seconds:g}\r\n"
        if told == "date":
            return f"retry-after: {formatdate(time.time() + seconds, usegmt=True)}\r\n"
        return self._limit_headers(none_left=True) if told == "headers" else ""

    def _limit_headers(self, *, none_left: bool = False) -> str:
        """As OpenAI sends them: of the limit a second where there is one, else of the calls in flight."""
        switches = self.switches
        limit = switches.per_second or switches.most_in_flight or 1
        left = self._tokens if switches.per_second else limit - self._in_flight - 1
        reset = 1 / switches.per_second if switches.per_second and self._tokens < 1 else switches.retry_after_s
        return (
            f"x-ratelimit-limit-requests: {int(limit)}\r\n"
            f"x-ratelimit-remaining-requests: {0 if none_left else max(0, int(left))}\r\n"
            f"x-ratelimit-reset-requests: {reset * 1000:.0f}ms\r\n"
        )


def _unauthorized(key: Key) -> Rejection:
    fact = "You didn't provide an API key." if key == "absent" else "Incorrect API key provided."
    return Rejection(401, fact, "invalid_api_key")


def _too_many(cause: str) -> Rejection:
    if cause == "quota":
        fact = "You exceeded your current quota, please check your plan and billing details."
        return Rejection(429, fact, "insufficient_quota", kind="insufficient_quota", cause=cause)
    return Rejection(429, "Rate limit reached for requests.", "rate_limit_exceeded", kind="requests", cause=cause)


def _read(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises Rejection where it is none."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Rejection(400, "We could not parse the JSON body of your request.", None)
    return value
