"""Replies of the OpenAI interface, whole or streamed, read as answers: text, usage, and what answered.

Knows bodies, nothing of connections and of what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rung.models.endpoint.http_connection import OnData
from rung.models.endpoint.policy import BadReply, Refused, may_pass
from rung.models.endpoint.transport import Reply
from rung.models.thinking import PAIRS, TAGS
from rung.types import Message

Finish = Literal["stop", "length", "filter"]

_TAG_STARTS = tuple(sorted({tag[0] for tag in TAGS}))


@dataclass(frozen=True)
class Answered:
    """A reply, read.

    tokens_in, tokens_out: as the endpoint counts them, thoughts included; None where it does not. tokens_cached,
    tokens_cache_written: of tokens_in, those read from the provider's cache and written into it. tokens_thought: of
    tokens_out, those of a thought. usd: what it was charged, where the endpoint says so. model, fingerprint: what
    answered, by its own word. thought_open: the answer was cut inside a thought, and nothing of it is left.
    refused: the model declined to answer, and the text says so.
    """

    text: str
    finish: Finish
    tokens_in: int | None
    tokens_out: int | None
    tokens_cached: int = 0
    tokens_cache_written: int = 0
    tokens_thought: int = 0
    usd: float | None = None
    model: str = ""
    fingerprint: str = ""
    thought_open: bool = False
    refused: bool = False

    @property
    def needs_room(self) -> bool:
        """Whether a thought used up the room, so that there is no answer."""
        return self.finish == "length" and not self.text and (self.thought_open or self.tokens_thought > 0)


@dataclass(frozen=True)
class Reading:
    """A reply, read. seconds: from sending the request; first_token_s: where it was streamed."""

    answered: Answered
    seconds: float
    first_token_s: float | None = None


Told = Callable[[str], None]
"""Gets each piece of an answer's text as it comes, thoughts spelt in it included."""

Tells = Callable[[], Told]
"""Is asked at each attempt, whose stream begins anew, for what gets its pieces."""


class Reader:
    """Reads the replies to one call, whole or streamed, each once."""

    def __init__(self, tags_wanted: bool, tells: Tells | None = None) -> None:
        self._tags, self._tells = tags_wanted, tells
        self._stream: Stream | None = None
        self._last: tuple[Reply, Reading] | None = None

    def watch(self) -> OnData:
        """For a new attempt, which begins its stream anew."""
        self._stream = Stream(self._tells() if self._tells is not None else None)
        return self._stream.feed

    def read(self, reply: Reply) -> Reading:
        """Raises BadReply and Refused."""
        if self._last is not None and self._last[0] is reply:
            return self._last[1]
        if "event-stream" in reply.headers.get("content-type", ""):
            stream = self._stream or Stream()
            reading = Reading(read_answer(stream.record, tags_wanted=self._tags), reply.seconds, stream.first_token_s)
        else:
            reading = Reading(parse_answer(reply.body, tags_wanted=self._tags), reply.seconds)
        self._last = (reply, reading)
        return reading


def read_answer(record: Any, *, tags_wanted: bool = False) -> Answered:
    """A chat completion as JSON, read. tags_wanted: the prompt asks for tags that would else mark a thought.

    Raises BadReply for what is worth asking again, Refused where an error that no retry cures stands in its place.
    """
    if not isinstance(record, dict):
        raise BadReply("no object in the body")
    if (error := record.get("error")) and not record.get("choices"):
        _raise_error(error)
    choices = record.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BadReply("no choices in the body")
    finish = choice.get("finish_reason")
    if finish == "error":
        raise BadReply("finish_reason error")
    content = _text(message.get("content"))
    text, thought_open = (content, False) if tags_wanted else without_thought(content)
    if not content:
        text = _text(message.get("refusal"))
        thought_open = not text and bool(thought_in(message))
    usage = record.get("usage")
    counts = _usage(usage if isinstance(usage, dict) else {})
    model, fingerprint = str(record.get("model") or ""), str(record.get("system_fingerprint") or "")
    return Answered(
        text,
        _finish(finish),
        **counts,
        model=model,
        fingerprint=fingerprint,
        thought_open=thought_open,
        refused=bool(text) and not content,
    )


def parse_answer(body: bytes, *, tags_wanted: bool = False) -> Answered:
    """As `read_answer`, from the bytes of a body."""
    try:
        record = json.loads(body)
    except ValueError as error:
        raise BadReply("invalid JSON") from error
    return read_answer(record, tags_wanted=tags_wanted)


class Stream:
    """A streamed reply, read piece by piece. record: the reply as it would have come in one piece."""

    def __init__(self, told: Told | None = None) -> None:
        self._told = told
        self.first_token_s: float | None = None
        self.done = False
        self._rest = b""
        self._said: dict[str, list[str]] = {"content": [], "refusal": [], "reasoning": []}
        self._reply: dict[str, Any] = {}
        self._finish: str | None = None
        self._broken = False

    def feed(self, data: bytes, seconds: float) -> None:
        """data: bytes of the body, as they came. seconds: since the request was sent. It never raises."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            told = line[5:].strip()
            if told == b"[DONE]":
                self.done = True
                continue
            try:
                chunk = json.loads(told)
            except ValueError:
                self._broken = True
                continue
            if isinstance(chunk, Mapping):
                self._take(chunk, seconds)

    def _take(self, chunk: Mapping[str, Any], seconds: float) -> None:
        for name in ("model", "system_fingerprint", "usage", "error"):
            if chunk.get(name):
                self._reply[name] = chunk[name]
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, Mapping):
                continue
            self._finish = choice.get("finish_reason") or self._finish
            delta = choice.get("delta")
            if not isinstance(delta, Mapping):
                continue
            try:
                written = {name: _text(delta.get(name)) for name in ("content", "refusal")}
            except BadReply:
                self._broken = True
                continue
            written["reasoning"] = thought_in(delta)
            if self.first_token_s is None and any(written.values()):
                self.first_token_s = seconds
            for name, text in written.items():
                self._said[name].append(text)
            if self._told is not None and written["content"]:
                self._told(written["content"])

    @property
    def record(self) -> dict[str, Any]:
        """Raises BadReply for a stream that cannot be read, or that ended before its end was told."""
        if self._broken:
            raise BadReply("invalid JSON in a stream")
        if "error" not in self._reply and not self.done and self._finish is None:
            raise BadReply("a stream that ended early")
        message = {name: "".join(pieces) for name, pieces in self._said.items()}
        choice = {"message": message, "finish_reason": self._finish}
        return self._reply if "error" in self._reply else self._reply | {"choices": [choice]}


def without_thought(text: str) -> tuple[str, bool]:
    """A text without the thought that it begins with, and whether that thought has no end.

    A template may have opened the thought in the prompt, so that the text holds its end alone.
    """
    if not _may_hold_tags(text):
        return text, False
    bare = text.lstrip()
    for start, end in PAIRS:
        opened = bare.startswith(start)
        if end in text and (opened or start not in text[: text.index(end)]):
            return text[text.index(end) + len(end) :].lstrip(), False
        if opened:
            return "", True
    return text, False


def wants_tags(messages: Iterable[Message]) -> bool:
    """Whether a prompt speaks of the tags that would else mark a thought."""
    return any(tag in message.content for message in messages if _may_hold_tags(message.content) for tag in TAGS)


def _may_hold_tags(text: str) -> bool:
    """A quick look that spares most texts the search for each tag."""
    return any(start in text for start in _TAG_STARTS)


def thought_in(message: Mapping[str, Any]) -> str:
    """The thought that stands beside an answer, as vLLM, llama.cpp, DeepSeek, Ollama and OpenRouter send it."""
    beside = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((thought for thought in beside if isinstance(thought, str) and thought), "")


def _text(content: object) -> str:
    if isinstance(content, list):  # in parts, as a few endpoints send it
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise BadReply("content that is no text")
    return content


def _finish(told: object) -> Finish:
    reason = str(told).lower()
    if reason.startswith("content_filter"):
        return "filter"
    return "length" if reason in ("length", "max_tokens", "model_length") else "stop"  # the last one is Mistral's


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    read = _count(usage, "prompt_tokens") or None  # no prompt has none: 0 stands for a count that is not made
    written, total = _count(usage, "completion_tokens"), _count(usage, "total_tokens")
    of_read, of_written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    thought = _count(of_written, "reasoning_tokens") or 0
    if read is not None and total is not None and total > read + (written or 0):
        thought = thought or total - read - (written or 0)
        written = total - read  # Gemini and xAI count thoughts in the total alone
    cached = _count(of_read, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens") or 0
    kept = _count(of_read, "cache_write_tokens") or 0
    usd = _amount(usage.get("cost"))  # OpenRouter's, in dollars
    if usd is not None and usage.get("is_byok") is True:  # the provider behind it charges the user's own account
        details = usage.get("cost_details")
        usd += (_amount(details.get("upstream_inference_cost")) if isinstance(details, Mapping) else None) or 0.0
    counts = {"tokens_in": read, "tokens_out": written, "tokens_thought": thought, "usd": usd}
    cached = min(cached, read or 0)
    return counts | {"tokens_cached": cached, "tokens_cache_written": min(kept, (read or 0) - cached)}


def _count(record: Any, name: str) -> int | None:
    amount = _amount(record.get(name)) if isinstance(record, dict) else None
    return int(amount) if amount is not None else None


def _amount(value: object) -> float | None:
    """A number that is told, finite and at least 0."""
    if (type(value) is int or type(value) is float) and 0 <= value < 1e15:  # True is an int, and no number
        return float(value)
    return None


def _raise_error(error: object) -> None:
    """An error in a reply of status 200, as gateways send it."""
    message = error.get("message") if isinstance(error, Mapping) else error
    code: Any = error.get("code") if isinstance(error, Mapping) else None
    if str(message).startswith("Unexpected endpoint"):  # LM Studio's
        raise Refused(404, str(message))
    if str(code).isdecimal() and 400 <= int(code) < 500 and not may_pass(int(code)):
        raise Refused(int(code), json.dumps({"error": error}))
    raise BadReply(f"an error in the body ({code})" if code else "an error in the body", str(message or ""))
