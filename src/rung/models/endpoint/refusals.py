"""Why an endpoint refused a request, and what can be done about it: another field, less room, or nothing.

Knows the words of the servers, nothing of connections.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rung.errors import ModelError
from rung.models.endpoint.listing import Listed
from rung.models.endpoint.protocol import Habits
from rung.models.endpoint.rate_limits import NO_MONEY
from rung.models.endpoint.spec import EndpointSpec

Cause = Literal["key", "model", "quota", "address", "context", "filter", "request"]
"""What a refusal is about. The first four concern all requests, the next two one request alone."""

_SHOWN = 300  # characters of an endpoint's own words in messages

_CONTEXT = (
    r"context[ _-](length|window|size|limit)|too many (input )?tokens|prompt is too long|request too large"
    r"|input token count .*exceeds"  # Gemini's
    r"|`inputs`( tokens \+ `max_new_tokens`)? must "  # Together's
    r"|reduce the length of the (messages|prompt)"  # OpenAI's and Groq's
)
_FILTER = r"content[ _-]?(filter|policy|management)|responsibleai|safety|moderation|flagged"
_NO_MODEL = (
    r"model_not_found|invalid[_ ]model|model_decommissioned|model[_ ]not[_ ](exist|found|available)|not a valid model"
)
_UNKNOWN_FIELD = (
    r"unsupported|not support|does not|unrecognized|unknown|extra|not permitted|not allowed|unexpected|invalid|instead"
    r"|deprecated"
)
_NO_SYSTEM = (
    r"developer instruction is not enabled"  # Gemini's, of Gemma
    r"|system (role|messages?) (is |are )?not (supported|allowed)|only user and assistant roles|roles must alternate"
)
_WRONG_NUMBER = (
    r"too large|range|at (most|least)|(less|greater) than|minimum|exceed"  # the field is known, not its value
)


@dataclass(frozen=True)
class Refusal:
    """Why an endpoint refused a request. said: in its own words, cut. param: the field that it names."""

    cause: Cause
    said: str
    param: str = ""

    @property
    def is_about_answer(self) -> bool:
        """Whether the model's own answer did not meet the form; as Groq says it, in the place of the answer."""
        return "failed_generation" in self.said

    @property
    def is_about_form(self) -> bool:
        """Whether it names what holds an answer to a form."""
        words = f"{self.param} {self.said}".lower()
        return any(word in words for word in ("response_format", "json_schema", "structured", "grammar", "schema"))


def refusal_of(status: int, detail: str) -> Refusal:
    """The cause of a refusal. detail: the body of the reply, or the message in it."""
    error = _error_in(detail)
    said = " ".join(_said(error.get("message") or detail).split())[:_SHOWN]
    code = " ".join(str(error.get(name) or "") for name in ("code", "type")).lower()
    words = f"{code} {said}".lower()
    param = str(error.get("param") or "")
    cause: Cause = "request"
    if status < 400:  # a redirection, which is not followed
        cause = "address"
    elif status == 402 or NO_MONEY.search(words):
        cause = "quota"
    elif status == 413 or re.search(_CONTEXT, words):
        cause = "context"
    elif re.search(_FILTER, words):
        cause = "filter"
    elif status in (401, 403) or "invalid_api_key" in words or "api key not valid" in words:
        cause = "key"
    elif status == 404 or re.search(_NO_MODEL, words):
        cause = "model"
    return Refusal(cause, said, param)


def error_of_all(refusal: Refusal, status: int, spec: EndpointSpec, listed: Listed) -> ModelError:
    """What a user is told of a refusal that concerns all requests."""
    said = f"It says: {refusal.said}"
    if refusal.cause == "key":
        variable = spec.key_variable
        if variable is None:
            advice = "It wants a key: name the environment variable that holds it with key_env."
        else:
            advice = f"Check the key in the environment variable {variable}, and what it may be used for."
        return ModelError(f"{spec.where}: the endpoint refused the key (HTTP {status}). {advice} {said}")
    if refusal.cause == "quota":
        return ModelError(f"{spec.where}: the account has no money or quota left. Add some, then go on. {said}")
    if refusal.cause == "address":
        return ModelError(f"{spec.where}: {refusal.said}")
    if listed.names and not listed.has(spec.name) and not spec.is_azure:  # Azure lists models, and calls deployments
        near = ", ".join(listed.nearest(spec.name)) or f"{len(listed.names)} others"
        return ModelError(f"{spec.where}: the endpoint has no such model. It has {near}. Correct the name.")
    return ModelError(
        f"{spec.where}: nothing was found at {spec.endpoint} (HTTP {status}). Check the name of the model, and the "
        f"address, which mostly ends in /v1. {said}"
    )


def room_told(said: str) -> int | None:
    """The tokens that a prompt leaves, from a refusal that tells both numbers; None where nothing is left."""
    context = re.search(r"maximum context length (?:is|of) (\d+)", said)
    prompt = re.search(r"(\d+) (?:input tokens|prompt tokens|in the messages|in the prompt)", said)
    if sums := re.search(r"(\d+) \+ \d+ > (\d+)", said):  # Anthropic's
        prompt, context = sums, re.search(r"> (\d+)", said)
    elif "`max_new_tokens`" in said:  # Together's
        context, prompt = re.search(r"must be <= (\d+)", said), re.search(r"(\d+) `inputs` tokens", said)
    room = int(context[1]) - int(prompt[1]) if context and prompt else 0
    return room if room > 0 else None


def learnt(habits: Habits, body: Mapping[str, Any], refusal: Refusal) -> Habits | None:
    """Other habits with which the request may be taken; None where the refusal is about something else."""
    words = f"{refusal.param} {refusal.said}".lower()
    if "could not finish the message" in words and not habits.thinks:  # OpenAI: a thought had no room
        return replace(habits, thinks=True)
    if re.search(_NO_SYSTEM, words) and habits.system and body["messages"][0]["role"] == "system":
        return replace(habits, system=False)
    if re.search(_UNKNOWN_FIELD, words) is None or (refusal.is_about_form and refusal.param not in body):
        return None  # a schema may have keys that are called like fields of the body
    if "stream_options" in words and "stream_options" in body:
        return replace(habits, stream_usage=False)
    if "temperature" in words and "temperature" in body and habits.temperature:
        return replace(habits, temperature=False)
    if "seed" in words and "seed" in body and habits.seed:
        return replace(habits, seed=False)
    if habits.max_field in words and habits.max_field in body and not re.search(_WRONG_NUMBER, words):
        other: Literal["max_tokens", "max_completion_tokens"] = (
            "max_completion_tokens" if habits.max_field == "max_tokens" else "max_tokens"
        )
        return replace(habits, max_field=other)
    return None


def _error_in(detail: str) -> Mapping[str, Any]:
    """The error in a body, in the several shapes that servers give it."""
    try:
        record: Any = json.loads(detail)
    except ValueError:
        return {}
    if isinstance(record, list) and record:  # Gemini's
        record = record[0]
    if not isinstance(record, Mapping):
        return {}
    error = record.get("error", record.get("detail", record))
    if not isinstance(error, Mapping):
        return {"message": error, "code": record.get("code")}
    metadata = error.get("metadata")  # OpenRouter's: the words of the provider behind it
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if isinstance(raw, str) and raw.strip():
        inner = _error_in(raw)
        return {
            **error,
            "param": inner.get("param"),
            "message": f"{error.get('message')}: {inner.get('message') or raw}",
        }
    return error


def _said(message: object) -> str:
    """The words of a message that is a text, or FastAPI's list of faults, in whatever they stand."""
    if isinstance(message, Mapping) and "detail" in message:  # Mistral's
        message = message["detail"]
    if isinstance(message, list):  # each part repeats the whole input, which would mislead
        parts = [part for part in message if isinstance(part, Mapping)]
        return "; ".join(f"{'.'.join(map(str, part.get('loc') or ()))}: {part.get('msg')}" for part in parts)
    return str(message)
