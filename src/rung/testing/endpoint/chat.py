"""What a fake endpoint answers to the body of a chat completion. Knows nothing of connections and clocks.

A token is a word. The same body gets the same answer, whatever came before; only the cached tokens, the served name
and the fingerprint depend on earlier calls, as they do at real endpoints.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rung.testing.endpoint.shapes import chosen, held_to, spelt
from rung.testing.endpoint.switches import Switches
from rung.types import Message

Body = Mapping[str, Any]
ChatAnswers = Mapping[str, str] | Callable[[Sequence[Message], Body], str | Exception]

_EFFORT = {"none": 0.0, "minimal": 0.0, "low": 0.25, "medium": 1.0, "high": 4.0}
_CACHE_STEP = 16  # tokens
# fmt: off
_KNOWN_FIELDS = {
    "audio", "frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages",
    "metadata", "modalities", "model", "n", "parallel_tool_calls", "prediction", "presence_penalty",
    "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "response_format", "safety_identifier",
    "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools",
    "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
}
# fmt: on
"""Fields that OpenAI's chat completions take."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def chance_of(*what: object) -> random.Random:
    """Random numbers that these values, a seed among them, alone decide."""
    digest = hashlib.sha256(json.dumps(what).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


class Rejection(Exception):
    """A request that is answered with an error. error: the object in the answer's body. cause: why there is a 429."""

    def __init__(
        self, status: int, message: str, code: object, *, kind: str = "", param: str | None = None, cause: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause
        kind = kind or ("invalid_request_error" if status < 429 else "server_error")
        self.error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}).encode()


@dataclass(frozen=True)
class Completion:
    """An answer and its usage in tokens. thought: of tokens_out, those that it thought."""

    text: str
    finish: str
    tokens_in: int
    tokens_out: int
    model: str
    fingerprint: str
    tokens_cached: int = 0
    thought: int = 0
    refusal: str | None = None

    @property
    def usage(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "prompt_tokens": self.tokens_in,
            "completion_tokens": self.tokens_out,
            "total_tokens": self.tokens_in + self.tokens_out,
        }
        if self.tokens_cached:
            told["prompt_tokens_details"] = {"cached_tokens": self.tokens_cached}
        if self.thought:
            told["completion_tokens_details"] = {"reasoning_tokens": self.thought}
        return told

    def told(self, number: int) -> dict[str, Any]:
        """The body of a plain answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.refusal is not None:
            message.update(content=None, refusal=self.refusal)
        return {
            **self._beginning(number, "chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish, "logprobs": None}],
            "usage": self.usage,
        }

    def events(self, number: int, *, usage: bool) -> list[dict[str, Any]]:
        """The bodies of a streamed answer: the role, a token each, the finish, and the usage where it is wanted."""
        beginning = self._beginning(number, "chat.completion.chunk")
        more: dict[str, Any] = {"usage": None} if usage else {}

        def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            return {**beginning, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}

        found = [event({"role": "assistant", "content": ""})]
        if self.refusal is not None:
            found.append(event({"refusal": self.refusal}))
        found += [event({"content": piece}) for piece in _pieces(self.text)]
        found.append(event({}, self.finish))
        if usage:
            found.append({**beginning, "choices": [], "usage": self.usage})
        return found

    def _beginning(self, number: int, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{number}",
            "object": kind,
            "created": 1_790_000_000,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Chat:
    """Answers bodies. answers: a mapping from the last user turn, or a function of the messages and the body.

    A missing entry, or an exception of the function, is an error 400 of that request alone.
    """

    def __init__(self, answers: ChatAnswers) -> None:
        self._answers = answers
        self._seen: set[int] = set()
        self.answered = 0

    def complete(self, body: Body, switches: Switches, deployment: str | None = None) -> Completion:
        """The answer to a body. deployment: the model's name where the path has it. Raises Rejection."""
        messages = read_messages(body)
        model = self._model(body, switches, deployment)
        room = _room(body, switches)
        _refuse_fields(body, switches)
        tokens_in = sum(len(message.content.split()) for message in messages)
        _refuse_long(tokens_in, room, switches)
        cached = self._cached(_words(messages)) if switches.caches_prompts else 0
        serving = self._serving(model, switches)
        if switches.filtered is not None and switches.filtered in _words(messages):
            if switches.filter_as == "error":
                raise Rejection(400, "The response was filtered: the prompt triggers a policy.", "content_filter")
            finish = "content_filter" if switches.filter_as == "finish" else "stop"
            refusal = "I cannot help with that." if switches.filter_as == "refusal" else None
            return Completion("", finish, tokens_in, 0, *serving, cached, refusal=refusal)
        found = self._answer(messages, body)
        if isinstance(found, Exception):
            raise Rejection(400, f"no answer: {found}", "no_answer")
        text = _held(found, body, switches)
        left = min(room, switches.context_length - tokens_in)
        thinks = round(switches.thinks * _EFFORT.get(str(body.get("reasoning_effort", "medium")), 1.0))
        thought = min(thinks, left)
        kept, said = _cut(text, left - thought)
        finish = "stop" if kept == text and thought == thinks else "length"
        return Completion(kept, finish, tokens_in, thought + said, *serving, cached, thought)

    def _answer(self, messages: Sequence[Message], body: Body) -> str | Exception:
        if callable(self._answers):
            try:
                return self._answers(messages, body)
            except Exception as error:
                return error
        asked = last_user(messages)
        return self._answers.get(asked, KeyError(f"no answer for {asked!r}"))

    def _model(self, body: Body, switches: Switches, deployment: str | None) -> str:
        model = deployment or body.get("model")
        if not isinstance(model, str):
            raise Rejection(400, "you must provide a model parameter", None, param="model")
        if model not in (switches.model, *switches.more_models) and not switches.any_model:
            raise Rejection(
                404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found"
            )
        return model

    def _serving(self, model: str, switches: Switches) -> tuple[str, str]:
        """The served name and the fingerprint, of now."""
        changed = switches.changes_after is not None and self.answered >= switches.changes_after
        self.answered += 1
        return (switches.served or model) + ("-next" if changed else ""), "fp_2" if changed else "fp_1"

    def _cached(self, words: Sequence[str]) -> int:
        """How many of the first tokens began an earlier prompt too, in whole steps; these are then known as well."""
        longest, key = 0, 0
        for end in range(_CACHE_STEP, len(words) + 1, _CACHE_STEP):
            key = hash((key, tuple(words[end - _CACHE_STEP : end])))
            if key in self._seen:
                longest = end
            self._seen.add(key)
        return longest


def echo(messages: Sequence[Message], body: Body) -> str:
    """The last user turn itself."""
    return last_user(messages)


def last_user(messages: Sequence[Message]) -> str:
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def read_messages(body: Body) -> tuple[Message, ...]:
    """The chat turns of a body. Raises Rejection where they have another form."""
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        raise Rejection(400, "messages: a list of at least one turn is needed", None, param="messages")
    return tuple(_message(turn, place) for place, turn in enumerate(turns))


def _message(turn: Any, place: int) -> Message:
    role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if role in ("system", "developer", "user", "assistant") and isinstance(content, str):
        return Message("system" if role == "developer" else role, content)
    raise Rejection(400, f"messages[{place}]: a role and a content are needed", None, param=f"messages[{place}]")


def _room(body: Body, switches: Switches) -> int:
    """The tokens that an answer may have, by either name of the field."""
    if "max_tokens" in body and switches.refuses_max_tokens:
        fact = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
        raise Rejection(400, f"{fact} instead.", "unsupported_parameter", param="max_tokens")
    named = body.get("max_completion_tokens", body.get("max_tokens"))
    if named is None:
        return switches.context_length
    if not isinstance(named, int) or named < 1:
        raise Rejection(400, f"max_tokens must be at least 1, got {named}.", None, param="max_tokens")
    return named


def _refuse_fields(body: Body, switches: Switches) -> None:
    if switches.server == "openai" and (unknown := [name for name in body if name not in _KNOWN_FIELDS]):
        fact = f"Unrecognized request argument supplied: {unknown[0]}"
        raise Rejection(400, fact, "unknown_parameter", param=unknown[0])
    if switches.refuses_temperature and body.get("temperature", 1) != 1:
        fact = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
        raise Rejection(
            400, f"{fact} Only the default (1) value is supported.", "unsupported_value", param="temperature"
        )
    if "response_format" not in body:
        return
    form = body["response_format"]
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise Rejection(400, "response_format: the type is not known", None, param="response_format")
    if switches.response_format == "refused" and kind != "text":
        raise Rejection(400, "response_format is not supported by this model", None, param="response_format")
    if switches.response_format == "json_object" and kind == "json_schema":
        raise Rejection(500, "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type')}]", None)
    if kind == "json_schema" and not isinstance(form.get("json_schema", {}).get("name"), str):
        fact = "Missing required parameter: 'response_format.json_schema.name'."
        raise Rejection(400, fact, "missing_required_parameter", param="response_format.json_schema.name")


def _refuse_long(tokens: int, room: int, switches: Switches) -> None:
    most = switches.context_length
    too_long = tokens + room > most if switches.counts_room and room < most else tokens >= most
    if not too_long:
        return
    if switches.context_error == "llama.cpp":
        fact = f"request ({tokens} tokens) exceeds the available context size ({most} tokens), try increasing it"
        refusal = Rejection(400, fact, 400, kind="exceed_context_size_error")
        refusal.error.update(n_prompt_tokens=tokens, n_ctx=most)
        raise refusal
    fact = f"This model's maximum context length is {most} tokens. However, "
    if switches.context_error == "vllm":
        fact += f"you requested {room} output tokens and your prompt contains {tokens} input tokens."
        raise Rejection(400, fact, 400, kind="BadRequestError", param="input_tokens")
    fact += f"your messages resulted in {tokens} tokens. Please reduce the length of the messages."
    raise Rejection(400, fact, "context_length_exceeded", param="messages")


def _held(text: str, body: Body, switches: Switches) -> str:
    """The answer as the body's constraint wants it, where the endpoint heeds that.

    Under a regex it is the first part that matches; where none does, it stays as it is, unlike at a real server.
    """
    if switches.server == "vllm" and isinstance(outputs := body.get("structured_outputs"), dict):
        if "choice" in outputs:
            return str(chosen(outputs["choice"], text))
        if "regex" in outputs:
            match = re.search(outputs["regex"], text)
            return match[0] if match is not None else text
        return held_to(outputs["json"], text) if "json" in outputs else text
    if switches.server.startswith("llama") and isinstance(grammar := body.get("grammar"), str):
        labels = [json.loads(label) for label in _QUOTED.findall(grammar)] or spelt(grammar)
        return str(chosen(labels, text))
    form = body.get("response_format")
    if form is None or form["type"] == "text" or switches.response_format == "ignored":
        return text
    schema = form["json_schema"].get("schema") if form["type"] == "json_schema" else form.get("schema")
    return held_to(schema if isinstance(schema, dict) else {"type": "object", "properties": {"answer": {}}}, text)


def _words(messages: Sequence[Message]) -> list[str]:
    return [word for message in messages for word in message.content.split()]


def _cut(text: str, most: int) -> tuple[str, int]:
    """The first `most` tokens of a text, and how many these are."""
    parts = text.split(None, most)
    if len(parts) <= most:
        return text, len(parts)
    return text[: len(text) - len(parts[-1])].rstrip(), most


def _pieces(text: str) -> list[str]:
    """The tokens of a text, with the space before each, so that they make the text again."""
    found: list[str] = []
    at = 0
    for word in text.split():
        end = text.index(word, at) + len(word)
        found.append(text[at:end])
        at = end
    if found:
        found[-1] += text[at:]
    return found
