"""One request to an endpoint, asked until it has its answer: other fields where some are refused, room for a thought
where the model thinks, another mode where a constraint is not held, and again where a reply does not fit.

What is found out on the way goes into EndpointFacts, and later requests begin with it. Knows nothing of kept answers
and of blocks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rung.errors import DOES_NOT_FIT, NO_REPLY, ModelError
from rung.models.endpoint.known import EndpointFacts
from rung.models.endpoint.label_tokens import label_tokens
from rung.models.endpoint.policy import BadReply, CallFailed, Calls, Refused
from rung.models.endpoint.protocol import chat_body, most_tokens_in, most_tokens_out, turns_of, utf8_bytes
from rung.models.endpoint.refusals import error_of_all, learnt, refusal_of, room_told
from rung.models.endpoint.replies import Answered, Reader, Reading, Tells, wants_tags
from rung.models.endpoint.spec import EndpointSpec
from rung.models.endpoint.structured import Form, Mode, UnfitReply, modes, told
from rung.models.endpoint.till import Bill, billed, most_usd_of, usd_of
from rung.models.endpoint.transport import Headers, Reply
from rung.types import Price, Request

_ROUNDS = 16  # of one request, with all that may be learnt on the way
_AGAIN = 2  # times that a reply that does not fit is asked for again
_TRIES = 3  # failures in a row after which something else is tried, where it is not known how requests are taken

_ENCODER = json.JSONEncoder(default=dict)  # nested params are mappings

Say = Callable[[str], None]

FILTERED = "the endpoint's content filter stopped it"


@dataclass
class Asked:
    """What came of a request, as it is kept.

    Tokens are those of all replies that led to it. latency_s: as a client sees them. usd: what they were charged, None
    where no price is known. model: by the endpoint's word.
    """

    text: str = ""
    finish: str = "stop"
    error: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    latency_s: float = 0.0
    usd: float | None = None
    model: str = ""
    first_token_s: float | None = None

    @property
    def is_kept(self) -> bool:
        return self.error is None or self.error == FILTERED

    def record(self) -> dict[str, Any]:
        """For the call cache: everything but the dollars, which are paid once."""
        fields = {name: value for name, value in vars(self).items() if name not in ("usd", "first_token_s") and value}
        return {"text": self.text, **fields}

    def forget(self) -> None:
        """Its tokens do not count, since no later request needs them; its dollars do."""
        self.tokens_in = self.tokens_out = self.tokens_cached = 0
        self.latency_s = 0.0

    def add(self, reading: Reading, body: Mapping[str, Any], usd: float | None) -> None:
        """Takes over a reply. Its tokens are estimated where the endpoint does not tell them."""
        answered = reading.answered
        read, written = answered.tokens_in, answered.tokens_out
        if read is None:
            read = sum(estimate_tokens(turn["content"]) for turn in body["messages"])
        self.tokens_in += read
        self.tokens_out += estimate_tokens(answered.text) if written is None else written
        self.tokens_cached += answered.tokens_cached
        self.latency_s += reading.seconds
        self.first_token_s = reading.first_token_s
        self.text, self.finish, self.model = answered.text, answered.finish, answered.model
        if usd is not None:
            self.usd = (self.usd or 0.0) + usd


@dataclass
class _Talk:
    """Where a request stands: its turns, the room that was told for its answer, and how often it was asked again.

    patient: whatever fails is not its mode. loose: in this request alone nothing is sent that holds it to its form.
    doubted: modes that failed, while no other one has worked yet: it may be the endpoint, or the request itself.
    gate: held while others wait for what is found out. more: fields of the body. tells: what is told of a stream.
    """

    request: Request
    form: Form | None
    turns: list[Mapping[str, str]]
    room: int | None = None
    again: int = 0
    patient: bool = False
    loose: bool = False
    doubted: list[Mode] = field(default_factory=list)
    gate: asyncio.Lock | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    tells: Tells | None = None

    def let_others(self) -> None:
        if self.gate is not None:
            self.gate.release()
            self.gate = None


class _Gate(asyncio.Lock):
    """Held while one request finds out what others wait for. ended: what it raised, which concerns all of them."""

    ended: str | None = None


class _Learnt:
    """Something was learnt, with which a request is asked afresh."""


def estimate_tokens(text: str) -> int:
    """Tokens of a text, from its UTF-8 bytes: 15 bytes for 4 tokens.

    Beside the tokenizers of SmolLM2 and Gemma 3: within 6 % for English prose, Markdown and code; half of the true
    number for texts of digits and marks such as dense JSON; half to double for other languages.
    """
    return -(-utf8_bytes(text) * 4 // 15)


class Asker:
    """Asks requests of one endpoint, many at once. price: of tokens, None where it is not known."""

    def __init__(self, spec: EndpointSpec, calls: Calls, known: EndpointFacts, headers: Headers, say: Say) -> None:
        self.spec, self.calls, self.known, self.headers, self._say = spec, calls, known, headers, say
        self.price: Price | None = None
        self._gates: dict[str, _Gate] = {}
        self._open: set[str] = set()
        self._forms: dict[int, Form] = {}

    async def ask(
        self, request: Request, *, more: Mapping[str, Any] | None = None, tells: Tells | None = None
    ) -> Asked:
        """The answer, or an error that concerns this request. Raises ModelError for what concerns all of them.

        Where it is not known yet how the endpoint takes requests of its kind, one goes ahead and the others wait.
        more: fields of the body. tells: asked at each attempt for what gets the text while it is written, unless that
        is only an answer once it is read: of a constraint, or behind a thought.
        """
        form = self._form_of(request)
        tells = None if form is not None or self.known.habits.thinks else tells
        talk = _Talk(request, form, turns_of(request.messages), more=more or {}, tells=tells)
        kind = form.key if form is not None else ""
        if kind in self._open or self._is_proven(form):
            self._open.add(kind)
            return await self._talk(talk)
        gate = self._gates.setdefault(kind, _Gate())
        await gate.acquire()
        talk.gate = gate
        try:
            if gate.ended is not None:
                raise ModelError(gate.ended)
            await self._find_tokens(form)
            if kind in self._open:
                talk.let_others()
            asked = await self._talk(talk)
            if asked.error is None or asked.error.startswith(NO_REPLY):
                self._open.add(kind)
            return asked
        except ModelError as error:
            gate.ended = str(error)
            self._gates.pop(kind, None)  # later requests begin anew
            raise
        finally:
            talk.let_others()

    async def _find_tokens(self, form: Form | None) -> None:
        """Asks for the tokens of labels, once, where a server can be held to them."""
        if form is None or form.constraint.kind != "labels" or self.known.label_tokens(form) is not None:
            return
        if "tokens" in modes(self.spec.response_format, self.known.listed.server, form.constraint):
            labels = [str(label) for label in form.constraint.value]
            self.known.keep_label_tokens(form, await label_tokens(self.spec.endpoint, self.headers, labels))

    def body_of(self, request: Request, *, stream: bool = False) -> tuple[dict[str, Any], Form | None, Mode]:
        """As a request would be sent now: its body, and how it is held to its constraint."""
        form = self._form_of(request)
        mode = self.mode_of(form)
        return self._body(_Talk(request, form, turns_of(request.messages)), mode, stream=stream), form, mode

    def _form_of(self, request: Request) -> Form | None:
        """One for all requests that share a constraint: what it works out is worked out once."""
        constraint = request.constraint
        if constraint is None:
            return None
        if id(constraint) not in self._forms:
            self._forms[id(constraint)] = Form(constraint)  # it holds the constraint, so that the id stays its own
        return self._forms[id(constraint)]

    def mode_of(self, form: Form | None, doubted: Sequence[Mode] = ()) -> Mode:
        """How a form is held now. doubted: modes that are not to be used."""
        if form is None:
            return "none"
        wanted = modes(self.spec.response_format, self.known.listed.server, form.constraint)
        out = doubted if self.known.label_tokens(form) else (*doubted, "tokens")
        return self.known.mode(form, tuple(mode for mode in wanted if mode not in out))

    def is_proven(self, request: Request) -> bool:
        """Whether it is known how the endpoint takes such a request, or cannot be found out."""
        form = self._form_of(request)
        return (form.key if form is not None else "") in self._open or self._is_proven(form)

    def _is_proven(self, form: Form | None) -> bool:
        return self.known.habits_proven and (form is None or self.known.mode_proven(form, self.mode_of(form)))

    # ---- the rounds of one request ----------------------------------------------------------

    async def _talk(self, talk: _Talk) -> Asked:
        asked = Asked()
        for _ in range(_ROUNDS):
            mode = self._mode_for(talk)
            body = self._body(talk, mode)
            sure = talk.patient or self._is_sure(talk, mode)
            try:
                attempts = None if sure else _TRIES
                reading = await self.send(body, talk.request, attempts=attempts, tells=talk.tells)
            except Refused as refused:
                error = self._refused(refused, body, mode, talk)
                if error is not None:
                    return self._failed(asked, error)
                continue
            except CallFailed as failed:
                if sure:
                    return self._failed(asked, f"{NO_REPLY} from {self.spec.authority} ({failed})")
                if failed.kind.startswith("5") and talk.form is not None and mode != "none":
                    talk.doubted.append(mode)
                else:
                    talk.doubted.clear()
                    talk.patient = True
                    talk.let_others()
                continue
            for doubted in talk.doubted:
                assert talk.form is not None
                self.known.mode_failed(talk.form, doubted)
            talk.doubted.clear()
            fault = self.take(asked, reading, body, talk.form, mode)
            if fault is None and reading.answered.needs_room and body != self._body(talk, mode):
                fault = _Learnt()  # another request has learnt meanwhile that the model thinks
            if fault is None or (isinstance(fault, UnfitReply) and talk.again == _AGAIN):
                return asked
            if isinstance(fault, UnfitReply) and talk.form is not None:
                talk.again += 1
                talk.turns = told(turns_of(talk.request.messages), reading.answered.text, talk.form.again(fault))
            else:
                asked.forget()
        return self._failed(asked, f"the endpoint gave no answer that can be used in {_ROUNDS} rounds")

    def _mode_for(self, talk: _Talk) -> Mode:
        return "none" if talk.loose else self.mode_of(talk.form, talk.doubted)

    def _is_sure(self, talk: _Talk, mode: Mode) -> bool:
        """Whether the endpoint is known to take such a request, so that failures are to be waited out."""
        if talk.gate is not None or talk.doubted:
            return False
        return talk.form is None or self.known.mode_proven(talk.form, mode)

    def take(
        self, asked: Asked, reading: Reading, body: Mapping[str, Any], form: Form | None, mode: Mode
    ) -> UnfitReply | _Learnt | None:
        """Puts a reply into `asked`. None: it is the answer. Else why not: it does not fit, or something was learnt."""
        known, answered = self.known, reading.answered
        known.prove_habits()
        if known.saw(answered.model, answered.fingerprint):
            self._say(f"{self.spec.where}: another model answers now, {answered.model or 'which it does not name'}")
        asked.add(reading, body, self.usd_of(answered))
        if answered.finish == "filter":
            asked.text, asked.finish, asked.error = "", "error", FILTERED
            return None
        if answered.needs_room and not known.habits.thinks:
            known.learn(replace(known.habits, thinks=True))
            return _Learnt()
        if form is None:
            return None
        try:
            asked.text = form.read(answered.text)
        except UnfitReply as unfit:
            if answered.finish == "length" and form.may_be_cut(answered.text, mode):
                return None
            if form.must_hold(mode) and not answered.refused and known.is_broken(form, mode):
                known.mode_failed(form, mode)
                return _Learnt()
            return unfit
        known.prove_mode(form, mode)
        known.used[mode] += 1
        return None

    async def send(
        self,
        body: Mapping[str, Any],
        request: Request,
        *,
        attempts: int | None = None,
        calls: Calls | None = None,
        tells: Tells | None = None,
    ) -> Reading:
        """The answer to a body. calls: by others than its own. tells: as of Reader. Raises Refused, CallFailed, and
        BudgetSpent."""
        reader = Reader(wants_tags(request.messages), tells)

        def usd(reply: Reply) -> float | None:
            try:
                return self.usd_of(reader.read(reply).answered)
            except (BadReply, Refused):
                return None

        def most_usd() -> float:
            return most_usd_of(self.price, most_tokens_in(body), most_tokens_out(body))

        with billed(Bill(most_usd, usd)):
            return await (calls or self.calls).call(
                self.spec.chat_path,
                _ENCODER.encode(body).encode(),
                accept=reader.read,
                headers=self.headers,
                attempts=attempts,
                watch=reader.watch if body.get("stream") else None,
            )

    def usd_of(self, answered: Answered) -> float | None:
        """What a reply was charged: as the endpoint says, else its tokens at the price; None where neither is known."""
        return answered.usd if answered.usd is not None else self.usd_at(self.price, answered)

    @staticmethod
    def usd_at(price: Price | None, answered: Answered) -> float | None:
        """The tokens of a reply at a price."""
        if answered.tokens_in is None or answered.tokens_out is None:
            return None
        cached, written = answered.tokens_cached, answered.tokens_cache_written
        return usd_of(price, answered.tokens_in, answered.tokens_out, cached, written)

    def _body(self, talk: _Talk, mode: Mode, *, stream: bool = False) -> dict[str, Any]:
        body = chat_body(
            self.spec,
            talk.request,
            self.known.habits,
            server=self.known.listed.server,
            fields=talk.form.fields(mode, self.known.label_tokens(talk.form) or ()) if talk.form is not None else None,
            turns=talk.turns,
            room=talk.room,
            wrapping=talk.form.wrapping(mode) if talk.form is not None else 0,
            stream=stream or talk.tells is not None,
        )
        return {**body, **talk.more}

    @staticmethod
    def _failed(asked: Asked, error: str) -> Asked:
        asked.text, asked.finish, asked.error = "", "error", error
        return asked

    # ---- refusals ---------------------------------------------------------------------------

    def _refused(self, refused: Refused, body: Mapping[str, Any], mode: Mode, talk: _Talk) -> str | None:
        """The error of this request; None where it is to be asked otherwise. Raises ModelError for all requests."""
        refusal = refusal_of(refused.status, refused.detail)
        if refusal.cause in ("key", "model", "quota", "address"):
            raise error_of_all(refusal, refused.status, self.spec, self.known.listed)
        if refusal.cause == "filter":
            return FILTERED
        if refusal.cause == "context":
            room = room_told(refusal.said)
            if room is not None and talk.room is None and room < most_tokens_out(body):
                talk.room = room
                return None
            return f"the prompt {DOES_NOT_FIT} of the endpoint ({refusal.said})"
        habits = learnt(self.known.habits, body, refusal)
        if habits is not None:
            self.known.learn(habits)
            return None
        if body != self._body(talk, self._mode_for(talk)):
            return None  # another request has learnt it meanwhile
        if talk.form is not None and mode != "none":
            if refusal.is_about_answer:
                talk.loose = True
                if self.known.is_broken(talk.form, mode):
                    self.known.mode_failed(talk.form, mode)
                return None
            if refusal.is_about_form or not self.known.mode_proven(talk.form, mode):
                talk.doubted.append(mode)
                return None
        if talk.tells is not None:
            talk.tells = None  # it may take no streams
            return None
        return f"the endpoint refused the request: {refusal.said}"
