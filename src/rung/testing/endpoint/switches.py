"""What a fake endpoint can be told to do: the ways of real ones, and faults. Knows nothing of HTTP."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Latency = float | Callable[[int], float]
FaultScript = Mapping[str, float] | Sequence[str | None] | Callable[[int], str | None]
"""Shares of calls by kind of fault; or the fault of each call in order; or a function of the call's number, from 0."""

FAULTS: dict[str, str] = {
    "429": "status 429 at once, without any header",
    "429-retry-after": "status 429 with Retry-After in seconds",
    "429-date": "status 429 with Retry-After as a date",
    "429-headers": "status 429 with x-ratelimit-remaining-requests and x-ratelimit-reset-requests",
    "quota": "status 429 with the code insufficient_quota: no retry cures it",
    "500": "status 500 with an error in JSON",
    "503": "status 503 with a page of HTML, as a proxy sends it",
    "drop": "the connection is closed before any byte of an answer",
    "cut": "the connection is closed in the middle of the answer (charged)",
    "slow": "the answer comes in small pieces over `slow_s` seconds (charged)",
    "stall": "no answer comes and the connection stays open",
    "bad-json": "status 200, and the JSON of the answer breaks off although its length is right (charged)",
    "html": "status 200 with a page of HTML",
    "empty": "status 200 and no body",
    "no-choices": "status 200 with JSON in which there is no answer (charged)",
}
"""Kinds of faults. "charged": the answer was computed, so that a provider would charge it."""


@dataclass(frozen=True)
class Switches:
    """How a fake endpoint behaves. Every field is the way of some real endpoint.

    server: whose ways with fields of a body it has: "openai" refuses fields that it does not know; "vllm" heeds
        structured_outputs, the other two heed a grammar that is a list of texts or of tokens, of which each character
        is one; these ignore what they do not know. llama.cpp's tells tokens at /tokenize.
        The list of models tells it by owned_by.
    model, more_models: names that it serves; any_model: it serves every name silently, as llama.cpp's server does.
    served: the name in its answers, where it differs from the one asked for. changes_after: after so many answers
        the served name and the fingerprint change. shutdown_date: told by its list of models.
    context_length: in tokens, prompt and answer together. tells_context: the field of the list of models that tells it.
    counts_room: a prompt is refused where `max_tokens` more do not fit (vLLM). context_error: the form of that refusal.
    key: the key that every call must bring; None: none is needed. azure: paths and header of Azure OpenAI.
    latency_s: seconds from the whole request to the first token, or a function of the call's number.
    per_token_s: seconds for each token of the answer.
    most_in_flight: calls beyond are refused at once with 429. per_second: so many calls a second, bursts of as many.
    tells_limits: what a 429 of these two brings: nothing, Retry-After in seconds or as a date, or x-ratelimit headers,
        which then come with every answer. retry_after_s: what these headers say.
    refuses_max_tokens: only max_completion_tokens is taken. refuses_temperature: only temperature 1 is taken.
    thinks: tokens that it thinks before it answers; they take room of the answer. reasoning_effort scales them.
    response_format: "json_schema" holds answers to schemas of either type; "json_object" takes that type only, with a
        schema beside it, and answers json_schema with status 500 (llama-cpp-python); "ignored" takes all and does
        nothing; "refused" answers 400.
    caches_prompts: beginnings of prompts that were seen before are told as cached tokens, in steps of 16.
    no_quota: every call is refused with 429 and the code insufficient_quota.
    filtered: a word of prompts that the content filter stops. filter_as: how: status 400, a finish reason, a refusal.
    requests_per_connection: it closes a connection without a word after so many answers. slow_s: as in FAULTS.
    batch_s: seconds that a batch takes. batch_fails: share of its lines that fail. batch_answers: share of its lines
        that are answered before it expires; 1: it does not expire.
    """

    server: Literal["openai", "vllm", "llama.cpp", "llama-cpp-python"] = "openai"
    model: str = "fake-1"
    more_models: tuple[str, ...] = ()
    any_model: bool = False
    served: str | None = None
    changes_after: int | None = None
    shutdown_date: str | None = None
    context_length: int = 8192
    tells_context: Literal["context_length", "max_model_len", "meta", "none"] = "none"
    counts_room: bool = False
    context_error: Literal["openai", "vllm", "llama.cpp"] = "openai"
    key: str | None = None
    azure: bool = False
    latency_s: Latency = 0.0
    per_token_s: float = 0.0
    most_in_flight: int | None = None
    per_second: float | None = None
    tells_limits: Literal["nothing", "retry-after", "date", "headers"] = "nothing"
    retry_after_s: float = 0.05
    refuses_max_tokens: bool = False
    refuses_temperature: bool = False
    thinks: int = 0
    response_format: Literal["json_schema", "json_object", "ignored", "refused"] = "json_schema"
    caches_prompts: bool = False
    no_quota: bool = False
    filtered: str | None = None
    filter_as: Literal["error", "finish", "refusal"] = "error"
    requests_per_connection: int | None = None
    slow_s: float = 0.5
    batch_s: float = 0.0
    batch_fails: float = 0.0
    batch_answers: float = 1.0


class Faults:
    """Which fault a call gets, by its number. script: as in FaultScript; shares are drawn from `seed`.

    Raises ValueError for a kind that is not in FAULTS, as soon as it is seen.
    """

    def __init__(self, script: FaultScript | None, seed: int) -> None:
        self._script = script
        self._draw = random.Random(seed).random
        if isinstance(script, Mapping):
            for kind in script:
                _known(kind)

    def of(self, number: int) -> str | None:
        """The fault of call `number`; each number is asked for once, in order."""
        script = self._script
        if script is None:
            return None
        if isinstance(script, Mapping):
            drawn = self._draw()
            for kind, share in script.items():
                if drawn < share:
                    return kind
                drawn -= share
            return None
        if callable(script):
            return _known(script(number))
        return _known(script[number]) if number < len(script) else None


def _known(kind: str | None) -> str | None:
    if kind is not None and kind not in FAULTS:
        raise ValueError(f"fault {kind!r}: there is no such kind; there are {', '.join(FAULTS)}")
    return kind
