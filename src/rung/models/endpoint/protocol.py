"""The chat completions of the OpenAI interface: a request as a body, its key, and the tokens that it may take.

Endpoints differ in which fields they take: what one was found to take is its Habits. Knows bodies, nothing of
connections and of what is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rung.models.endpoint.spec import EndpointSpec
from rung.models.endpoint.structured import Server, canonical
from rung.models.thinking import THOUGHT_TOKENS
from rung.text import whole
from rung.types import Constraint, Message, Request

FORMAT = 1
"""Of kept answers. It grows when a body, or how a reply is read, changes in a way that changes answers."""

_TURN_BYTES = 16  # upper bound of the tokens that a template puts around a turn
_EXTRA_TOKENS = 256  # and around the whole, a default system turn included


@dataclass(frozen=True)
class Habits:
    """What an endpoint takes, as it was found out.

    max_field: the field that bounds an answer's tokens. temperature, seed, stream_usage: whether it takes these.
    thinks: whether the model thinks before it answers, so that each request needs room for a thought. system: whether
    it takes a system turn; else its text opens the first user turn.
    """

    max_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    seed: bool = True
    stream_usage: bool = True
    thinks: bool = False
    system: bool = True

    def record(self) -> dict[str, Any]:
        return asdict(self)


def first_habits(spec: EndpointSpec) -> Habits:
    """What to try first: OpenAI's newer models take max_completion_tokens alone, other servers know max_tokens."""
    newer = spec.host == "api.openai.com" or spec.is_azure
    return Habits(max_field="max_completion_tokens" if newer else "max_tokens")


def sampling(server: Server | None) -> dict[str, Any]:
    """What a server's defaults would do to a greedy answer, undone: llama-cpp-python penalises repeated tokens."""
    return {"repeat_penalty": 1.0} if server == "llama-cpp-python" else {}


def chat_body(
    spec: EndpointSpec,
    request: Request,
    habits: Habits,
    *,
    server: Server | None = None,
    fields: Mapping[str, Any] | None = None,
    turns: Sequence[Mapping[str, str]] | None = None,
    room: int | None = None,
    wrapping: int = 0,
    stream: bool = False,
) -> dict[str, Any]:
    """The body of a request.

    fields: of the constraint's mode. turns: in the place of the request's own messages. room: tokens of the answer at
    most, thought included, in the place of those that follow from the request. wrapping: tokens around the answer.
    """
    decoding = request.decoding
    turns = turns_of(request.messages) if turns is None else turns
    most = room or decoding.max_new_tokens + wrapping + (THOUGHT_TOKENS if habits.thinks else 0)
    body: dict[str, Any] = {
        "model": spec.name,
        "messages": _without_system(turns) if not habits.system else list(turns),
    }
    if spec.params.keys().isdisjoint(("max_tokens", "max_completion_tokens")):  # servers refuse both
        body[habits.max_field] = most
    if habits.temperature:
        body["temperature"] = decoding.temperature
    if decoding.temperature > 0 and habits.seed:
        body["seed"] = decoding.seed % 2**31  # servers take an int32
    if stream:
        body["stream"] = True
        if habits.stream_usage:
            body["stream_options"] = {"include_usage": True}
    for more in (sampling(server), fields or {}, spec.params):
        body.update(more)
    return body


def turns_of(messages: Iterable[Message]) -> list[Mapping[str, str]]:
    """Half of a surrogate pair is sent as U+FFFD: it is no character, and servers refuse the request or fail.

    A system turn without text is left out: it says that there is no instruction.
    """
    said = [m for m in messages if m != Message("system", "")]
    return [{"role": message.role, "content": whole(message.content)} for message in said]


def _without_system(turns: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    if len(turns) < 2 or turns[0]["role"] != "system":
        return list(turns)
    return [{"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}, *turns[2:]]


class Keys:
    """Keys of calls to one endpoint: the SHA-256 of everything that decides an answer.

    Not in it is what changes no answer: the name of a field that bounds it, and room for a thought beyond the answer.
    """

    def __init__(self, spec: EndpointSpec, server: Server | None, weights: str = "") -> None:
        """weights: which model answers, where its name does not say it."""
        of_all = {
            "format": FORMAT,
            "endpoint": spec.endpoint,
            "api_version": spec.api_version,
            "model": spec.name,
            "params": spec.params,
            "sampling": sampling(server),
            "weights": weights,
        }
        self._of_all = hashlib.sha256(json.dumps(of_all, sort_keys=True, default=dict).encode())
        self._response_format = spec.response_format
        self._constraints: dict[int, tuple[Constraint, str]] = {}

    def of(self, request: Request) -> str:
        decoding, constraint = request.decoding, request.constraint
        sampled = [decoding.temperature, decoding.seed] if decoding.temperature > 0 else None
        turns = [[message.role, message.content] for message in request.messages]
        record = [turns, decoding.max_new_tokens, sampled]
        if constraint is not None:
            record += [self._written(constraint), self._response_format]
        digest = self._of_all.copy()
        digest.update(json.dumps(record).encode())
        return digest.hexdigest()

    def _written(self, constraint: Constraint) -> str:
        """The canonical text, made once for an object that many requests share."""
        if id(constraint) not in self._constraints:
            self._constraints[id(constraint)] = (constraint, canonical(constraint))
        return self._constraints[id(constraint)][1]


def repeated(key: str, times: int) -> str:
    """The key of a request that was asked for so many times before in the same call: each is an answer of its own."""
    return key if times == 0 else hashlib.sha256(f"{key} {times}".encode()).hexdigest()


def most_tokens_in(body: Mapping[str, Any]) -> int:
    """An upper bound of the tokens that a body's prompt can be counted as: a token has at least one byte."""
    turns = body["messages"]
    told = sum(utf8_bytes(turn["content"]) + _TURN_BYTES for turn in turns)
    schema = {name: body[name] for name in ("response_format", "structured_outputs") if name in body}
    return told + _EXTRA_TOKENS + (len(json.dumps(schema)) if schema else 0)


def utf8_bytes(text: str) -> int:
    """The length of a text in UTF-8, where half of a surrogate pair counts as well."""
    return len(text.encode("utf-8", "surrogatepass"))


def most_tokens_out(body: Mapping[str, Any]) -> int:
    """The most tokens of an answer to a body, whose params may bound it a second time."""
    return max(int(body.get(name) or 0) for name in ("max_completion_tokens", "max_tokens"))
