"""From calls to a response: whole, or piece by piece as server-sent events."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rung.models.streaming import WrittenToken
from rung.serving.conversation import query_of
from rung.serving.events import Begun, Done, Event, ModelCall, Piece, Served
from rung.serving.http.answering import Answering, while_heard
from rung.serving.http.errors import ClientGone, refusal_of
from rung.serving.http.json_text import json_bytes
from rung.serving.http.logs import RequestRecord
from rung.serving.http.setup import HttpSetup, record_of
from rung.serving.http.shapes import RungShape, UsageShape


@dataclass
class WholeAnswer:
    """An answer, as far as it came. tokens: with their log-probabilities, where they were asked for."""

    text: str = ""
    tokens: list[WrittenToken] = field(default_factory=list)
    begun: Begun | None = None
    done: Done | None = None


@dataclass(frozen=True)
class Asking:
    """One request. calls: one an answer, those of one prompt side by side. choices: answers a prompt."""

    served: Served
    calls: tuple[ModelCall, ...]
    choices: int = 1
    stream: bool = False
    include_usage: bool = False


class ReplyWriter(Protocol):
    """How one kind of completions looks. `start` gives the chunks before the first piece of an answer."""

    id_prefix: str
    whole_kind: str
    chunk_kind: str

    def whole(self, index: int, answer: WholeAnswer, done: Done) -> dict[str, Any]: ...

    def start(self, index: int) -> dict[str, Any] | None: ...

    def piece(self, index: int, piece: Piece) -> dict[str, Any]: ...

    def end(self, index: int, done: Done) -> dict[str, Any]: ...


async def reply(request: Request, setup: HttpSetup, asking: Asking, writer: ReplyWriter) -> Response:
    """The response. Nothing of it is sent before an answer begins, so that a refusal has its own status.

    Raises RungError, TimeoutError and ClientGone.
    """
    writing = _Writing(setup, asking, writer, record_of(request))
    writing.enter()
    first = None
    try:
        if asking.stream:
            first = await while_heard(request.receive, writing.answering.next())
        else:
            await while_heard(request.receive, writing.collect())
    except BaseException:
        await writing.leave()
        raise
    if asking.stream:
        return _EventStream(writing, first)
    await writing.leave()
    return Response(json_bytes(writing.whole()), media_type="application/json")


class _Writing:
    """A response in the making."""

    def __init__(self, setup: HttpSetup, asking: Asking, writer: ReplyWriter, record: RequestRecord) -> None:
        self.setup, self.asking, self.writer, self.record = setup, asking, writer, record
        self.answering = Answering(setup.service, asking.calls, setup.limits.answer_s)
        self._answers = [WholeAnswer() for _ in asking.calls]
        self._head = {"id": f"{writer.id_prefix}-{uuid.uuid4().hex}", "created": int(time.time())}

    def enter(self) -> None:
        self.setup.in_flight.enter(self.answering)
        self.answering.start()

    async def leave(self) -> None:
        """Ends what still runs. May be called again."""
        await self.answering.end()
        self.setup.in_flight.leave(self.answering)
        self._account()

    async def collect(self) -> None:
        while (event := await self.answering.next()) is not None:
            self.hear(*event)
        self._keep()

    def hear(self, index: int, event: Event) -> None:
        answer = self._answers[index]
        if isinstance(event, Begun):
            answer.begun = event
        elif isinstance(event, Piece):
            self.record.first_piece()
            if not self.asking.stream:
                answer.tokens += event.tokens
            if not self.asking.stream or self.setup.log.contents:
                answer.text += event.text
        else:
            answer.done = event

    def whole(self) -> dict[str, Any]:
        choices = []
        for index, answer in enumerate(self._answers):
            assert answer.done is not None
            choice = self.writer.whole(index, answer, answer.done)
            if len(self._answers) > 1:
                choice["rung"] = self.rung(answer.done)
            choices.append(choice)
        first = self._answers[0].done
        assert first is not None
        head = {**self._head, "object": self.writer.whole_kind, "model": self.asking.served.name}
        return {**head, "choices": choices, "usage": self.usage(), "rung": self.rung(first)}

    def chunk(self, *choices: dict[str, Any], usage: UsageShape | None = None, **more: object) -> bytes:
        chunk = {**self._head, "object": self.writer.chunk_kind, "model": self.asking.served.name, "choices": choices}
        if self.asking.include_usage:
            chunk["usage"] = usage
        return _event({**chunk, **more})

    def chunks(self, index: int, event: Event, begun: set[int]) -> list[bytes]:
        """What is sent of an event. begun: answers that something was sent of."""
        self.hear(index, event)
        found = []
        if index not in begun:
            begun.add(index)
            if (start := self.writer.start(index)) is not None:
                found.append(self.chunk(start))
        if isinstance(event, Piece):
            found.append(self.chunk(self.writer.piece(index, event)))
        elif isinstance(event, Done):
            found.append(self.chunk(self.writer.end(index, event), rung=self.rung(event)))
        return found

    def close(self) -> list[bytes]:
        """What is sent at the end of a stream that went well."""
        self._keep()
        usage = [self.chunk(usage=self.usage())] if self.asking.include_usage else []
        return [*usage, _DONE]

    def usage(self) -> UsageShape:
        """A prompt counts once, however many answers it gets."""
        prompts = [a.done for a in self._answers[:: self.asking.choices] if a.done is not None]
        read = sum(done.tokens_in for done in prompts)
        written = sum(a.done.tokens_out for a in self._answers if a.done is not None)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": sum(done.tokens_cached for done in prompts)},
        }

    def rung(self, done: Done) -> RungShape:
        return {
            "solution": self.asking.served.solution,
            "sources": [
                {
                    "number": s.number,
                    "id": s.id,
                    "title": s.title,
                    "page": s.page,
                    "last_page": s.last_page,
                    "source": s.source,
                    "text": s.text,
                    "cited": s.cited,
                    "supports": s.supports,
                }
                for s in done.sources
            ],
            "refused": done.refused,
            "fault": done.fault,
        }

    def _account(self) -> None:
        """What was computed for this request, also where it did not end."""
        told = [a.done or a.begun for a in self._answers]
        self.record.tokens_in = sum(one.tokens_in for one in told if one is not None)
        self.record.tokens_cached = sum(one.tokens_cached for one in told if one is not None)
        self.record.tokens_out = sum(a.done.tokens_out for a in self._answers if a.done is not None)
        if self.setup.log.contents:
            self.record.answered = [a.text for a in self._answers]

    def _keep(self) -> None:
        if self.setup.sample is None or self.asking.served.kind != "bundle":
            return
        for call in self.asking.calls[:: self.asking.choices]:
            query = query_of(call.messages, (), context=call.context)
            if call.prompt is not None:
                self.setup.sample.add(call.prompt, model=call.model, context=call.context)
            elif query is not None:
                own = {"context": query.context, "instruction": query.instruction}
                self.setup.sample.add(query.input, model=call.model, turns=query.turns, **own)


class _EventStream(Response):
    """Server-sent events. Where the client goes or reads too slowly, the answers end."""

    def __init__(self, writing: _Writing, first: tuple[int, Event] | None) -> None:
        super().__init__(media_type="text/event-stream", headers=_STREAMED)
        del self.headers["content-length"]
        self._writing, self._first = writing, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await while_heard(receive, self._send(send))
        finally:
            await self._writing.leave()

    async def _send(self, send: Send) -> None:
        begun: set[int] = set()
        event = self._first
        try:
            while event is not None:
                for chunk in self._writing.chunks(*event, begun):
                    await _body(send, chunk)
                event = await self._writing.answering.next()
        except Exception as error:
            await self._fail(error, send)
            return
        for chunk in self._writing.close():
            await _body(send, chunk)
        await _body(send, b"", more=False)

    async def _fail(self, error: Exception, send: Send) -> None:
        """The status was sent long ago: the fault is an event of its own."""
        if isinstance(error, ClientGone):
            raise error
        refusal = refusal_of(error, ready=self._writing.setup.service.ready)
        self._writing.record.fail(refusal.code or refusal.type, refusal.why)
        await _body(send, _event(refusal.body()))
        await _body(send, _DONE, more=False)


_DONE = b"data: [DONE]\n\n"
_STREAMED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy passes pieces on as they come


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"


async def _body(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def calls_of(call: ModelCall, choices: int) -> tuple[ModelCall, ...]:
    """As many calls as answers are wanted. Sampled ones have seeds of their own: the client's and those that follow it,
    else drawn ones, so that two requests differ as with other servers."""
    sampled = call.temperature is not None and call.temperature > 0
    found = []
    for number in range(choices):
        seed = call.seed
        if seed is not None:
            seed = (seed + number) % 2**63
        elif sampled or number:
            seed = secrets.randbits(31)
        found.append(replace(call, seed=seed))
    return tuple(found)
